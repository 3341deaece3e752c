"""The things of StreetScenes: how a car, a tree or a person looks, drawn at a place in metres."""

from __future__ import annotations

import numpy as np

from .scenes_canvas import Canvas, Color, shade
from .scenes_style import Style

(
    ROAD,
    SIDEWALK,
    BUILDING,
    WALL,
    FENCE,
    POLE,
    LIGHT,
    SIGN,
    VEGETATION,
    TERRAIN,
    SKY,
    PERSON,
    RIDER,
    CAR,
    TRUCK,
    BUS,
    TRAIN,
    MOTORCYCLE,
    BICYCLE,
) = range(19)


class Painter:
    """Draws things on a canvas in the colours of a style."""

    def __init__(self, canvas: Canvas, style: Style, rng: np.random.Generator) -> None:
        self.canvas, self.style, self.rng = canvas, style, rng

    def color(self, material: str) -> Color:
        """A colour of the material, varied."""
        base = self.style.palettes[material]
        red, green, blue = base[int(self.rng.integers(len(base)))]
        shift = self.rng.integers(-self.style.spread, self.style.spread + 1, 3)
        gray = int(self.rng.integers(-self.style.spread, self.style.spread + 1))
        r, g, b = (max(0, min(255, c + int(d) + gray)) for c, d in zip((red, green, blue), shift, strict=True))
        return r, g, b

    def uniform(self, low: float, high: float) -> float:
        """A uniform number."""
        return low + (high - low) * float(self.rng.random())

    def chance(self, share: float) -> bool:
        """True with this chance."""
        return bool(self.rng.random() < share)

    def side_face(self, x: float, near: float, far: float, low: float, high: float, color: Color, label: int) -> None:
        """An upright face along the street at sideways position x, in slices, so that its distance is right."""
        view, slices = self.canvas.view, 5
        for i in range(slices, 0, -1):
            a, b = near + (far - near) * (i - 1) / slices, near + (far - near) * i / slices
            points = [view.at(x, low, a), view.at(x, high, a), view.at(x, high, b), view.at(x, low, b)]
            self.canvas.polygon(points, color, label, (a + b) / 2)

    def building(self, side: int, x: float, near: float, far: float) -> None:
        """A block with windows; its street side faces the street, its front the camera."""
        high = self.uniform(*self.style.building_m)
        wall, glass = self.color("building"), self.color("window")
        outer = x + side * self.uniform(8, 14)
        self.canvas.upright(x, near, min(0.0, outer - x), max(0.0, outer - x), 0, high, shade(wall, 80), BUILDING)
        self.side_face(x, near, far, 0, high, wall, BUILDING)
        storey, bay = self.uniform(2.8, 3.6), self.uniform(2.2, 3.4)
        share = self.uniform(0.4, 0.65)
        view = self.canvas.view
        for floor in range(int(high / storey)):
            low = floor * storey + storey * 0.3
            for i in range(int((far - near) / bay)):
                a, b = near + i * bay + 0.3, near + i * bay + 0.3 + bay * share
                pane = [
                    view.at(x, low, a),
                    view.at(x, low + 1.5, a),
                    view.at(x, low + 1.5, b),
                    view.at(x, low, b),
                ]
                self.canvas.polygon(pane, glass, BUILDING, (a + b) / 2)
            for i in range(int(abs(outer - x) / bay)):
                left = side * (i * bay + 0.5)
                right = left + side * bay * share
                self.canvas.upright(x, near, min(left, right), max(left, right), low, low + 1.5, glass, BUILDING)

    def wall(self, x: float, near: float, far: float) -> None:
        """A low wall along the street with a coping."""
        color, high = self.color("wall"), self.uniform(1.3, 2.4)
        self.side_face(x, near, far, 0, high, color, WALL)
        self.side_face(x, near, far, high - 0.18, high, shade(color, 125), WALL)

    def fence(self, x: float, near: float, far: float) -> None:
        """Rails and pickets along the street, narrow gaps between them."""
        color, high = self.color("fence"), self.uniform(1.1, 1.8)
        self.side_face(x, near, far, 0.1, high, shade(color, 70), FENCE)
        view, z = self.canvas.view, far
        while z > near:
            self.canvas.line(view.at(x, 0, z), view.at(x, high, z), 0.12 * view.scale(z), color, FENCE, z)
            z -= 0.7
        self.side_face(x, near, far, high - 0.15, high, shade(color, 120), FENCE)

    def tree(self, x: float, z: float) -> None:
        """A trunk and a crown of overlapping balls; the trunk counts as vegetation, as in Cityscapes."""
        view, leaf = self.canvas.view, self.color("vegetation")
        scale, trunk = view.scale(z), self.uniform(1.8, 3.2)
        foot = view.at(x, 0, z)
        self.canvas.box(
            (foot[0] - 0.14 * scale, foot[1]), (foot[0] + 0.14 * scale, foot[1] - (trunk + 1) * scale),
            self.color("trunk"), VEGETATION, z,
        )  # fmt: skip
        crown = self.uniform(1.2, 2.4)
        for _ in range(9):
            dx, dy = self.uniform(-crown, crown) * 0.8, self.uniform(0, 1.7 * crown)
            radius = self.uniform(0.45, 0.8) * crown * scale
            center = view.at(x + dx, trunk + dy, z)
            self.canvas.ellipse(center, (radius, radius), shade(leaf, int(self.uniform(75, 125))), VEGETATION, z)

    def bush(self, x: float, z: float) -> None:
        """A row of low balls."""
        view, leaf = self.canvas.view, self.color("vegetation")
        for i in range(5):
            radius = self.uniform(0.45, 0.85) * view.scale(z)
            center = view.at(x + (i - 2) * 0.6, self.uniform(0.3, 0.7), z)
            self.canvas.ellipse(center, (radius, radius), shade(leaf, int(self.uniform(75, 120))), VEGETATION, z)

    def pole(self, x: float, z: float, carries: str) -> None:
        """A pole with a lamp arm, a traffic light or a sign."""
        view, color = self.canvas.view, self.color("pole")
        scale = view.scale(z)
        high = {"lamp": 6.0, "light": 3.6, "sign": 2.9}[carries]
        top = view.at(x, high, z)
        self.canvas.line(view.at(x, 0, z), top, max(0.16 * scale, 1.6), color, POLE, z)
        if carries == "lamp":
            reach = -1.6 if x > 0 else 1.6
            self.canvas.line(top, view.at(x + reach, high + 0.2, z), max(0.12 * scale, 1.2), color, POLE, z)
        elif carries == "light":
            self.canvas.upright(x, z, -0.28, 0.28, high - 1.1, high + 0.2, self.color("light"), LIGHT)
            lit = int(self.rng.integers(3))
            for i, lamp in enumerate(((60, 200, 90), (250, 190, 40), (230, 40, 30))):
                center = view.at(x, high - 0.85 + 0.42 * i, z)
                self.canvas.ellipse(center, (0.17 * scale,) * 2, lamp if i == lit else shade(lamp, 30), LIGHT, z)
        else:
            self._plate(x, z, high)

    def _plate(self, x: float, z: float, high: float) -> None:
        view, color, white = self.canvas.view, self.color("sign"), (228, 228, 224)
        center, radius = view.at(x, high, z), 0.45 * view.scale(z)
        shape = int(self.rng.integers(3))
        if shape == 0:
            self.canvas.ellipse(center, (radius, radius), color, SIGN, z)
            self.canvas.ellipse(center, (radius * 0.65, radius * 0.65), white, SIGN, z)
        elif shape == 1:
            u, v = center
            triangle = [(u - radius, v + radius), (u + radius, v + radius), (u, v - radius)]
            self.canvas.polygon(triangle, color, SIGN, z)
        else:
            self.canvas.upright(x, z, -0.75, 0.75, high - 0.4, high + 0.4, color, SIGN)
            self.canvas.upright(x, z, -0.6, 0.6, high - 0.1, high + 0.1, white, SIGN)

    def person(self, x: float, z: float, *, label: int = PERSON, low: float = 0.0) -> None:
        """Legs, torso, arms and head; `low` lifts a rider to the seat, without legs."""
        view = self.canvas.view
        scale, high = view.scale(z), self.uniform(1.55, 1.9)
        shirt, trousers, skin = self.color("cloth"), self.color("cloth"), self.color("skin")
        base = low
        if label == PERSON:
            stride = self.uniform(0.05, 0.28)
            for side in (-1, 1):
                hip, foot = view.at(x, 0.85, z), view.at(x + side * stride, 0, z)
                self.canvas.line(hip, foot, max(0.19 * scale, 1.5), shade(trousers, 100 + 10 * side), label, z)
            base = 0.8
        self.canvas.upright(x, z, -0.25, 0.25, base, base + 0.66, shirt, label)
        for side in (-1, 1):
            shoulder, hand = view.at(x + side * 0.28, base + 0.6, z), view.at(x + side * 0.34, base + 0.05, z)
            self.canvas.line(shoulder, hand, max(0.12 * scale, 1), shade(shirt, 85), label, z)
        radius = 0.15 * scale * high / 1.7
        self.canvas.ellipse(view.at(x, base + 0.84, z), (radius, radius * 1.2), skin, label, z)

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
        """A car from behind or ahead, with its flank where it stands aside."""
        paint, glass = self.color("car"), self.color("glass")
        half, high, long = self.uniform(0.82, 0.95), self.uniform(1.35, 1.75), self.uniform(3.6, 4.6)
        self._flank(x, z, half, (0.35, high * 0.62), long, shade(paint, 70), CAR)
        self._flank(x, z + long * 0.25, half * 0.9, (high * 0.62, high), long * 0.55, shade(glass, 80), CAR)
        view, scale = self.canvas.view, self.canvas.view.scale(z)
        for side in (-1, 1):
            self.canvas.upright(x + side * half * 0.75, z, -0.14, 0.14, 0, 0.5, self.color("wheel"), CAR)
        self.canvas.upright(x, z, -half, half, 0.28, high * 0.62, paint, CAR)
        belt, roof = high * 0.62, high
        cabin = [view.at(x - half * 0.95, belt, z), view.at(x - half * 0.7, roof, z)]
        cabin += [view.at(x + half * 0.7, roof, z), view.at(x + half * 0.95, belt, z)]
        self.canvas.polygon(cabin, paint, CAR, z)
        pane = [view.at(x - half * 0.8, belt, z), view.at(x - half * 0.62, roof - 0.1, z)]
        pane += [view.at(x + half * 0.62, roof - 0.1, z), view.at(x + half * 0.8, belt, z)]
        self.canvas.polygon(pane, glass, CAR, z)
        lamp = (220, 40, 30) if self.chance(0.5) else (245, 240, 210)
        for side in (-1, 1):
            center = view.at(x + side * half * 0.78, belt * 0.8, z)
            self.canvas.ellipse(center, (0.14 * scale, 0.09 * scale), lamp, CAR, z)
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
            self.canvas.view.at(x, 1.05, z),
            (0.16 * self.canvas.view.scale(z),) * 2,
            (250, 245, 220),
            TRAIN,
            z,
        )

    def _flank(
        self,
        x: float,
        z: float,
        half: float,
        rows: tuple[float, float],
        long: float,
        color: Color,
        label: int,
    ) -> None:
        """The visible long side of a vehicle: the one that looks towards the camera's axis."""
        side = -1 if x + self.canvas.view.curve * z * z > 0 else 1
        self.side_face(x + side * half, z, z + long, rows[0], rows[1], color, label)

    def _windows(
        self,
        x: float,
        z: float,
        half: float,
        rows: tuple[float, float],
        long: float,
        color: Color,
        label: int,
    ) -> None:
        z0 = z + 0.6
        while z0 + 1.2 < z + long:
            self._flank(x, z0, half, rows, 1.0, color, label)
            z0 += 1.5
