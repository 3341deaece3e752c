"""What a pixel weighs by the class of its label: the numbers, the loss that they make, and the steps that have none."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_steps import CLASSES, H, K, W, batch, config_of, gradients, make_step
from tape import Tape, as_on_a_gpu
from test_graph import ten_steps
from torch import Tensor, nn

import iidm.method.losses
from iidm.catalog import METHODS
from iidm.cli import parse_config
from iidm.config import Config, LossConfig, Normalizer
from iidm.kernels import build_info, set_implementation
from iidm.method.class_weights import CAP, class_weights, class_weights_note
from iidm.method.losses import Branch, Output, branch_terms
from iidm.method.published import build_method
from iidm.recipes import with_values
from iidm.types import UserError

WEIGHTS = ("road=0.5", "car=3", "wall=0")
AS_NUMBERS = [0.5, 1.0, 3.0, 1.0, 0.0]


def sure(**step: object) -> Config:
    """IIDM with a teacher that is sure of every pixel, so that the mixes have a loss."""
    return with_values(config_of(**step), {"teacher": {"confidence_threshold": 0.0}})


def weighted(config: Config, words: tuple[str, ...] = WEIGHTS) -> Config:
    return with_values(config, {"loss": {"class_weights": words}})


# The numbers


def test_numbers_are_taken_by_name_and_in_order() -> None:
    assert class_weights(("none",), CLASSES) is None
    assert class_weights(WEIGHTS, CLASSES) == AS_NUMBERS
    assert class_weights(("2", "1", "0.25", "0", "7"), CLASSES) == [2, 1, 0.25, 0, 7]
    assert class_weights(("a=b=3",), ("a=b", "c")) == [3, 1], "a name may hold the sign"


def test_auto_is_the_median_frequency_over_the_classs_own_by_hand() -> None:
    source = np.array([[80, 20, 0, 0], [60, 0, 40, 0]])  # f: 140/200, 20/100, 40/100
    target = np.array([[90, 10, 0, 0]])  # f: 0.9, 0.1
    found = class_weights(("auto",), ("a", "b", "c", "d"), [source, target])
    # Means: a (0.7 + 0.9) / 2, b (0.2 + 0.1) / 2, c 0.4, of the source alone; the median is c's.
    assert found == pytest.approx([0.4 / 0.8, 0.4 / 0.15, 1.0, 1.0])


def test_auto_ends_at_its_cap_and_a_class_without_pixels_weighs_one() -> None:
    count = np.array([[10**9, 10**5, 3, 0]])
    found = class_weights(("auto",), ("a", "b", "c", "d"), [count])
    assert found == pytest.approx([1 / CAP, 1.0, CAP, 1.0])
    assert class_weights(("auto",), ("a", "b"), [np.zeros((2, 2), np.int64)]) == [1, 1]


def test_auto_does_not_change_with_how_many_images_there_are() -> None:
    source, target = np.array([[70, 30]]), np.array([[20, 80]])
    once = class_weights(("auto",), ("a", "b"), [source, target])
    assert class_weights(("auto",), ("a", "b"), [np.repeat(source, 1000, 0), target]) == pytest.approx(once)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("rod=2",), ["no class 'rod'", "'road'", "sky"]),
        (("1", "2"), ["each of the 5 classes", "road, sky, car, person, wall", "2 came", "wall=2"]),
        (("0", "0", "0", "0", "0"), ["all 0"]),
        (("auto",), ["reads no labeled images"]),
    ],
)
def test_what_does_not_fit_the_classes_is_named(words: tuple[str, ...], parts: list[str]) -> None:
    with pytest.raises(UserError) as error:
        class_weights(words, CLASSES)
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(
    "words",
    ["car=", "=", "car", "nan", "car=-1", "car=inf", "auto 1", "car=1 2", "none car=2", "car=1 car=2", ""],
)
def test_what_is_no_weight_is_refused_with_the_forms(words: str) -> None:
    with pytest.raises(UserError, match=r"--loss.class-weights must be"):
        LossConfig(class_weights=tuple(words.split()))


def test_the_command_line_takes_all_forms() -> None:
    def parsed(*words: str) -> tuple[str, ...]:
        return parse_config(["--preset", "folder", *words])[0].loss.class_weights

    assert parsed() == ("none",)
    assert parsed("--loss.class-weights", "auto", "--amp") == ("auto",)
    assert parsed("--loss.class-weights", "traffic light=2", "car=0.5", "--amp") == ("traffic light=2", "car=0.5")
    assert parsed("--loss.class-weights", "1", "5", "--max-steps", "3") == ("1", "5")


def test_the_note_says_each_weight_and_what_counts_twice() -> None:
    auto = LossConfig(class_weights=("auto",), class_balance=0.5)
    note = class_weights_note([0.1, 2.34567], ("road", "car"), auto)
    assert "road 0.1, car 2.35" in note and "--loss.class-balance 0.5" in note
    assert "class-balance" not in class_weights_note([1.0], ("a",), LossConfig(class_weights=("auto",)))
    assert "class-balance" not in class_weights_note([1.0], ("a",), LossConfig(class_weights=("1",), class_balance=0.5))


# The loss


@pytest.fixture(params=["auto", "reference"])
def kernels(request: pytest.FixtureRequest) -> Any:
    set_implementation(request.param, "cpu")
    yield request.param
    set_implementation("auto")


@pytest.mark.parametrize("pixels", [False, True])
@pytest.mark.parametrize("normalizer", ["sum", "pixels", "valid"])
def test_the_loss_is_torchs_weighted_sum_over_a_count_of_pixels(
    normalizer: Normalizer, pixels: bool, kernels: str
) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, K, 4, 6, generator=generator, requires_grad=True)
    label = torch.randint(0, K, (2, 8, 12), generator=generator, dtype=torch.uint8)
    label[:, :3] = 255
    weight = torch.rand(2, 8, 12, generator=generator) if pixels else None
    own = Branch(
        "inter", torch.zeros(2, 3, 8, 12), label, weight, 1.0, normalizer, class_weight=torch.tensor(AS_NUMBERS)
    )
    found = branch_terms(Output(logits), own).cross_entropy
    assert found is not None
    full = F.interpolate(logits, size=(8, 12), mode="bilinear")
    each = F.cross_entropy(full, label.long(), torch.tensor(AS_NUMBERS), ignore_index=255, reduction="none")
    total = (each if weight is None else each * weight).sum()
    expected = total / {"sum": 1, "pixels": label.numel(), "valid": int((label != 255).sum())}[normalizer]
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    ours, theirs = (torch.autograd.grad(value, logits)[0] for value in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


# The step


def seen_weights(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the steps after this give to the op as `class_weight`, call by call."""
    found: list[Any] = []
    real = iidm.method.losses.cross_entropy

    def keep(*args: Any, class_weight: Tensor | None, **options: Any) -> Tensor:
        found.append(class_weight if class_weight is None else class_weight.tolist())
        return real(*args, class_weight=class_weight, **options)

    monkeypatch.setattr(iidm.method.losses, "cross_entropy", keep)
    return found


