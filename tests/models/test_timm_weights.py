"""Weights into backbones of timm, with random numbers: timm itself would take what fits and say nothing of the rest."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from iidm.models import Network, build_network, load_pretrained
from iidm.types import UserError

try:
    import timm
except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision of another torch
    pytest.skip(f"timm cannot be imported: {error}", allow_module_level=True)

State = dict[str, Tensor]
CONVNEXT, VIT, SWIN = "convnext_atto", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"
NORMALIZED = r"images are normalized with mean 0.5, 0.5, 0.5 and deviation 0.5, 0.5, 0.5, those of "


def network_of(name: str) -> Network:
    torch.manual_seed(0)
    return build_network(f"timm:{name}", 3, output_stride=32, head="segformer")


def published(name: str) -> State:
    """timm's whole model with random numbers."""
    torch.manual_seed(1)
    state = timm.create_model(name).state_dict()
    return {key: torch.randn(value.shape) if value.is_floating_point() else value for key, value in state.items()}


def by_timms_names(network: Network) -> State:
    """A backbone's tensors: FeatureListNet has stages_0 where timm's whole model has stages.0."""
    names: Any = network.backbone.kept
    own = {
        key.removeprefix("model.").removeprefix("body.").replace(".", "_"): v
        for key, v in network.backbone.state_dict().items()
    }
    return {name: own[name.replace(".", "_")] for name in names}


def loaded_from(content: object, name: str, path: Path) -> str:
    """The line of a file that must load to `published`'s numbers, bit for bit."""
    torch.save(content, path)
    own, state = network_of(name), published(name)
    line = load_pretrained(own, str(path), backbone=f"timm:{name}")
    found = by_timms_names(own)
    assert len(found) == len(own.backbone.state_dict())
    for key, value in found.items():
        assert torch.equal(value, state[key]), key
    assert "\n" not in line and line.startswith(f"weights of timm:{name} (file {path}, sha256 ")
    return line


def refused(content: object, name: str, path: Path) -> str:
    torch.save(content, path)
    own = network_of(name)
    with pytest.raises(UserError) as caught:
        load_pretrained(own, str(path), backbone=f"timm:{name}")
    for key, value in network_of(name).state_dict().items():
        assert torch.equal(own.state_dict()[key], value), key
    message = str(caught.value)
    assert "\n" not in message and f"{path} does not fit the backbone timm:{name}: " in message
    return message


