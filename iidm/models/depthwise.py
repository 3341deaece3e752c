"""Depthwise convolution whose input's gradient is fast on a CPU in bfloat16 with a stride, too."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class DepthwiseConv2d(nn.Conv2d):
    """Convolution of each channel by itself, padded so that stride 1 keeps the size, without bias.

    oneDNN has no depthwise kernel for the gradient of the input in bfloat16 with a stride and takes one that is 25 to
    29 times slower than that of float32 (benchmarks/NOTES.md). There the gradient is computed as what it is: the
    output's gradient with zeros between its pixels, convolved with the mirrored weights.

    Args:
        channels: of input and output.
        size: odd, of the kernel.
        stride, dilation: as nn.Conv2d has them.
    """

    def __init__(self, channels: int, size: int, stride: int = 1, dilation: int = 1) -> None:
        padding = (size - 1) // 2 * dilation
        super().__init__(channels, channels, size, stride, padding, dilation, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) of a floating-point type to (N, C, ceil(H / stride), ceil(W / stride))."""
        slow = x.device.type == "cpu" and x.dtype is torch.bfloat16 and self.stride != (1, 1)
        if not (slow and x.requires_grad):
            return super().forward(x)
        y = super().forward(x.detach())
        out: Tensor = _GradientOfInput.apply(x, y, self.weight, self.stride, self.padding, self.dilation)
        return out


class _GradientOfInput(torch.autograd.Function):
    """Hands y on; in the backward y gets its gradient, and x that of y's depthwise convolution."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, weight: Tensor, stride: tuple[int, ...], *geometry: tuple[int, ...]
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape, ctx.stride, ctx.geometry = x.shape, stride, geometry
        return y.view_as(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        spread = torch.empty(ctx.shape, dtype=grad.dtype, memory_format=torch.channels_last).zero_()
        spread[:, :, :: ctx.stride[0], :: ctx.stride[1]] = grad
        mirrored = weight.detach().to(grad.dtype).flip(2, 3)
        padding, dilation = ctx.geometry
        grad_x = F.conv2d(spread, mirrored, padding=padding, dilation=dilation, groups=len(weight))
        return grad_x, grad, None, None, None, None
