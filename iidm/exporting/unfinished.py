"""Files that get their names when they are whole and checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def unfinished(paths: Mapping[str, Path]) -> Iterator[dict[str, Path]]:
    """Names beside the files' own to write them under; what is left of them at the end is removed.

    They are the same each time, so that what a kill left goes with the next call.
    """
    parts = {p: path.with_name(f".{path.name}") for p, path in paths.items()}
    for path in paths.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield parts
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