@pytest.mark.parametrize("branches", ["merged", "sequential"])
def test_source_target_and_mixes_are_weighted_and_a_run_without_has_no_weights(
    branches: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = seen_weights(monkeypatch)
    config = sure(branches=branches)
    plain = make_step(config, "tiny")
    assert "class_weight" not in plain.method.state_dict() and "method" not in plain.modules
    without = gradients(plain, [batch()])
    assert seen == [None] * 4
    seen.clear()
    step = make_step(weighted(config), "tiny")
    assert "class_weight" in step.modules["method"].state_dict(), "a resumed run keeps them"
    with_weights = gradients(step, [batch()])
    assert seen == [AS_NUMBERS] * 4
    for mine, other in zip(with_weights[2][1:5], without[2][1:5], strict=True):
        assert mine != pytest.approx(other, rel=1e-3)


@pytest.mark.parametrize("branches", ["merged", "sequential"])
def test_weights_of_one_are_none_bit_for_bit(branches: str) -> None:
    config = sure(branches=branches)
    without = gradients(make_step(config, "tiny"), [batch()])
    ones = gradients(make_step(weighted(config, ("1",) * K), "tiny"), [batch()])
    assert ones[2] == without[2]
    for name, gradient in without[0].items():
        assert torch.equal(ones[0][name], gradient), name


def test_merged_branches_are_sequential_ones() -> None:
    found = [gradients(make_step(weighted(sure(branches=b)), "tiny"), [batch()])[2] for b in ("merged", "sequential")]
    assert found[0] == pytest.approx(found[1], rel=2e-3)


def test_the_teachers_labels_are_those_of_a_run_without_weights() -> None:
    found = [make_step(config, "tiny")([batch()], 0) for config in (sure(), weighted(sure()))]
    for out in found:
        assert out.pseudo_label is not None
    ours, theirs = (out.pseudo_label for out in found)
    assert ours is not None and theirs is not None
    assert torch.equal(ours.label, theirs.label) and torch.equal(ours.quality, theirs.quality)


def test_an_hrda_networks_detail_is_weighted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = seen_weights(monkeypatch)
    config = with_values(config_of("source_target"), {"model": {"hrda": True}})
    make_step(weighted(config), "tiny")([batch()], 0)
    assert seen == [AS_NUMBERS] * 4, "context and detail of source and target"


@pytest.mark.parametrize("method", ["mic", "dldm"])
def test_hidden_images_and_further_networks_are_weighted_too(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = seen_weights(monkeypatch)
    config = with_values(config_of(method), {"model": {"weights": "given"}})
    make_step(weighted(config), "tiny")([batch()], 0)
    assert len(seen) == 3 and seen == [AS_NUMBERS] * 3


@pytest.mark.skipif(not build_info()["extension"], reason="the references read values")
@pytest.mark.parametrize("branches", ["merged", "sequential"])
def test_a_captured_step_has_them_too(branches: str, tapes: list[Tape]) -> None:
    config = with_values(weighted(sure(branches=branches)), {"teacher": {"ema_ramp": False}})
    plain, graphed = (as_on_a_gpu(make_step(config, "tiny"), graph=graph) for graph in (False, True))
    assert ten_steps(graphed) == ten_steps(plain)
    assert [tape.replays for tape in tapes] == [7]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_its_weights(method: str) -> None:
    config = with_values(config_of(method), {"model": {"weights": "given"}})
    student: nn.Module = make_step(config, "tiny").student
    counts = [np.array([[H * W, 9, 9, 9, 1]])]
    own = build_method(weighted(config, ("auto",)), copy.deepcopy(student), CLASSES, counts)
    assert own.class_weight is not None
    assert own.class_weight.tolist() == pytest.approx([1 / CAP, 1, 1, 1, 9])
