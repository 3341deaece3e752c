"""The depthwise convolution that does not go through oneDNN where that is slow or wrong."""

from __future__ import annotations

import pytest
import torch
from convolutions import compared, images
from torch import nn

from iidm.models import BACKBONES, build_network, depthwise
from iidm.models.depthwise import DepthwiseConv2d, DilatedConv2d, adopt_dilated
from iidm.models.head import Level

CASES = [(2, 1, (16, 20)), (2, 1, (15, 21)), (2, 2, (14, 19)), (1, 6, (17, 16)), (1, 2, (30, 40)), (1, 1, (9, 8))]
"""Stride, dilation, image."""
PYTORCHS_ROUNDING = 2e-2
"""Without bfloat16 instructions PyTorch rounds each of the products that it adds up for an image's gradient, which is
0.5 to 1.1 % of the largest. A gradient that is wrong is off by all of it."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Grows with each call of the op."""
    found: list[bool] = []
    op = depthwise.depthwise
    monkeypatch.setattr(depthwise, "depthwise", lambda *args, **words: (found.append(True), op(*args, **words))[1])
    return found


@pytest.mark.parametrize(("stride", "dilation", "image"), CASES)
def test_it_is_a_depthwise_convolution(stride: int, dilation: int, image: tuple[int, int], calls: list[bool]) -> None:
    """In bfloat16 no further from float64 than rounding, where PyTorch's own gradient of the weights is."""
    torch.manual_seed(0)
    layer = DepthwiseConv2d(24, stride, dilation)
    x, grad = images(24, image), images(24, tuple(-(-side // stride) for side in image))  # type: ignore[arg-type]
    ours, _, exact = compared(layer, x, grad)
    assert bool(calls) == (stride > 1 or dilation > 1)
    assert ours.x.shape == x.shape and ours.x.dtype is torch.bfloat16
    assert ours.x.is_contiguous(memory_format=torch.channels_last)
    allowed = 4e-3 if calls else PYTORCHS_ROUNDING
    for got, want in zip(ours, exact, strict=True):
        assert float((got.double() - want).abs().max() / want.abs().max()) < allowed


@pytest.mark.parametrize("stride", [1, 2])
def test_what_is_not_slow_is_pytorchs(stride: int, calls: list[bool]) -> None:
    layer, x = DepthwiseConv2d(8, stride), torch.randn(1, 8, 9, 9)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        layer(x)
    DepthwiseConv2d(8)(x.requires_grad_()).sum().backward()
    assert not calls and x.grad is not None


@pytest.mark.parametrize("kind", [DepthwiseConv2d, DilatedConv2d])
def test_it_follows_autocast(kind: type[nn.Conv2d]) -> None:
    layer = DepthwiseConv2d(8, dilation=2)
    layer.__class__ = kind  # type: ignore[assignment]
    x = torch.randn(1, 8, 9, 9)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype is torch.bfloat16
    assert layer(x).dtype is torch.float32
    assert layer.double()(x.double()).dtype is torch.float64


def test_an_exported_graph_holds_pytorchs_convolution() -> None:
    program = torch.export.export(DepthwiseConv2d(8, dilation=2).eval(), (torch.randn(1, 8, 9, 9),))
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert targets == ["aten.conv2d.default"]


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (nn.Conv2d(24, 24, 3, padding=2, dilation=2, groups=24, bias=False), DepthwiseConv2d),
        (nn.Conv2d(24, 24, 3, padding=2, dilation=2, groups=24), DilatedConv2d),
        (nn.Conv2d(24, 24, 5, padding=4, dilation=2, groups=24, bias=False), DilatedConv2d),
        (nn.Conv2d(24, 48, 3, padding=2, dilation=2, groups=24, bias=False), DilatedConv2d),
        (nn.Conv2d(24, 24, 3, padding=2, dilation=2, groups=3, bias=False), DilatedConv2d),
        (nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False), nn.Conv2d),
        (nn.Conv2d(40, 40, 3, padding=2, dilation=2), DilatedConv2d),
        (nn.Conv2d(48, 40, 3, padding=2, dilation=2, groups=1), nn.Conv2d),
        (nn.Conv2d(64, 64, 3, padding=2, dilation=2, groups=4, bias=False), nn.Conv2d),
    ],
    ids=str,
)
def test_a_foreign_network_gets_right_gradients(layer: nn.Conv2d, kind: type[nn.Conv2d]) -> None:
    adopt_dilated(nn.Sequential(layer))
    assert type(layer) is kind
    torch.manual_seed(0)
    layer.reset_parameters()
    x, grad = images(layer.in_channels, (30, 40)), images(layer.out_channels, (30, 40))
    ours, _, exact = compared(layer, x, grad)
    assert ours.y.dtype is torch.bfloat16
    allowed = PYTORCHS_ROUNDING if kind is nn.Conv2d else 8e-3
    for got, want in zip(ours, exact, strict=True):
        assert float((got.double() - want).abs().max() / want.abs().max()) < allowed


def test_a_network_is_built_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    class Narrow(nn.Module):
        levels = (Level(40, 16),)

    monkeypatch.setitem(BACKBONES, "narrow", lambda output_stride: Narrow())
    head = build_network("narrow", 5).get_submodule("head")
    assert [type(conv) for conv in head.convs] == [DilatedConv2d, DilatedConv2d]  # type: ignore[union-attr]
