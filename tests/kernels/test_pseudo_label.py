from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from bodies import run_with

from iidm.kernels.pseudo_label import pseudo_label

pytestmark = run_with("reference", "fused", "interpreted")

Upsample = Callable[[torch.Tensor, int, int, bool], np.ndarray]


def softmax64(full: np.ndarray) -> np.ndarray:
    exponentials = np.exp(full - full.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


@pytest.mark.parametrize(
    ("classes", "low", "size", "align_corners"),
    [
        (2, (1, 1), (1, 1), False),
        (2, (1, 1), (1, 1), True),
        (1, (3, 2), (9, 5), False),
        (1, (3, 2), (9, 5), True),
        (5, (9, 9), (4, 5), False),
        (5, (9, 9), (4, 5), True),
        (19, (5, 5), (33, 34), True),  # once each: they take Triton's interpreter seconds
        (255, (2, 3), (4, 5), False),
    ],
)
def test_label_confidence_and_quality_follow_the_definition(
    upsample64: Upsample, classes: int, low: tuple[int, int], size: tuple[int, int], align_corners: bool
) -> None:
    logits = torch.randn(3, classes, *low) * 3
    probability = softmax64(upsample64(logits, *size, align_corners))
    largest = probability.max(1)
    threshold = float(np.median(largest)) + 1e-4
    result = pseudo_label(logits, size, threshold, align_corners=align_corners, with_confidence=True)
    assert result.confidence is not None and result.label.dtype == torch.uint8
    np.testing.assert_allclose(result.confidence.cpu().numpy(), largest, rtol=2e-5)
    clear = np.partition(probability, -2, axis=1)[:, -2] < largest * (1 - 1e-4) if classes > 1 else largest > 0
    assert clear.mean() > 0.9
    assert (result.label.cpu().numpy() == probability.argmax(1))[clear].all()
    confident = largest > threshold
    undecided = (np.abs(largest - threshold) < 1e-5).mean((1, 2))
    assert (np.abs(result.quality.cpu().numpy() - confident.mean((1, 2))) <= undecided + 1e-6).all()


def test_inclusive_counts_a_confidence_that_equals_the_threshold() -> None:
    logits = torch.zeros(1, 2, 2, 2)
    assert pseudo_label(logits, (5, 5), 0.5).quality.item() == 0.0
    assert pseudo_label(logits, (5, 5), 0.5, inclusive=True).quality.item() == 1.0


def test_quality_per_batch_is_the_share_over_all_images() -> None:
    logits = torch.zeros(4, 3, 2, 2)
    logits[:3, 1] = 20.0
    assert pseudo_label(logits, (8, 8), 0.9).quality.tolist() == [1.0, 1.0, 1.0, 0.0]
    assert pseudo_label(logits, (8, 8), 0.9, per_batch=True).quality.tolist() == [0.75] * 4


def test_equal_logits_take_the_lowest_class() -> None:
    assert not pseudo_label(torch.ones(1, 4, 2, 2), (6, 6), 0.5).label.any()


def test_extreme_logits_give_no_nan() -> None:
    logits = torch.tensor([1e30, -1e30, 0.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    result = pseudo_label(logits, (4, 4), 0.968, with_confidence=True)
    assert result.confidence is not None and bool((result.confidence == 1).all())
    assert result.quality.item() == 1.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_logits_are_computed_in_float32(dtype: torch.dtype) -> None:
    logits = (torch.randn(2, 5, 4, 4) * 3).to(dtype)
    result, expected = (pseudo_label(x, (17, 16), 0.7, with_confidence=True) for x in (logits, logits.float()))
    assert all(torch.equal(a, b) for a, b in zip(result, expected, strict=True))


def test_layout_of_the_logits_does_not_matter() -> None:
    logits = torch.randn(2, 5, 6, 4)
    dense = pseudo_label(logits, (12, 9), 0.5)
    assert dense.confidence is None
    wide = torch.cat([logits, logits], 3)[..., :4]
    for other in (logits.contiguous(memory_format=torch.channels_last), wide):
        result = pseudo_label(other, (12, 9), 0.5)
        assert torch.equal(result.label, dense.label) and torch.equal(result.quality, dense.quality)


def test_no_gradient_flows() -> None:
    result = pseudo_label(torch.randn(1, 3, 2, 2, requires_grad=True), (4, 4), 0.5, with_confidence=True)
    assert result.confidence is not None
    assert not result.quality.requires_grad and not result.confidence.requires_grad


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="has 256 classes"):
        pseudo_label(torch.zeros(1, 256, 2, 2), (4, 4), 0.5)
    with pytest.raises(ValueError, match=r"size must be \(H, W\) of at least 1 x 1 pixel, not \(0, 4\)"):
        pseudo_label(torch.zeros(1, 3, 2, 2), (0, 4), 0.5)
    with pytest.raises(TypeError, match="logits must be float32 or bfloat16 or float16, not int64"):
        pseudo_label(torch.zeros(1, 3, 2, 2, dtype=torch.int64), (4, 4), 0.5)


def test_opcheck_and_one_graph() -> None:
    logits = torch.randn(2, 3, 2, 2)
    for with_confidence in (True, False):
        arguments = (logits, 5, 6, 0.5, False, False, True, with_confidence)
        torch.library.opcheck(torch.ops.iidm.pseudo_label.default, arguments)

    def label(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return pseudo_label(x, (5, 6), 0.5)[:2]

    compiled = torch.compile(label, fullgraph=True, backend="aot_eager")
    assert all(torch.equal(a, b) for a, b in zip(compiled(logits), label(logits), strict=True))
