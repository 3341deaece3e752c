"""Tables of positions are made once a size: played by a layer that makes them as timm's DINOv3 does."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from iidm.models.timm_positions import MOST_SIZES, keep_positions


class RotaryEmbeddingDinoV3(nn.Module):
    """The interface of timm's layer of that name."""

    def __init__(self, aug_active: bool = False) -> None:
        super().__init__()
        self.aug_active, self.made = aug_active, 0
        self.register_buffer("periods", torch.tensor([1.0, 2.0]), persistent=False)

    def get_embed(self, shape: Any = None, dtype: torch.dtype | None = None) -> Tensor:
        assert shape is not None
        self.made += 1
        place = torch.arange(shape[0] * shape[1])[:, None]  # on the CPU, whatever the network's device
        made: Tensor = place.to(self.periods) / self.periods  # type: ignore[arg-type]
        return made if dtype is None else made.to(dtype)


def keeping(aug_active: bool = False) -> Any:
    model = nn.Sequential(nn.Linear(2, 2), RotaryEmbeddingDinoV3(aug_active))
    keep_positions(model)
    return model[1]


def test_a_table_is_made_once_for_each_size_and_dtype_and_is_the_same() -> None:
    layer, plain = keeping(), RotaryEmbeddingDinoV3()
    for _ in range(3):
        for shape in ((2, 3), (3, 2)):
            assert torch.equal(layer.get_embed(shape=shape), plain.get_embed(shape))
        assert layer.get_embed(shape=(2, 3), dtype=torch.bfloat16).dtype is torch.bfloat16
    assert layer.made == 3 and type(layer).__name__ == "RotaryEmbeddingDinoV3"
    assert isinstance(layer, RotaryEmbeddingDinoV3) and not layer.state_dict()


def test_a_captured_graph_finds_its_table_whatever_sizes_are_seen_later() -> None:
    layer = keeping()
    first = layer.get_embed(shape=(2, 3)).data_ptr()
    for side in range(1, 3 * MOST_SIZES):
        layer.get_embed(shape=(side, 5))
    assert layer.get_embed(shape=(2, 3)).data_ptr() == first
    assert len(layer._kept) == MOST_SIZES


def test_a_table_that_an_evaluation_made_serves_training() -> None:
    layer, weight = keeping(), torch.ones(2, requires_grad=True)
    with torch.inference_mode():
        layer.get_embed(shape=(2, 3))
    (layer.get_embed(shape=(2, 3)) * weight).sum().backward()
    assert layer.made == 1 and weight.grad is not None


def test_a_network_that_was_moved_or_copied_has_tables_of_its_own() -> None:
    layer = keeping()
    here = layer.get_embed(shape=(2, 3))
    twin = copy.deepcopy(layer)
    assert twin.get_embed(shape=(2, 3)).data_ptr() != here.data_ptr()
    assert twin.to("meta").get_embed(shape=(2, 3)).is_meta and not layer.get_embed(shape=(2, 3)).is_meta


@pytest.mark.parametrize("module", [RotaryEmbeddingDinoV3(aug_active=True), nn.Linear(2, 2)])
def test_what_is_drawn_anew_and_all_else_stays_as_it_is(module: nn.Module) -> None:
    kind = type(module)
    keep_positions(module)
    assert type(module) is kind
