"""ASS: both discriminators' losses by hand, who descends and who ascends them, and by how much."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from small_steps import CLASSES, B, H, K, W, Watch, batch, config_of, make_step, trained
from torch import Tensor, nn

from iidm.catalog.ssda import SUBSET
from iidm.config import Config, Streams, streams_of
from iidm.kernels import build_info
from iidm.method import TrainStep
from iidm.method.base import Mixes, Scene, normalized
from iidm.method.losses import Branch, Output
from iidm.method.published.ass import SemanticLevelShift
from iidm.models import build_network
from iidm.recipes import with_values
from iidm.types import UserError

LAMBDA = 0.001
C, h, w = 320, 4, 6
"""Channels of MobileNetV2's features, and their cells here."""


def method_of(config: Config | None = None) -> SemanticLevelShift:
    torch.manual_seed(0)
    return SemanticLevelShift(config or config_of("ass"), build_network("mobilenet_v2", K), CLASSES)


def seen(seed: int = 0) -> Output:
    generator = torch.Generator().manual_seed(seed)
    logits = (2 * torch.randn(B, K, h, w, generator=generator)).requires_grad_()
    return Output(logits, torch.randn(B, C, h, w, generator=generator).requires_grad_())


def labels() -> Tensor:
    """Class 3 in one image alone, class 4 in none, a border of 255."""
    label = torch.randint(0, 3, (B, h, w), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    label[1, 1:3, 2] = 3
    label[:, 0] = 255
    return label.repeat_interleave(8, 1).repeat_interleave(8, 2).contiguous()


def of_domain(said: Tensor, of_target: bool) -> Tensor:
    """-log of what the discriminator gives to the right domain."""
    d = 1 / (1 + (-said).exp())
    return -(d if of_target else 1 - d).log()


def plain_output_loss(discriminator: nn.Module, out: Output, of_target: bool) -> Tensor:
    said = discriminator(torch.softmax(out.logits, 1))
    return torch.stack([of_domain(one, of_target) for one in said.flatten()]).mean()


def plain_class_loss(discriminator: nn.Module, out: Output, label: Tensor, of_target: bool) -> Tensor:
    """Class by class, in loops."""
    assert out.features is not None
    terms = []
    for b in range(B):
        for k in range(K):
            cells = [
                out.features[b, :, y, x] for y in range(h) for x in range(w) if int(label[b, 8 * y + 4, 8 * x + 4]) == k
            ]
            if cells:
                terms.append(of_domain(discriminator(torch.stack(cells).mean(0))[k], of_target))
    assert len(terms) == 7
    return torch.stack(terms).mean()


def gradients(value: Tensor, out: Output, discriminator: nn.Module) -> tuple[list[Tensor | None], list[Tensor]]:
    value.backward()
    return [out.logits.grad, out.features.grad], [p.grad for p in discriminator.parameters()]  # type: ignore


@pytest.mark.parametrize("of_target", [True, False])
@pytest.mark.parametrize("level", ["outputs", "classes"])
def test_the_network_ascends_by_lambda_what_a_discriminator_descends_in_full(level: str, of_target: bool) -> None:
    method, out, label = method_of(), seen(), labels()
    discriminator = method.of_outputs if level == "outputs" else method.of_classes
    exact, again = copy.deepcopy(discriminator).double(), Output(*(part.detach().double() for part in seen()[:2]))  # type: ignore
    for part in again[:2]:
        part.requires_grad_()  # type: ignore[union-attr]
    if level == "outputs":
        value = method.output_loss(out, of_target=of_target)
        expected = plain_output_loss(exact, again, of_target)
    else:
        value = method.class_loss(out, label, of_target=of_target)
        expected = plain_class_loss(exact, again, label, of_target)
    assert float(value.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    reached, learned = gradients(value, out, discriminator)
    plain, in_full = gradients(expected, again, exact)
    for mine, other in zip(learned, in_full, strict=True):
        torch.testing.assert_close(mine.double(), other, rtol=1e-4, atol=1e-6 * float(other.abs().max()))
    for read, truth in zip(reached, plain, strict=True):
        if truth is None or not of_target:  # not what it reads, or a source image, which it does not change
            assert read is None
        else:
            assert read is not None and bool(truth.any())
            torch.testing.assert_close(
                read.double(), -LAMBDA * truth, rtol=1e-3, atol=1e-5 * LAMBDA * float(truth.abs().max())
            )


def test_a_class_is_told_by_its_own_output_and_an_image_without_labels_by_none() -> None:
    method, out = method_of(), seen()
    with torch.no_grad():
        last: Any = method.of_classes[2]
        last.weight.zero_()
        last.bias.copy_(torch.arange(K))
    loss = method.class_loss(out, torch.full((B, H, W), 3, dtype=torch.uint8), of_target=True)
    assert float(loss.detach()) == pytest.approx(math.log(1 + math.exp(-3)), rel=1e-5)
    nothing = method.class_loss(out, torch.full((B, H, W), 255, dtype=torch.uint8), of_target=True)
    nothing.backward()
    assert float(nothing.detach()) == 0 and out.features is not None
    assert out.features.grad is not None and not bool(out.features.grad.any())


def test_the_discriminator_of_outputs_looks_at_15_cells_every_4_and_takes_any_crop() -> None:
    of_outputs = method_of().of_outputs
    field = torch.rand(1, K, 64, 64, requires_grad=True)
    said = of_outputs(field)
    assert said.shape == (1, 1, 16, 16)
    said[0, 0, 8, 8].backward()
    assert field.grad is not None
    touched = field.grad[0].abs().sum(0).nonzero()
    assert (touched.amax(0) - touched.amin(0) + 1).tolist() == [15, 15]
    assert of_outputs(torch.rand(2, K, 1, 3)).shape == (2, 1, 1, 1)


def branches_of(step: TrainStep) -> list[Branch]:
    return step.method.branches(Scene(batch(), None, Mixes(None, ()), step.student, step.teacher, step.generator))


def test_outputs_are_told_of_source_and_unlabeled_images_and_classes_of_labeled_ones() -> None:
    step, data, out = make_step(config_of("ass"), "tiny"), batch(), seen()
    method = step.method
    assert isinstance(method, SemanticLevelShift)
    assert data.source is not None and data.target is not None and data.unlabeled is not None
    out = Output(out.logits, out.features[:, :12])  # type: ignore[index]
    found = {branch.name: branch for branch in branches_of(step)}
    by_output = [method.output_loss(out, of_target=of_target) for of_target in (False, True)]
    by_class = [
        method.class_loss(out, label, of_target=of_target)
        for label, of_target in ((data.source.label, False), (data.target.label, True))
    ]
    expected = {"source": by_output[0] + by_class[0], "target": by_class[1], "auxiliary": by_output[1]}
    for name, value in expected.items():
        objective = found.pop(name)
        assert objective.objective is not None and objective.objective_weight == 1.0
        torch.testing.assert_close(objective.objective(out), value)
        if name == "auxiliary":
            assert objective.label is None and torch.equal(objective.image, normalized(data.unlabeled))
    assert not found


@pytest.mark.parametrize("amp_dtype", [None, torch.bfloat16])
def test_merged_branches_give_network_and_discriminators_the_gradients_of_sequential_ones(
    amp_dtype: torch.dtype | None,
) -> None:
    # A lambda that shows in the network's gradient.
    config = with_values(config_of("ass"), {"loss": {"auxiliary_weight": 1.0}})
    merged, sequential = (
        trained(make_step(with_values(config, {"step": {"branches": b}}), "tiny", amp_dtype=amp_dtype), [batch()])[0]
        for b in ("merged", "sequential")
    )
    assert merged.keys() == sequential.keys() and any("of_classes" in name for name in merged)
    for name, value in merged.items():
        tolerance = (2e-3 if amp_dtype is None else 5e-2) * (1e-4 + float(value.abs().max()))
        torch.testing.assert_close(value, sequential[name], rtol=0, atol=tolerance, msg=name)


def test_lambda_scales_the_networks_part_and_leaves_the_discriminators_theirs() -> None:
    """The gradient of the whole step is g + lambda a in the network, and the same for every lambda in the others."""
    config = config_of("ass")
    with_lambda = {
        value: trained(make_step(with_values(config, {"loss": {"auxiliary_weight": value}}), "tiny"), [batch()])[0]
        for value in (0.0, 0.5, 1.0)
    }
    moved = 0
    for name, whole in with_lambda[1.0].items():
        half = with_lambda[0.5][name]
        if name.startswith("of_"):
            torch.testing.assert_close(half, whole, rtol=1e-4, atol=1e-6)
            continue
        none = with_lambda[0.0][name]
        moved += bool((whole - none).abs().max() > 1e-4 * none.abs().max())
        torch.testing.assert_close(half - none, (whole - none) / 2, rtol=2e-2, atol=1e-4 * float(none.abs().max()))
    assert moved >= 4


def test_two_steps_train_every_parameter_at_the_heads_rate() -> None:
    step = make_step(config_of("ass"), "tiny")
    before = {n: p.detach().clone() for m in (step.student, step.method) for n, p in m.named_parameters()}
    for number in (0, 1):
        out = step([batch(number)], number)
    after = {n: p for m in (step.student, step.method) for n, p in m.named_parameters()}
    assert all(not torch.equal(value, after[name]) for name, value in before.items())
    assert float(out.losses.auxiliary) == pytest.approx(4 * math.log(2), rel=0.2)  # four terms of no knowledge
    (group,) = step.method.parameter_groups(step.config.optim)
    assert len(group["params"]) == 6 + 4 and group["lr"] == pytest.approx(6e-4)


def test_a_discriminator_learns_to_tell_what_the_network_does_not_hide() -> None:
    method = method_of()
    optimizer = torch.optim.AdamW(method.parameters(), lr=6e-4)
    label, source, target = labels(), seen(0), seen(1)
    assert target.features is not None
    target = Output(target.logits, target.features + 0.3)
    losses = []
    for _ in range(30):
        loss = method.class_loss(source, label, of_target=False) + method.class_loss(target, label, of_target=True)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(2 * math.log(2), rel=0.2) and losses[-1] < 0.2 * losses[0]


def test_both_discriminators_are_in_the_checkpoint() -> None:
    first, second = make_step(config_of("ass"), "tiny"), make_step(config_of("ass"), "tiny")
    first([batch()], 0)
    state = first.modules["method"].state_dict()
    assert {name.split(".")[0] for name in state} == {"of_outputs", "of_classes"}
    assert not all(torch.equal(value, second.method.state_dict()[name]) for name, value in state.items())
    second.modules["method"].load_state_dict(state)
    assert all(torch.equal(value, second.method.state_dict()[name]) for name, value in state.items())


@pytest.mark.skipif(not build_info()["extension"], reason="the references read values")
@pytest.mark.parametrize("branches", ["merged", "sequential"])
def test_no_value_is_read_on_the_host(branches: str) -> None:
    step = make_step(config_of("ass", branches=branches), "tiny")
    step([batch()], 0)
    with Watch() as watch:
        step([batch(1)], 1)
    assert watch.waits == []


def test_what_it_reads_and_refuses() -> None:
    config = config_of("ass")
    assert streams_of(config) == Streams(source=True, labeled=True, unlabeled=True)
    assert config.loss.auxiliary_weight == LAMBDA and not method_of().labels_images
    for name in ("source_weight", "target_weight"):
        with pytest.raises(UserError, match="compares labeled images of both domains"):
            method_of(with_values(config, {"loss": {name: 0.0}}))
    without = with_values(config, {"loss": {"auxiliary_weight": 0.0, "source_weight": 0.0}})
    step = make_step(without, "tiny")
    assert "method" not in step.modules and [b.name for b in branches_of(step)] == ["target"]


def test_sdss_is_the_same_on_a_part_of_the_source() -> None:
    ass, sdss = config_of("ass"), config_of("ass_sdss")
    assert ass.data.source_subset is None and sdss.data.source_subset == SUBSET
    assert (ass.loss, ass.teacher, ass.mixing) == (sdss.loss, sdss.teacher, sdss.mixing)
    assert isinstance(make_step(sdss, "tiny").method, SemanticLevelShift)
