"""Weights as people bring them: under prefixes and wrappers, with a head beside them, and what does not fit at all."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from test_weights import assert_unchanged, network, published
from torch import Tensor

from iidm.models import build_network, load_pretrained
from iidm.types import UserError

State = dict[str, Tensor]
BACKBONE = "resnet18"


def under(prefix: str, state: State, shift: float = 0.0) -> State:
    return {prefix + key: value + shift for key, value in state.items()}


def body() -> State:
    """Without the classifier."""
    return {key: value for key, value in published(BACKBONE).items() if not key.startswith("fc.")}


def loaded_from(content: object, path: Path) -> str:
    """The line of a file that must load to `published`'s numbers, bit for bit."""
    torch.save(content, path)
    own, state = network(BACKBONE), body()
    line = load_pretrained(own, str(path), backbone=BACKBONE)
    for key, value in own.backbone.state_dict().items():
        assert torch.equal(value, state[key]), key
    for key, value in network(BACKBONE).head.state_dict().items():
        assert torch.equal(own.head.state_dict()[key], value), "the head keeps its random start"
    assert "\n" not in line
    return line


PREFIXES: dict[str, Callable[[State], State]] = {
    "DataParallel": lambda state: under("module.", state),
    "mmsegmentation": lambda state: {**under("backbone.", state), "decode_head.conv_seg.weight": torch.ones(3)},
    "segmentation_models.pytorch": lambda state: {
        **under("encoder.", state),
        "segmentation_head.0.bias": torch.ones(3),
    },
    "Lightning": lambda state: {**under("net.model.backbone.", state), "criterion.weight": torch.ones(3)},
    "MoCo": lambda state: {**under("module.encoder_q.", state), **under("module.encoder_k.", state, 1)},
    "MIC": lambda state: {**under("ema_model.backbone.", state, 1), **under("model.backbone.", state)},
    "student and teacher": lambda state: {**under("student.backbone.", state, 1), **under("teacher.backbone.", state)},
    "a prefix that nobody knows": lambda state: under("my.own.trunk.", state),
}


@pytest.mark.parametrize("naming", PREFIXES)
def test_a_prefix_before_all_names_is_found(naming: str, tmp_path: Path) -> None:
    loaded_from(PREFIXES[naming](body()), tmp_path / "weights.pth")


def test_several_wrappers_and_prefixes_are_taken_off_and_scripts_arguments_are_no_obstacle(tmp_path: Path) -> None:
    content = {"args": Namespace(lr=0.1), "epoch": 3, "model": {"state_dict": under("module.backbone.", body())}}
    loaded_from(content, tmp_path / "weights.pth")


def test_what_is_no_tensor_beside_the_tensors_is_no_obstacle(tmp_path: Path) -> None:
    loaded_from({**body(), "epoch": 3, "best": 0.5, "classes": ["a", "b"]}, tmp_path / "flat.pth")
    loaded_from({"epoch": 3, "weights": body()}, tmp_path / "wrapped.pth")


def test_of_a_teacher_and_a_student_the_teacher_is_taken_and_said(tmp_path: Path) -> None:
    content = {"student": under("module.", body(), 1), "teacher": under("module.", body()), "step": 7}
    assert loaded_from(content, tmp_path / "w.pth").endswith("; its 'teacher', beside 'student'")


def test_a_head_in_the_file_is_told_and_so_is_the_rest(tmp_path: Path) -> None:
    head = {"decode_head.conv_seg.weight": torch.ones(3), "decode_head.conv_seg.bias": torch.ones(3)}
    line = loaded_from({**under("backbone.", body()), **head}, tmp_path / "mmseg.pth")
    assert line.endswith("; its head is left aside (decode_head: 2 tensors)")
    assert "its head is left aside (fc: 2 tensors)" in loaded_from(published(BACKBONE), tmp_path / "classifier.pth")
    assert "aside" not in loaded_from(body(), tmp_path / "bare.pth")
    moco = {**PREFIXES["MoCo"](body()), "module.queue": torch.ones(2), "module.encoder_q.fc.0.weight": torch.ones(1)}
    line = loaded_from(moco, tmp_path / "moco.pth")
    assert "its head is left aside (module.encoder_q.fc: 1 tensor)" in line
    assert f"module.encoder_k: {len(body())} tensors" in line and "module.queue: 1 tensor too" in line


def test_a_networks_own_file_without_its_checkpoint_gives_its_backbone(tmp_path: Path) -> None:
    torch.manual_seed(3)
    trained, own = build_network("mobilenet_v2", 7), network("mobilenet_v2")
    save_file(trained.state_dict(), tmp_path / "student.safetensors")
    line = load_pretrained(own, str(tmp_path / "student.safetensors"), backbone="mobilenet_v2")
    assert "its head is left aside (head: " in line
    for key, value in trained.backbone.state_dict().items():
        assert torch.equal(own.backbone.state_dict()[key], value), key


def refused(state: State, path: Path) -> str:
    torch.save(state, path)
    own = network(BACKBONE)
    with pytest.raises(UserError) as error:
        load_pretrained(own, str(path), backbone=BACKBONE)
    assert_unchanged(own)
    assert "\n" not in str(error.value) and str(path) in str(error.value)
    return str(error.value)


def test_names_that_no_backbone_has_are_shown_and_no_other_backbone_is_advised(tmp_path: Path) -> None:
    state = {f"trunk_{key.replace('.', '_')}": value for key, value in body().items()}
    message = refused(state, tmp_path / "foreign.pth")
    assert "of no backbone that is known" in message and "trunk_conv1_weight" in message
    assert "resnet18 has conv1.weight" in message and "--model.backbone" not in message


@pytest.mark.parametrize("prefix", ["", "module.backbone."])
@pytest.mark.parametrize("other", ["resnet18-v1c", "mobilenet_v2", "mit_b0"])
def test_the_backbone_that_it_is_of_is_advised_by_its_name(other: str, prefix: str, tmp_path: Path) -> None:
    state = {key: torch.zeros(value.shape) for key, value in build_network(other, 2).backbone.state_dict().items()}
    assert f"give --model.backbone {other}," in refused(under(prefix, state), tmp_path / "other.pth")


def test_several_networks_that_nothing_tells_apart_are_refused_by_their_prefixes(tmp_path: Path) -> None:
    message = refused({**under("first.", body()), **under("second.", body(), 1)}, tmp_path / "two.pth")
    assert "holds several networks that fit" in message and "first., second." in message


def test_a_backbone_with_a_tensor_too_few_is_told_and_none_is_advised(tmp_path: Path) -> None:
    state = under("module.", body())
    del state["module.bn1.bias"]
    message = refused(state, tmp_path / "edited.pth")
    assert "1 tensors missing (bn1.bias)" in message and "--model.backbone" not in message
