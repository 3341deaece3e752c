"""Batch normalization in training with statistics of each group of images, a residual and an activation in one op."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .. import _checks as check
from .._dispatch import use_fused
from . import fused_cpu, reference

__all__ = ["Activation", "batch_norm"]

Activation = Literal["none", "relu", "relu6"]
FLOATS = (*check.FLOATS, torch.float64)


def _use_fused(x: Tensor) -> bool:
    # float64 is there for gradient checks of whole networks.
    return x.dtype is not torch.float64 and use_fused("batch_norm", x.device)


# `torch.library.custom_op` would do the same with 150 us more a call on a CPU, which a small network has hundreds of.
_library = torch.library.Library("iidm", "FRAGMENT")
_library.define(
    "batch_norm(Tensor x, Tensor? residual, Tensor weight, Tensor bias, Tensor(a!)? running_mean,"
    " Tensor(b!)? running_var, float momentum, float eps, int[] groups, str activation) -> (Tensor, Tensor, Tensor)"
)
_library.define(
    "batch_norm_backward(Tensor grad, Tensor x, Tensor y, Tensor mean, Tensor rstd, Tensor weight, int[] groups,"
    " str activation, bool has_residual) -> (Tensor, Tensor, Tensor, Tensor)"
)


def _forward(
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
    x = x.contiguous(memory_format=torch.channels_last)
    residual = None if residual is None else residual.contiguous(memory_format=torch.channels_last)
    weight, bias = weight.contiguous(), bias.contiguous()
    arguments = (x, residual, weight, bias, running_mean, running_var, momentum, eps, groups, activation)
    if not _use_fused(x):
        return reference.batch_norm(*arguments)
    if x.device.type == "cpu":
        return fused_cpu.batch_norm(*arguments)
    from . import fused_triton  # Triton is imported where there is a GPU

    with torch.cuda.device_of(x):  # Triton launches on the current device
        return fused_triton.batch_norm(*arguments)


@torch.library.register_fake("iidm::batch_norm", lib=_library)
def _(
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
    statistics = weight.new_empty(len(groups), x.shape[1])
    return torch.empty_like(x, memory_format=torch.channels_last), statistics, torch.empty_like(statistics)


def _backward(
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
    grad, x, y = (t.contiguous(memory_format=torch.channels_last) for t in (grad, x, y))
    weight = weight.contiguous()
    arguments = (grad, x, y, mean, rstd, weight, groups, activation, has_residual)
    if not _use_fused(x):
        return reference.batch_norm_backward(*arguments)
    if x.device.type == "cpu":
        return fused_cpu.batch_norm_backward(*arguments)
    from . import fused_triton

    with torch.cuda.device_of(x):
        return fused_triton.batch_norm_backward(*arguments)


@torch.library.register_fake("iidm::batch_norm_backward", lib=_library)
def _(
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
    to_x = torch.empty_like(x, memory_format=torch.channels_last)
    to_residual = torch.empty_like(to_x) if has_residual and activation != "none" else x.new_empty(0)
    return to_x, to_residual, torch.empty_like(weight), torch.empty_like(weight)


for _device in ("CPU", "CUDA"):
    _library.impl("batch_norm", _forward, _device)
    _library.impl("batch_norm_backward", _backward, _device)


class _BatchNorm(torch.autograd.Function):
    """The gradient: `torch.library` takes no formula for an op that writes to its arguments."""

    @staticmethod
    def forward(
        ctx: Any,
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
    ) -> Tensor:
        y, mean, rstd = torch.ops.iidm.batch_norm.default(
            x, residual, weight, bias, running_mean, running_var, momentum, eps, groups, activation
        )
        ctx.groups, ctx.activation, ctx.has_residual = groups, activation, residual is not None
        # The result is what the next layer keeps anyway; x stands in where it is not needed.
        ctx.save_for_backward(x, x if activation == "none" else y, mean, rstd, weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        to_x, to_residual, to_weight, to_bias = torch.ops.iidm.batch_norm_backward.default(
            grad, *ctx.saved_tensors, ctx.groups, ctx.activation, ctx.has_residual
        )
        residual = None
        if ctx.has_residual:
            residual = grad if ctx.activation == "none" else to_residual
        return to_x, residual, to_weight, to_bias, *(None,) * 6


def batch_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    *,
    residual: Tensor | None = None,
    activation: Activation = "none",
    groups: Sequence[int] | None = None,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """activation(weight * (x - mean) / sqrt(variance + eps) + bias + residual), statistics of each group of images.

    Groups make one pass over several branches equal to a pass for each: their statistics stay apart, and the running
    ones are updated group by group in their order. Fused, x is read twice and the result written once, in both
    directions with one read more, instead of a pass for each of normalization, addition and activation. Gradients flow
    to x, weight, bias and residual, once (no second derivative).

    Args:
        x: float32, bfloat16 or float16 [B,C,h,w] (float64 as plain PyTorch), channels-last or it is copied; sums are
            float32 and float64.
        weight, bias: float32 [C].
        running_mean, running_var: float32 [C], dense, updated in place with `momentum` as the weight of the new value
            and the unbiased variance; None: none are kept.
        residual: of x's shape and dtype, added before the activation.
        activation: `none`, `relu`, or `relu6`, which is min(relu(z), 6).
        groups: images of each group, in order; they sum up to B. None: one group.
        momentum, eps: PyTorch's.

    Returns:
        A new channels-last tensor of x's shape and dtype.

    Raises:
        TypeError, ValueError: an argument of another dtype, shape or device; groups that do not sum up to B; a group
            with one value a channel, which has no variance.
    """
    check.tensor("x", x, FLOATS, ("B", "C", "h", "w"))
    batch, channels, height, width = x.shape
    dtype = torch.float64 if x.dtype is torch.float64 else torch.float32
    others = {"weight": weight, "bias": bias, "running_mean": running_mean, "running_var": running_var}
    for name, value in others.items():
        if value is not None or name in ("weight", "bias"):
            check.tensor(name, value, (dtype,), (channels,))
    if (running_mean is None) != (running_var is None):
        raise ValueError("running_mean and running_var go together; give both or none of them.")
    for name, value in (("running_mean", running_mean), ("running_var", running_var)):
        # The kernels write to them by their address: a copy would keep what is new.
        if value is not None and not value.is_contiguous():
            raise ValueError(f"{name} must be dense, not of stride {value.stride(0)}; give a copy (.contiguous()).")
    if residual is not None:
        check.tensor("residual", residual, (x.dtype,), tuple(x.shape))
    check.same_device(("x", x), {**others, "residual": residual})
    check.choice("activation", activation, get_args(Activation))
    sizes = [batch] if groups is None else list(groups)
    if sum(sizes) != batch or min(sizes, default=0) < 1:
        raise ValueError(f"groups must be numbers of images >= 1 that sum up to the batch of {batch}, not {sizes}.")
    if min(sizes) * height * width < 2:
        raise ValueError(f"A group of one value a channel has no variance: groups {sizes} of {height}x{width} pixels.")
    arguments = (x, residual, weight, bias, running_mean, running_var, momentum, eps, sizes, activation)
    y: Tensor = _BatchNorm.apply(*arguments)
    return y
