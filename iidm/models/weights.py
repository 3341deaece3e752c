"""Pretrained backbones: by name, by path, or none. Loading executes nothing; no failure starts at random."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from torch import Tensor

from ..types import UserError
from .mit import MixTransformer
from .names import original_names

if TYPE_CHECKING:
    from . import Network

_TORCHVISION = "https://download.pytorch.org/models/"
_OPENMMLAB = "https://download.openmmlab.com/pretrain/third_party/"
_SEGFORMER = "https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/segformer/"
_TIMM = "https://huggingface.co/timm/"
_MAKERS = {_TORCHVISION: "torchvision", _OPENMMLAB: "OpenMMLab", _SEGFORMER: "NVIDIA", _TIMM: "timm"}

IMAGENET: dict[str, str] = {
    "resnet18": _TORCHVISION + "resnet18-f37072fd.pth",
    "resnet50": _TORCHVISION + "resnet50-0676ba61.pth",
    "resnet101": _TORCHVISION + "resnet101-63fe2227.pth",
    "mobilenet_v2": _TORCHVISION + "mobilenet_v2-b0353104.pth",
    "resnet18-v1c": _OPENMMLAB + "resnet18_v1c-b5776b93.pth",
    "resnet50-v1c": _OPENMMLAB + "resnet50_v1c-2cccc1ad.pth",
    "resnet101-v1c": _OPENMMLAB + "resnet101_v1c-e67eebb6.pth",
    "mit_b0": _SEGFORMER + "mit_b0_20220624-7e0fe6dd.pth",
    "mit_b1": _SEGFORMER + "mit_b1_20220624-02e5a6a1.pth",
    "mit_b2": _SEGFORMER + "mit_b2_20220624-66e8bf70.pth",
    "mit_b3": _SEGFORMER + "mit_b3_20220624-13b1141c.pth",
    "mit_b4": _SEGFORMER + "mit_b4_20220624-d588d980.pth",
    "mit_b5": _SEGFORMER + "mit_b5_20220624-658746d9.pth",
    "pvt_v2_b5": _TIMM + "pvt_v2_b5.in1k/resolve/b18cbdbb9509cc98b2529f64662eb23c218f9978/pytorch_model.bin",
}
"""Backbone -> its ImageNet-1k file: torchvision's IMAGENET1K_V1, for v1c OpenMMLab's (DAFormer's start), for MiT
NVIDIA's in OpenMMLab's names, for PVTv2 its authors' in timm's."""

KEPT_AS: dict[str, str] = {"pvt_v2_b5": "pvt_v2_b5-a53f87b6.bin"}
"""Backbone -> the name of its file in the cache, where that is not the address's own. Either ends with the first digits
of the file's SHA-256."""

EXTRAS = ("fc.", "classifier.", "features.18.")
"""Keys of a classifier, which a backbone has no place for."""

_CHOICES = "Give --model.weights PATH (a state dict at hand) or --model.weights none (random start)."


def load_pretrained(network: Network, weights: str, *, backbone: str) -> str:
    """Put pretrained weights into the backbone; the head keeps its random start.

    Args:
        network: its `backbone` is filled in place, and left as it was where this raises.
        weights: `none`, `imagenet` (fetched once through torch.hub into its cache, hash checked), or the
            path of a .pth, .bin or .safetensors state dict: of a ResNet or MobileNetV2 in torchvision's or OpenMMLab's
            names, of a Mix Transformer in any of those of names.py, also as a part of a trained network.
        backbone: the backbone's name.

    Returns:
        One line that says what was loaded, from which file.

    Raises:
        UserError: a failed download, a wrong hash, a file that is missing or holds no state dict, or one of
            another architecture.
    """
    if weights == "none":
        return f"no pretrained weights: {backbone} starts at random"
    if backbone.startswith("timm:"):
        return _load_into_timm(network, weights, backbone)
    if weights == "imagenet":
        path, state = _fetch(backbone)
        maker = next(maker for start, maker in _MAKERS.items() if IMAGENET[backbone].startswith(start))
        terms = ", for research and evaluation only" if maker == "NVIDIA" else ""
        title = f"imagenet weights of {maker}'s {backbone}{terms}"
    else:
        path = Path(weights).expanduser()
        state, title = _read(path), f"weights of {backbone}"
    if isinstance(network.backbone, MixTransformer):
        state = original_names(state)
    kept = {
        key: value
        for key, value in state.items()
        if not key.startswith(EXTRAS) and not key.endswith("num_batches_tracked")
    }
    _check_fit(network.backbone.state_dict(), kept, path, backbone)
    network.backbone.load_state_dict(kept)
    return f"{title} (file {path}, sha256 {_sha256(path)[:8]})"


def _load_into_timm(network: Network, weights: str, backbone: str) -> str:
    """timm fetches its own weights by name, and translates what is in a file."""
    state = None if weights == "imagenet" else _read(Path(weights).expanduser())
    try:
        network.backbone.load(state)  # type: ignore[operator]
    except Exception as error:
        # Its hub, the file system and load_state_dict fail in kinds of their own.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        what = "cannot be fetched" if state is None else f"are not those in {weights}"
        raise UserError(f"The weights of {backbone} {what} ({reason}). {_CHOICES}") from error
    return f"weights of {backbone} from {'timm' if state is None else weights}"


def _fetch(backbone: str) -> tuple[Path, Mapping[str, Tensor]]:
    if backbone not in IMAGENET:
        raise UserError(f"No imagenet weights are known for the backbone {backbone}. {_CHOICES}")
    address = IMAGENET[backbone]
    name = KEPT_AS.get(backbone, address.rpartition("/")[2])
    cached = Path(torch.hub.get_dir()) / "checkpoints" / name
    digits = cached.stem.rpartition("-")[2]
    # torch.hub checks the hash of what it downloads, not of what lies in its cache.
    if cached.is_file() and not _sha256(cached).startswith(digits):
        raise UserError(
            f"{cached} is damaged: its SHA-256 does not begin with {digits}. Delete it, so that it is fetched"
            f" again. {_CHOICES}"
        )
    try:
        with redirect_stdout(sys.stderr):  # torch.hub announces the download on stdout
            state = torch.hub.load_state_dict_from_url(
                address,
                map_location="cpu",
                check_hash=True,
                weights_only=True,
                progress=sys.stderr.isatty(),
                file_name=name,
            )
    except Exception as error:
        # urllib, http.client, ssl, the file system and pickle fail in kinds of their own.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"The weights {address} could not be fetched ({reason}). {_CHOICES}") from error
    return cached, _unwrapped(state, cached)


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise UserError(f"There is no weights file {path}. {_CHOICES} `imagenet` fetches one by name.")
    try:
        if path.suffix == ".safetensors":
            state: Any = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # A truncated or foreign file raises one of many kinds, whose texts advise unsafe loading.
        raise UserError(
            f"{path} is no readable state dict of tensors ({type(error).__name__}; whole models and other"
            f" pickled objects are not loaded). {_CHOICES}"
        ) from error
    return _unwrapped(state, path)


def _unwrapped(state: Any, path: Path) -> Mapping[str, Tensor]:
    """The state dict itself, out of OpenMMLab's {"state_dict": ...} and others' {"model": ...}."""
    for wrapper in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if (
        not isinstance(state, Mapping)
        or not state
        or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())
    ):
        raise UserError(f"{path} holds no state dict of tensors. {_CHOICES}")
    return state


def _check_fit(own: Mapping[str, Tensor], given: Mapping[str, Tensor], path: Path, backbone: str) -> None:
    wrong = {
        "missing": [key for key in own if key not in given],
        "unknown": [key for key in given if key not in own],
        "of another shape": [key for key in own if key in given and own[key].shape != given[key].shape],
    }
    found = [
        f"{len(keys)} tensors {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for what, keys in wrong.items()
        if keys
    ]
    if found:
        raise UserError(
            f"{path} does not fit the backbone {backbone}: {'; '.join(found)}. Choose the --model.backbone"
            " that it was trained for, or another file."
        )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
