"""How a step is run changes nothing that it computes: merged, recomputed, compiled, accumulated; no copy, no wait."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_steps import B, H, K, Watch, assert_close, batch, config_of, gradients, make_step
from torch.utils._python_dispatch import TorchDispatchMode

from iidm.kernels import build_info
from iidm.types import UserError


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2"])
@pytest.mark.parametrize("recipe", ["paper", "daformer", "adapt"])
def test_merged_branches_are_sequential_ones(recipe: str, backbone: str) -> None:
    results = [
        gradients(make_step(config_of(recipe=recipe, branches=branches), backbone), [batch()])
        for branches in ("merged", "sequential")
    ]
    assert len(results[0][0]) > 50
    assert_close(*results, tolerance=2e-4)


def test_recomputed_activations_change_no_gradient() -> None:
    for branches in ("merged", "sequential"):
        results = [
            gradients(make_step(config_of(branches=branches, recompute=recompute)), [batch()])
            for recompute in (True, False)
        ]
        assert_close(*results, tolerance=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("branches", ["merged", pytest.param("sequential", marks=pytest.mark.long)])
def test_a_compiled_step_is_an_eager_one(branches: str) -> None:
    torch._dynamo.reset()
    compiled = make_step(config_of(branches=branches, compile=True))
    before = {n: p.detach().clone() for n, p in compiled.student.named_parameters()}
    results = [gradients(step, [batch()]) for step in (compiled, make_step(config_of(branches=branches)))]
    assert_close(*results, tolerance=1e-3)
    assert before.keys() == dict(compiled.student.named_parameters()).keys()  # checkpoints keep their names


@pytest.mark.parametrize("recipe", ["paper", "daformer", "adapt"])
def test_accumulated_batches_are_one_step_over_their_sum(recipe: str) -> None:
    """Without randomness: the same batch twice is twice its sum, or once its mean."""
    once = gradients(make_step(config_of("source_target", recipe)), [batch()])
    twice = gradients(make_step(config_of("source_target", recipe, accumulate=2)), [batch(), batch()])
    factor = 2 if recipe == "paper" else 1  # the paper sums over pixels, DAFormer takes the mean
    for name, value in twice[0].items():
        torch.testing.assert_close(value, factor * once[0][name], rtol=1e-4, atol=1e-4 * float(value.abs().max()))
    assert twice[2] == pytest.approx(once[2], rel=1e-5)  # logged as means
    one, two = (gradients(make_step(config_of("source_target", recipe)), [batch(seed)])[0] for seed in (0, 1))
    both = gradients(make_step(config_of("source_target", recipe, accumulate=2)), [batch(0), batch(1)])[0]
    for name, value in both.items():
        expected = (one[name] + two[name]) * factor / 2
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=2e-4 * float(value.abs().max()), msg=name)


@pytest.mark.skipif(not build_info()["extension"], reason="the references read values and copy")
@pytest.mark.parametrize("amp", [None, torch.bfloat16])
@pytest.mark.parametrize("branches", ["merged", "sequential"])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet18-v1c", "resnet50", "mobilenet_v2"])
def test_no_value_is_read_and_no_layout_is_copied(backbone: str, branches: str, amp: torch.dtype | None) -> None:
    step = make_step(config_of(branches=branches), backbone, amp_dtype=amp)
    step([batch()], 0)
    with Watch() as watch:
        step([batch()], 1)
    assert watch.waits == []
    # Of 2048 channels the head sums over taps (deeplab.py), in planes: of the logits alone, and cast is how they end.
    by_taps = backbone == "resnet50" and amp is not None
    assert [copy for copy in watch.copies if not (by_taps and f", {K}, {H // 8}, " in copy)] == []
    assert watch.images > 60


def test_the_watch_sees_what_it_is_there_for() -> None:
    image = torch.zeros(2, 3, 4, 4)
    with Watch() as watch:
        float(image.sum())
        image.contiguous(memory_format=torch.channels_last)
    assert watch.waits == ["_local_scalar_dense"] and watch.copies == ["clone (2, 3, 4, 4)"]


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_weights_are_cast_once_a_step(backbone: str) -> None:
    class Casts(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.weights = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if func.overloadpacket.__name__ == "_to_copy" and out.dtype is torch.bfloat16 and out.dim() == 4:
                self.weights += args[0].shape[2:].numel() in (1, 9, 49) and args[0].shape[0] > B * 4
            return out

    step = make_step(config_of(branches="sequential"), backbone, amp_dtype=torch.bfloat16)
    step([batch()], 0)
    with Casts() as casts:
        step([batch()], 1)
    wide = [p for p in step.student.parameters() if p.dim() == 4 and p.shape[0] > B * 4]
    assert casts.weights == 2 * len(wide), "once for the student, once for the teacher"


def test_options_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(UserError, match="do not go together"):
        config_of(compile=True, recompute=True)
    with pytest.raises(UserError, match="--step.accumulate must be at least 1"):
        config_of(accumulate=0)
