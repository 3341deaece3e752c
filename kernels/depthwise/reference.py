"""Depthwise 3x3 convolution in plain PyTorch: its meaning, and the oracle."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def depthwise(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """See `iidm.kernels.depthwise.depthwise`."""
    y = F.conv2d(_exact(x), _exact(weight), None, stride, dilation, dilation, x.shape[1])
    return y.to(x.dtype).contiguous(memory_format=torch.channels_last)


def depthwise_backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, dilation: int, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of x and weight, each where it is wanted, from that of y."""
    geometry = ([stride] * 2, [dilation] * 2, [dilation] * 2, False, [0, 0], x.shape[1])
    to_x, to_weight, _ = torch.ops.aten.convolution_backward(
        _exact(grad), _exact(x), _exact(weight), None, *geometry, [*wanted, False]
    )
    if to_x is not None:
        to_x = to_x.to(x.dtype).contiguous(memory_format=torch.channels_last)
    return to_x, None if to_weight is None else to_weight.to(weight.dtype)


def _exact(value: Tensor) -> Tensor:
    """float32 in place of 16 bits on a CPU: with a dilation, oneDNN's gradient of bfloat16 weights reads memory that
    nobody has written (torch 2.11 to 2.14 with AVX-512; benchmarks/NOTES.md)."""
    return value.float() if value.device.type == "cpu" and value.itemsize == 2 else value
