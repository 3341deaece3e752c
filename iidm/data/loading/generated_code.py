"""The code that DALI generates for graphs with an `if`, kept in memory."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from types import ModuleType

from nvidia.dali._autograph.pyct import loader

_numbers = count()


@contextmanager
def generated_in_memory() -> Iterator[None]:
    """Meanwhile DALI (AutoGraph) imports the functions that it generates from memory.

    It would write each to a file in the temporary folder and remove that when Python ends: a process that is killed
    leaves it for good.
    """
    before, loader.load_source = loader.load_source, _load_source
    try:
        yield
    finally:
        loader.load_source = before


def _load_source(source: str, delete_on_exit: bool) -> tuple[ModuleType, str]:
    """As DALI's function of this name."""
    name = f"__autograph_generated_{next(_numbers)}"
    module, file_name = ModuleType(name), f"<{name}>"
    module.__file__ = file_name
    linecache.cache[file_name] = len(source), None, source.splitlines(keepends=True), file_name  # for tracebacks
    exec(compile(source, file_name, "exec"), module.__dict__)
    sys.modules[name] = module
    return module, file_name
