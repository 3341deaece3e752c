"""Depthwise 3x3 convolution with a stride or a dilation, for which PyTorch has no kernel of its own on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .. import _checks as check
from .._dispatch import use_fused
from .._extension import FORMATS, extension
from . import reference

__all__ = ["depthwise"]

FLOATS = (*check.FLOATS, torch.float64)

_library = torch.library.Library("iidm", "FRAGMENT")
_library.define("depthwise(Tensor x, Tensor weight, int stride, int dilation) -> Tensor")
_library.define(
    "depthwise_backward(Tensor grad, Tensor x, Tensor weight, int stride, int dilation, bool to_x, bool to_weight)"
    " -> (Tensor, Tensor)"
)


def _runs_in_cpp(x: Tensor) -> bool:
    """Elsewhere it is PyTorch's: on a GPU cuDNN's, on a CPU for the dtypes in which none computes."""
    served = x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16)
    return served and use_fused("depthwise", x.device)


def _forward(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    x, weight = x.contiguous(memory_format=torch.channels_last), weight.contiguous()
    if not _runs_in_cpp(x):
        return reference.depthwise(x, weight, stride, dilation)
    assert extension is not None
    y = _empty_output(x, stride)
    geometry = (list(x.shape), stride, dilation, FORMATS[x.dtype])
    extension.depthwise_cpu(*geometry, x.data_ptr(), weight.data_ptr(), y.data_ptr())
    return y


def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, dilation: int, to_x: bool, to_weight: bool
) -> tuple[Tensor, Tensor]:
    grad, x = (t.contiguous(memory_format=torch.channels_last) for t in (grad, x))
    weight = weight.contiguous()
    if not _runs_in_cpp(x):
        found = reference.depthwise_backward(grad, x, weight, stride, dilation, (to_x, to_weight))
        grad_x, grad_weight = (x.new_empty(0) if gradient is None else gradient for gradient in found)
        return grad_x, grad_weight
    assert extension is not None
    grad_x, grad_weight = _empty_gradients(x, weight, to_x, to_weight)
    extension.depthwise_backward_cpu(
        list(x.shape),
        stride,
        dilation,
        FORMATS[x.dtype],
        grad.data_ptr(),
        x.data_ptr(),
        weight.data_ptr(),
        grad_x.data_ptr() if to_x else 0,
        grad_weight.data_ptr() if to_weight else 0,
    )
    return grad_x, grad_weight


@torch.library.register_fake("iidm::depthwise", lib=_library)
def _(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    return _empty_output(x, stride)


@torch.library.register_fake("iidm::depthwise_backward", lib=_library)
def _(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, dilation: int, to_x: bool, to_weight: bool
) -> tuple[Tensor, Tensor]:
    return _empty_gradients(x, weight, to_x, to_weight)


def _empty_output(x: Tensor, stride: int) -> Tensor:
    batch, channels, height, width = x.shape
    shape = (batch, channels, (height + stride - 1) // stride, (width + stride - 1) // stride)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _empty_gradients(x: Tensor, weight: Tensor, to_x: bool, to_weight: bool) -> tuple[Tensor, Tensor]:
    """Empty ones of those that are wanted; of the others, tensors without a number."""
    grad_x = torch.empty_like(x, memory_format=torch.channels_last) if to_x else x.new_empty(0)
    shape = weight.shape if to_weight else (0,)
    return grad_x, weight.new_empty(shape)


for _device in ("CPU", "CUDA"):
    _library.impl("depthwise", _forward, _device)
    _library.impl("depthwise_backward", _backward, _device)


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = stride, dilation
        y: Tensor = torch.ops.iidm.depthwise.default(x, weight, stride, dilation)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[:2]
        found = torch.ops.iidm.depthwise_backward.default(grad, *ctx.saved_tensors, *ctx.geometry, *wanted)
        grad_x, grad_weight = (gradient if want else None for gradient, want in zip(found, wanted, strict=True))
        return grad_x, grad_weight, None, None


def depthwise(x: Tensor, weight: Tensor, *, stride: int = 1, dilation: int = 1) -> Tensor:
    """Convolution of each channel by itself with a 3x3 kernel, padded with `dilation` zeros on all sides.

    It is there for a CPU with a dilation, and with a stride for the gradient of x: oneDNN has no kernel of its own for
    these, and with a dilation its gradient of bfloat16 weights is wrong (benchmarks/NOTES.md). Without both oneDNN is
    faster. Gradients flow to x and weight, once (no second derivative).

    Args:
        x: float32, bfloat16, float16 or float64 [B,C,H,W], channels-last or it is copied; sums are float32 at least.
        weight: of x's dtype [C,1,3,3].
        stride, dilation: 1 or more, the same in both directions.

    Returns:
        A new channels-last tensor of x's dtype [B,C,ceil(H/stride),ceil(W/stride)].

    Raises:
        TypeError, ValueError: an argument of another dtype, shape or device; a stride or dilation below 1.
    """
    check.tensor("x", x, FLOATS, ("B", "C", "H", "W"))
    check.tensor("weight", weight, (x.dtype,), (x.shape[1], 1, 3, 3))
    check.same_device(("x", x), {"weight": weight})
    if stride < 1 or dilation < 1:
        raise ValueError(f"stride and dilation must be 1 or more, not {stride} and {dilation}.")
    y: Tensor = _Depthwise.apply(x, weight, stride, dilation)
    return y
