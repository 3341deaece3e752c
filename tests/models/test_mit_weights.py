"""Pretrained Mix Transformers: every published naming and form of file, and what does not fit."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from mit_namings import NAMINGS, fill, mmsegmentation
from safetensors.torch import save_file
from torch import Tensor

from iidm.models import Network, build_network, load_pretrained
from iidm.models.head import Level
from iidm.models.mit import MixTransformer, Size
from iidm.models.segformer import SegFormerHead
from iidm.models.weights import IMAGENET, KEPT_AS
from iidm.types import UserError

TINY = Size((8, 16, 40, 64), (1, 2, 1, 1))


def network(size: Size = TINY) -> Network:
    torch.manual_seed(0)
    levels = tuple(Level(channels, 4 << i) for i, channels in enumerate(size.dims))
    return Network(MixTransformer(size), SegFormerHead(levels, 3, 0.0))


def published() -> dict[str, Tensor]:
    """In the original names."""
    return fill(MixTransformer(TINY))


def assert_loaded(loaded: Network) -> None:
    state, head = published(), network().head.state_dict()
    assert loaded.backbone.state_dict().keys() == state.keys()
    for key, value in loaded.backbone.state_dict().items():
        assert torch.equal(value, state[key]), key
    for key, value in loaded.head.state_dict().items():
        assert torch.equal(value, head[key]), key


@pytest.mark.parametrize("naming", NAMINGS)
def test_every_published_naming_is_loaded_to_the_bit(naming: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(NAMINGS[naming](published()), path)
    loaded = network()
    line = load_pretrained(loaded, str(path), backbone="mit_b0")
    assert line.startswith(f"weights of mit_b0 (file {path}, sha256 ")
    assert_loaded(loaded)


@pytest.mark.parametrize("suffix", (".pth", ".bin", ".safetensors"))
@pytest.mark.parametrize("naming", ("original", "Hugging Face, classifier", "timm"))
def test_every_form_of_file_is_loaded(naming: str, suffix: str, tmp_path: Path) -> None:
    path, state = tmp_path / f"weights{suffix}", NAMINGS[naming](published())
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    loaded = network()
    load_pretrained(loaded, str(path), backbone="mit_b0")
    assert_loaded(loaded)


@pytest.mark.parametrize("wrapper", ("state_dict", "model"))
def test_a_wrapped_state_dict_is_unwrapped(wrapper: str, tmp_path: Path) -> None:
    torch.save({"meta": {"iter": 3}, wrapper: NAMINGS["MIC"](published())}, tmp_path / "checkpoint.pth")
    loaded = network()
    load_pretrained(loaded, str(tmp_path / "checkpoint.pth"), backbone="mit_b0")
    assert_loaded(loaded)


def refused(state: dict[str, Tensor], path: Path) -> str:
    torch.save(state, path)
    loaded, fresh = network(), network()
    with pytest.raises(UserError) as caught:
        load_pretrained(loaded, str(path), backbone="mit_b0")
    for key, value in fresh.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def test_another_depth_or_width_is_refused_with_counts_and_names(tmp_path: Path) -> None:
    deep = fill(MixTransformer(Size(TINY.dims, (1, 2, 2, 1))))
    message = refused(NAMINGS["Hugging Face"](deep), tmp_path / "deep.pth")
    assert "20 tensors unknown (block3.1." in message and "missing" not in message
    wide = fill(MixTransformer(Size((16, 16, 40, 64), TINY.depths)))
    message = refused(mmsegmentation(wide), tmp_path / "wide.pth")
    assert "tensors of another shape (patch_embed1.proj.weight, " in message and "unknown" not in message


def test_half_of_a_pair_is_refused(tmp_path: Path) -> None:
    state = NAMINGS["Hugging Face"](published())
    del state["encoder.block.2.0.attention.self.value.weight"]
    message = refused(state, tmp_path / "half.pth")
    assert "1 tensors missing (block3.0.attn.kv.weight)" in message
    assert "1 tensors unknown (block3.0.attn.k.weight)" in message


def test_a_resnet_is_refused(tmp_path: Path) -> None:
    state = build_network("resnet18", 2).backbone.state_dict()
    assert f"{len(state)} tensors unknown (conv1.weight, " in refused(state, tmp_path / "resnet.pth")


@pytest.mark.parametrize("backbone", ("pvt_v2_b5", "mit_b5"))
def test_imagenet_is_the_makers_file_in_its_names(backbone: str, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    naming = "timm" if backbone == "pvt_v2_b5" else "mmsegmentation"
    file = hub / "small.bin"
    torch.save(NAMINGS[naming](published()), file)
    digits = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    monkeypatch.setitem(KEPT_AS, backbone, f"{backbone}-{digits}.bin")
    file.rename(hub / f"{backbone}-{digits}.bin")
    loaded = network()
    line = load_pretrained(loaded, "imagenet", backbone=backbone)
    assert_loaded(loaded)
    maker, terms = ("timm", "") if backbone == "pvt_v2_b5" else ("NVIDIA", ", for research and evaluation only")
    assert line.startswith(f"imagenet weights of {maker}'s {backbone}{terms} (file ")


def test_pvts_file_is_kept_under_its_hash_and_a_damaged_one_is_named(hub: Path) -> None:
    # The SHA-256 that the publishing site states for this file.
    assert KEPT_AS == {"pvt_v2_b5": "pvt_v2_b5-a53f87b6.bin"} and IMAGENET["pvt_v2_b5"].endswith("/pytorch_model.bin")
    (hub / "pvt_v2_b5-a53f87b6.bin").write_bytes(b"half of a file")
    with pytest.raises(UserError, match="pvt_v2_b5-a53f87b6.bin is damaged: .*a53f87b6.* Delete it"):
        load_pretrained(network(), "imagenet", backbone="pvt_v2_b5")
