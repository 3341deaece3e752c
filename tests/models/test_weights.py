"""Pretrained weights: the names they come under, and one clear line for each thing that can be wrong."""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import pytest
import safetensors.torch
import torch
from torch import Tensor

from iidm.models import BACKBONES, Network, build_network, load_pretrained
from iidm.models.weights import IMAGENET, KEPT_AS
from iidm.types import UserError

MOBILENET = Path(__file__).resolve().parents[3] / "shared" / "weights" / "mobilenet_v2-b0353104.pth"


@pytest.fixture
def mobilenet_file() -> Path:
    """torchvision's file, beside the repository."""
    if not MOBILENET.is_file():
        pytest.skip(f"torchvision's MobileNetV2 weights are not at {MOBILENET}")
    return MOBILENET


def network(backbone: str = "resnet18") -> Network:
    torch.manual_seed(0)
    return build_network(backbone, 3)


def published(backbone: str) -> dict[str, Tensor]:
    """A state dict as torchvision and OpenMMLab publish it: with counters and a classifier."""
    torch.manual_seed(1)
    state = {k: torch.randn(v.shape) for k, v in build_network(backbone, 2).backbone.state_dict().items()}
    counters = {k.replace("running_var", "num_batches_tracked"): torch.tensor(7) for k in state if "_var" in k}
    return {**state, **counters, "fc.weight": torch.randn(10, 4), "fc.bias": torch.randn(10)}


def assert_unchanged(loaded: Network) -> None:
    fresh = network("mobilenet_v2" if "features.0.0.weight" in loaded.backbone.state_dict() else "resnet18")
    for key, value in fresh.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def resnet_keys(depths: tuple[int, ...], convolutions: int, stem: dict[str, str]) -> set[str]:
    """The layout of torchvision's files, spelt out."""

    def norm(name: str) -> set[str]:
        return {f"{name}.{part}" for part in ("weight", "bias", "running_mean", "running_var")}

    keys = set()
    for name, kind in stem.items():
        keys |= norm(name) if kind == "norm" else {f"{name}.weight"}
    for stage, depth in enumerate(depths, start=1):
        for block in range(depth):
            prefix = f"layer{stage}.{block}"
            for index in range(1, convolutions + 1):
                keys |= {f"{prefix}.conv{index}.weight"} | norm(f"{prefix}.bn{index}")
            if block == 0 and (stage > 1 or convolutions == 3):
                keys |= {f"{prefix}.downsample.0.weight"} | norm(f"{prefix}.downsample.1")
    return keys


STEM_V1 = {"conv1": "conv", "bn1": "norm"}
STEM_V1C = {
    f"stem.{i}": kind for i, kind in ((0, "conv"), (1, "norm"), (3, "conv"), (4, "norm"), (6, "conv"), (7, "norm"))
}


@pytest.mark.parametrize("suffix", ("", "-v1c"))
@pytest.mark.parametrize(
    ("name", "depths", "convolutions"),
    (("resnet18", (2, 2, 2, 2), 2), ("resnet50", (3, 4, 6, 3), 3), ("resnet101", (3, 4, 23, 3), 3)),
)
def test_resnets_have_the_published_names(name: str, depths: tuple[int, ...], convolutions: int, suffix: str) -> None:
    with torch.device("meta"):
        found = set(build_network(name + suffix, 2).backbone.state_dict())
    assert found == resnet_keys(depths, convolutions, STEM_V1C if suffix else STEM_V1)


def test_mobilenet_has_torchvisions_names_and_shapes(mobilenet_file: Path) -> None:
    state = torch.load(mobilenet_file, weights_only=True)
    expected = {
        key: value.shape
        for key, value in state.items()
        if not key.startswith(("classifier.", "features.18.")) and not key.endswith("num_batches_tracked")
    }
    assert len(expected) == 5 * (1 + 2 + 16 * 3)  # a convolution and four tensors of its BatchNorm each
    found = network("mobilenet_v2").backbone.state_dict()
    assert {key: value.shape for key, value in found.items()} == expected


