"""The depthwise convolution whose input's gradient does not go through oneDNN's slow kernel."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from iidm.models.depthwise import DepthwiseConv2d

CASES = [(3, 2, 1, (16, 20)), (3, 2, 1, (15, 21)), (3, 2, 2, (14, 19)), (5, 3, 1, (17, 16)), (3, 1, 1, (9, 8))]
"""Kernel, stride, dilation, image."""


def gradients(layer: nn.Conv2d, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Output, gradient of the input and of the weights."""
    with torch.autocast("cpu", torch.bfloat16, enabled=x.dtype is torch.bfloat16):
        y = layer(x)
    return y.detach(), *torch.autograd.grad(y, (x, layer.weight), grad[..., : y.shape[2], : y.shape[3]])


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Grows with each backward that goes the way around the slow kernel."""
    found: list[bool] = []
    true: Callable[..., Tensor] = torch.Tensor.flip
    monkeypatch.setattr(torch.Tensor, "flip", lambda *args: (found.append(True), true(*args))[1])
    return found


@pytest.mark.parametrize(("size", "stride", "dilation", "image"), CASES)
def test_it_is_a_depthwise_convolution(
    size: int, stride: int, dilation: int, image: tuple[int, int], calls: list[bool]
) -> None:
    """In bfloat16 no further from float64 than PyTorch's own, and the same output and weights' gradient."""
    generator = torch.Generator().manual_seed(0)
    layer = DepthwiseConv2d(24, size, stride, dilation)
    plain = nn.Conv2d(24, 24, size, stride, layer.padding, dilation, groups=24, bias=False)  # type: ignore[arg-type]
    plain.load_state_dict(layer.state_dict())
    x, grad = (
        torch.randn(2, 24, *image, generator=generator).bfloat16().contiguous(memory_format=torch.channels_last)
        for _ in range(2)
    )
    x.requires_grad_()
    ours = gradients(layer, x, grad)
    assert bool(calls) == (stride > 1)
    theirs = gradients(plain, x, grad)
    rounded = copy.deepcopy(plain).bfloat16().double()
    truth = gradients(rounded, x.detach().double().requires_grad_(), grad.double())
    assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[2], theirs[2])
    assert ours[1].shape == x.shape and ours[1].dtype is torch.bfloat16
    assert ours[1].is_contiguous(memory_format=torch.channels_last)
    error, usual = ((of[1].double() - truth[1]).abs().max() for of in (ours, theirs))
    assert error <= usual + 1e-3


def test_float32_and_inference_are_pytorchs(calls: list[bool]) -> None:
    layer = DepthwiseConv2d(8, 3, 2)
    x = torch.randn(1, 8, 9, 9, requires_grad=True)
    layer(x).sum().backward()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        layer(x.bfloat16())
    assert not calls and x.grad is not None
