"""LabelMe JSON: one file beside each image."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...types import UserError
from ..files.common import hw
from .shapes import (
    MALFORMED,
    Annotated,
    Bitmap,
    Disc,
    Form,
    Line,
    Points,
    Polygons,
    Rectangle,
    Shape,
    points_of,
    reason,
)

LINE_WIDTH_PX = 10
POINT_RADIUS_PX = 5
"""What LabelMe itself draws lines and points with (labelme/utils/shape.py)."""

_LEAST_POINTS = {"polygon": 3, "rectangle": 2, "circle": 2, "line": 2, "linestrip": 2, "point": 1, "mask": 2}


def is_labelme(table: object) -> bool:
    """Whether a JSON file has LabelMe's form."""
    return isinstance(table, dict) and isinstance(table.get("shapes"), list)


def read_labelme(path: Path, table: dict[str, Any]) -> Annotated:
    """What a LabelMe file says of its image, each shape as LabelMe itself draws it.

    Raises:
        UserError: a shape cannot be read, or is of an unknown kind.
    """
    try:
        has_size = table.get("imageHeight") and table.get("imageWidth")
        size = (int(table["imageHeight"]), int(table["imageWidth"])) if has_size else None
    except MALFORMED as error:
        raise UserError(f"Annotation file {path} cannot be read: {reason(error)}.") from None
    shapes = []
    for number, shape in enumerate(table["shapes"]):
        try:
            name = str(shape["label"])
            shapes.append(Shape(name, _form(shape), f"shape {number}"))
        except MALFORMED as error:
            raise UserError(f"Annotation file {path}, shape {number} cannot be read: {reason(error)}.") from None
    return Annotated(size, tuple(shapes))


def _form(shape: dict[str, Any]) -> Form:
    kind = shape.get("shape_type") or "polygon"
    if kind not in _LEAST_POINTS:
        raise ValueError(f"there is no rule for shapes of type {kind!r}")
    points = points_of(shape["points"], _LEAST_POINTS[kind])
    if kind == "rectangle":
        # LabelMe writes two opposite corners, some programs that write its form all four
        xs, ys = [x for x, _ in points], [y for _, y in points]
        return Rectangle(((min(xs), min(ys)), (max(xs), max(ys))))
    if kind == "circle":
        return Disc(points[0], math.dist(points[0], points[1]))
    if kind == "point":
        return Disc(points[0], POINT_RADIUS_PX)
    if kind in ("line", "linestrip"):
        return Line(points, LINE_WIDTH_PX)
    return _mask(shape["mask"], points) if kind == "mask" else Polygons((points,), "pillow")


def _mask(text: str, points: Points) -> Bitmap:
    """A PNG in base64 that fills the box between two pixels, both among it."""
    (left, top), (right, bottom) = [(int(x), int(y)) for x, y in points[:2]]
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=("PNG",)) as image:
            size = image.height, image.width
            fills = size == (bottom - top + 1, right - left + 1)
            mask = np.asarray(image.convert("L")) > 0 if fills else None  # a few bytes may hold a huge one
    except Exception as error:  # Pillow's parsers and decoders raise whatever the bytes lead them to
        raise ValueError(f"its mask is no PNG ({error})") from None
    if mask is None:
        raise ValueError(f"its mask is {hw(size)}, which does not fill its box")
    return Bitmap((left, top), mask)
