"""Colours of label pictures that are no classes: blends at edges, of smoothing, resizing or JPEG.

A class has pixels with nothing else around them, a blend has none: it lies on edges, and its colour between those of
two classes. JPEG also makes shades of the classes' own colours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np

from ..labels.colors import unpacked
from .values import Values

_ON_EDGES = 0.05
"""A colour is on edges alone when a smaller share of its pixels has nothing else around them."""
_FEWEST = 3
"""Blends are at least so many colours, and more than the classes: resizing to the half makes three of two."""
_TRIED = 512
"""Of more colours on edges the most frequent ones are looked at."""
_BETWEEN_PX = 2
"""How far a blend's channels may be off the line between two colours: they are rounded."""
_SHADE = 48
"""How far a channel of a shade that JPEG made may be off its class's."""
_FEWER = 4
"""A shade has at most one such part of the inner pixels of its class."""
_JPEG = 2
"""A label was a JPEG where shades are so many times the classes' own colours; two classes may be as alike."""
_PAIRS = 64
"""Of more colours the most frequent ones are tried as the two that a blend lies between."""


def class_colors(values: Values, named: Collection[int]) -> set[int]:
    """The colours that are classes; all of them where the labels are not smoothed.

    Args:
        values: what was counted in colour labels.
        named: colours that a list or a known palette names. Where it names all, none is a blend.
    """
    every = set(values.pixels)
    unnamed = every - set(named)
    on_edges = {c for c in every if values.inner[c] <= _ON_EDGES * values.pixels[c]}
    solid = sorted(every - on_edges, key=lambda c: (-values.inner[c], c))
    tried = sorted(on_edges & unnamed, key=lambda c: (-values.pixels[c], c))[:_TRIED]
    if _count_between(tried, solid[:_PAIRS]) < max(_FEWEST, len(solid[:_PAIRS]) + 1):
        return every
    found: list[int] = []
    for color in solid:
        if not _is_shade(color, found, values.inner):
            found.append(color)
    return set(found if len(solid) > _JPEG * len(found) else solid)


def _is_shade(color: int, found: Sequence[int], inner: Counter[int]) -> bool:
    """Whether a colour is like one of those before it, which has many more inner pixels."""
    often = np.array([c for c in found if inner[c] >= _FEWER * inner[color]], np.int64)
    far = np.abs(unpacked(often) - unpacked(np.array([color], np.int64))).max(-1)
    return bool((far <= _SHADE).any())


def _count_between(blends: Sequence[int], solid: Sequence[int]) -> int:
    """How many of the blends lie on the line between two other colours."""
    points = unpacked(np.array(blends, np.int64)).astype(np.float64)
    ends = unpacked(np.array(solid, np.int64)).astype(np.float64)
    found = np.zeros(len(points), bool)
    for i, a in enumerate(ends):
        for b in ends[i + 1 :]:
            along = np.clip((points - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
            found |= np.abs(points - a - along[:, None] * (b - a)).max(-1) <= _BETWEEN_PX
    return int(found.sum())
