"""Gradients of a convolution in bfloat16, held against PyTorch's own and against float64."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Gradients(NamedTuple):
    """What a layer gives, and passes back."""

    y: Tensor
    x: Tensor
    weight: Tensor


def images(channels: int, size: tuple[int, int]) -> Tensor:
    """Two of them in bfloat16, channels-last."""
    return torch.randn(2, channels, *size).bfloat16().contiguous(memory_format=torch.channels_last)


def gradients(layer: nn.Module, weight: Tensor, x: Tensor, grad: Tensor) -> Gradients:
    """Under autocast where x is bfloat16."""
    x = x.detach().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=x.dtype is torch.bfloat16):
        y = layer(x)
    return Gradients(y.detach(), *torch.autograd.grad(y, (x, weight), grad))


def compared(layer: nn.Conv2d, x: Tensor, grad: Tensor) -> tuple[Gradients, Gradients, Gradients]:
    """Of the layer, of nn.Conv2d with its weights, and of that in float64 with weights rounded as autocast does."""
    plain = copy.deepcopy(layer)
    plain.__class__ = nn.Conv2d
    exact = copy.deepcopy(plain).bfloat16().double()
    ours, theirs = (gradients(of, of.weight, x, grad) for of in (layer, plain))
    return ours, theirs, gradients(exact, exact.weight, x.double(), grad.double())
