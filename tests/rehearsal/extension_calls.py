"""A stand-in for the compiled extension that knows fake tensors by made-up addresses: it checks and counts the calls of
its CUDA kernels, whose arguments are nothing but integers to C++ (csrc/bindings.cpp)."""

from __future__ import annotations

import re
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from stand_ins import current_stream
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from iidm.kernels import _dispatch, blur, classmix, confusion_matrix, jitter
from iidm.kernels._extension import FORMATS

BINDINGS = (Path(__file__).parents[2] / "csrc" / "bindings.cpp").read_text()
DTYPES = {code: dtype for dtype, code in FORMATS.items()}
JITTER = ("enabled", "brightness", "contrast", "saturation", "hue", "order")
NUMBERS = ("device", "stream", "format", "batch", "pixels", "radius", "margin_top", "margin_bottom")
"""Parameters that are integers and no addresses."""
Expected = dict[str, tuple[torch.dtype, tuple[int, ...]]]
_known: weakref.WeakValueDictionary[int, Tensor] = weakref.WeakValueDictionary()


def address(tensor: Tensor) -> int:
    """Where a fake tensor lies: storages begin at multiples of 512 bytes, as with torch's allocator."""
    start = tensor.untyped_storage()._cdata % 2**40 * 512
    at: int = start + tensor.storage_offset() * tensor.element_size()
    _known[at] = tensor
    return at


class Extension:
    """The module `iidm.kernels._C`, built with CUDA. `calls` counts by name and shapes."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, tuple[tuple[int, ...], ...]]] = Counter()

    def build_info(self) -> dict[str, object]:
        return {"cuda": True, "cuda_arches": "80;90"}

    def __getattr__(self, name: str) -> Any:
        names = parameters(name)

        def call(*arguments: Any) -> None:
            given = dict(zip(names, arguments, strict=True))
            assert (given["device"], given["stream"]) == (0, current_stream().cuda_stream), f"{name}: {given}"
            expected = EXPECTED[name](given)
            found = {key: _tensor(name, key, at) for key, at in _addresses(given).items() if at or key in expected}
            assert found.keys() == expected.keys(), f"{name} got {sorted(found)}, not {sorted(expected)}"
            for key, (dtype, shape) in expected.items():
                tensor = found[key]
                assert tensor.is_cuda and tensor.dtype is dtype, f"{name}: {key} is {tensor.dtype} on {tensor.device}"
                real = dense_shape(tensor)
                assert real == shape, f"{name}: {key} is {shape} to the kernel, not {real}"
            self.calls[name, tuple(shape for _, shape in expected.values())] += 1

        return call


def parameters(function: str) -> list[str]:
    """Names of the parameters of a function in bindings.cpp."""
    found = re.search(rf"^void {function}\(([^)]*)\)", BINDINGS, re.MULTILINE)
    assert found, f"csrc/bindings.cpp has no {function}"
    return [parameter.split()[-1].lstrip("&") for parameter in re.split(r",(?![^<]*>)", found[1])]


def dense_shape(tensor: Tensor) -> tuple[int, ...]:
    """The shape of a dense tensor as it lies in memory: [B,H,W,C] of a channels-last image."""
    if tensor.is_contiguous():
        return tuple(tensor.shape)
    last = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    assert last, f"a tensor of strides {tensor.stride()} is not dense"
    return tuple(tensor.permute(0, 2, 3, 1).shape)


def _addresses(given: dict[str, Any]) -> dict[str, int]:
    found = {key: at for key, at in given.items() if type(at) is int and key not in NUMBERS}
    return found | dict(zip(JITTER, given.get("params", ()), strict=False))


def _tensor(name: str, key: str, at: int) -> Tensor:
    assert at in _known, f"{name}: {key} is the address of no tensor, or of one that was freed before the call"
    return _known[at]


def _jitter(given: dict[str, Any]) -> Expected:
    batch, height, width = given["sizes"]
    image = {"image": (torch.uint8, (batch, height, width, 3))}
    return image | {"out": (DTYPES[given["format"]], (batch, height, width, 3))} | _params(given, batch)


def _params(given: dict[str, Any], batch: int) -> Expected:
    if not any(given["params"]):
        return {}
    floats: Expected = dict.fromkeys(JITTER[1:5], (torch.float32, (batch,)))
    return {"enabled": (torch.bool, (batch,)), **floats, "order": (torch.int64, (batch, 4))}


def _classmix(given: dict[str, Any]) -> Expected:
    batch, height, width = given["sizes"]
    label = (batch, height, width)
    return {
        **dict.fromkeys(("image", "base_image"), (torch.uint8, (*label, 3))),
        **dict.fromkeys(("label", "base_label", "out_label"), (torch.uint8, label)),
        "base_weight": (torch.float32, label if given["weight_per_pixel"] else (batch,)),
        "selected": (torch.bool, (batch, 256)),
        "out_image": (DTYPES[given["format"]], (*label, 3)),
        "out_weight": (torch.float32, label),
        **_params(given, batch),
    }


def _draw_classes(given: dict[str, Any]) -> Expected:
    batch = given["batch"]
    label = tuple(_tensor("draw_classes", "label", given["label"]).shape)
    assert label[0] == batch and label[1] * label[2] == given["pixels"], f"{label} is not {given['pixels']} pixels"
    return {
        "label": (torch.uint8, label),
        "keys": (torch.float32, (batch, 256)),
        "selected": (torch.bool, (batch, 256)),
        "present": (torch.int32, (batch, 8)),
    }


def _blur(given: dict[str, Any]) -> Expected:
    batch, planes, height, width, channels = given["sizes"]
    shape = (batch, height, width, channels) if planes == 1 else (batch, planes, height, width)
    image = (DTYPES[given["format"]], shape)
    taps = (torch.float32, (batch, given["radius"] + 1))
    return {"image": image, "out": image, "taps": taps, "enabled": (torch.bool, (batch,))}


def _confusion_matrix(given: dict[str, Any]) -> Expected:
    batch, classes, low_h, low_w, height, width = given["sizes"]
    return {
        "logits": (torch.float32, (batch, classes, low_h, low_w)),
        "label": (torch.uint8, (batch, height, width)),
        "counts": (torch.int64, (classes**2 + 1,)),
    }


EXPECTED = {
    "jitter": _jitter,
    "classmix": _classmix,
    "draw_classes": _draw_classes,
    "blur": _blur,
    "confusion_matrix": _confusion_matrix,
}
"""What lies at each address, by what the call says of it."""


@contextmanager
def extension_calls() -> Iterator[Extension]:
    """Inside, the ops find this extension."""
    extension = Extension()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeTensor, "data_ptr", address)
        for module in (_dispatch, blur, classmix, confusion_matrix, jitter):
            patch.setattr(module, "extension", extension)
        yield extension
