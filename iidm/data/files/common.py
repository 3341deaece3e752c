"""What every room of the data needs: names in messages, progress, and where derived files are kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
Progress = Callable[[int, int], None]
"""Called with how many are done and how many there are."""


def first_few(names: Sequence[object], count: int = 5) -> str:
    """The first names of a list and how many more there are, for a message."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(str(n) for n in names[:count]) + more


def counted(count: int, what: str) -> str:
    """`1 image`, `3 images`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def hw(size: Sequence[int]) -> str:
    """A size (H, W) in pixels for a message: `480x640 (HxW)`."""
    return f"{size[0]}x{size[1]} (HxW)"


def evenly(items: Sequence[T], count: int) -> list[T]:
    """The middle ones of `count` equal stretches of the items; all where there are no more."""
    steps = min(len(items), count)
    return [items[(2 * i + 1) * len(items) // (2 * steps)] for i in range(steps)]


def cache_folder() -> Path:
    """Where derived data is kept: $IIDM_CACHE, else $XDG_CACHE_HOME/iidm, else ~/.cache/iidm."""
    if os.environ.get("IIDM_CACHE"):
        return Path(os.environ["IIDM_CACHE"]).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base).expanduser() if base else Path.home() / ".cache") / "iidm"
