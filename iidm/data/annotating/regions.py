"""What a label is made of: regions with corners."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ring = NDArray[np.float64]
"""float64 [N,2]: corners (x, y), the last one the first again. Pixel i covers i to i + 1 of an axis."""

_EPSILON = 1e-6


class Region(NamedTuple):
    """Connected pixels of one class; pixels that touch at a corner are not connected."""

    train_id: int
    outer: Ring
    holes: tuple[Ring, ...]
    """Other regions fill them."""
    in_hole: bool = False
    """Whether it lies in a hole of another region."""

    @property
    def flat(self) -> list[float]:
        """x, y, x, y, ... of the outer ring, each corner once."""
        flat: list[float] = self.outer[:-1].ravel().tolist()
        return flat

    @property
    def filled_px(self) -> float:
        """The area within the outer ring, holes too."""
        return abs(_signed_area(self.outer))

    @property
    def area_px(self) -> float:
        """Without the holes."""
        return self.filled_px - sum(abs(_signed_area(hole)) for hole in self.holes)


class Regions(NamedTuple):
    """What `trace_regions` found in a label."""

    size: tuple[int, int]
    """(H, W) of the label, pixels."""
    regions: tuple[Region, ...]
    """Larger outer rings first, so that later ones painted over earlier ones give the label."""
    dropped: int
    """Regions that were too small; their pixels belong to a neighbour."""

    def without(self, train_id: int | None, *, has_holes: bool) -> Regions:
        """The regions but for those of the class that pixels without a polygon are.

        Those in a hole stay where a tool's polygons have none: the region around would cover them. All stay where
        there is no other class: an image without any polygon is one that nobody has looked at.
        """
        kept = tuple(r for r in self.regions if r.train_id != train_id or (r.in_hole and not has_holes))
        return self._replace(regions=kept) if kept else self


def _signed_area(ring: Ring) -> float:
    x, y = ring[:, 0], ring[:, 1]
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


def inward(ring: Ring) -> NDArray[np.float64]:
    """[N-1, 2] of a ring [N,2]: for each corner the signs of the way into the area, 1 where it is along an edge."""
    along = np.diff(ring, axis=0)
    normal = along[:, ::-1] * (-1, 1) / np.hypot(*along.T)[:, None]
    way = (normal + np.roll(normal, 1, 0)) * np.sign(_signed_area(ring))
    return np.where(way > -_EPSILON, 1.0, -1.0)
