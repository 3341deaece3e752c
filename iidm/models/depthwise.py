"""Depthwise and dilated convolutions that are fast, and whose gradients are right, on a CPU too."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..kernels.depthwise import depthwise


class DepthwiseConv2d(nn.Conv2d):
    """3x3 convolution of each channel by itself, padded so that stride 1 keeps the size, without bias.

    With a dilation, and in training with a stride, a CPU takes the op of `iidm.kernels.depthwise`, since oneDNN has no
    kernel of its own for these (benchmarks/NOTES.md). A graph that is exported holds PyTorch's convolution.

    Args:
        channels: of input and output.
        stride, dilation: as nn.Conv2d has them.
    """

    def __init__(self, channels: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__(channels, channels, 3, stride, dilation, dilation, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) of a floating-point type to (N, C, ceil(H / stride), ceil(W / stride))."""
        stride, dilation = self.stride[0], self.dilation[0]
        trains = x.requires_grad and torch.is_grad_enabled()
        slow = dilation > 1 or (stride > 1 and trains)
        if x.device.type != "cpu" or not slow or torch.compiler.is_exporting():
            return super().forward(x)
        dtype = _computed_in(x)
        return depthwise(x.to(dtype), self.weight.to(dtype), stride=stride, dilation=dilation)


class DilatedConv2d(nn.Conv2d):
    """A convolution with a dilation that a CPU computes in float32 in place of bfloat16, in which oneDNN is wrong."""

    def forward(self, x: Tensor) -> Tensor:
        """As nn.Conv2d, also the dtype of what is returned."""
        dtype = _computed_in(x)
        if x.device.type != "cpu" or dtype is not torch.bfloat16 or torch.compiler.is_exporting():
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float()).to(dtype)


def adopt_dilated(network: nn.Module) -> None:
    """Give a network's dilated convolutions right gradients on a CPU in bfloat16, too; parameters and names stay.

    Where a group does not read a multiple of 16 channels, oneDNN's gradient of the weights reads memory that nobody has
    written (benchmarks/NOTES.md).
    """
    for module in network.modules():
        if type(module) is not nn.Conv2d or max(module.dilation) == 1 or module.in_channels // module.groups % 16 == 0:
            continue
        ours = DepthwiseConv2d(module.in_channels, module.stride[0], module.dilation[0])
        same = all(getattr(module, name) == getattr(ours, name) for name in nn.Conv2d.__constants__)
        module.__class__ = DepthwiseConv2d if same and module.bias is None else DilatedConv2d


def _computed_in(x: Tensor) -> torch.dtype:
    """What a convolution of x computes in on a CPU."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
