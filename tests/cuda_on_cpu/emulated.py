"""The CUDA functions of the extension, run on the CPU for CPU tensors: what the body `emulated` puts in its place."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch

OPS = ("blur", "classmix", "confusion_matrix", "jitter")
"""The ops that have a CUDA kernel; `classmix` has `draw_classes` with it."""


class Emulated:
    """The extension's functions, called for device 0 and stream 0 instead of the CPU (the last two arguments)."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Callable[..., object]:
        function = getattr(self._module, name)
        return lambda *arguments: function(*arguments[:-2], 0, 0)

    def draw_classes(self, *arguments: int) -> None:
        """With the scratch memory that the product allocates on a GPU alone."""
        present = torch.zeros(arguments[2], 8, dtype=torch.int32)
        self._module.draw_classes(*arguments[:-3], present.data_ptr(), 0, 0)


def load(path: Path) -> Emulated:
    """The module that `on_cpu.Build.extension` made."""
    spec = importlib.util.spec_from_file_location(f"cuda_on_cpu.{path.name.split('.')[0]}._C", path)
    assert spec is not None and spec.loader is not None
    flags = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_LAZY)  # the C++ kernels that it names are not in it
    try:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.setdlopenflags(flags)
    return Emulated(module)
