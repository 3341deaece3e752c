"""Whether a backbone sees images of any size, tried on shapes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from iidm.models import BACKBONES, build_network
from iidm.models.head import Level
from iidm.models.sizes import unseen

SIZES = ((64, 64), (96, 128))


class Body(nn.Module):
    """One level of stride 32, with a table that is added to the maps of images of 64x64."""

    levels = (Level(8, 32),)

    def __init__(self, asks: bool = False, pixels: int = 32) -> None:
        super().__init__()
        self.patches, self.asks = nn.Conv2d(3, 8, pixels, stride=pixels), asks
        self.register_buffer("table", torch.zeros(2, 2) if pixels == 32 else None)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        if self.asks and image.mean().item() > 9:
            raise AssertionError
        found = self.patches(image)
        return ((found if self.table is None else found + self.table),)


class Steps(Body):
    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.LSTM(8, 8)


def test_the_first_size_that_is_not_seen_is_told() -> None:
    found = unseen(Body(), SIZES, spare=1)
    assert found is not None and found[0] == (96, 128) and found[1].startswith("RuntimeError: ")
    assert unseen(Body(), SIZES[:1], spare=0) is None


@pytest.mark.parametrize(("pixels", "spare", "seen"), ((32, 0, True), (21, 0, False), (21, 1, True), (16, 1, False)))
def test_maps_of_other_cells_are_told_up_to_what_is_spared(pixels: int, spare: int, seen: bool) -> None:
    found = unseen(Body(pixels=pixels), SIZES[:1], spare=spare)
    assert (found is None) == seen
    if pixels == 16:
        assert found == ((64, 64), "its maps are 8x4x4, not 8x2x2")


@pytest.mark.parametrize("body", (Body(asks=True), Steps()))
def test_what_cannot_be_tried_on_shapes_is_not_refused(body: Body) -> None:
    assert unseen(body, SIZES, spare=0) is None


def test_a_backbone_is_left_as_it_was() -> None:
    body = Body().train()
    before = {key: (value, value._version) for key, value in body.state_dict(keep_vars=True).items()}
    unseen(body, SIZES, spare=0)
    assert body.training
    for key, value in body.state_dict(keep_vars=True).items():
        assert value is before[key][0] and value._version == before[key][1] and value.device.type == "cpu"


@pytest.mark.parametrize("name", BACKBONES)
def test_our_own_backbones_see_any_size(name: str) -> None:
    with torch.device("meta"):
        backbone = build_network(name, 2, output_stride=32).backbone
    assert unseen(backbone, SIZES, spare=0) is None