def test_every_backbone_has_a_file_whose_name_carries_its_hash() -> None:
    assert IMAGENET.keys() == BACKBONES.keys()
    for backbone, address in IMAGENET.items():
        assert re.fullmatch(r"https://[\w./-]+", address), address
        assert re.fullmatch(r"\w+-[0-9a-f]{8}\.(pth|bin)", KEPT_AS.get(backbone, address.rpartition("/")[2])), backbone


def test_none_loads_nothing() -> None:
    loaded = network()
    assert "random" in load_pretrained(loaded, "none", backbone="resnet18")
    assert_unchanged(loaded)


def test_the_real_mobilenet_file_is_loaded_to_the_bit(mobilenet_file: Path) -> None:
    loaded = network("mobilenet_v2")
    head = loaded.head.state_dict()
    start = {key: value.clone() for key, value in loaded.backbone.state_dict().items()}
    line = load_pretrained(loaded, str(mobilenet_file), backbone="mobilenet_v2")
    assert str(mobilenet_file) in line and "sha256 b0353104" in line and "\n" not in line
    state = torch.load(mobilenet_file, weights_only=True)
    for key, value in loaded.backbone.state_dict().items():
        assert torch.equal(value, state[key]), key
        assert not torch.equal(value, start[key]), key
    for key, value in network("mobilenet_v2").head.state_dict().items():
        assert torch.equal(head[key], value)


def test_imagenet_takes_the_cached_file(mobilenet_file: Path, hub: Path) -> None:
    (hub / mobilenet_file.name).symlink_to(mobilenet_file)
    loaded = network("mobilenet_v2")
    line = load_pretrained(loaded, "imagenet", backbone="mobilenet_v2")
    assert line.startswith("imagenet weights of torchvision's mobilenet_v2 (file ")
    state = torch.load(mobilenet_file, weights_only=True)
    assert torch.equal(loaded.backbone.state_dict()["features.17.conv.2.weight"], state["features.17.conv.2.weight"])


class Answer(io.BytesIO):
    """What a server sends."""

    def info(self) -> Message:
        message = Message()
        message["Content-Length"] = str(len(self.getvalue()))
        return message


