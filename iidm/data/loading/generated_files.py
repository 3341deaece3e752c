"""The files that DALI leaves in the temporary folder."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

_removed: set[str] = set()


def remove_generated_files() -> None:
    """Remove the Python files that DALI wrote for graphs with an `if`. They are imported by then.

    DALI (AutoGraph) writes a `__autograph_generated_file*.py` for each function and removes it when Python ends, so
    that a run that is killed leaves it for good.
    """
    for name, module in list(sys.modules.items()):
        if name.startswith("__autograph_generated_file") and name not in _removed:
            _removed.add(name)
            with suppress(OSError, TypeError):
                Path(module.__file__).unlink()  # type: ignore[arg-type]
