"""Batch normalization on a CPU: the extension's two functions (csrc/batch_norm_cpu.cpp) by the addresses of tensors."""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor

from .._extension import FORMATS, extension

ACTIVATIONS = {"none": 0, "relu": 1, "relu6": 2}
"""The codes of the C++ side's `Activation`."""


def batch_norm(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float,
    eps: float,
    groups: list[int],
    activation: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `iidm.kernels.batch_norm.reference.batch_norm`."""
    assert extension is not None
    if x.dtype is torch.float16:  # no CPU computes in it; autocast takes bfloat16 there
        residual = None if residual is None else residual.float()
        y, mean, rstd = batch_norm(
            x.float(), residual, weight, bias, running_mean, running_var, momentum, eps, groups, activation
        )
        return y.half(), mean, rstd
    y = torch.empty_like(x, memory_format=torch.channels_last)
    mean = torch.empty(len(groups), x.shape[1])
    rstd = torch.empty_like(mean)
    extension.batch_norm_cpu(
        *_layout(x, groups, activation),
        x.data_ptr(),
        _address(residual),
        weight.data_ptr(),
        bias.data_ptr(),
        _address(running_mean),
        _address(running_var),
        momentum,
        eps,
        y.data_ptr(),
        mean.data_ptr(),
        rstd.data_ptr(),
    )
    return y, mean, rstd


def batch_norm_backward(
    grad: Tensor,
    x: Tensor,
    y: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor,
    groups: list[int],
    activation: str,
    has_residual: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `iidm.kernels.batch_norm.reference.batch_norm_backward`."""
    assert extension is not None
    if x.dtype is torch.float16:
        to_x, to_residual, to_weight, to_bias = batch_norm_backward(
            grad.float(), x.float(), y.float(), mean, rstd, weight, groups, activation, has_residual
        )
        return to_x.half(), to_residual.half(), to_weight, to_bias
    to_x = torch.empty_like(x, memory_format=torch.channels_last)
    wanted = has_residual and activation != "none"
    to_residual = torch.empty_like(to_x) if wanted else x.new_empty(0)
    to_weight, to_bias = torch.empty_like(weight), torch.empty_like(weight)
    extension.batch_norm_backward_cpu(
        *_layout(x, groups, activation),
        grad.data_ptr(),
        x.data_ptr(),
        y.data_ptr(),
        mean.data_ptr(),
        rstd.data_ptr(),
        weight.data_ptr(),
        to_x.data_ptr(),
        to_residual.data_ptr() if wanted else 0,
        to_weight.data_ptr(),
        to_bias.data_ptr(),
    )
    return to_x, to_residual, to_weight, to_bias


def _layout(x: Tensor, groups: list[int], activation: str) -> tuple[list[int], int, int, int]:
    """What the extension wants to know of [B,C,h,w]: first row of each group, channels, codes."""
    pixels = x.shape[2] * x.shape[3]
    starts = [images * pixels for images in accumulate(groups, initial=0)]
    return starts, x.shape[1], FORMATS[x.dtype], ACTIVATIONS[activation]


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
