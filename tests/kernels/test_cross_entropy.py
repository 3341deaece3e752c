from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bodies import run_with
from hypothesis import given, settings
from hypothesis import strategies as st

from iidm.kernels.cross_entropy import Normalizer, cross_entropy

pytestmark = run_with("reference", "fused", "interpreted")

Upsample = Callable[[torch.Tensor, int, int, bool], np.ndarray]
NORMALIZERS: tuple[Normalizer, ...] = ("sum", "pixels", "valid")


def expected_loss(
    full: np.ndarray,
    label: torch.Tensor,
    weight: torch.Tensor | None,
    class_weight: torch.Tensor | None,
    normalizer: str,
) -> float:
    """The definition, pixel by pixel in float64, of upsampled logits [B,K,H,W]."""
    total, valid = 0.0, 0
    for b, y, x in np.ndindex(*label.shape):
        truth = int(label[b, y, x])
        if truth == 255:
            continue
        valid += 1
        row = full[b, :, y, x]
        largest = row.max()
        loss = largest + math.log(np.exp(row - largest).sum()) - row[truth]
        if weight is not None:
            loss *= float(weight[b] if weight.dim() == 1 else weight[b, y, x])
        if class_weight is not None:
            loss *= float(class_weight[truth])
        total += loss
    return total / {"sum": 1, "pixels": label.numel(), "valid": max(valid, 1)}[normalizer]


def random_label(batch: int, size: tuple[int, int], classes: int) -> torch.Tensor:
    label = torch.randint(0, classes, (batch, *size), dtype=torch.uint8)
    return label.masked_fill(torch.rand(label.shape) < 0.25, 255)


@pytest.mark.parametrize(
    ("classes", "low", "size", "weighting", "normalizer", "align_corners"),
    [
        *((2, (1, 1), (1, 1), "none", *how) for how in product(NORMALIZERS, (False, True))),
        *((1, (2, 3), (9, 5), "image", *how) for how in product(NORMALIZERS, (False, True))),
        *((5, (9, 8), (4, 3), "all", *how) for how in product(NORMALIZERS, (False, True))),
        (19, (3, 4), (20, 31), "pixel", "valid", False),  # once each: they take Triton's interpreter seconds
        (255, (2, 2), (4, 5), "class", "sum", True),
    ],
)
def test_loss_is_the_definition(
    upsample64: Upsample,
    classes: int,
    low: tuple[int, int],
    size: tuple[int, int],
    weighting: str,
    normalizer: Normalizer,
    align_corners: bool,
) -> None:
    logits, label = torch.randn(2, classes, *low) * 4, random_label(2, size, classes)
    weight = {"image": torch.rand(2), "pixel": torch.rand(2, *size), "all": torch.rand(2, *size)}.get(weighting)
    class_weight = torch.rand(classes) if weighting in ("class", "all") else None
    loss = cross_entropy(
        logits, label, weight, class_weight=class_weight, normalizer=normalizer, align_corners=align_corners
    )
    full = upsample64(logits, *size, align_corners)
    assert loss.dtype == torch.float32 and loss.dim() == 0
    assert float(loss) == pytest.approx(
        expected_loss(full, label, weight, class_weight, normalizer), rel=2e-5, abs=1e-6
    )


@pytest.mark.parametrize("align_corners", [False, True])
def test_gradient_is_the_slope_of_the_definition(upsample64: Upsample, align_corners: bool) -> None:
    logits, label = torch.randn(2, 3, 2, 3), random_label(2, (5, 7), 3)
    weight, class_weight = torch.rand(2, 5, 7), torch.rand(3)

    def loss_at(values: torch.Tensor) -> float:
        return expected_loss(upsample64(values, 5, 7, align_corners), label, weight, class_weight, "valid")

    slope = torch.zeros(logits.shape, dtype=torch.float64)
    for place in np.ndindex(*logits.shape):
        step = torch.zeros(logits.shape, dtype=torch.float64)
        step[place] = 1e-5
        slope[place] = (loss_at(logits.double() + step) - loss_at(logits.double() - step)) / 2e-5
    logits.requires_grad_()
    loss = cross_entropy(
        logits, label, weight, class_weight=class_weight, normalizer="valid", align_corners=align_corners
    )
    (3 * loss).backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad.double(), 3 * slope, atol=1e-6, rtol=1e-5)


