"""The street of StreetScenes: what stands where, from the sky to the cars ahead."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .scenes_canvas import FAR_M, Canvas, Point, View, shade
from .scenes_style import Style
from .scenes_things import (
    BICYCLE,
    BUILDING,
    MOTORCYCLE,
    ROAD,
    SIDEWALK,
    SKY,
    TERRAIN,
    VEGETATION,
    Painter,
)

Placed = tuple[float, Callable[[], None]]
"""Distance in metres, and what draws the thing."""

NEAR_M, END_M = 2.2, 95.0
"""The street begins and ends here."""

RARE = {"truck": 0.16, "bus": 0.14, "train": 0.12, "motorcycle": 0.16, "bicycle": 0.32}
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
    painter = Painter(canvas, style, rng)
    road, walk = uniform(*style.road_m), uniform(*style.sidewalk_m)
    _sky(painter)
    _ground(painter, road, walk)
    placed: list[Placed] = []
    for side in (-1, 1):
        placed += _along(painter, side, road, walk)
    placed += _traffic(painter, road)
    placed += _people(painter, road, walk)
    for _, draw in sorted(placed, key=lambda item: -item[0]):
        draw()
    return canvas


def _sky(painter: Painter) -> None:
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


def _ground(painter: Painter, road: float, walk: float) -> None:
    canvas, view = painter.canvas, painter.canvas.view
    height, width = view.size
    canvas.box((0, view.horizon_px), (width, height), painter.color("terrain"), TERRAIN, 40)
    strips = (
        (-road - walk, road + walk, painter.color("sidewalk"), SIDEWALK),
        (-road - 0.15, road + 0.15, shade(painter.color("sidewalk"), 118), SIDEWALK),
        (-road, road, painter.color("road"), ROAD),
    )
    depths = [NEAR_M * (END_M / NEAR_M) ** 0.0]
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


def _along(painter: Painter, side: int, road: float, walk: float) -> list[Placed]:
    """What stands beside the street: buildings, or trees behind walls and fences; poles and trees on the kerb."""
    placed: list[Placed] = []
    edge = side * (road + walk)

    def put(z: float, draw: Callable[..., None], *args: object, **named: object) -> None:
        placed.append((z, lambda: draw(*args, **named)))

    z = painter.uniform(2.5, 7)
    while z < 80:
        long = painter.uniform(7, 20)
        if painter.chance(painter.style.gap):
            for _ in range(4):
                tree_z = painter.uniform(z, z + long)
                put(tree_z, painter.tree, edge + side * painter.uniform(2.5, 9), tree_z)
            kind = painter.rng.random()
            if kind < 0.42:
                put(z, painter.wall, edge + side * 0.4, z, z + long)
            elif kind < 0.86:
                put(z, painter.fence, edge + side * 0.4, z, z + long)
            else:
                put(z, painter.bush, edge + side * 1.5, z)
        else:
            put(z, painter.building, side, edge + side * painter.uniform(0.2, 2.5), z, z + long)
        z += long + painter.uniform(0, 2)
    for _ in range(int(painter.rng.poisson(painter.style.trees))):
        z = painter.uniform(6, 55)
        put(z, painter.tree if painter.chance(0.75) else painter.bush, side * (road + walk * 0.75), z)
    for carries, chance in (
        ("lamp", 0.8),
        ("lamp", 0.5),
        ("light", 0.45),
        ("light", 0.25),
        ("sign", 0.65),
        ("sign", 0.4),
    ):
        if painter.chance(chance):
            z = painter.uniform(6, 38 if carries == "lamp" else 22)
            put(z, painter.pole, side * (road + 0.35), z, carries)
    return placed


def _traffic(painter: Painter, road: float) -> list[Placed]:
    """Cars in lanes and at the kerb, and now and then a rare vehicle; no two in the same place."""
    placed: list[Placed] = []
    taken: list[tuple[float, float, float]] = []

    def free_place(long: float, near: float, far: float, kerb: float) -> tuple[float, float] | None:
        for _ in range(8):
            z = near * (far / near) ** 0.0 + (far - near) * float(painter.rng.random()) ** 2
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
        "motorcycle": (2.0, lambda x, z: painter.two_wheeler(x, z, MOTORCYCLE, ridden=painter.chance(0.6))),
        "bicycle": (2.0, lambda x, z: painter.two_wheeler(x, z, BICYCLE, ridden=painter.chance(0.6))),
    }
    for name, chance in RARE.items():
        long, draw = drawn[name]
        small = name in ("motorcycle", "bicycle")
        while painter.chance(chance):
            place = free_place(long, 5.0 if small else 9.0, 16.0 if small else 32.0, 0.35)
            if place:
                placed.append((place[1], lambda draw=draw, place=place: draw(*place)))  # type: ignore[misc]
    for _ in range(int(painter.rng.poisson(painter.style.traffic))):
        place = free_place(4.5, 6.5, 45.0, 0.55)
        if place:
            placed.append((place[1], lambda place=place: painter.car(*place)))  # type: ignore[misc]
    if painter.chance(0.15):
        z = painter.uniform(14, 35)
        placed.append((z, lambda: painter.car_across(painter.uniform(-road, road), z)))
    return placed


def _people(painter: Painter, road: float, walk: float) -> list[Placed]:
    """Pedestrians on the sidewalks, a few on the road, some in pairs; parked bicycles."""
    placed: list[Placed] = []
    for _ in range(int(painter.rng.poisson(painter.style.people))):
        z = painter.uniform(5, 28)
        side = -1 if painter.chance(0.5) else 1
        x = painter.uniform(-road, road) * 0.8 if painter.chance(0.15) else side * (road + painter.uniform(0.3, walk))
        for i in range(1 + int(painter.chance(0.3))):
            placed.append((z, lambda x=x, z=z, i=i: painter.person(x + 0.7 * i, z)))  # type: ignore[misc]
    if painter.chance(0.2):
        z, side = painter.uniform(5, 14), -1 if painter.chance(0.5) else 1
        for i in range(2):
            at = side * (road + 0.5), z + 1.2 * i
            placed.append((at[1], lambda at=at: painter.two_wheeler(at[0], at[1], BICYCLE, ridden=False)))  # type: ignore[misc]
    return placed
