"""Outlines in annotation files, and drawing them into a picture of train ids.

Each tool has a rule for the pixels on an edge, and labels here are those that the tool itself would export:

- `pillow` (LabelMe, Cityscapes): Pillow's ImageDraw. A pixel's number is its position, and corners are part of the
  polygon: a square from (1, 1) to (4, 4) covers the 16 pixels 1 to 4.
- `coco` (COCO, CVAT): pycocotools. A pixel covers the unit square right and below its number, and belongs to the
  polygon where about its middle does: the same square covers the 9 pixels 1 to 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ...types import UserError

Rule = Literal["pillow", "coco"]
Points = tuple[tuple[float, float], ...]

MALFORMED = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, OSError, SyntaxError)
"""What reading a value of another form than the tool's may raise."""
_FARTHEST_PX = 1e6
"""Pixels from the origin beyond which a coordinate is a mistake (and would overflow what draws it)."""


@dataclass(frozen=True)
class Polygons:
    """The area within any of some polygons; points are (x, y) in pixels."""

    rings: tuple[Points, ...]
    rule: Rule

    def paint(self, canvas: Image.Image, value: int) -> None:
        """Set the pixels of a gray picture that the shape covers; what lies beyond it is cut off."""
        if self.rule == "coco":
            try:
                from pycocotools import mask  # only where it is needed: it takes time to load
            except ImportError as error:
                raise UserError(
                    f"Polygons of COCO and CVAT need pycocotools: pip install pycocotools ({error})."
                ) from None

            flat = [[c for point in ring for c in point] for ring in self.rings]
            size = canvas.height, canvas.width
            counts = mask.merge(mask.frPyObjects(flat, *size))["counts"]
            _paste(canvas, (0, 0), runs_mask(decode_counts(counts), size, "columns"), value)
        else:
            for ring in self.rings:
                ImageDraw.Draw(canvas).polygon(ring, fill=value)


@dataclass(frozen=True)
class Rectangle:
    """Two corners, both among the pixels that it covers (Pillow's rule)."""

    corners: tuple[tuple[float, float], tuple[float, float]]

    def paint(self, canvas: Image.Image, value: int) -> None:
        """As `Polygons.paint`."""
        (ax, ay), (bx, by) = self.corners
        box = (min(ax, bx), min(ay, by), max(ax, bx), max(ay, by))
        ImageDraw.Draw(canvas).rectangle(box, fill=value)


@dataclass(frozen=True)
class Disc:
    """A circle around a point, in pixels (Pillow's rule)."""

    center: tuple[float, float]
    radius: float

    def paint(self, canvas: Image.Image, value: int) -> None:
        """As `Polygons.paint`."""
        (x, y), r = self.center, self.radius
        ImageDraw.Draw(canvas).ellipse((x - r, y - r, x + r, y + r), fill=value)


@dataclass(frozen=True)
class Line:
    """Points joined by strokes of a width in pixels (Pillow's rule)."""

    points: Points
    width: int

    def paint(self, canvas: Image.Image, value: int) -> None:
        """As `Polygons.paint`."""
        ImageDraw.Draw(canvas).line(self.points, fill=value, width=self.width)


@dataclass(frozen=True)
class Ellipse:
    """An ellipse, turned clockwise by degrees: it covers the pixels whose middle lies in it."""

    center: tuple[float, float]
    radii: tuple[float, float]
    degrees: float

    def paint(self, canvas: Image.Image, value: int) -> None:
        """As `Polygons.paint`."""
        y, x = np.ogrid[: canvas.height, : canvas.width]
        dx, dy = x + 0.5 - self.center[0], y + 0.5 - self.center[1]
        cos, sin = math.cos(math.radians(self.degrees)), math.sin(math.radians(self.degrees))
        along, across = dx * cos + dy * sin, dy * cos - dx * sin
        rx, ry = self.radii
        if rx > 0 and ry > 0:
            _paste(canvas, (0, 0), np.square(along / rx) + np.square(across / ry) <= 1, value)


