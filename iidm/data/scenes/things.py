"""The things of StreetScenes: how a car, a tree or a person looks, drawn at a place in metres."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, Color, shade
from .style import Style

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

    def count(self, mean: float) -> int:
        """A whole number about the mean, at most four times it; sums of chances, so that no logarithm is rounded."""
        return sum(self.chance(0.25) for _ in range(round(4 * mean)))

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
                pane = [view.at(x, low, a), view.at(x, low + 1.5, a), view.at(x, low + 1.5, b), view.at(x, low, b)]
                self.canvas.polygon(pane, glass, BUILDING, (a + b) / 2)
            for i in range(int(abs(outer - x) / bay)):
                left = side * (i * bay + 0.5)
                right = left + side * bay * share
                self.canvas.upright(x, near, min(left, right), max(left, right), low, low + 1.5, glass, BUILDING)

    def wall(self, x: float, near: float, far: float) -> None:
        """A low wall of stones along the street with a coping."""
        color, high = self.color("wall"), self.uniform(1.3, 2.4)
        self.side_face(x, near, far, 0, high, color, WALL)
        view = self.canvas.view
        for course in range(1, 5):
            low = high * course / 5
            self.side_face(x, near, far, low, low + 0.04, shade(color, 78), WALL)
        z = far
        while z > near:
            self.canvas.line(view.at(x, 0, z), view.at(x, high, z), 0.06 * view.scale(z), shade(color, 78), WALL, z)
            z -= 2.0
        self.side_face(x, near, far, high - 0.18, high, shade(color, 130), WALL)

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
        self.canvas.line(view.at(x, 0, z), top, max(0.22 * scale, 2.0), color, POLE, z)
        if carries == "lamp":
            reach = -1.6 if x > 0 else 1.6
            self.canvas.line(top, view.at(x + reach, high + 0.2, z), max(0.16 * scale, 1.6), color, POLE, z)
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
