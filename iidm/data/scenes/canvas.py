"""What StreetScenes draws on: a colour image, a label and a distance image that are painted together.

Everything is integer Pillow drawing from coordinates that are rounded once, and plain float64 +, -, *, / before that,
so the same bytes come out whatever the processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

Color = tuple[int, int, int]
Point = tuple[float, float]
FAR_M = 127.0
"""Distance of the sky; the distance image holds metres times two."""


@dataclass(frozen=True)
class View:
    """A pinhole camera over a flat, possibly curved street. Metres: x to the right, y up, z ahead."""

    size: tuple[int, int]
    """(H, W) pixels."""
    focal_px: float
    horizon_px: float
    center_px: float
    height_m: float
    curve: float
    """Sideways shift of the street at distance z: curve * z * z metres."""

    def at(self, x: float, y: float, z: float) -> Point:
        """Pixel (u, v) of a point."""
        return (
            self.center_px + self.focal_px * (x + self.curve * z * z) / z,
            self.horizon_px + self.focal_px * (self.height_m - y) / z,
        )

    def scale(self, z: float) -> float:
        """Pixels a metre at distance z."""
        return self.focal_px / z


class Canvas:
    """Paints colour, class and distance at once, later things over earlier ones."""

    def __init__(self, view: View, sky: int) -> None:
        height, width = view.size
        self.view = view
        self.image = Image.new("RGB", (width, height))
        self.label = Image.new("L", (width, height), sky)
        self.distance = Image.new("L", (width, height), 255)
        self._color = ImageDraw.Draw(self.image)
        self._class = ImageDraw.Draw(self.label)
        self._far = ImageDraw.Draw(self.distance)

    def polygon(self, points: Sequence[Point], color: Color, label: int, z: float) -> None:
        """A filled polygon; points in pixels."""
        rounded = [_clamp(p) for p in points]
        self._color.polygon(rounded, fill=color)
        self._class.polygon(rounded, fill=label)
        self._far.polygon(rounded, fill=_metres(z))

    def ellipse(self, center: Point, radii: Point, color: Color, label: int, z: float) -> None:
        """A filled ellipse; pixels."""
        box = [
            _clamp((center[0] - radii[0], center[1] - radii[1])),
            _clamp((center[0] + radii[0], center[1] + radii[1])),
        ]
        self._color.ellipse(box, fill=color)
        self._class.ellipse(box, fill=label)
        self._far.ellipse(box, fill=_metres(z))

    def box(self, low: Point, high: Point, color: Color, label: int, z: float) -> None:
        """A filled rectangle between two corners; pixels."""
        left, right = sorted((low[0], high[0]))
        top, bottom = sorted((low[1], high[1]))
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], color, label, z)

    def line(self, start: Point, end: Point, width_px: float, color: Color, label: int, z: float) -> None:
        """A thick line; at least one pixel."""
        points = [_clamp(start), _clamp(end)]
        width = max(1, round(width_px))
        self._color.line(points, fill=color, width=width)
        self._class.line(points, fill=label, width=width)
        self._far.line(points, fill=_metres(z), width=width)

    def upright(
        self, x: float, z: float, left: float, right: float, low: float, high: float, color: Color, label: int
    ) -> None:
        """A rectangle that faces the camera at (x, z); edges in metres from x and from the ground."""
        self.box(self.view.at(x + left, low, z), self.view.at(x + right, high, z), color, label, z)


def _metres(z: float) -> int:
    return max(0, min(255, int(z * 2)))


def _clamp(point: Point) -> tuple[int, int]:
    """Rounded, and kept where Pillow's integers are safe."""
    return max(-4000, min(4000, round(point[0]))), max(-4000, min(4000, round(point[1])))


def shade(color: Color, percent: int) -> Color:
    """A colour made darker or lighter."""
    red, green, blue = (max(0, min(255, c * percent // 100)) for c in color)
    return red, green, blue
