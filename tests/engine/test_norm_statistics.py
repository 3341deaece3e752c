"""BatchNorm statistics of given images: exact, put back afterwards, and nothing else is touched."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iidm.engine.norm_statistics import NormStatistics, running_statistics
from iidm.models import build_network
from iidm.models.hrda import HRDANetwork, window
from iidm.models.norm import BatchNorm2d


def images(seed: int, batches: int = 3, size: int = 4) -> list[Tensor]:
    """Batches that differ in brightness, so that their means differ."""
    generator = torch.Generator().manual_seed(seed)
    draw = [torch.randint(0, 60, (size, 12, 10, 3), generator=generator) + 60 * i for i in range(batches)]
    return [batch.to(torch.uint8) for batch in draw]


def floats(batch: Tensor) -> Tensor:
    return batch.permute(0, 3, 1, 2).float() / 255


def network(norm: type[nn.BatchNorm2d]) -> nn.Module:
    torch.manual_seed(0)
    layers = OrderedDict(
        first=norm(3), conv=nn.Conv2d(3, 5, 3), drop=nn.Dropout2d(0.5), second=norm(5), head=nn.Conv2d(5, 2, 1)
    )
    return nn.Sequential(layers)


@pytest.mark.parametrize("norm", [BatchNorm2d, nn.BatchNorm2d])
def test_they_are_mean_and_variance_of_all_images_together(norm: type[nn.BatchNorm2d]) -> None:
    net, batches = network(norm), images(0)
    every = torch.cat([floats(batch) for batch in batches]).double()
    with NormStatistics(batches, floats, None).applied({"net": net}):
        torch.testing.assert_close(net.first.running_mean.double(), every.mean((0, 2, 3)), rtol=1e-5, atol=1e-6)
        # Those of a batch are unbiased; with 480 pixels a batch that is 0.2 % of its own variance.
        variance = every.var((0, 2, 3), correction=0)
        torch.testing.assert_close(net.first.running_var.double(), variance, rtol=3e-3, atol=0.0)
        between = torch.stack([floats(batch).mean() for batch in batches]).var(correction=0)
        assert between > 0.5 * variance.mean(), "the batches differ, or the test shows nothing"


@pytest.mark.parametrize("norm", [BatchNorm2d, nn.BatchNorm2d])
def test_afterwards_everything_is_as_it_was_bit_for_bit(norm: type[nn.BatchNorm2d]) -> None:
    net = network(norm)
    net(floats(images(1)[0]))
    net.drop.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    places = {name: value.data_ptr() for name, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    momentum, rng = net.first.momentum, torch.get_rng_state()
    with NormStatistics(images(0), floats, torch.bfloat16).applied({"net": net}) as own:
        assert not torch.equal(net.first.running_mean, before["first.running_mean"])
        assert torch.equal(net.conv.weight, before["conv.weight"])
        assert own["net"].keys() == running_statistics(net).keys()
        assert all(torch.equal(value, before[name]) for name, value in own["net"].items())
        assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert {name: value.data_ptr() for name, value in net.state_dict().items()} == places, "a graph reads them in place"
    assert (net.first.momentum, net.first.training) == (momentum, True)
    assert torch.equal(torch.get_rng_state(), rng), "dropout is off"


def test_of_two_scales_each_counts_half() -> None:
    """In training HRDA's layers see one batch of context and one of detail of each branch; in evaluation details in as
    many calls as memory asks for."""
    net = build_network("resnet18", 3, head="segformer", hrda=True, crop_size=(64, 128))
    assert isinstance(net, HRDANetwork)
    batches = [torch.randint(0, 256, (2, 64, 128, 3), dtype=torch.uint8) for _ in range(3)]
    generator = torch.Generator().manual_seed(0)
    seen = []
    for image in map(floats, batches):
        detail = window(image, net.draw_box((64, 128), generator), (32, 64))
        seen += [net.backbone.conv1(part).detach() for part in (F.avg_pool2d(image, 2), detail)]
    calls: list[int] = []
    norm = net.backbone.bn1
    norm.register_forward_hook(lambda *_: calls.append(1))
    with NormStatistics(batches, floats, None).applied({"net": net}):
        torch.testing.assert_close(norm.running_mean, torch.stack([part.mean((0, 2, 3)) for part in seen]).mean(0))
        assert net.attention.point_norm.running_mean.abs().sum() > 0
    assert len(calls) == 6


def test_they_are_put_back_after_an_error_too() -> None:
    net = network(BatchNorm2d)
    before = net.first.running_mean.clone()
    with (
        pytest.raises(RuntimeError, match="inside"),
        NormStatistics(images(0), floats, None).applied({"net": net}),
    ):
        raise RuntimeError("inside")
    assert torch.equal(net.first.running_mean, before)

    def broken(batch: Tensor) -> Tensor:
        raise RuntimeError("on the way")

    with (
        pytest.raises(RuntimeError, match="on the way"),
        NormStatistics(images(0), broken, None).applied({"net": net}),
    ):
        pass
    assert torch.equal(net.first.running_mean, before)
    assert (net.first.momentum, net.training) == (0.1, True)


def test_they_stay_where_that_is_wished() -> None:
    nets = {"student": network(BatchNorm2d), "teacher": network(BatchNorm2d)}
    before = nets["student"].first.running_mean.clone()
    with NormStatistics(images(0), floats, None).applied(nets, keep=True) as own:
        inside = {name: running_statistics(net)["first.running_mean"].clone() for name, net in nets.items()}
    assert torch.equal(own["student"]["first.running_mean"], before)
    assert not torch.equal(inside["student"], before)
    assert all(torch.equal(net.first.running_mean, inside[name]) for name, net in nets.items())


def test_several_networks_have_their_own() -> None:
    nets = {"student": network(BatchNorm2d), "teacher": network(BatchNorm2d)}
    nets["teacher"].conv.weight.data *= 2
    with NormStatistics(images(0), floats, None).applied(nets):
        student, teacher = (net.second.running_mean.clone() for net in nets.values())
    assert not torch.allclose(student, teacher)


def test_without_images_or_without_such_layers_nothing_is_changed() -> None:
    net = network(BatchNorm2d)
    before = net.first.running_mean.clone()
    with NormStatistics([], floats, None).applied({"net": net}) as own:
        assert torch.equal(net.first.running_mean, before)
    assert own == {}
    plain = nn.Sequential(nn.Conv2d(3, 2, 1), nn.GroupNorm(1, 2), nn.BatchNorm2d(2, track_running_stats=False))
    with NormStatistics(images(0), floats, None).applied({"net": plain}) as own:
        assert own == {}
