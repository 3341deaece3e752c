"""The regions of a label as polygons: neighbours share their border, so nothing lies between them or in both.

The edges between pixels of different classes are lines of a planar map. Lines end where three regions meet; each is
simplified once, and the faces of the simplified map are the polygons. Shapely (GEOS) does the geometry: contourpy and
OpenCV outline each class for itself, and simplifying those opens gaps between neighbours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import STRtree

from .regions import Region, Regions, Ring

_OUTSIDE = -1
_SHARE_OF_THICKNESS = 0.45
"""Each side of a thin region may move by that share of its thickness, so that it does not vanish."""
_SPLINTER = 0.25
"""Share of the least region below which a face of simplified lines is no region of its own."""
_NEAR_PX = 1e-3
"""How far beside a line its faces are looked for."""


def trace_regions(label: NDArray[np.uint8], tolerance_px: float = 1.0, least_px: int = 32) -> Regions:
    """The regions of a label [H,W] of train ids as polygons with holes that cover all of it.

    Args:
        tolerance_px: how far a border may be from that of the pixels (Douglas-Peucker), at thin regions less; 0: the
            pixels' edges themselves.
        least_px: regions of fewer pixels go to the neighbour with which they share the longest border.
    """
    arcs = _arcs(label)
    faces, sides = _faces(arcs)
    own = _at(label, _points_within(faces))
    owner = _merged(shapely.area(faces), sides, shapely.length(arcs), least_px)
    classes = own[owner]
    between = np.append(classes, _OUTSIDE)[sides]
    is_border = between[:, 0] != between[:, 1]
    lines = _simplified(arcs[is_border], tolerance_px)
    polygons, beside = _faces(lines)
    found, face = STRtree(faces).query(shapely.points(_points_within(polygons)), predicate="intersects")
    class_of = np.zeros(len(polygons), np.int64)
    class_of[found] = classes[face]
    # Where simplified lines cross they cut splinters off, which belong to what they were cut from.
    whole = _merged(shapely.area(polygons), beside, shapely.length(lines), least_px * _SPLINTER)
    parts = [(k, polygons[whole == k]) for k in np.unique(whole).tolist()]
    joined = [(class_of[k], part[0] if len(part) == 1 else shapely.union_all(part)) for k, part in parts]
    forms = [(int(train_id), one) for train_id, form in joined for one in shapely.get_parts(form)]
    in_hole = _in_holes(np.array([one for _, one in forms]))
    regions = [Region(train_id, *_rings(one), is_in) for (train_id, one), is_in in zip(forms, in_hole, strict=True)]
    regions.sort(key=lambda region: -region.filled_px)
    return Regions((label.shape[0], label.shape[1]), tuple(regions), int((owner != np.arange(len(owner))).sum()))


def _arcs(label: NDArray[np.uint8]) -> NDArray[Any]:
    """Lines along the edges between pixels of different classes, and around the image, each from one place where they
    meet to the next."""
    padded = np.pad(label.astype(np.int16), 1, constant_values=_OUTSIDE)
    down = padded[:, :-1] != padded[:, 1:]  # [y, x]: an edge from the corner (x, y - 1) to (x, y)
    along = padded[:-1] != padded[1:]  # [y, x]: one from (x - 1, y) to (x, y)
    # A straight run is one line: most lines then have few points to merge.
    straight_down = down[:-1] & down[1:] & ~(along[:, :-1] | along[:, 1:])
    straight_along = along[:, :-1] & along[:, 1:] & ~(down[:-1] | down[1:])
    vertical = _runs(down[1:-1].T, straight_down.T)[..., ::-1]
    horizontal = _runs(along[:, 1:-1], straight_along)
    runs = np.concatenate([vertical, horizontal])[..., ::-1].astype(np.float64)
    return shapely.get_parts(shapely.line_merge(shapely.multilinestrings(shapely.linestrings(runs))))


def _runs(edges: NDArray[np.bool_], goes_on: NDArray[np.bool_]) -> NDArray[np.int64]:
    """[N,2,2]: first and last corner (line, place) of the runs of edges [lines, n], which end at corners [lines, n+1]
    where they do not go on."""
    first = np.argwhere(edges & ~goes_on[:, :-1])
    last = np.argwhere(edges & ~goes_on[:, 1:])
    return np.stack([first, last + (0, 1)], 1)


def _faces(lines: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The faces between lines, and [lines, 2]: those on both sides of each line, _OUTSIDE for none."""
    faces = shapely.get_parts(shapely.polygonize(lines))
    start, end = (shapely.get_coordinates(shapely.get_point(lines, i)) for i in (0, 1))
    step = end - start
    across = step[:, ::-1] * (-1, 1) * (_NEAR_PX / np.hypot(*step.T))[:, None]
    points = np.stack([(start + end) / 2 + across, (start + end) / 2 - across], 1)
    sides = np.full(2 * len(lines), _OUTSIDE, np.int64)
    place, face = STRtree(faces).query(shapely.points(points.reshape(-1, 2)), predicate="intersects")
    sides[place] = face
    return faces, sides.reshape(-1, 2)