@dataclass(frozen=True)
class Bitmap:
    """A mask of pixels whose first one lies at (x, y)."""

    corner: tuple[int, int]
    mask: NDArray[np.bool_]

    def paint(self, canvas: Image.Image, value: int) -> None:
        """As `Polygons.paint`."""
        _paste(canvas, self.corner, self.mask, value)


Form = Polygons | Rectangle | Disc | Line | Ellipse | Bitmap


class Shape(NamedTuple):
    """One annotated thing."""

    name: str
    """Of its class, as the file says."""
    form: Form
    where: str
    """For messages, e.g. `annotation 7`."""
    otherwise: str | None = None
    """Its name where no class has the first; empty: then it is not drawn."""


@dataclass(frozen=True)
class Annotated:
    """What an annotation file says of one image."""

    size: tuple[int, int] | None
    """(H, W) in pixels; None: not said."""
    shapes: tuple[Shape, ...]
    """Later ones lie over earlier ones."""
    left_out: tuple[str, ...] = ()
    """Kinds of things that have no area, one for each that was left aside."""
    is_exclusive: bool = False
    """Whether none lies over another: pixels of two classes are ignored."""


class Entry(NamedTuple):
    """One image that an annotation file lists."""

    file_name: str
    """As the file says: perhaps with folders, perhaps without ending."""
    read: Callable[[], Annotated]


def reason(error: Exception) -> str:
    """One of `MALFORMED` in words."""
    return f"it lacks {error}" if isinstance(error, KeyError) else str(error)


def points_of(pairs: Sequence[Sequence[object]], least: int) -> Points:
    """Points (x, y) of pairs of numbers. Raises ValueError for fewer than `least`, and for what is no place."""
    points = tuple((number(x), number(y)) for x, y in pairs)
    if len(points) < least:
        raise ValueError(f"{len(points)} points where {least} are needed")
    return points


def number(value: object) -> float:
    """A coordinate or length in pixels. Raises ValueError for text, NaN and what is far from any picture."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= _FARTHEST_PX:
        raise ValueError(f"{value!r} is no coordinate")
    return float(value)


def runs_mask(runs: Sequence[int], size: tuple[int, int], order: Literal["rows", "columns"]) -> NDArray[np.bool_]:
    """bool [H,W] of run lengths, alternately of pixels outside and inside; beginning outside.

    Checked here as pycocotools returns memory that nobody has written where they do not fill the picture.

    Raises: ValueError where they do not cover just H x W pixels, and for more than a label may have.
    """
    most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
    if size[0] * size[1] > most > 0:  # a few numbers may stand for all memory
        raise ValueError(f"its mask is {size[0]} x {size[1]} (HxW), more than the {most:,} pixels that are read")
    counts = np.array(runs, np.int64)
    if (counts < 0).any() or counts.sum() != size[0] * size[1]:
        raise ValueError(f"its run lengths cover {int(counts.sum())} pixels, not {size[0]} x {size[1]} (HxW)")
    inside = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return inside.reshape(size) if order == "rows" else inside.reshape(size[::-1]).T


def decode_counts(text: str | bytes) -> list[int]:
    """Run lengths of COCO's compressed text: five bits a character, from the third on as difference to the last but
    one (pycocotools' rleFrString).

    Raises: ValueError for what is no such text.
    """
    data = text.encode("ascii") if isinstance(text, str) else text
    counts: list[int] = []
    value, shift = 0, 0
    for byte in data:
        bits = byte - 48
        if not 0 <= bits < 64:
            raise ValueError(f"its mask holds the character {chr(byte)!r}, which is none of COCO's")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value, shift = 0, 0
    if shift:
        raise ValueError("its mask is cut off")
    return counts


def _paste(canvas: Image.Image, corner: tuple[int, int], mask: NDArray[np.bool_], value: int) -> None:
    canvas.paste(value, (*corner, corner[0] + mask.shape[1], corner[1] + mask.shape[0]), Image.fromarray(mask))
