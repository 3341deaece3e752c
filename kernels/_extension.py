"""The compiled extension, loaded when it is there. torch comes first: both then share one OpenMP runtime."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

import torch  # also loads libgomp before the extension asks for it
from torch import Tensor


def _load() -> tuple[ModuleType | None, str]:
    name = f"{__package__}._C"
    if importlib.util.find_spec(name) is None:
        return None, "the extension is not built; `pip install .` builds it"
    try:
        return importlib.import_module(name), ""
    except ImportError as error:
        return None, f"the extension does not load ({error}); reinstall iidm to rebuild it"


extension, why_missing = _load()
"""The module `iidm.kernels._C`, or None; and why it is None."""

FORMATS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
"""The codes of the C++ side's `Format`."""


def place(tensor: Tensor) -> tuple[int, int]:
    """Where the extension is to run for `tensor`: (device index, stream), (-1, 0) on the CPU."""
    if tensor.device.type == "cpu":
        return -1, 0
    return tensor.get_device(), torch.cuda.current_stream(tensor.device).cuda_stream
