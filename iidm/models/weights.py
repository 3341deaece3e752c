"""Pretrained backbones: by name, by path, or none. Loading executes nothing; no failure starts at random."""

from __future__ import annotations

import hashlib
import sys
import warnings
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from torch import Tensor

from ..types import UserError
from .fitting import Part, fitting_parts, is_head, unwrapped
from .mit import MixTransformer
from .names import original_names
from .timm_weights import in_one_line

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

_CHOICES = "Give --model.weights PATH (a state dict at hand) or --model.weights none (random start)."


def load_pretrained(network: Network, weights: str, *, backbone: str) -> str:
    """Put pretrained weights into the backbone; the head keeps its random start.

    Args:
        network: its `backbone` is filled in place, and left as it was where this raises.
        weights: `none`, `imagenet` (fetched once through torch.hub into its cache, hash checked; timm fetches its
            own), or the path of a .pth, .bin or .safetensors state dict: of a ResNet or MobileNetV2 in torchvision's
            or OpenMMLab's names, of a Mix Transformer in any of those of names.py, of a backbone of timm in timm's or
            in others that timm translates; also as a part of a larger network, under any prefix and wrapper
            (fitting.py).
        backbone: the backbone's name.

    Returns:
        One line that says what was loaded, from which file, and what of a file was left aside.

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
        title, taken = f"imagenet weights of {maker}'s {backbone}{terms}", ""
    else:
        path = Path(weights).expanduser()
        state, taken = _read(path)
        title = f"weights of {backbone}"
    own = network.backbone.state_dict()
    parts = fitting_parts(state, own.keys(), original_names if isinstance(network.backbone, MixTransformer) else dict)
    _, part = _the_only(parts, path, backbone)
    _check_fit(own, part.state, path, backbone, state)
    network.backbone.load_state_dict(part.state)
    more = [words for words in (taken, part.left_aside) if words and weights != "imagenet"]
    return "; ".join([f"{title} (file {path}, sha256 {_sha256(path)[:8]})", *more])


def _load_into_timm(network: Network, weights: str, backbone: str) -> str:
    """timm fetches its own weights by name, and translates what is in a file."""
    body: Any = network.backbone
    if weights == "imagenet":
        try:
            body.fetch()
        except Exception as error:
            # Its hub and the file system fail in kinds of their own.
            raise UserError(
                f"The weights of {backbone} cannot be fetched ({in_one_line(error)}). {_CHOICES}"
            ) from error
        return "; ".join([f"weights of timm:{body.resolved} from timm", *body.normalization])
    path = Path(weights).expanduser()
    state, taken = _read(path)
    own = body.state_dict()
    _, part = _the_only(fitting_parts(state, own.keys(), dict), path, backbone)
    if {key: value.shape for key, value in part.state.items()} == {key: value.shape for key, value in own.items()}:
        body.load_state_dict(part.state)  # a network of iidm's: timm does not know the names of levels
    else:
        part = _through_timm(body, state, path, backbone)
    more = [words for words in (*body.normalization, taken, part.left_aside) if words]
    return "; ".join([f"weights of {backbone} (file {path}, sha256 {_sha256(path)[:8]})", *more])


def _through_timm(body: Any, state: Mapping[str, Tensor], path: Path, backbone: str) -> Part:
    """A file in timm's names under any prefix, or in others that timm translates; what of it is not loaded."""
    plain = _plain(state)
    prefix, part = _the_only(fitting_parts(plain, body.kept, dict), path, backbone)
    given = {key.removeprefix(prefix): value for key, value in plain.items() if key.startswith(prefix)}
    try:
        left = body.load(given, lambda own, found: _check_fit(own, found, path, backbone, state))
    except UserError:
        raise
    except Exception as error:
        # Translations of names fail in kinds of their own where a file has others than they are for.
        raise UserError(
            f"{path} does not fit the backbone {backbone}: timm cannot read it ({in_one_line(error)}). Its names are"
            f" like {_some(state)}, and {backbone} has {_some(body.kept)}. Give another file."
        ) from error
    others = Counter(prefix + key.partition(".")[0] for key in left if not is_head(key.partition(".")[0]))
    return part._replace(aside={**part.aside, **others})