@given(
    batch=st.integers(1, 3),
    classes=st.integers(2, 6),
    low=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    normalizer=st.sampled_from(NORMALIZERS),
    weighting=st.sampled_from(["none", "image", "pixel"]),
    align_corners=st.booleans(),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=8)
def test_loss_and_gradient_equal_float64_autograd(
    batch: int,
    classes: int,
    low: tuple[int, int],
    size: tuple[int, int],
    normalizer: Normalizer,
    weighting: str,
    align_corners: bool,
    seed: int,
) -> None:
    g = torch.Generator(torch.get_default_device()).manual_seed(seed)
    logits = torch.randn((batch, classes, *low), generator=g)
    label = torch.randint(0, classes + 1, (batch, *size), generator=g, dtype=torch.uint8)
    label = torch.where(label == classes, 255, label).to(torch.uint8)
    shape = {"none": (), "image": (batch,), "pixel": (batch, *size)}[weighting]
    weight = torch.rand(shape, generator=g)
    ours, truth = logits.clone().requires_grad_(), logits.double().requires_grad_()
    loss = cross_entropy(
        ours,
        label,
        None if weighting == "none" else weight,
        normalizer=normalizer,
        align_corners=align_corners,
    )
    full = F.interpolate(truth, size=size, mode="bilinear", align_corners=align_corners)
    pixels = F.cross_entropy(full, label.long(), ignore_index=255, reduction="none")
    factor = 1 if weighting == "none" else weight.double().view(-1, 1, 1) if weighting == "image" else weight.double()
    divisor = {"sum": 1, "pixels": label.numel(), "valid": max(int((label != 255).sum()), 1)}[normalizer]
    expected = (pixels * factor).sum() / divisor
    loss.backward()
    expected.backward()
    assert ours.grad is not None and truth.grad is not None
    torch.testing.assert_close(loss.double(), expected.detach(), atol=1e-6, rtol=2e-5)
    torch.testing.assert_close(ours.grad.double(), truth.grad, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_all_ignored_gives_zero_loss_and_zero_gradient(normalizer: Normalizer) -> None:
    logits = torch.randn(2, 4, 3, 3, requires_grad=True)
    label = torch.full((2, 9, 9), 255, dtype=torch.uint8)
    loss = cross_entropy(logits, label, torch.rand(2), normalizer=normalizer)
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None and not logits.grad.any()


def test_ignored_pixels_are_never_counted() -> None:
    logits, label = torch.randn(1, 3, 4, 4), random_label(1, (8, 8), 3)
    weight = torch.rand(1, 8, 8)
    poisoned = weight.masked_fill(label == 255, torch.nan)
    assert torch.equal(cross_entropy(logits, label, weight), cross_entropy(logits, label, poisoned))


def test_extreme_logits_give_finite_losses_and_gradients() -> None:
    logits = torch.tensor([1e4, -1e4, 0.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2).clone().requires_grad_()
    loss = cross_entropy(logits, torch.full((1, 4, 4), 1, dtype=torch.uint8))
    loss.backward()
    assert loss.item() == pytest.approx(2e4)
    assert logits.grad is not None and bool(logits.grad.isfinite().all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_logits_are_computed_in_float32(dtype: torch.dtype) -> None:
    low = (torch.randn(2, 5, 3, 3) * 3).to(dtype).requires_grad_()
    high = low.detach().float().requires_grad_()
    label = random_label(2, (17, 16), 5)
    losses = [cross_entropy(x, label, normalizer="valid") for x in (low, high)]
    (losses[0] + losses[1]).backward()
    assert torch.equal(losses[0], losses[1]) and losses[0].dtype == torch.float32
    assert low.grad is not None and high.grad is not None and low.grad.dtype == dtype
    assert torch.equal(low.grad, high.grad.to(dtype))


def test_layout_of_the_inputs_does_not_matter() -> None:
    logits, label, weight = torch.randn(2, 5, 4, 3), random_label(2, (10, 9), 5), torch.rand(2, 10, 9)
    dense = cross_entropy(logits.clone().requires_grad_(), label, weight).detach()
    turned = logits.contiguous(memory_format=torch.channels_last).requires_grad_()
    label_view = torch.stack([label, label], -1)[..., 0]
    result = cross_entropy(turned, label_view, weight.transpose(1, 2).contiguous().transpose(1, 2))
    result.backward()
    assert torch.equal(result.detach(), dense) and turned.grad is not None


def test_no_gradient_is_computed_when_none_is_wanted() -> None:
    logits, label = torch.randn(1, 3, 2, 2, requires_grad=True), random_label(1, (4, 4), 3)
    with torch.no_grad():
        assert not cross_entropy(logits, label).requires_grad
    assert not cross_entropy(logits.detach(), label).requires_grad
    assert cross_entropy(logits, label).requires_grad
    sizes = [
        torch.ops.iidm.cross_entropy(logits.detach(), label, None, None, "sum", False, wanted)[1].numel()
        for wanted in (False, True)
    ]
    assert sizes == [0, logits.numel()]


def test_gradient_flows_to_the_logits_alone() -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    weight = torch.rand(1, requires_grad=True)
    cross_entropy(logits, random_label(1, (4, 4), 3), weight).backward()
    assert logits.grad is not None and weight.grad is None


def test_a_label_without_a_class_is_an_error(body: str) -> None:
    label = torch.full((1, 4, 4), 3, dtype=torch.uint8)
    if body in ("gpu", "interpreted"):
        assert cross_entropy(torch.randn(1, 3, 2, 2), label).isnan()
        return
    with pytest.raises(ValueError, match="label holds 3, but the logits have 3 classes"):
        cross_entropy(torch.randn(1, 3, 2, 2), label)


def test_the_debug_switch_makes_such_a_label_an_error_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iidm.kernels._checks.DEBUG", True)
    label = torch.tensor([[[0, 255], [77, 2]]], dtype=torch.uint8)
    with pytest.raises(ValueError, match="label holds 77, but the logits have 3 classes"):
        cross_entropy(torch.randn(1, 3, 2, 2), label)
    assert cross_entropy(torch.randn(1, 3, 2, 2), label.masked_fill(label == 77, 1)).isfinite()


def test_gradcheck() -> None:
    logits, label = torch.randn(1, 3, 1, 3, requires_grad=True), random_label(1, (4, 7), 3)
    weight = torch.rand(1, 4, 7)
    # The op computes in float32: a wide step and its rounding in the tolerance.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the input is not float64
        assert torch.autograd.gradcheck(
            lambda x: cross_entropy(x, label, weight, normalizer="valid"), logits, eps=1e-2, atol=2e-3, rtol=1e-2
        )


def test_wrong_arguments_are_named() -> None:
    logits, label = torch.randn(2, 3, 2, 2), random_label(2, (4, 4), 3)
    with pytest.raises(ValueError, match=r"label must have the shape \[2,H,W\]"):
        cross_entropy(logits, label[:1])
    with pytest.raises(TypeError, match="label must be uint8, not int64"):
        cross_entropy(logits, label.long())
    with pytest.raises(ValueError, match=r"weight \(\[B\] or \[B,H,W\]\) must have the shape \[2,4,4\]"):
        cross_entropy(logits, label, torch.rand(2, 2, 2))
    with pytest.raises(ValueError, match=r"class_weight must have the shape \[3\]"):
        cross_entropy(logits, label, class_weight=torch.rand(4))
    with pytest.raises(ValueError, match="normalizer must be one of sum, pixels, valid, not 'mean'"):
        cross_entropy(logits, label, normalizer="mean")


@pytest.mark.parametrize("with_grad", [True, False])
def test_opcheck(with_grad: bool) -> None:
    logits, label = torch.randn(2, 3, 2, 2, requires_grad=with_grad), random_label(2, (4, 5), 3)
    arguments = (logits, label, torch.rand(2), None, "valid", False, with_grad)
    torch.library.opcheck(torch.ops.iidm.cross_entropy.default, arguments)


def test_it_compiles_as_one_graph_with_its_gradient() -> None:
    label, weight = random_label(2, (9, 8), 3), torch.rand(2)
    start = torch.randn(2, 3, 2, 2)

    def scaled(x: torch.Tensor) -> torch.Tensor:
        return 2 * cross_entropy(x * 3, label, weight, normalizer="sum")

    results = []
    for function in (scaled, torch.compile(scaled, fullgraph=True, backend="aot_eager")):
        logits = start.clone().requires_grad_()
        loss = function(logits)
        loss.backward()
        assert logits.grad is not None
        results.append((loss.detach(), logits.grad))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])
