"""The confusion matrix of low-resolution logits against full-size labels."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _checks as checks
from .._dispatch import use_fused
from .._extension import extension, place
from . import reference

__all__ = ["confusion_matrix"]


@torch.library.custom_op("iidm::confusion_matrix", mutates_args=(), device_types=("cpu", "cuda"))
def _confusion_counts(logits: Tensor, label: Tensor, align_corners: bool) -> Tensor:
    if not use_fused("confusion_matrix", logits.device):
        return reference.confusion_counts(logits, label, align_corners)
    assert extension is not None
    low, label = logits.float().contiguous(), label.contiguous()
    counts = torch.zeros(low.shape[1] ** 2 + 1, dtype=torch.int64, device=low.device)
    shape = (*low.shape, *label.shape[1:])
    extension.confusion_matrix(low.data_ptr(), label.data_ptr(), counts.data_ptr(), shape, align_corners, *place(low))
    return counts


@_confusion_counts.register_fake
def _(logits: Tensor, label: Tensor, align_corners: bool) -> Tensor:
    classes = logits.shape[1]
    return logits.new_empty(classes * classes + 1, dtype=torch.int64)


def confusion_matrix(logits: Tensor, label: Tensor, *, align_corners: bool = False, check: bool = True) -> Tensor:
    """Count how often each class is taken for each other one.

    Bilinear upsampling of the logits in float32, argmax, counting. Fused, the full-size logits (160 MB for
    one 2048x1024 image of 19 classes) never exist, and evaluation needs no copy of labels or predictions to
    the host.

    Args:
        logits: float32, bfloat16 or float16 [B,K,h,w], 1 <= K <= 255.
        label: uint8 [B,H,W], 0..K-1, 255 ignored.
        align_corners: corner convention of the upsampling.
        check: look for labels in K..254, which reads one number back to the host. Without the check such
            pixels are not counted.

    Returns:
        int64 [K,K], rows truth, columns prediction (the lowest id among equal logits).

    Raises:
        TypeError, ValueError: an argument of another dtype, shape or device; a label in K..254.
    """
    checks.tensor("logits", logits, checks.FLOATS, ("B", "K", "h", "w"))
    batch, classes = logits.shape[:2]
    checks.class_count("logits", classes)
    checks.tensor("label", label, (torch.uint8,), (batch, "H", "W"))
    checks.same_device(("logits", logits), {"label": label})
    counts = _confusion_counts(logits.detach(), label, align_corners)
    if check and (wrong := int(counts[-1])):
        largest = int(label[label != reference.IGNORED].max())
        raise ValueError(
            f"{wrong} label pixels hold no class: the logits have {classes} classes, labels go up to"
            f" {largest} (255 is ignored). Map the ids of the data set to 0..K-1 or 255."
        )
    return counts[:-1].view(classes, classes)
