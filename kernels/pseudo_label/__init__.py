"""The teacher's pseudo-labels and their quality (paper eqs. 5 and 6)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .. import _checks as check
from .._dispatch import use_fused
from .._extension import extension
from . import reference

__all__ = ["PseudoLabels", "pseudo_label"]


class PseudoLabels(NamedTuple):
    """What the teacher says about unlabeled images."""

    label: Tensor
    """uint8 [B,H,W], the class of the largest logit; the lowest id among equals."""
    quality: Tensor
    """float32 [B], share of pixels whose confidence exceeds the threshold."""
    confidence: Tensor | None
    """float32 [B,H,W], the largest softmax value; None unless asked for."""


@torch.library.custom_op("iidm::pseudo_label", mutates_args=(), device_types=("cpu", "cuda"))
def _pseudo_label(
    logits: Tensor,
    height: int,
    width: int,
    threshold: float,
    align_corners: bool,
    inclusive: bool,
    per_batch: bool,
    with_confidence: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    size = (height, width)
    if not use_fused("pseudo_label", logits.device):
        label, quality, confidence = reference.pseudo_label(
            logits, size, threshold, align_corners, inclusive, per_batch
        )
        return label, quality, confidence if with_confidence else confidence.new_empty(0)
    if logits.device.type == "cpu":
        return _on_cpu(logits, size, threshold, align_corners, inclusive, per_batch, with_confidence)
    from . import fused_triton  # Triton is imported where there is a GPU

    with torch.cuda.device_of(logits):  # Triton launches on the current device
        return fused_triton.pseudo_label(logits, size, threshold, align_corners, inclusive, per_batch, with_confidence)


def _on_cpu(
    logits: Tensor,
    size: tuple[int, int],
    threshold: float,
    align_corners: bool,
    inclusive: bool,
    per_batch: bool,
    with_confidence: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    assert extension is not None
    batch = logits.shape[0]
    low = logits.float().contiguous()
    label = torch.empty((batch, *size), dtype=torch.uint8)
    confident = torch.zeros(batch, dtype=torch.int64)
    confidence = torch.empty((batch, *size) if with_confidence else (0,))
    extension.pseudo_label_cpu(
        low.data_ptr(),
        (*low.shape, *size),
        align_corners,
        threshold,
        inclusive,
        label.data_ptr(),
        confident.data_ptr(),
        confidence.data_ptr() if with_confidence else 0,
    )
    return label, reference.quality(confident, size, per_batch), confidence


@_pseudo_label.register_fake
def _(
    logits: Tensor,
    height: int,
    width: int,
    threshold: float,
    align_corners: bool,
    inclusive: bool,
    per_batch: bool,
    with_confidence: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    batch = logits.shape[0]
    return (
        logits.new_empty((batch, height, width), dtype=torch.uint8),
        logits.new_empty(batch, dtype=torch.float32),
        logits.new_empty((batch, height, width) if with_confidence else 0, dtype=torch.float32),
    )


def pseudo_label(
    logits: Tensor,
    size: tuple[int, int],
    threshold: float,
    *,
    align_corners: bool = False,
    inclusive: bool = False,
    per_batch: bool = False,
    with_confidence: bool = False,
) -> PseudoLabels:
    """Label every pixel by the largest logit, and say which share of each image is confident.

    Bilinear upsampling of the logits, softmax and maximum in float32. Fused, the full-size softmax (80 bytes
    a pixel at 19 classes) never exists: one byte a pixel is written. No gradient flows.

    Args:
        logits: float32, bfloat16 or float16 [B,K,h,w], 1 <= K <= 255, at the network's output stride.
        size: (H, W) of the label.
        threshold: tau, compared in float32.
        align_corners: corner convention of the upsampling.
        inclusive: a pixel is confident when its confidence is >= tau (DACS, DAFormer) instead of > tau (paper
            eq. 6).
        per_batch: every image gets the share over the whole batch (DACS, DAFormer) instead of its own (paper
            eq. 6).
        with_confidence: also return the confidence of every pixel.

    Returns:
        PseudoLabels.

    Raises:
        TypeError, ValueError: an argument of another dtype or shape.
    """
    check.tensor("logits", logits, check.FLOATS, ("B", "K", "h", "w"))
    check.class_count("logits", logits.shape[1])
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size must be (H, W) of at least 1 x 1 pixel, not {tuple(size)}.")
    label, quality, confidence = _pseudo_label(
        logits.detach(), size[0], size[1], threshold, align_corners, inclusive, per_batch, with_confidence
    )
    return PseudoLabels(label, quality, confidence if with_confidence else None)
