"""The greedy choice: the images that cover most of what labeled images do not cover yet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .regions import Regions

RARE_SHARE = 0.002
"""Share of all pixels below which a class counts less and less: what is seen as good as nowhere is more likely a
mistake than a rare class."""
MOST_POPULATION = 2048
"""Regions of a class that stand for all of them, evenly spaced over the images: time and memory grow with the number of
images, not with its square."""
LOOKS = 256
"""Images whose gain is computed at once."""


@dataclass(frozen=True)
class Choice:
    """Images to label, the first one first."""

    order: list[int]
    """Places of the images."""
    reasons: list[tuple[int, ...]]
    """Of each, the classes that it was taken for: most of its gain, at most three."""
    before: float
    """Share (0..1) of what there is to learn that labeled images cover."""
    after: float
    """The same with the chosen ones."""


def region_values(regions: Regions, images: int) -> NDArray[np.float64]:
    """float64 [R]: what a region is worth: its pixels by their uncertainty, a rare class's more.

    Args:
        images: how many there are.
    """
    share = np.bincount(regions.kind, weights=regions.area, minlength=256) / images
    return regions.area * regions.uncertainty / (share + RARE_SHARE)[regions.kind]


def image_scores(regions: Regions, images: int) -> NDArray[np.float64]:
    """float64 [N]: the worth of each image alone, whatever is labeled."""
    scores: NDArray[np.float64] = np.bincount(
        regions.image, weights=region_values(regions, images), minlength=images
    ).astype(np.float64)
    return scores


def choose(regions: Regions, labeled: NDArray[np.bool_], candidates: NDArray[np.bool_], count: int) -> Choice:
    """The `count` candidates that cover most, one after the other.

    Args:
        regions: of all images.
        labeled: bool [N] images that cover something already.
        candidates: bool [N] those that may be chosen, `count` or more.

    Returns:
        The choice of the greedy algorithm as if it computed every gain anew in each round: gains only fall, so most of
        them need not be (Minoux's lazy greedy). Equal gains: the earlier image.
    """
    cover = _Cover(regions, region_values(regions, len(labeled)), len(labeled))
    for place in np.flatnonzero(labeled):
        cover.add(int(place))
    before = cover.share
    bound = np.full(len(labeled), -np.inf)
    bound[candidates] = cover.gains_of(np.flatnonzero(candidates))
    fresh = candidates.copy()
    order: list[int] = []
    reasons: list[tuple[int, ...]] = []
    while len(order) < count:
        best = int(bound.argmax())
        if not fresh[best]:
            stale = np.flatnonzero(~fresh & np.isfinite(bound))
            top = stale[np.argpartition(-bound[stale], min(LOOKS, len(stale)) - 1)[:LOOKS]]
            bound[top] = cover.gains_of(top)
            fresh[top] = True
            continue
        order.append(best)
        reasons.append(_most(cover.gains(best)))
        cover.add(best)
        bound[best] = -np.inf
        fresh[:] = False
    return Choice(order, reasons, before, cover.share)


def _most(gains: list[tuple[int, float]]) -> tuple[int, ...]:
    """The classes of the largest gains that make up two thirds of all, three at most."""
    found: list[int] = []
    whole, so_far = sum(gain for _, gain in gains), 0.0
    for kind, gain in sorted(gains, key=lambda pair: -pair[1])[:3]:
        if so_far < whole * 2 / 3:
            found.append(kind)
            so_far += gain
    return tuple(found)


@dataclass
class _Class:
    """The population of one class and how well it is covered."""

    feature: NDArray[np.float32]
    """[P,D]."""
    square: NDArray[np.float32]
    """[P] their squared lengths."""
    weight: NDArray[np.float32]
    """[P]."""
    spread: float
    """Mean squared distance of two of them: the likeness exp(-d^2 / spread) is 1/e for such a pair."""
    usual_area: float
    """Median of all regions of the class."""
    covered: NDArray[np.float32]
    """[P] 0..1."""

    def likeness(self, feature: NDArray[np.float16], area: NDArray[np.float32]) -> NDArray[np.float32]:
        """[n,P] 0..1: how well n regions cover each of the population. A small region shows little of its class."""
        own = feature.astype(np.float32)
        distance = (own * own).sum(1)[:, None] + self.square - 2 * own @ self.feature.T
        alike: NDArray[np.float32] = np.exp(-np.maximum(distance, 0) / self.spread)
        return alike * (area / (area + self.usual_area))[:, None]


class _Cover:
    """How well each class's population is covered by the images so far."""

    def __init__(self, regions: Regions, values: NDArray[np.float64], images: int) -> None:
        self._regions = regions
        self._starts = np.searchsorted(regions.image, np.arange(images + 1))
        self._classes = {int(k): self._population(np.flatnonzero(regions.kind == k), values) for k in _kinds(regions)}

    def _population(self, rows: NDArray[np.int64], values: NDArray[np.float64]) -> _Class:
        number = min(len(rows), MOST_POPULATION)
        chosen = rows[(2 * np.arange(number) + 1) * len(rows) // (2 * number)]
        feature = self._regions.feature[chosen].astype(np.float32)
        weight = values[chosen]
        weight = weight * (values[rows].sum() / max(weight.sum(), 1e-30))
        share = weight / max(weight.sum(), 1e-30)
        spread = 2 * float((share * ((feature - share @ feature) ** 2).sum(1)).sum())
        return _Class(
            feature,
            (feature * feature).sum(1),
            weight.astype(np.float32),
            max(spread, 1e-6),
            float(np.median(self._regions.area[rows])),
            np.zeros(number, np.float32),
        )

    @property
    def share(self) -> float:
        """Of all weight, that which is covered."""
        total = sum(float(own.weight.sum()) for own in self._classes.values())
        return sum(float(own.weight @ own.covered) for own in self._classes.values()) / max(total, 1e-30)

    def _of_image(self, place: int) -> list[tuple[int, NDArray[np.float32]]]:
        """Each class in an image with its likeness to the population."""
        rows = range(self._starts[place], self._starts[place + 1])
        regions = self._regions
        return [
            (kind, self._classes[kind].likeness(regions.feature[row : row + 1], regions.area[row : row + 1])[0])
            for row in rows
            for kind in [int(regions.kind[row])]
        ]

    def add(self, place: int) -> None:
        """Count an image as labeled."""
        for kind, alike in self._of_image(place):
            covered = self._classes[kind].covered
            np.maximum(covered, alike, out=covered)

    def gains(self, place: int) -> list[tuple[int, float]]:
        """Each class in an image, and what would be covered in addition."""
        return [(kind, _gain(self._classes[kind], alike[None])[0]) for kind, alike in self._of_image(place)]

    def gains_of(self, places: NDArray[np.int64]) -> NDArray[np.float64]:
        """float64 [n]: the whole gain of each of some images, a few at once."""
        parts = np.array_split(places, max(1, -(-len(places) // LOOKS)))
        return np.concatenate([self._gains_of(part) for part in parts])

    def _gains_of(self, places: NDArray[np.int64]) -> NDArray[np.float64]:
        counts = self._starts[places + 1] - self._starts[places]
        owner = np.repeat(np.arange(len(places)), counts)
        rows = np.concatenate([np.arange(self._starts[p], self._starts[p + 1]) for p in places])
        kinds, found = self._regions.kind[rows], np.zeros(len(places))
        for kind in np.unique(kinds):
            own, mine = self._classes[int(kind)], np.flatnonzero(kinds == kind)
            alike = own.likeness(self._regions.feature[rows[mine]], self._regions.area[rows[mine]])
            np.add.at(found, owner[mine], _gain(own, alike))
        return found


def _kinds(regions: Regions) -> NDArray[np.uint8]:
    return np.unique(regions.kind)


def _gain(own: _Class, alike: NDArray[np.float32]) -> NDArray[np.float64]:
    """[n] of likenesses [n,P]."""
    more = np.maximum(alike - own.covered, 0)
    gain: NDArray[np.float64] = (more * own.weight).sum(1, dtype=np.float64)
    return gain
