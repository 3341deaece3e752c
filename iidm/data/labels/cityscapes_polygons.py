"""Cityscapes' polygon files (gtFine_polygons.json): one beside each image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...types import UserError
from .shapes import MALFORMED, Annotated, Polygons, Shape, points_of, reason

_NOT_DRAWN = ("license plate",)
"""What Cityscapes' own labels leave as what lies beneath, where no class names it (labels.py: ids below 0)."""
_GROUP = "group"
"""End of the name of several things in one polygon: cargroup is car."""


def is_cityscapes(table: object) -> bool:
    """Whether a JSON file has the form of Cityscapes' polygons."""
    return isinstance(table, dict) and isinstance(table.get("objects"), list) and "imgHeight" in table


def read_cityscapes(path: Path, table: dict[str, Any]) -> Annotated:
    """What a polygon file says of its image; deleted objects are none, a polygon of one point is left aside.

    Raises:
        UserError: an object cannot be read.
    """
    shapes = []
    try:
        size = int(table["imgHeight"]), int(table["imgWidth"])
    except MALFORMED as error:
        raise UserError(f"Annotation file {path} cannot be read: {reason(error)}.") from None
    left_out = []
    for place, thing in enumerate(table["objects"]):
        try:
            if thing.get("deleted"):
                continue
            name, points = str(thing["label"]), points_of(thing["polygon"], 0)
        except MALFORMED as error:
            raise UserError(f"Annotation file {path}, object {place} cannot be read: {reason(error)}.") from None
        if len(points) < 2:  # Pillow draws no polygon of one point
            left_out.append("polygons of one point")
            continue
        otherwise = "" if name in _NOT_DRAWN else name.removesuffix(_GROUP)
        shapes.append(Shape(name, Polygons((points,), "pillow"), f"object {place}", otherwise))
    return Annotated(size, tuple(shapes), tuple(left_out))
