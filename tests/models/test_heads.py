"""Heads that read all levels of a backbone: against what their papers compute, level by level resized and stacked."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from iidm.models import HEADS, build_network
from iidm.models.daformer import DAFormerHead
from iidm.models.head import Head, Level
from iidm.models.norm import BatchNorm2d
from iidm.models.segformer import SegFormerHead
from iidm.types import UserError

MIT_B5 = tuple(Level(*level) for level in ((64, 4), (128, 8), (320, 16), (512, 32)))
SMALL = (Level(6, 4), Level(10, 8), Level(12, 16))


def maps(levels: tuple[Level, ...], height: int, width: int, **kind: object) -> list[Tensor]:
    """Random feature maps of an image of that size."""
    return [torch.randn(2, c, -(-height // s), -(-width // s), **kind) for c, s in levels]  # type: ignore[call-overload]


def stacked(head: DAFormerHead | SegFormerHead, levels: list[Tensor]) -> Tensor:
    """The embedded levels on the finest grid, as the papers say it."""
    size = levels[0].shape[2:]
    parts = []
    for embed, level in zip(head.embeds, levels, strict=True):
        assert isinstance(embed, nn.Linear)
        embedded = torch.einsum("oc,bchw->bohw", embed.weight, level) + embed.bias[:, None, None]
        parts.append(F.interpolate(embedded, size=size, mode="bilinear", align_corners=False))
    return torch.cat(parts, 1)


def normed(norm: BatchNorm2d, x: Tensor) -> Tensor:
    return F.relu(F.batch_norm(x, None, None, norm.weight, norm.bias, True, 0.0, norm.eps))


def test_daformers_head_is_what_its_paper_computes() -> None:
    torch.manual_seed(0)
    head = DAFormerHead(SMALL, 5, dropout=0.0).double()
    levels = maps(SMALL, 37, 50, dtype=torch.float64)
    wide = stacked(head, levels)
    branches = [normed(head.point_norm, F.conv2d(wide, head.point.weight))]
    for part, dilation in zip(head.dilated, (6, 12, 18), strict=True):
        weight = part.depthwise.weight  # type: ignore[union-attr]
        deep = F.conv2d(wide, weight, padding=dilation, dilation=dilation, groups=wide.shape[1])  # type: ignore[arg-type]
        deep = normed(part.depthwise_norm, deep)  # type: ignore[arg-type]
        deep = F.conv2d(deep, part.pointwise.weight)  # type: ignore[union-attr, arg-type]
        branches.append(normed(part.pointwise_norm, deep))  # type: ignore[arg-type]
    expected = normed(head.bottleneck_norm, F.conv2d(torch.cat(branches, 1), head.bottleneck.weight, padding=1))
    features = head.fuse(levels)
    torch.testing.assert_close(features, expected)
    logits = F.conv2d(expected, head.classify.weight, head.classify.bias)
    torch.testing.assert_close(head(features), logits)
    assert logits.shape == (2, 5, 10, 13)


def test_segformers_head_is_what_its_paper_computes() -> None:
    torch.manual_seed(0)
    head = SegFormerHead(SMALL, 5, dropout=0.0).double()
    levels = maps(SMALL, 37, 50, dtype=torch.float64)
    expected = normed(head.point_norm, F.conv2d(stacked(head, levels), head.point.weight))
    torch.testing.assert_close(head.fuse(levels), expected)
    torch.testing.assert_close(head(expected), F.conv2d(expected, head.classify.weight, head.classify.bias))


@pytest.mark.parametrize(("name", "count"), [("daformer", 3_712_275), ("segformer", 530_707)])
def test_they_have_the_published_number_of_parameters(name: str, count: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in HEADS[name](MIT_B5, 19, (), 0.1).parameters()) == count


def test_the_1x1_branch_costs_a_third_of_what_it_costs_stacked() -> None:
    """Of a 512x512 image: MiT-B5's levels have 16384 + 4096 + 1024 + 256 cells."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        SegFormerHead(MIT_B5, 19, 0.0).fuse(maps(MIT_B5, 512, 512))
    cells = (16384, 4096, 1024, 256)
    embeds = sum(n * level.channels * 256 for n, level in zip(cells, MIT_B5, strict=True))
    assert counter.get_total_flops() == 2 * 2 * (embeds + sum(cells) * 256 * 256)  # two images, two operations


@pytest.mark.parametrize("name", HEADS)
def test_heads_draw_from_the_given_generator_alone(name: str) -> None:
    head = HEADS[name](SMALL, 5, (1,), 0.5)
    for module in head.modules():
        if hasattr(module, "generator"):
            module.generator = torch.Generator()
    features = head.fuse(maps(SMALL, 16, 16))
    before = torch.get_rng_state()
    found = []
    for seed in (1, 1, 2):
        for module in head.modules():
            if hasattr(module, "generator"):
                module.generator.manual_seed(seed)
        found.append(head(features))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


@pytest.mark.parametrize("head", ("daformer", "segformer"))
@pytest.mark.parametrize("backbone", ("resnet18", "mobilenet_v2"))
def test_every_parameter_learns_and_layouts_stay(backbone: str, head: str) -> None:
    network = build_network(backbone, 5, output_stride=16, head=head).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert network.output_stride == 4
    image = torch.randn(2, 3, 64, 96).contiguous(memory_format=torch.channels_last)
    outputs: list[Tensor] = []
    for module in network.modules():
        if not isinstance(module, Head):
            module.register_forward_hook(lambda *seen: outputs.extend(seen[2] if type(seen[2]) is tuple else [seen[2]]))
    logits = network(image)
    assert logits.shape == (2, 5, 16, 24)
    assert all(o.is_contiguous(memory_format=torch.channels_last) for o in outputs)
    logits.square().mean().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("head", ("daformer", "segformer"))
def test_branches_are_normalized_apart(head: str) -> None:
    torch.manual_seed(0)
    network = build_network("resnet18", 5, head=head).double()
    apart = copy.deepcopy(network)
    image = torch.randn(4, 3, 32, 48, dtype=torch.float64)
    with network.branches([1, 3]):
        found = network(image)
    torch.testing.assert_close(found, torch.cat([apart(image[:1]), apart(image[1:])]))
    for ours, theirs in zip(network.buffers(), apart.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_auto_is_what_suits_the_levels_and_a_network_says_what_it_is() -> None:
    with torch.device("meta"):
        network = build_network("resnet18", 5, head="auto")
        assert isinstance(network.head, DAFormerHead) and network.title == "daformer head, logits every 4 px"
        for name in HEADS:
            assert build_network("resnet18", 5, head=name).head.name == name
        hrda = build_network("resnet18", 5, hrda=True, crop_size=(64, 64))
        assert hrda.title == "HRDA, deeplabv2 head, logits every 8 px"
    with pytest.raises(UserError, match="'daformr'. Did you mean 'daformer'"):
        build_network("resnet18", 5, head="daformr")