def test_imagenet_fetches_checks_and_keeps_the_file(
    mobilenet_file: Path, hub: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def urlopen(request: Any) -> Answer:
        asked.append(request.full_url)
        return Answer(mobilenet_file.read_bytes())

    monkeypatch.setattr(torch.hub, "urlopen", urlopen)
    for _ in range(2):
        load_pretrained(network("mobilenet_v2"), "imagenet", backbone="mobilenet_v2")
    assert asked == ["https://download.pytorch.org/models/mobilenet_v2-b0353104.pth"]
    assert (hub / mobilenet_file.name).read_bytes() == mobilenet_file.read_bytes()
    assert capsys.readouterr().out == ""


def no_network(request: Any) -> Any:
    raise URLError("Name or service not known")


def gone(request: Any) -> Any:
    raise HTTPError(request.full_url, 404, "Not Found", Message(), None)


def reset(request: Any) -> Any:
    raise ConnectionResetError(104, "Connection reset by peer")


def another_file(request: Any) -> Any:
    return Answer(b"<html>please log in</html>")


@pytest.mark.parametrize("backbone", ("resnet18", "resnet101-v1c"))
@pytest.mark.parametrize(
    ("urlopen", "reason"),
    (
        (no_network, "Name or service not known"),
        (gone, "404"),
        (reset, "reset by peer"),
        (another_file, "invalid hash"),
    ),
)
def test_a_failed_download_is_one_line_with_the_choices(
    urlopen: Callable[..., Any], reason: str, backbone: str, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "urlopen", urlopen)
    loaded = network()
    with pytest.raises(UserError) as caught:
        load_pretrained(loaded, "imagenet", backbone=backbone)
    message = str(caught.value)
    for part in (IMAGENET[backbone], reason, "--model.weights none", "--model.weights PATH"):
        assert part in message
    assert "\n" not in message
    assert list(hub.iterdir()) == []
    assert_unchanged(loaded)


def test_a_damaged_file_in_the_cache_is_named(hub: Path) -> None:
    damaged = hub / "resnet18-f37072fd.pth"
    damaged.write_bytes(b"half of a file")
    with pytest.raises(UserError, match=f"{re.escape(str(damaged))} is damaged: .*f37072fd.* Delete it"):
        load_pretrained(network(), "imagenet", backbone="resnet18")
    assert damaged.exists()


@pytest.mark.parametrize("form", ("plain", "wrapped", "safetensors", "without counters"))
@pytest.mark.parametrize("backbone", ("resnet18", "resnet18-v1c"))
def test_a_path_loads_in_every_published_form(backbone: str, form: str, tmp_path: Path) -> None:
    state = published(backbone)
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pth")
    if form == "safetensors":
        safetensors.torch.save_file(state, path)
    elif form == "wrapped":
        torch.save({"meta": {"epoch": 100}, "state_dict": state}, path)
    elif form == "without counters":
        torch.save({k: v for k, v in state.items() if "num_batches" not in k}, path)
    else:
        torch.save(state, path)
    loaded = network(backbone)
    line = load_pretrained(loaded, str(path), backbone=backbone)
    assert str(path) in line and backbone in line
    for key, value in loaded.backbone.state_dict().items():
        assert torch.equal(value, state[key]), key


def refused(path: Path, backbone: str = "resnet18") -> str:
    """The message for a file that must not load; the network stays as it was."""
    loaded = network(backbone)
    with pytest.raises(UserError) as caught:
        load_pretrained(loaded, str(path), backbone=backbone)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    assert_unchanged(loaded)
    return message


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "no weights file" in refused(tmp_path / "absent.pth")
    assert "no weights file" in refused(tmp_path)


class Code:
    """A pickled object that would run code when loaded."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return Path.touch, (Path("ran"),)  # type: ignore[return-value]


@pytest.mark.parametrize("name", ("text.pth", "empty.pth", "short.pth", "pickle.pth", "text.safetensors"))
def test_a_file_that_is_no_checkpoint_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    if name == "short.pth":
        torch.save(published("resnet18"), path)
        path.write_bytes(path.read_bytes()[:-1000])
    else:
        content = {"empty.pth": b"", "pickle.pth": pickle.dumps(Code(), protocol=2)}.get(name, b"no checkpoint at all")
        path.write_bytes(content)
    assert "no readable state dict" in refused(path)
    assert not (tmp_path / "ran").exists()


def test_a_saved_object_is_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": published("resnet18"), "hook": Code()}, tmp_path / "model.pth")
    assert "--model.weights" in refused(tmp_path / "model.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", ({}, [torch.zeros(1)], {"epoch": 3}, {"state_dict": {}}, {0: torch.zeros(1)}))
def test_a_file_without_a_state_dict_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pth")
    assert "holds no state dict" in refused(tmp_path / "other.pth")


def test_another_architecture_is_refused_with_counts_and_names(tmp_path: Path, mobilenet_file: Path) -> None:
    own = len(network().backbone.state_dict())
    message = refused(mobilenet_file)
    assert f"{own} tensors missing (conv1.weight, bn1.weight, bn1.bias, ...)" in message
    assert "255 tensors unknown (features.0.0.weight, " in message
    assert "--model.backbone" in message
    torch.save(published("resnet18-v1c"), tmp_path / "v1c.pth")
    assert "5 tensors missing (conv1.weight, " in refused(tmp_path / "v1c.pth")


def test_single_differing_tensors_are_counted_and_named(tmp_path: Path) -> None:
    state = published("resnet18")
    state["layer2.0.conv1.weight"] = torch.zeros(128, 64, 1, 1)
    state["layer9.weight"] = torch.zeros(1)
    del state["bn1.bias"]
    torch.save(state, tmp_path / "edited.pth")
    message = refused(tmp_path / "edited.pth")
    assert "1 tensors missing (bn1.bias)" in message
    assert "1 tensors unknown (layer9.weight)" in message
    assert "1 tensors of another shape (layer2.0.conv1.weight)" in message
