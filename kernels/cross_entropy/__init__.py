"""The segmentation loss: upsampling and weighted cross-entropy (paper eqs. 7 to 10)."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from .. import _checks as check
from .._dispatch import use_fused
from .._extension import extension
from . import reference

__all__ = ["Normalizer", "cross_entropy"]

Normalizer = Literal["sum", "pixels", "valid"]


@torch.library.custom_op("iidm::cross_entropy", mutates_args=(), device_types=("cpu", "cuda"))
def _cross_entropy(
    logits: Tensor,
    label: Tensor,
    weight: Tensor | None,
    class_weight: Tensor | None,
    normalizer: str,
    align_corners: bool,
    with_grad: bool,
) -> tuple[Tensor, Tensor]:
    arguments = (logits, label, weight, class_weight, normalizer, align_corners, with_grad)
    if not use_fused("cross_entropy", logits.device):
        return reference.cross_entropy(*arguments)
    if logits.device.type == "cpu":
        return _on_cpu(*arguments)
    from . import fused_triton  # Triton is imported where there is a GPU

    with torch.cuda.device_of(logits):  # Triton launches on the current device
        return fused_triton.cross_entropy(*arguments)


def _on_cpu(
    logits: Tensor,
    label: Tensor,
    weight: Tensor | None,
    class_weight: Tensor | None,
    normalizer: str,
    align_corners: bool,
    with_grad: bool,
) -> tuple[Tensor, Tensor]:
    assert extension is not None
    low, label = logits.float().contiguous(), label.contiguous()
    weight = None if weight is None else weight.contiguous()
    class_weight = None if class_weight is None else class_weight.contiguous()
    loss = torch.empty(())
    grad, scratch = (torch.empty(low.shape if with_grad else 0) for _ in range(2))
    wrong = extension.cross_entropy_cpu(
        low.data_ptr(),
        label.data_ptr(),
        0 if weight is None else weight.data_ptr(),
        weight is not None and weight.dim() == 3,
        0 if class_weight is None else class_weight.data_ptr(),
        get_args(Normalizer).index(normalizer),
        (*low.shape, *label.shape[1:]),
        align_corners,
        loss.data_ptr(),
        grad.data_ptr() if with_grad else 0,
        scratch.data_ptr() if with_grad else 0,
    )
    if wrong >= 0:
        raise reference.no_such_class(wrong, low.shape[1])
    return loss, grad


@_cross_entropy.register_fake
def _(
    logits: Tensor,
    label: Tensor,
    weight: Tensor | None,
    class_weight: Tensor | None,
    normalizer: str,
    align_corners: bool,
    with_grad: bool,
) -> tuple[Tensor, Tensor]:
    loss = logits.new_empty((), dtype=torch.float32)
    return loss, logits.new_empty(logits.shape if with_grad else 0, dtype=torch.float32)


def _save_gradient(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    logits, with_grad = inputs[0], inputs[-1]
    ctx.like = torch.empty_like(logits, device="meta")  # dtype and memory layout
    ctx.with_grad = with_grad
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[1])


def _scale_gradient(ctx: Any, grad_loss: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    (grad,) = ctx.saved_tensors
    nothing = (None,) * 6
    if grad_loss is None or not ctx.with_grad:
        return (None, *nothing)
    # Scaled, rounded and in the layout of the logits in one pass: what follows is a convolution's backward.
    scaled = torch.empty_like(ctx.like, device=grad.device)
    torch.mul(grad, grad_loss, out=scaled)
    return (scaled, *nothing)


_cross_entropy.register_autograd(_scale_gradient, setup_context=_save_gradient)


def cross_entropy(
    logits: Tensor,
    label: Tensor,
    weight: Tensor | None = None,
    *,
    class_weight: Tensor | None = None,
    normalizer: Normalizer = "pixels",
    align_corners: bool = False,
) -> Tensor:
    """Weighted cross-entropy between bilinearly upsampled logits and a label.

    loss = sum over pixels that are not ignored of weight * class_weight[label] * -log softmax(upsampled
    logits)[label], divided by the normalizer. Fused, the full-size logits, softmax and gradient (three times
    76 bytes a pixel at 19 classes) never exist. The gradient is computed with the loss and scaled in the
    backward; it flows to the logits alone, once (no second derivative).

    Args:
        logits: float32, bfloat16 or float16 [B,K,h,w], 1 <= K <= 255; computed in float32.
        label: uint8 [B,H,W], 0..K-1, 255 ignored.
        weight: float32 [B] or [B,H,W], factor of each image or pixel; None: 1.
        class_weight: float32 [K], factor of each class; None: 1.
        normalizer: `sum` nothing (the paper's equations); `pixels` all B*H*W, the ignored ones too
            (DAFormer); `valid` the count of pixels that are not ignored, whatever they weigh (DACS).
        align_corners: corner convention of the upsampling.

    Returns:
        float32 [] loss. If every pixel is ignored it is 0 and so is its gradient, with each normalizer.

    Raises:
        TypeError, ValueError: an argument of another dtype, shape or device; on the CPU also a label in
            K..254. On a GPU, where looking would stop the device, such a label makes the loss NaN; with IIDM_DEBUG=1
            in the environment it is an error there too.
    """
    check.tensor("logits", logits, check.FLOATS, ("B", "K", "h", "w"))
    batch, classes = logits.shape[:2]
    check.class_count("logits", classes)
    check.tensor("label", label, (torch.uint8,), (batch, "H", "W"))
    if weight is not None:
        shape = (batch,) if weight.dim() == 1 else tuple(label.shape)
        check.tensor("weight ([B] or [B,H,W])", weight, (torch.float32,), shape)
    if class_weight is not None:
        check.tensor("class_weight", class_weight, (torch.float32,), (classes,))
    check.same_device(("logits", logits), {"label": label, "weight": weight, "class_weight": class_weight})
    check.choice("normalizer", normalizer, get_args(Normalizer))
    check.labels_have_classes(label, classes)
    with_grad = torch.is_grad_enabled() and logits.requires_grad
    loss, _ = _cross_entropy(
        logits,
        label,
        None if weight is None else weight.detach(),
        None if class_weight is None else class_weight.detach(),
        normalizer,
        align_corners,
        with_grad,
    )
    return loss
