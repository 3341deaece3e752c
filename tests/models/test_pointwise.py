"""The 1x1 convolution whose weights' gradient is a matrix product."""

from __future__ import annotations

import pytest
import torch
from convolutions import compared, images
from torch import nn
from torch.profiler import ProfilerActivity, profile

from iidm.models.pointwise import PointwiseConv2d

SIZE = (12, 15)


def test_it_is_a_1x1_convolution() -> None:
    """In bfloat16 no further from float64 than PyTorch's own; the same output and input's gradient."""
    torch.manual_seed(0)
    x, grad = images(40, SIZE), images(24, SIZE)
    ours, theirs, exact = compared(PointwiseConv2d(40, 24), x, grad)
    assert torch.equal(ours.y, theirs.y) and torch.equal(ours.x, theirs.x)
    assert ours.weight.dtype is torch.float32 and ours.weight.shape == theirs.weight.shape
    error, usual = ((of.weight.double() - exact.weight).abs().max() for of in (ours, theirs))
    assert error <= usual + 1e-3


@pytest.mark.parametrize(
    ("dtype", "stride", "frozen", "products"),
    [
        (torch.bfloat16, 1, False, True),
        (torch.bfloat16, 1, True, False),
        (torch.bfloat16, 2, False, False),
        (torch.float32, 1, False, False),
    ],
)
def test_the_product_is_taken_where_it_is_faster(dtype: torch.dtype, stride: int, frozen: bool, products: bool) -> None:
    layer = PointwiseConv2d(8, 8, stride).requires_grad_(not frozen)
    x = torch.randn(1, 8, 6, 6, dtype=dtype, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        y = layer(x)
    with profile(activities=[ProfilerActivity.CPU]) as record:
        y.sum().backward()
    assert ("aten::mm" in {event.name for event in record.events()}) == products
    assert (layer.weight.grad is None) == frozen and x.grad is not None


def test_an_input_without_gradient_gets_none() -> None:
    layer, x = PointwiseConv2d(8, 4), images(8, SIZE)
    with torch.autocast("cpu", torch.bfloat16):
        layer(x).sum().backward()
    assert x.grad is None and layer.weight.grad is not None


def test_another_use_of_the_cast_weights_keeps_its_gradient() -> None:
    """Autocast holds them for the whole step, and some term of a method may use the layer in another way."""
    torch.manual_seed(0)
    layer, x = PointwiseConv2d(8, 4), images(8, SIZE)
    found = []
    for first in (True, False):
        layer.weight.grad = None
        with torch.autocast("cpu", torch.bfloat16):
            if first:
                layer(x)
            nn.functional.conv2d(x, layer.weight).square().sum().backward()
        found.append(layer.weight.grad)
    assert found[0] is not None and found[1] is not None and torch.equal(*found)
