"""Branches merged into one pass equal passes of their own; recomputed blocks equal kept ones."""

from __future__ import annotations

import copy
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from iidm.models import BACKBONES, Network, build_network
from iidm.models.norm import branches, set_recompute

SIZES = (2, 1, 3)


class Pass(NamedTuple):
    logits: Tensor
    gradients: dict[str, Tensor]
    buffers: dict[str, Tensor]


def network_of(backbone: str) -> Network:
    torch.manual_seed(0)
    network = build_network(backbone, 5, output_stride=16)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0.0, 0.3)
    # Float64, so that nothing but a mistake moves the results apart.
    return network.double().to(memory_format=torch.channels_last).train()  # type: ignore[call-overload, no-any-return]


def images() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    shift = torch.arange(sum(SIZES)).view(-1, 1, 1, 1) * 0.5  # the branches' statistics differ
    image = torch.randn(sum(SIZES), 3, 40, 56, generator=generator, dtype=torch.float64) + shift
    return image.contiguous(memory_format=torch.channels_last)


def weights_of(logits: Tensor) -> Tensor:
    return torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).view(logits.shape)


def finish(network: Network, logits: Tensor) -> Pass:
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    assert len(gradients) == len(list(network.parameters()))
    return Pass(logits.detach(), gradients, dict(network.named_buffers()))


def separate(network: Network) -> Pass:
    outputs = [network(part) for part in images().split(SIZES)]
    logits = torch.cat(outputs)
    (logits * weights_of(logits)).sum().backward()
    return finish(network, logits)


def merged(network: Network) -> Pass:
    with branches(network, SIZES):
        logits = network(images())
    (logits * weights_of(logits)).sum().backward()
    return finish(network, logits)


def assert_same(first: Pass, second: Pass) -> None:
    torch.testing.assert_close(first.logits, second.logits)
    torch.testing.assert_close(first.gradients, second.gradients, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(first.buffers, second.buffers)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50-v1c", "mobilenet_v2"])
def test_merged_branches_are_separate_passes(backbone: str) -> None:
    network = network_of(backbone)
    assert_same(merged(copy.deepcopy(network)), separate(copy.deepcopy(network)))


def test_without_branches_the_statistics_are_those_of_the_whole_batch() -> None:
    network = network_of("resnet18")
    one = network(images())
    assert not torch.allclose(one, separate(copy.deepcopy(network)).logits, rtol=1e-2)
    with branches(network, SIZES):
        network(images())
    torch.testing.assert_close(network(images()), one)  # they end with the block


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_has_norm_layers_that_know_branches_and_stages_that_recompute(backbone: str) -> None:
    network = build_network(backbone, 3)
    with branches(network, (1, 1)):
        pass
    set_recompute(network, True)
    inner = kept_bytes(network.train())
    set_recompute(network, False)
    assert inner < 0.6 * kept_bytes(network)


def kept_bytes(network: nn.Module) -> int:
    """What a forward keeps for its backward, weights apart."""
    own = {p.data_ptr() for p in network.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        output = network(torch.zeros(2, 3, 64, 64))
    del output
    return sum(kept.values())


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2"])
def test_recomputed_blocks_give_the_same_gradients_and_update_statistics_once(backbone: str) -> None:
    network = network_of(backbone)
    again = copy.deepcopy(network)
    set_recompute(again, True)
    assert_same(merged(again), merged(network))


def test_foreign_norm_layers_are_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    with pytest.raises(TypeError, match="this network has 1 of torch.nn.modules.batchnorm. Use --step.branches seq"):
        with branches(network, (1, 1)):
            pass
