"""1x1 convolution whose weights' gradient is a matrix product on a CPU in bfloat16."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class PointwiseConv2d(nn.Conv2d):
    """1x1 convolution without bias.

    oneDNN's kernel for the gradient of its weights in bfloat16 reaches 56 to 73 % of what its matrix product does
    (benchmarks/NOTES.md), which computes the same from a channels-last input. At stride 1 and in bfloat16 on a CPU that
    product is taken; elsewhere this is nn.Conv2d.

    Args:
        inputs, outputs: channels.
        stride: as nn.Conv2d has it.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) of a floating-point type to (N, C_out, ceil(H / stride), ceil(W / stride))."""
        slow = x.device.type == "cpu" and x.dtype is torch.bfloat16 and self.stride == (1, 1)
        learns = torch.is_grad_enabled() and self.weight.requires_grad
        if not (slow and learns) or torch.compiler.is_compiling():
            return super().forward(x)
        y: Tensor = _Pointwise.apply(x, self.weight)
        return y


class _Pointwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        # Autocast keeps the weights that it casts here for whoever asks next: PyTorch 2.9 without a way back to their
        # gradient, if cast without.
        with torch.enable_grad():
            y = F.conv2d(x.detach(), weight)
        return y.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor]:
        x, weight = ctx.saved_tensors
        to_x = None
        if ctx.needs_input_grad[0]:
            with torch.autocast("cpu", torch.bfloat16):  # the same cast weights, if their context is still open
                to_x = F.conv_transpose2d(grad, weight)
        rows, grad_rows = (t.permute(0, 2, 3, 1).flatten(0, 2) for t in (x, grad))
        return to_x, (grad_rows.T @ rows)[:, :, None, None]
