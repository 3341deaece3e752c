"""The street of StreetScenes: what stands where, from the sky to the cars ahead."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from .canvas import FAR_M, Canvas, Point, View, shade
from .style import Style
from .things import (
    BICYCLE,
    BUILDING,
    MOTORCYCLE,
    ROAD,
    SIDEWALK,
    SKY,
    TERRAIN,
    VEGETATION,
)
from .vehicles import StreetPainter

Placed = tuple[float, Callable[[], None]]
"""Distance in metres, and what draws the thing."""

NEAR_M, END_M = 2.2, 95.0
"""The street begins and ends here."""

RARE = {"truck": 0.13, "bus": 0.13, "train": 0.13, "motorcycle": 0.16, "bicycle": 0.24}
"""Chance that an image holds one more of these vehicles."""


def build_world(style: Style, size: tuple[int, int], rng: np.random.Generator) -> Canvas:
    """Draw one street, without texture and camera."""
    height, width = size

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(rng.random())

    view = View(
        size=size,
        focal_px=width * uniform(0.72, 0.95),
        horizon_px=height * uniform(*style.horizon),
        center_px=width * uniform(0.38, 0.62),
        height_m=uniform(*style.height_m),
        curve=uniform(-style.curve, style.curve),
    )
    canvas = Canvas(view, SKY)
    painter = StreetPainter(canvas, style, rng)
    road, walk = uniform(*style.road_m), uniform(*style.sidewalk_m)
    _sky(painter)
    _ground(painter, road, walk)
    # What borders the street is behind all that stands in it, at any distance: a sight line that reaches a car has not
    # crossed the border. So it is painted first, and a long wall needs no slicing to hide nothing in front of it.
    for layer in (
        _border(painter, -1, road, walk) + _border(painter, 1, road, walk),
        _kerb(painter, -1, road, walk)
        + _kerb(painter, 1, road, walk)
        + _traffic(painter, road)
        + _people(painter, road, walk),
    ):
        for _, draw in sorted(layer, key=lambda item: -item[0]):
            draw()
    return canvas


def _sky(painter: StreetPainter) -> None:
    canvas, view = painter.canvas, painter.canvas.view
    height, width = view.size
    top = painter.color("sky")
    bands = 12
    for i in range(bands):
        low, high = view.horizon_px * i / bands, view.horizon_px * (i + 1) / bands
        canvas.box((0, low), (width, high + 1), shade(top, 90 + 20 * i // bands), SKY, FAR_M)
    for _ in range(int(painter.rng.integers(0, 7))):
        center = (painter.uniform(0, width), painter.uniform(0, view.horizon_px * 0.8))
        for _ in range(4):
            shifted = (
                center[0] + painter.uniform(-0.06, 0.06) * width,
                center[1] + painter.uniform(-0.02, 0.02) * height,
            )
            radii = (painter.uniform(0.02, 0.09) * width, painter.uniform(0.01, 0.04) * height)
            canvas.ellipse(shifted, radii, painter.color("cloud"), SKY, FAR_M)
    # What closes the view far away: treetops and roofs.
    u = 0.0
    while u < width:
        step = painter.uniform(0.03, 0.12) * width
        rise = painter.uniform(0.01, 0.07) * height
        green = painter.chance(0.5)
        color = painter.color("vegetation" if green else "building")
        box = ((u, view.horizon_px - rise), (u + step, view.horizon_px + 2))
        canvas.box(*box, color, VEGETATION if green else BUILDING, END_M)
        u += step


def _ground(painter: StreetPainter, road: float, walk: float) -> None:
    canvas, view = painter.canvas, painter.canvas.view
    height, width = view.size
    canvas.box((0, view.horizon_px), (width, height), painter.color("terrain"), TERRAIN, 40)
    strips = (
        (-road - walk, road + walk, painter.color("sidewalk"), SIDEWALK),
        (-road - 0.15, road + 0.15, shade(painter.color("sidewalk"), 118), SIDEWALK),
        (-road, road, painter.color("road"), ROAD),
    )
    depths = [NEAR_M]
    while depths[-1] < END_M:
        depths.append(depths[-1] * 1.18)
    for left, right, color, label in strips:
        for far, near in zip(reversed(depths), list(reversed(depths))[1:], strict=False):
            canvas.polygon(_strip(view, left, right, near, far), color, label, (near + far) / 2)
    # The street reaches below the image's edge.
    for left, right, color, label in strips:
        canvas.polygon(_strip(view, left, right, NEAR_M * 0.4, NEAR_M), color, label, NEAR_M)
    mark, dash = painter.color("mark"), painter.uniform(2.0, 4.0)
    for lane in (-road / 3, road / 3) if road > 4.6 else (0.0,):
        z = NEAR_M
        while z < 60:
            canvas.polygon(_strip(view, lane - 0.08, lane + 0.08, z, z + dash), mark, ROAD, z)
            z += 2.2 * dash
    if painter.chance(0.3):
        z = painter.uniform(6, 14)
        x = -road + 0.3
        while x < road - 0.5:
            canvas.polygon(_strip(view, x, x + 0.5, z, z + 3), mark, ROAD, z)
            x += 1.0


def _strip(view: View, left: float, right: float, near: float, far: float) -> list[Point]:
    """A piece of the ground between two sideways positions and two distances."""
    return [view.at(left, 0, near), view.at(right, 0, near), view.at(right, 0, far), view.at(left, 0, far)]


def _border(painter: StreetPainter, side: int, road: float, walk: float) -> list[Placed]:
    """What stands beside the street: buildings, or trees behind walls and fences."""
    placed: list[Placed] = []
    edge = side * (road + walk)

    z = painter.uniform(2.5, 7)
    while z < 80:
        long = painter.uniform(7, 20)
        if painter.chance(painter.style.gap):
            for _ in range(4):
                tree_z = painter.uniform(z, z + long)
                placed.append((tree_z, partial(painter.tree, edge + side * painter.uniform(2.5, 9), tree_z)))
            kind = painter.rng.random()
            if kind < 0.42:
                placed.append((z, partial(painter.wall, edge + side * 0.4, z, z + long)))
            elif kind < 0.86:
                placed.append((z, partial(painter.fence, edge + side * 0.4, z, z + long)))
            else:
                placed.append((z, partial(painter.bush, edge + side * 1.5, z)))
        else:
            front = edge + side * painter.uniform(0.3, 4.0)
            placed.append((z, partial(painter.building, side, front, z, z + long)))
        z += long + painter.uniform(0, 2)
    return placed


POLES = (("lamp", 0.7), ("lamp", 0.4), ("light", 0.32), ("sign", 0.45), ("sign", 0.2))
"""What the poles of one side may carry, and the chance of each."""


def _kerb(painter: StreetPainter, side: int, road: float, walk: float) -> list[Placed]:
    """Trees, bushes and poles between the road and the sidewalk."""
    placed: list[Placed] = []
    for _ in range(painter.count(painter.style.trees)):
        z = painter.uniform(6, 55)
        draw = painter.tree if painter.chance(0.75) else painter.bush
        placed.append((z, partial(draw, side * (road + walk * 0.75), z)))
    for carries, chance in POLES:
        if painter.chance(chance):
            z = painter.uniform(6, 38 if carries == "lamp" else 22)
            placed.append((z, partial(painter.pole, side * (road + 0.35), z, carries)))
    return placed


def _traffic(painter: StreetPainter, road: float) -> list[Placed]:
    """Cars in lanes and at the kerb, and now and then a rare vehicle; no two in the same place."""
    placed: list[Placed] = []
    taken: list[tuple[float, float, float]] = []

    def free_place(long: float, near: float, far: float, kerb: float) -> tuple[float, float] | None:
        for _ in range(8):
            share = painter.uniform(0, 1)
            z = near + (far - near) * share * share
            side = -1 if painter.chance(0.5) else 1
            x = side * (road - 1.1) if painter.chance(kerb) else side * road * 0.42
            if all(abs(x - tx) > 2.2 or z > tz + tlong + 1 or tz > z + long + 1 for tx, tz, tlong in taken):
                taken.append((x, z, long))
                return x, z
        return None

    drawn: dict[str, tuple[float, Callable[[float, float], None]]] = {
        "truck": (8.0, painter.truck),
        "bus": (11.0, painter.bus),
        "train": (24.0, painter.train),
        "motorcycle": (2.0, partial(painter.two_wheeler, label=MOTORCYCLE, ridden=painter.chance(0.6))),
        "bicycle": (2.0, partial(painter.two_wheeler, label=BICYCLE, ridden=painter.chance(0.6))),
    }
    for name, chance in RARE.items():
        long, draw = drawn[name]
        small = name in ("motorcycle", "bicycle")
        if painter.chance(chance):
            place = free_place(long, 5.5 if small else 12.0, 18.0 if small else 38.0, 0.35)
            if place:
                placed.append((place[1], partial(draw, *place)))
    for _ in range(painter.count(painter.style.traffic)):
        place = free_place(4.5, 6.5, 45.0, 0.55)
        if place:
            placed.append((place[1], partial(painter.car, *place)))
    if painter.chance(0.15):
        z = painter.uniform(14, 35)
        placed.append((z, partial(painter.car_across, painter.uniform(-road, road), z)))
    return placed


def _people(painter: StreetPainter, road: float, walk: float) -> list[Placed]:
    """Pedestrians on the sidewalks, a few on the road, some in pairs; parked bicycles."""
    placed: list[Placed] = []
    for _ in range(painter.count(painter.style.people)):
        share = painter.uniform(0, 1)
        z = 6 + 20 * share * share
        side = -1 if painter.chance(0.5) else 1
        x = painter.uniform(-road, road) * 0.8 if painter.chance(0.15) else side * (road + painter.uniform(0.3, walk))
        for i in range(1 + int(painter.chance(0.3))):
            placed.append((z, partial(painter.person, x + 0.7 * i, z)))
    if painter.chance(0.2):
        z, side = painter.uniform(5, 14), -1 if painter.chance(0.5) else 1
        for i in range(2):
            at = side * (road + 0.5), z + 1.2 * i
            placed.append((at[1], partial(painter.two_wheeler, *at, BICYCLE, ridden=False)))
    return placed