def _merged(
    area: NDArray[np.float64], sides: NDArray[np.int64], length: NDArray[np.float64], least_px: float
) -> NDArray[np.int64]:
    """[faces]: the face that each one belongs to once those below `least_px` went to a neighbour, small ones first."""
    owner = np.arange(len(area))
    border: list[dict[int, float]] = [{} for _ in area]
    for (one, other), px in zip(sides.tolist(), length.tolist(), strict=True):
        if _OUTSIDE not in (one, other):
            border[one][other] = border[one].get(other, 0.0) + px
            border[other][one] = border[other].get(one, 0.0) + px
    sizes = area.tolist()
    for face in np.argsort(area, kind="stable").tolist():
        if sizes[face] >= least_px or not border[face]:
            continue
        into = max(border[face], key=lambda other: (border[face][other], -other))
        owner[face] = into
        sizes[into] += sizes[face]
        for other, px in border[face].items():
            del border[other][face]
            if other != into:
                border[into][other] = border[other][into] = border[into].get(other, 0.0) + px
    while (owner != owner[owner]).any():
        owner = owner[owner]
    return owner


def _simplified(arcs: NDArray[Any], tolerance_px: float) -> NDArray[Any]:
    """The lines with fewer points. They are simplified from one meeting place to the next, of the lines that are left
    where small regions went."""
    lines = shapely.get_parts(shapely.line_merge(shapely.multilinestrings(arcs)))
    faces, sides = _faces(lines)
    thickness = np.append(2 * shapely.area(faces) / shapely.length(faces), np.inf)
    limit = np.minimum(tolerance_px, _SHARE_OF_THICKNESS * thickness[sides].min(1))
    simple = shapely.simplify(lines, limit, preserve_topology=False)
    return shapely.get_parts(shapely.line_merge(shapely.node(shapely.multilinestrings(simple))))


def _at(label: NDArray[np.uint8], points: NDArray[np.float64]) -> NDArray[np.int64]:
    """The train ids of the pixels that points (x, y) lie in."""
    x, y = points.astype(np.int64).T
    return label[y, x].astype(np.int64)


def _points_within(polygons: NDArray[Any]) -> NDArray[np.float64]:
    """[N,2]: a point in each polygon."""
    return shapely.get_coordinates(shapely.point_on_surface(polygons))


def _in_holes(polygons: NDArray[Any]) -> list[bool]:
    """Which polygons lie in a hole of another one."""
    rings = [ring for polygon in polygons for ring in shapely.get_rings(polygon)[1:]]
    found = np.zeros(len(polygons), bool)
    if rings:
        holes = STRtree(shapely.polygons(rings))
        found[holes.query(shapely.points(_points_within(polygons)), predicate="intersects")[0]] = True
    return [bool(is_in) for is_in in found]


def _rings(polygon: Any) -> tuple[Ring, tuple[Ring, ...]]:
    holes = shapely.get_rings(polygon)[1:]
    return shapely.get_coordinates(polygon.exterior), tuple(shapely.get_coordinates(hole) for hole in holes)
