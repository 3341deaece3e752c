"""Mix Transformers: equality to other implementations.

`python tests/models/test_mit_golden.py` writes golden_mit.npz, where timm and transformers are installed: what they
compute with numbers from a formula, so that equality is checked without them too.
"""

from __future__ import annotations

import importlib.util
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import mit_namings
import numpy as np
import pytest
import torch
from mit_namings import fill, image
from mit_networks import channels_last
from safetensors.torch import save_file
from torch import Tensor, nn

from iidm.models.mit import MixTransformer, Size, mix_transformer

GOLDEN = Path(__file__).with_name("golden_mit.npz")
TINY = Size((8, 16, 40, 64), (1, 2, 2, 1))
EVERY = 7
"""Of the large network's outputs the file holds every seventh number."""


def reference_timm(size: Size, state: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    from timm.models.pvt_v2 import PyramidVisionTransformerV2

    model = PyramidVisionTransformerV2(
        num_classes=0,
        depths=size.depths,
        embed_dims=size.dims,
        num_heads=(1, 2, 5, 8),
        mlp_ratios=(4, 4, 4, 4),
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
    return timm_levels(model, state, x)


def reference_timm_b5(state: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    from timm import create_model

    return timm_levels(create_model("pvt_v2_b5", num_classes=0), state, x)


def timm_levels(model: Any, state: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    model.load_state_dict(mit_namings.timm(state))
    with torch.no_grad():
        return list(model.eval().forward_intermediates(x, intermediates_only=True))


def reference_transformers(size: Size, state: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """Its LayerNorms all have eps 1e-5."""
    from transformers import SegformerConfig, SegformerModel

    with tempfile.TemporaryDirectory() as folder:
        heads = [1, 2, 5, 8]
        SegformerConfig(
            hidden_sizes=list(size.dims), depths=list(size.depths), num_attention_heads=heads
        ).save_pretrained(folder)
        save_file(mit_namings.hugging_face(state), Path(folder, "model.safetensors"), {"format": "pt"})
        model, loading = SegformerModel.from_pretrained(folder, output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    with torch.no_grad():
        return list(model.eval()(x, output_hidden_states=True).hidden_states)


def with_eps(backbone: MixTransformer, eps: float) -> MixTransformer:
    for part in backbone.modules():
        if isinstance(part, nn.LayerNorm):
            part.eps = eps
    return backbone


def tiny() -> tuple[MixTransformer, dict[str, Tensor], Tensor]:
    """A network, its parameters and an image whose maps are no multiples of the reductions."""
    backbone = MixTransformer(TINY).eval()
    return backbone, fill(backbone), image(1, 3, 75, 99)


def large() -> tuple[MixTransformer, dict[str, Tensor], Tensor]:
    """The real PVTv2-B5."""
    with torch.device("meta"):
        backbone = mix_transformer("pvt_v2_b5", 32)
    backbone = backbone.to_empty(device="cpu").eval()
    return backbone, fill(backbone), image(1, 3, 64, 64)


def thinned(levels: list[Tensor]) -> list[Tensor]:
    return [level.flatten()[::EVERY] for level in levels]


def assert_levels(found: tuple[Tensor, ...] | list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected) == 4
    for level, other in zip(found, expected, strict=True):
        assert 0.3 < other.std() < 3  # of about 1, so that the tolerance means something
        torch.testing.assert_close(level, other, rtol=0, atol=1e-5 * float(other.abs().max()))


def golden(name: str) -> list[Tensor]:
    with np.load(GOLDEN) as file:
        return [torch.from_numpy(file[f"{name}_{i}"]) for i in range(4)]


def need(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed; its stored results are compared instead (golden_mit.npz)")


@torch.no_grad()
def test_a_small_network_is_timms_pvt_v2() -> None:
    backbone, _, x = tiny()
    assert_levels(backbone(x), golden("timm"))
    assert_levels(channels_last(backbone)(channels_last(x)), golden("timm"))


@torch.no_grad()
def test_a_small_network_is_transformers_segformer() -> None:
    backbone, _, x = tiny()
    assert_levels(with_eps(backbone, 1e-5)(x), golden("transformers"))


@torch.no_grad()
def test_pvt_v2_b5_is_timms() -> None:
    backbone, _, x = large()
    assert_levels(thinned(list(backbone(x))), golden("timm_b5"))


@torch.no_grad()
def test_timm_computes_what_is_stored() -> None:
    need("timm")
    backbone, state, x = tiny()
    assert_levels(reference_timm(TINY, state, x), golden("timm"))
    backbone, state, x = large()
    reference = reference_timm_b5(state, x)
    assert_levels(backbone(x), reference)
    assert_levels(thinned(reference), golden("timm_b5"))


@torch.no_grad()
def test_transformers_computes_what_is_stored() -> None:
    need("transformers")
    _, state, x = tiny()
    assert_levels(reference_transformers(TINY, state, x), golden("transformers"))


def write_golden() -> None:
    _, state, x = tiny()
    _, large_state, large_x = large()
    results = {
        "timm": reference_timm(TINY, state, x),
        "transformers": reference_transformers(TINY, state, x),
        "timm_b5": thinned(reference_timm_b5(large_state, large_x)),
    }
    np.savez_compressed(
        GOLDEN, **{f"{name}_{i}": level.numpy() for name, levels in results.items() for i, level in enumerate(levels)}
    )


if __name__ == "__main__":
    write_golden()
