"""Batch normalization of groups, with residual and activation, in plain PyTorch: its meaning, and the oracle."""

from __future__ import annotations

import torch
from torch import Tensor


def activate(x: Tensor, activation: str) -> Tensor:
    """`none`, `relu` or `relu6`, in place."""
    if activation == "relu":
        return x.relu_()
    return x.clamp_(0, 6) if activation == "relu6" else x


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
    """See `iidm.kernels.batch_norm.batch_norm`.

    Returns:
        The result, of x's dtype; mean and reciprocal standard deviation, float32 [G,C] (float64 for a float64 x).
    """
    y = torch.empty_like(x, memory_format=torch.channels_last)
    means, rstds = [], []
    for part, out in zip(x.split(groups), y.split(groups), strict=True):
        normalized, mean, rstd = torch.native_batch_norm(
            part, weight, bias, running_mean, running_var, True, momentum, eps
        )
        out.copy_(normalized)
        means.append(mean)
        rstds.append(rstd)
    if residual is not None:
        y += residual
    return activate(y, activation), torch.stack(means), torch.stack(rstds)


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
    """Gradients to x, to the residual, to weight and to bias.

    Args:
        grad: gradient of the result; y: the result, which tells where the activation is flat.
        has_residual: whether the gradient to a residual is wanted; without an activation it is `grad` itself.

    Returns:
        The gradient to the residual is empty unless it is wanted and differs from `grad`.
    """
    if activation != "none":
        flat = y <= 0 if activation == "relu" else (y <= 0) | (y >= 6)
        grad = grad.masked_fill(flat, 0).contiguous(memory_format=torch.channels_last)
    parts = []
    for i, (grad_part, x_part) in enumerate(zip(grad.split(groups), x.split(groups), strict=True)):
        parts.append(
            torch.ops.aten.native_batch_norm_backward(
                grad_part, x_part, weight, None, None, mean[i], rstd[i], True, 0.0, [True, True, True]
            )
        )
    to_x = torch.cat([part[0] for part in parts]).contiguous(memory_format=torch.channels_last)
    to_weight, to_bias = (torch.stack([part[i] for part in parts]).sum(0) for i in (1, 2))
    wanted = has_residual and activation != "none"
    return to_x, grad if wanted else grad.new_empty(0), to_weight, to_bias
