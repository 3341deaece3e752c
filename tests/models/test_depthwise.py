"""The depthwise convolution whose input's gradient does not go through oneDNN's slow kernel."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from convolutions import compared, images
from torch import Tensor

from iidm.models.depthwise import DepthwiseConv2d

CASES = [(3, 2, 1, (16, 20)), (3, 2, 1, (15, 21)), (3, 2, 2, (14, 19)), (5, 3, 1, (17, 16)), (3, 1, 1, (9, 8))]
"""Kernel, stride, dilation, image."""


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
    torch.manual_seed(0)
    layer = DepthwiseConv2d(24, size, stride, dilation)
    x, grad = images(24, image), images(24, tuple(-(-side // stride) for side in image))  # type: ignore[arg-type]
    ours, theirs, exact = compared(layer, x, grad)
    assert bool(calls) == (stride > 1)
    assert torch.equal(ours.y, theirs.y) and torch.equal(ours.weight, theirs.weight)
    assert ours.x.shape == x.shape and ours.x.dtype is torch.bfloat16
    assert ours.x.is_contiguous(memory_format=torch.channels_last)
    error, usual = ((of.x.double() - exact.x).abs().max() for of in (ours, theirs))
    assert error <= usual + 1e-3


def test_float32_and_inference_are_pytorchs(calls: list[bool]) -> None:
    layer = DepthwiseConv2d(8, 3, 2)
    x = torch.randn(1, 8, 9, 9, requires_grad=True)
    layer(x).sum().backward()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        layer(x.bfloat16())
    assert not calls and x.grad is not None
