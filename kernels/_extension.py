"""The compiled extension, loaded when it is there. torch comes first: both then share one OpenMP runtime."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

import torch  # noqa: F401  # loads libgomp before the extension asks for it


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
