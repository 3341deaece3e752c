"""Masks of several names that cover the same pixels, or whose names differ by a number alone: perhaps of one class."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ..files.common import counted, first_few

Pair = tuple[str, str]
"""Two names, in their order."""
STRONG = 1 / 3
"""Pixels that two names share of those that either has, from which on they may be one class. Annotators who draw the
same things share more; things of two classes share their edges."""
_PIXELS = 1 << 16
"""Pixels that are compared at once: masks of 100 names take 26 MB then."""
_SHOWN = 3
_IDS = frozenset("class cls id ids label c".split())
"""What stands before the number of a class."""


class Overlaps:
    """How much the masks of each two names share, in the images that have both."""

    def __init__(self) -> None:
        self._both, self._either, self._images = Counter[Pair](), Counter[Pair](), Counter[Pair]()

    def add(self, names: Sequence[str], inside: NDArray[np.bool_]) -> set[Pair]:
        """Count the masks bool [K,H,W] of one image; returns the pairs of names that share pixels."""
        flat = inside.reshape(len(names), -1)
        own = np.zeros((len(names), len(names)), np.int64)
        for start in range(0, flat.shape[1], _PIXELS):
            part = flat[:, start : start + _PIXELS]
            part = part[:, part.sum(0) > 1].astype(np.float32)
            own += np.rint(part @ part.T).astype(np.int64)
        area = flat.sum(1)
        found = set[Pair]()
        for i, j in combinations(range(len(names)), 2):
            if names[i] == names[j] or not (area[i] and area[j]):
                continue
            pair = (min(names[i], names[j]), max(names[i], names[j]))
            self._images[pair] += 1
            self._both[pair] += int(own[i, j])
            self._either[pair] += int(area[i] + area[j] - own[i, j])
            if own[i, j]:
                found.add(pair)
        return found

    def strong(self) -> dict[Pair, float]:
        """The pairs that may be one class, and the share of pixels that they have in common."""
        shares = {pair: both / self._either[pair] for pair, both in self._both.items() if both}
        return {pair: share for pair, share in sorted(shares.items()) if share >= STRONG}

    def lines(self) -> list[str]:
        """A line on the names that may be one class, a group each."""
        strong = self.strong()
        told = []
        for group in groups(strong):
            pairs = [pair for pair in strong if pair[0] in group]
            least, images = min(strong[pair] for pair in pairs), max(self._images[pair] for pair in pairs)
            share = f"they share {least:.0%}" if len(pairs) == 1 else f"two of them share {least:.0%} or more"
            told.append(
                f"masks of {_listed(group)} cover the same pixels: {share} of what either covers, in"
                f" {counted(images, 'image')} of those looked at. Are these annotators (or versions) of one class? Then"
                f" move the masks of all but one away, or give one class all of the names (names ="
                f" {json.dumps(group, ensure_ascii=False)}), for what any of them covers. Are these classes? Then cut"
                " the upper one out of the lower: pixels of both are ignored"
            )
        return _first(told)


def groups(pairs: Iterable[Pair]) -> list[list[str]]:
    """Names that pairs connect, each in one group; sorted."""
    group_of: dict[str, set[str]] = {}
    for one, other in pairs:
        joined = group_of.get(one, {one}) | group_of.get(other, {other})
        group_of.update(dict.fromkeys(joined, joined))
    return sorted({tuple(sorted(group)): sorted(group) for group in group_of.values()}.values())


def numbered(names: Iterable[str], with_numbers_alone: bool) -> list[str]:
    """A line on names that differ by a number alone: things of one class, rather than classes.

    Args:
        with_numbers_alone: whether names that are numbers alone may be things, too.
    """
    by_stem: dict[str, list[str]] = defaultdict(list)
    for name in names:
        stem = re.sub(r"[_\-. ]*\d+$", "", name)
        if stem != name and stem.lower() not in _IDS and (stem or with_numbers_alone):
            by_stem[stem].append(name)
    told = []
    for stem, own in by_stem.items():
        if len(own) > 1:
            are = "differ by a number alone" if stem else "are called by numbers alone"
            own.sort(key=lambda name: (len(name), name))
            listed = json.dumps(own[:3], ensure_ascii=False) + (" and so on" if len(own) > 3 else "")
            told.append(
                f"masks {first_few(own, 3)} {are}: classes, or things of one class? Read are {len(own)} classes."
                f" If they are things, give one class all of the names (names = {listed})"
            )
    return _first(told)


def _listed(group: Sequence[str]) -> str:
    if len(group) > _SHOWN:
        return first_few(group, _SHOWN)
    return f"{', '.join(group[:-1])} and {group[-1]}"


def _first(lines: Sequence[str]) -> list[str]:
    rest = [f"and {len(lines) - _SHOWN} more groups of such masks"] if len(lines) > _SHOWN else []
    return [*lines[:_SHOWN], *rest]