def _the_only(parts: Mapping[str, Part], path: Path, backbone: str) -> tuple[str, Part]:
    """The one part of a file that fits a backbone, with its prefix."""
    if len(parts) > 1:
        raise UserError(
            f"{path} holds several networks that fit the backbone {backbone}: {', '.join(parts)}. Save the tensors of"
            " the one that you mean in a file of its own."
        )
    ((prefix, part),) = parts.items()
    return prefix, part


def _plain(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Without what stands before all keys and is no part of a model's own names."""
    while first := next((p for p in ("module.", "model.", "backbone.") if all(k.startswith(p) for k in state)), None):
        state = {key.removeprefix(first): value for key, value in state.items()}
    return state


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
    return cached, _state_dict(state, cached)[0]


def _read(path: Path) -> tuple[Mapping[str, Tensor], str]:
    """A file's state dict, and by which of several keys it was taken."""
    if not path.is_file():
        raise UserError(f"There is no weights file {path}. {_CHOICES} `imagenet` fetches one by name.")
    try:
        if path.suffix == ".safetensors":
            state: Any = safetensors.torch.load_file(path)
        else:
            # Many scripts save their arguments beside the weights. What torch warns of (protocols) names no file.
            with torch.serialization.safe_globals([Namespace]), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # A truncated or foreign file raises one of many kinds, whose texts advise unsafe loading.
        raise UserError(
            f"{path} is no readable state dict of tensors ({type(error).__name__}; whole models and other"
            f" pickled objects are not loaded: save model.state_dict() alone). {_CHOICES}"
        ) from error
    return _state_dict(state, path)


def _state_dict(state: Any, path: Path) -> tuple[Mapping[str, Tensor], str]:
    """The state dict itself, out of {"state_dict": ...} and others, and by which of several keys it was taken."""
    state, taken = unwrapped(state)
    items = state.items() if isinstance(state, Mapping) else ()
    # Some scripts write the epoch and the score beside the tensors.
    tensors = {key: value for key, value in items if isinstance(key, str) and isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"{path} holds no state dict of tensors. {_CHOICES}")
    return tensors, taken


def _check_fit(
    own: Mapping[str, Tensor], given: Mapping[str, Tensor], path: Path, backbone: str, whole: Mapping[str, Tensor]
) -> None:
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
    if not found:
        return
    others = [name for name in _known_backbones() if name != backbone and _is_of(whole, name)]
    if others:
        advice = f"They are those of {' or '.join(others)}: give --model.backbone {others[0]}, or another file."
    elif len(wrong["missing"]) == len(own):
        advice = (
            f"Its names are of no backbone that is known here: they are like {_some(whole)}, and {backbone} has"
            f" {_some(own)}. Rename them, or give another file."
        )
    else:
        advice = f"Give another file, or options that make the {backbone} that it was trained as."
    raise UserError(f"{path} does not fit the backbone {backbone}: {'; '.join(found)}. {advice}")


@cache
def _known_backbones() -> dict[str, dict[str, torch.Size]]:
    """Backbone -> the shapes of its tensors."""
    from . import BACKBONES  # which imports this file

    with torch.device("meta"):
        built = {name: build(32) for name, build in BACKBONES.items()}
    return {name: {k: v.shape for k, v in one.state_dict().items()} for name, one in built.items()}


def _is_of(state: Mapping[str, Tensor], backbone: str) -> bool:
    """Whether a state dict holds exactly a known backbone's tensors, beside others that are left aside."""
    shapes = _known_backbones()[backbone]
    translate = original_names if backbone.startswith(("mit", "pvt")) else dict
    parts = fitting_parts(state, shapes.keys(), translate).values()
    return any({key: value.shape for key, value in part.state.items()} == shapes for part in parts)


def _some(names: Iterable[str]) -> str:
    """The first, a middle and the last name."""
    names = list(names)
    return ", ".join(dict.fromkeys((names[0], names[len(names) // 2], names[-1])))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