def under(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize("name", (CONVNEXT, VIT, SWIN, "regnety_002", "efficientnet_b0", "pit_ti_224"))
def test_timms_own_file_is_loaded_and_its_head_is_told(name: str, tmp_path: Path) -> None:
    assert "its head is left aside (" in loaded_from(published(name), name, tmp_path / "w.pth")


PREFIXES: dict[str, Callable[[State], State]] = {
    "DataParallel": lambda state: under("module.", state),
    "segmentation_models.pytorch": lambda state: {**under("encoder.", state), "decoder.blocks.weight": torch.ones(3)},
    "mmsegmentation": lambda state: {**under("module.backbone.", state), "module.decode_head.weight": torch.ones(3)},
}


@pytest.mark.parametrize("name", (CONVNEXT, VIT))
@pytest.mark.parametrize("naming", PREFIXES)
def test_a_prefix_is_found_and_what_stands_beside_it_is_told(naming: str, name: str, tmp_path: Path) -> None:
    line = loaded_from(PREFIXES[naming](published(name)), name, tmp_path / "w.pth")
    assert "left aside" in line and ("deco" in line) == (naming != "DataParallel")


@pytest.mark.parametrize("name", (CONVNEXT, VIT))
def test_a_networks_own_file_without_its_checkpoint_gives_its_backbone(name: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    trained, own = build_network(f"timm:{name}", 7, head="segformer"), network_of(name)
    torch.save(trained.state_dict(), tmp_path / "student.pth")
    line = load_pretrained(own, str(tmp_path / "student.pth"), backbone=f"timm:{name}")
    assert "its head is left aside (head: " in line
    for key, value in trained.backbone.state_dict().items():
        assert torch.equal(own.backbone.state_dict()[key], value), key


def test_the_authors_names_are_translated_by_timm(tmp_path: Path) -> None:
    """ConvNeXt's, of github.com/facebookresearch/ConvNeXt."""
    swaps = (
        (r"^stem\.", "downsample_layers.0."),
        (r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
        (r"^stages\.(\d)\.blocks\.", r"stages.\1."),
        (r"\.conv_dw\.", ".dwconv."),
        (r"\.mlp\.fc(\d)\.", r".pwconv\1."),
        (r"^head\.norm\.", "norm."),
        (r"^head\.fc\.", "head."),
    )
    theirs = {}
    for key, value in published("convnext_tiny").items():
        for ours, others in swaps:
            key = re.sub(ours, others, key)
        theirs[key] = value
    assert "stages.2.0.dwconv.weight" in theirs
    loaded_from({"model": theirs}, "convnext_tiny", tmp_path / "w.pth")


def test_position_embeddings_of_another_size_are_resized(tmp_path: Path) -> None:
    state = timm.create_model(VIT, img_size=384).state_dict()
    torch.save(state, tmp_path / "vit.pth")
    network = network_of(VIT)
    load_pretrained(network, str(tmp_path / "vit.pth"), backbone=f"timm:{VIT}")
    found = by_timms_names(network)
    assert torch.equal(found["blocks.3.attn.qkv.weight"], state["blocks.3.attn.qkv.weight"])
    assert state["pos_embed"].shape[1] == 577 and found["pos_embed"].shape[1] == 197
    assert torch.equal(found["pos_embed"][:, 0], state["pos_embed"][:, 0])  # the class token's is no cell's


def test_tensors_that_are_missing_are_named(tmp_path: Path) -> None:
    state = {key: value for key, value in published(CONVNEXT).items() if not key.startswith("stages.2.")}
    message = refused(under("encoder.", state), CONVNEXT, tmp_path / "w.pth")
    assert "58 tensors missing (stages.2.downsample.0.weight, " in message
    state = {key: value for key, value in published(VIT).items() if not key.startswith("blocks.3.")}
    assert "12 tensors missing (blocks.3.norm1.weight, " in refused(state, VIT, tmp_path / "w.pth")


def test_tensors_of_another_shape_are_named(tmp_path: Path) -> None:
    state = {**published(CONVNEXT), "stages.1.blocks.0.mlp.fc1.bias": torch.ones(3)}
    message = refused(state, CONVNEXT, tmp_path / "w.pth")
    assert "1 tensors of another shape (stages.1.blocks.0.mlp.fc1.bias)" in message
    message = refused(published("vit_small_patch16_224"), VIT, tmp_path / "w.pth")
    assert "tensors of another shape (cls_token, " in message


def test_a_tensor_that_is_in_no_backbone_is_told(tmp_path: Path) -> None:
    line = loaded_from({**published(VIT), "neck.weight": torch.ones(3)}, VIT, tmp_path / "w.pth")
    assert "its head is left aside (head: 2 tensors); neck: 1 tensor too" in line


@pytest.mark.parametrize("name", (VIT, CONVNEXT, SWIN, "vit_small_patch14_dinov2.lvd142m"))
def test_the_file_of_another_architecture_is_refused_with_names_of_both(name: str, tmp_path: Path) -> None:
    """Also where a translation of timm's fails on it."""
    message = refused(published("resnet10t"), name, tmp_path / "w.pth")
    assert "conv1.0.weight" in message and re.search(rf"{re.escape(name)} has [\w.]+, ", message)
    assert "Error(s) in loading" not in message


def test_the_known_backbone_that_it_is_of_is_advised(tmp_path: Path) -> None:
    state = build_network("resnet18", 2).backbone.state_dict()
    assert "give --model.backbone resnet18," in refused(state, VIT, tmp_path / "w.pth")


def test_which_images_a_backbone_expects_is_told(tmp_path: Path) -> None:
    """ViT's are normalized otherwise than ImageNet's by the tag that timm takes where none is given, not by all."""
    line = loaded_from(published(VIT), VIT, tmp_path / "w.pth")
    assert re.search(rf"; {NORMALIZED}{VIT}\.augreg_in21k_ft_in1k;", line)
    assert "normalized" not in loaded_from(published(CONVNEXT), CONVNEXT, tmp_path / "w.pth")
    assert network_of("vit_base_patch16_224").backbone.normalization
    assert not network_of("vit_base_patch16_224.mae").backbone.normalization


def test_weights_that_cannot_be_fetched_are_one_line_with_the_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("Error(s) in loading state_dict for X:\n\tsize mismatch for y")

    network = network_of(VIT)
    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(UserError, match=r"for X: size mismatch for y\). Give --model.weights PATH"):
        load_pretrained(network, "imagenet", backbone=f"timm:{VIT}")
