"""The vehicles of StreetScenes, drawn at a place in metres."""

from __future__ import annotations

from .canvas import Color, shade
from .things import BICYCLE, BUS, CAR, MOTORCYCLE, RIDER, TRAIN, TRUCK, Painter

_OCTAGON = ((1, 0), (0.7, 0.7), (0, 1), (-0.7, 0.7), (-1, 0), (-0.7, -0.7), (0, -1), (0.7, -0.7))
"""Up and ahead of the hub, in radii."""


class StreetPainter(Painter):
    """Draws everything that stands in a street: what a `Painter` draws, and vehicles."""

    def two_wheeler(self, x: float, z: float, label: int, *, ridden: bool) -> None:
        """A bicycle or a motorcycle seen obliquely; its rider is a class of its own."""
        view, color = self.canvas.view, self.color("car")
        scale = view.scale(z)
        wheel, half = (0.36, 0.55) if label == BICYCLE else (0.34, 0.7)
        heavy = label == MOTORCYCLE
        tyre = self.color("wheel")
        for side in (-1, 1):
            center = view.at(x + side * half, wheel, z)
            self.canvas.ellipse(center, (wheel * scale * 0.8, wheel * scale), tyre, label, z)
            inner = wheel * scale * (0.45 if heavy else 0.72)
            self.canvas.ellipse(center, (inner * 0.8, inner), (150, 150, 150), label, z)
        thick = max((0.3 if heavy else 0.09) * scale, 1.5)
        seat, bar = view.at(x - half * 0.4, 0.85, z), view.at(x + half * 0.75, 1.0, z)
        for start, end in (
            (view.at(x - half, wheel, z), seat),
            (seat, view.at(x + half * 0.6, 0.72, z)),
            (view.at(x + half, wheel, z), bar),
            (view.at(x, 0.4, z), seat),
        ):
            self.canvas.line(start, end, thick, color, label, z)
        if heavy:
            self.canvas.upright(x, z, -half * 0.7, half * 0.6, 0.4, 0.85, color, label)
            self.canvas.ellipse(bar, (0.13 * scale, 0.13 * scale), (235, 230, 190), label, z)
        if ridden:
            thigh = (view.at(x - half * 0.3, 0.95, z), view.at(x + half * 0.1, 0.35, z))
            self.canvas.line(*thigh, max(0.2 * scale, 1.5), self.color("cloth"), RIDER, z)
            self.person(x - half * 0.25, z, label=RIDER, low=0.85)

    def car(self, x: float, z: float) -> None:
        """A car from behind or ahead: its flank with two wheels where it stands aside, then its end."""
        paint, glass, tyre = self.color("car"), self.color("glass"), self.color("wheel")
        half, high, long = self.uniform(0.82, 0.95), self.uniform(1.35, 1.75), self.uniform(3.6, 4.6)
        view, belt, side = self.canvas.view, high * 0.6, self._seen_side(x, z)
        flank, slope = x + side * half, 0.14 * long
        self._flank(x, z, half, (0.3, belt), long, shade(paint, 72), CAR)
        for inset, color in ((0.0, shade(paint, 72)), (0.1, shade(glass, 85))):
            roof = x + side * half * 0.8
            cabin = [view.at(flank, belt + inset, z + 2.5 * inset), view.at(roof, high - inset, z + slope)]
            cabin += [view.at(roof, high - inset, z + long * 0.8), view.at(flank, belt + inset, z + long * 0.95)]
            self.canvas.polygon(cabin, color, CAR, z)
        for along in (0.2, 0.8):
            self._side_wheel(flank, z + along * long, 0.33, tyre, CAR)
        for left in (-1, 1):
            self.canvas.upright(x + left * half * 0.78, z, -0.13, 0.13, 0, 0.4, tyre, CAR)
        self.canvas.upright(x, z, -half, half, 0.24, belt, paint, CAR)
        for inset, color in ((0.0, paint), (0.1, glass)):
            wide, narrow = half * (1 - inset), half * (0.8 - inset)
            end = [view.at(x - wide, belt, z), view.at(x - narrow, high - inset, z + slope)]
            end += [view.at(x + narrow, high - inset, z + slope), view.at(x + wide, belt, z)]
            self.canvas.polygon(end, color, CAR, z)
        scale, lamp = view.scale(z), (220, 40, 30) if self.chance(0.5) else (245, 240, 210)
        for left in (-1, 1):
            center = view.at(x + left * half * 0.78, belt * 0.8, z)
            self.canvas.ellipse(center, (0.14 * scale, 0.09 * scale), lamp, CAR, z)
        self.canvas.upright(x, z, -half, half, 0.24, 0.34, shade(paint, 55), CAR)
        self.canvas.upright(x, z, -0.26, 0.26, 0.42, 0.55, (215, 215, 210), CAR)

    def car_across(self, x: float, z: float) -> None:
        """A car seen from its side."""
        paint, glass = self.color("car"), self.color("glass")
        view, scale = self.canvas.view, self.canvas.view.scale(z)
        self.canvas.upright(x, z, -2.1, 2.1, 0.3, 0.9, paint, CAR)
        roof = [
            view.at(x - 1.5, 0.9, z),
            view.at(x - 0.9, 1.45, z),
            view.at(x + 0.8, 1.45, z),
            view.at(x + 1.4, 0.9, z),
        ]
        self.canvas.polygon(roof, paint, CAR, z)
        pane = [
            view.at(x - 1.2, 0.92, z),
            view.at(x - 0.8, 1.35, z),
            view.at(x + 0.7, 1.35, z),
            view.at(x + 1.1, 0.92, z),
        ]
        self.canvas.polygon(pane, glass, CAR, z)
        for side in (-1, 1):
            center = view.at(x + side * 1.3, 0.33, z)
            self.canvas.ellipse(center, (0.33 * scale, 0.33 * scale), self.color("wheel"), CAR, z)
            self.canvas.ellipse(center, (0.15 * scale, 0.15 * scale), (150, 150, 150), CAR, z)

    def truck(self, x: float, z: float) -> None:
        """A high closed box on wheels, cabin at its far end or near one."""
        box, cabin, glass = self.color("truck"), self.color("car"), self.color("glass")
        half, high, long = 1.2, self.uniform(3.0, 3.6), self.uniform(6, 9)
        self._flank(x, z, half, (0.8, high), long, shade(box, 72), TRUCK)
        for along in (0.15, 0.75):
            self._side_wheel(x + self._seen_side(x, z) * half, z + along * long, 0.48, self.color("wheel"), TRUCK)
        front = self.chance(0.5)
        self.canvas.upright(x, z, -half, half, 0.7, high, cabin if front else box, TRUCK)
        if front:
            self.canvas.upright(x, z, -half, half, high * 0.75, high, box, TRUCK)
            self.canvas.upright(x, z, -half * 0.85, half * 0.85, 1.5, 2.3, glass, TRUCK)
        else:
            self.canvas.upright(x, z, -0.05, 0.05, 0.8, high, shade(box, 60), TRUCK)
            self.canvas.upright(x, z, -half, half, 0.7, 0.95, shade(box, 45), TRUCK)
        for side in (-1, 1):
            self.canvas.upright(x + side * half * 0.75, z, -0.22, 0.22, 0, 0.8, self.color("wheel"), TRUCK)

    def bus(self, x: float, z: float) -> None:
        """A large windowed box with a lit number and a row of side windows."""
        paint, glass = self.color("bus"), self.color("glass")
        half, high, long = 1.25, self.uniform(2.9, 3.3), self.uniform(9, 12)
        self._flank(x, z, half, (0.4, high), long, shade(paint, 75), BUS)
        self._windows(x, z, half, (1.35, 2.3), long, glass, BUS)
        for along in (0.2, 0.75):
            self._side_wheel(x + self._seen_side(x, z) * half, z + along * long, 0.45, self.color("wheel"), BUS)
        self.canvas.upright(x, z, -half, half, 0.35, high, paint, BUS)
        self.canvas.upright(x, z, -half * 0.88, half * 0.88, 1.1, high - 0.6, glass, BUS)
        self.canvas.upright(x, z, -half * 0.6, half * 0.6, high - 0.45, high - 0.12, (250, 180, 40), BUS)
        for side in (-1, 1):
            self.canvas.upright(x + side * half * 0.75, z, -0.18, 0.18, 0, 0.5, self.color("wheel"), BUS)

    def train(self, x: float, z: float) -> None:
        """A tram: narrow front with one large pane and a dark roof, a long flank with many windows."""
        paint, glass = self.color("train"), self.color("glass")
        half, high, long = 1.3, 3.5, self.uniform(18, 28)
        self._flank(x, z, half, (0.3, high), long, shade(paint, 78), TRAIN)
        self._windows(x, z, half, (1.5, 2.6), long, glass, TRAIN)
        self.canvas.upright(x, z, -half, half, 0.3, high, paint, TRAIN)
        self.canvas.upright(x, z, -half, half, high - 0.35, high, (60, 60, 62), TRAIN)
        self.canvas.upright(x, z, -half * 0.9, half * 0.9, 1.4, 2.9, glass, TRAIN)
        self.canvas.upright(x, z, -half, half, 0.3, 0.75, (70, 70, 72), TRAIN)
        self.canvas.ellipse(
            self.canvas.view.at(x, 1.05, z), (0.16 * self.canvas.view.scale(z),) * 2, (250, 245, 220), TRAIN, z
        )

    def _flank(
        self, x: float, z: float, half: float, rows: tuple[float, float], long: float, color: Color, label: int
    ) -> None:
        """The visible long side of a vehicle: the one that looks towards the camera's axis."""
        self.side_face(x + self._seen_side(x, z) * half, z, z + long, rows[0], rows[1], color, label)

    def _seen_side(self, x: float, z: float) -> int:
        view = self.canvas.view
        return -1 if x + view.curve * z * z > 0 else 1

    def _side_wheel(self, x: float, z: float, radius: float, color: Color, label: int) -> None:
        """A wheel in a flank: an octagon in the plane of the street's direction."""
        view = self.canvas.view
        for size, shown in ((radius, color), (radius * 0.45, (150, 150, 150))):
            corners = [view.at(x, radius + size * up, z + size * ahead) for up, ahead in _OCTAGON]
            self.canvas.polygon(corners, shown, label, z)

    def _windows(
        self, x: float, z: float, half: float, rows: tuple[float, float], long: float, color: Color, label: int
    ) -> None:
        z0 = z + 0.6
        while z0 + 1.2 < z + long:
            self._flank(x, z0, half, rows, 1.0, color, label)
            z0 += 1.5
