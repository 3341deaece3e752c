"""Upsampling and weighted cross-entropy in plain PyTorch: their meaning, and the oracle of their kernels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = 255


def no_such_class(label: int, classes: int) -> ValueError:
    """The error of a label that has no logit."""
    return ValueError(f"label holds {label}, but the logits have {classes} classes (and 255 is ignored).")


def _pixel_weight(label: Tensor, weight: Tensor | None, class_weight: Tensor | None, target: Tensor) -> Tensor:
    """float32 [B,H,W]: factor of every pixel's loss before the normalizer; 0 where the label is ignored."""
    valid = label != IGNORED
    factor = valid.float()
    if class_weight is not None:
        factor = factor * class_weight[target]
    if weight is not None:
        # Not a plain product: a weight of inf or NaN on an ignored pixel must stay without effect.
        factor = torch.where(valid, factor * (weight if weight.dim() == 3 else weight.view(-1, 1, 1)), 0.0)
    return factor


def _scale(label: Tensor, normalizer: str) -> Tensor | float:
    if normalizer == "sum":
        return 1.0
    if normalizer == "pixels":
        return 1.0 / label.numel()
    return (label != IGNORED).sum().clamp(min=1).float().reciprocal()


def cross_entropy(
    logits: Tensor,
    label: Tensor,
    weight: Tensor | None,
    class_weight: Tensor | None,
    normalizer: str,
    align_corners: bool,
    with_grad: bool,
) -> tuple[Tensor, Tensor]:
    """See `iidm.kernels.cross_entropy.cross_entropy`.

    Returns:
        The loss, float32 [], and its gradient to the logits, float32 [B,K,h,w] (empty unless `with_grad`).
        The gradient comes with the forward because everything that it needs is at hand there: softmax minus
        one-hot at full size, weighted, and summed back to low resolution by the transpose of the upsampling.
    """
    classes = logits.shape[1]
    wrong = (label >= classes) & (label != IGNORED)
    if label.device.type == "cpu" and bool(wrong.any()):
        raise no_such_class(int(label[wrong][0]), classes)
    size = [label.shape[1], label.shape[2]]
    low = logits.float().contiguous()
    full = F.interpolate(low, size=size, mode="bilinear", align_corners=align_corners)
    log_probability = F.log_softmax(full, 1)
    # An ignored pixel looks up class 0 and is then weighted by 0.
    target = label.masked_fill(label >= classes, 0).long()
    factor = _pixel_weight(label, weight, class_weight, target) * _scale(label, normalizer)
    index = target.unsqueeze(1)
    loss = -(log_probability.gather(1, index).squeeze(1) * factor).sum()
    # On a device a label without a class cannot raise without a synchronisation: it shows as a NaN loss.
    loss = torch.where(wrong.any(), torch.nan, loss)
    if not with_grad:
        return loss, low.new_empty(0)
    grad = log_probability.exp_()
    grad.scatter_add_(1, index, grad.new_full((), -1.0).expand(index.shape))
    grad.mul_(factor.unsqueeze(1))
    return loss, torch.ops.aten.upsample_bilinear2d_backward(grad, size, list(low.shape), align_corners, None, None)
