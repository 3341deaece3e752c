"""AdamW's groups: rates by layer, and what has no weight decay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from iidm.models import build_network, parameter_groups
from iidm.models.groups import layers_by_blocks
from iidm.models.norm import Stage


class Body(nn.Module):
    """Stem, two stages of two blocks with a norm layer between them, and one at the end."""

    decays_norms = False

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(2, 2)
        self.first = Stage(nn.Linear(2, 2), nn.Linear(2, 2))
        self.between = nn.LayerNorm(2)
        self.second = Stage(nn.Linear(2, 2), nn.Linear(2, 2))
        self.last = nn.LayerNorm(2)


class Net(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(2, 3)


def test_layers_go_from_the_image_on() -> None:
    layers = layers_by_blocks(Body())
    assert [sorted({name.rsplit(".", 1)[0] for name in layer}) for layer in layers] == [
        ["stem"],
        ["first.0"],
        ["first.1"],
        ["between", "second.0"],
        ["last", "second.1"],
    ]


def test_each_layer_learns_slower_than_the_one_behind_it() -> None:
    net = Net(Body())
    groups = parameter_groups(net, 1e-3, 10.0, 0.05, layer_decay=0.5)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert rates[id(net.backbone.stem.weight)] == pytest.approx(1e-3 / 16)  # type: ignore[union-attr]
    assert rates[id(net.backbone.between.weight)] == pytest.approx(1e-3 / 2)  # type: ignore[union-attr]
    assert rates[id(net.backbone.last.weight)] == pytest.approx(1e-3)  # type: ignore[union-attr]
    assert rates[id(net.head.weight)] == pytest.approx(1e-2)
    held = [id(p) for group in groups for p in group["params"]]
    assert sorted(held) == sorted(map(id, net.parameters()))


def test_norm_layers_have_no_weight_decay_where_the_backbone_says_so() -> None:
    net = Net(Body())
    groups = parameter_groups(net, 1e-3, 10.0, 0.05)
    assert [(group["name"], group["weight_decay"]) for group in groups] == [
        ("backbone", 0.05),
        ("backbone undecayed", 0.0),
        ("head", 0.05),
    ]
    without = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    body = net.backbone
    assert without == {id(p) for norm in (body.between, body.last) for p in norm.parameters()}  # type: ignore[union-attr]


class GlobalResponseNorm(nn.Module):
    """As timm's: of no class of torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))


class NormAndLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.RMSNorm(2), nn.Linear(2, 2)


def test_norm_layers_of_any_class_have_no_weight_decay_and_what_stands_beside_them_has() -> None:
    body = Body()
    body.between, body.last = NormAndLinear(), GlobalResponseNorm()  # type: ignore[assignment]
    groups = parameter_groups(Net(body), 1e-3, 10.0, 0.05)
    without = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    assert without == {id(body.get_parameter(name)) for name in ("between.norm.weight", "last.weight")}


def test_a_backbones_own_word_on_layers_and_decay_counts() -> None:
    body = Body()
    body.layers = lambda: [["stem.weight", "stem.bias"], ["first.0.weight"]]  # type: ignore[assignment]
    body.undecayed = ("stem.bias",)  # type: ignore[assignment]
    groups = parameter_groups(Net(body), 1e-3, 1.0, 0.05, layer_decay=0.1)
    assert [(g["name"], g["lr"], g["weight_decay"]) for g in groups[:3]] == [
        ("backbone 0", pytest.approx(1e-4), 0.05),
        ("backbone 0 undecayed", pytest.approx(1e-4), 0.0),
        ("backbone 1", pytest.approx(1e-3), 0.05),
    ]


def test_a_resnet_has_a_layer_for_each_block() -> None:
    with torch.device("meta"):
        network = build_network("resnet18", 5)
    groups = parameter_groups(network, 1e-3, 1.0, 0.0, layer_decay=0.9)
    assert [group["name"] for group in groups] == [f"backbone {i}" for i in range(9)] + ["head"]
    assert [name for group in parameter_groups(network, 1e-3, 1.0, 0.0) for name in [group["name"]]] == [
        "backbone",
        "head",
    ]
