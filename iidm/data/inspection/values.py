"""What the pixels of label pictures hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...types import UserError
from ..files.common import evenly
from ..files.headers import read_header
from ..labels.pictures import Picture, read_picture

SAMPLED = 64
"""Labels whose pixels are counted, evenly spaced."""


class Values(NamedTuple):
    """What the pixels of some labels hold."""

    kind: str
    """`ids`, `palette` (ids that have colours), `ids16` (ids above 255), `red16` (SYNTHIA's form) or `colors`
    (0xrrggbb)."""
    pixels: Counter[int]
    """Value -> how many pixels have it."""
    read: int
    """How many labels were read."""
    colors: dict[int, int]
    """Index -> 0xrrggbb of palette labels; of several the first one's."""
    inner: Counter[int]
    """Colour -> how many pixels have it all around them."""
    mixed: bool
    """Whether the labels are of several kinds, of which the most frequent was counted."""


def count_values(labels: Sequence[Path]) -> tuple[Values, dict[Path, str]]:
    """Count the values of at most `SAMPLED` labels; and what is wrong with those that training could not read."""
    counts: dict[str, list[Counter[int]]] = {}
    inner = Counter[int]()
    colors: dict[int, int] = {}
    problems = {}
    for path in evenly(labels, SAMPLED):
        try:
            kind, picture = _read(path)
        except UserError as error:
            problems[path] = str(error)
            continue
        counts.setdefault(kind, []).append(_counted(picture.values))
        if picture.is_color:
            inner += _counted(picture.values[1:-1, 1:-1][_is_inner(picture.values)])
        if picture.palette is not None:
            colors = dict(enumerate(picture.palette.tolist())) | colors
    kind = max(counts, key=lambda kind: len(counts[kind]), default="ids")
    pixels = sum(counts.get(kind, []), Counter[int]())
    told = "ids16" if kind == "ids" and max(pixels, default=0) > 255 else kind
    return Values(told, pixels, len(counts.get(kind, [])), colors, inner, len(counts) > 1), problems


def _read(path: Path) -> tuple[str, Picture]:
    """A label as training reads it, of whichever form, and its kind."""
    header = read_header(path, "Label")
    if header.bits > 8 and header.mode in ("RGB", "RGBA"):
        return "red16", read_picture(path, "red16", has_colors=True)
    picture = read_picture(path, "auto", has_colors=True)
    return "colors" if picture.is_color else "ids" if picture.palette is None else "palette", picture


def _is_inner(values: NDArray[Any]) -> NDArray[np.bool_]:
    """bool [H-2,W-2]: which pixels that are not at the rim equal their eight neighbours."""
    height, width = values.shape
    around = [values[y : height - 2 + y, x : width - 2 + x] for y in range(3) for x in range(3)]
    return np.logical_and.reduce([one == around[4] for one in around])


def _counted(values: NDArray[Any]) -> Counter[int]:
    top = values.max(initial=0)
    if top < 1 << 16 or (top < 1 << 24 and values.size > 1 << 20):  # sorting would be slower
        every = np.bincount(values.ravel())
        found = np.flatnonzero(every)
        counts = every[found]
    else:
        found, counts = np.unique(values, return_counts=True)
    return Counter(dict(zip(found.tolist(), counts.tolist(), strict=True)))
