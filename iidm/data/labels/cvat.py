"""CVAT for images 1.1: the shapes of every image in one XML file."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from ...types import UserError
from .shapes import (
    MALFORMED,
    Annotated,
    Bitmap,
    Ellipse,
    Entry,
    Form,
    Polygons,
    Shape,
    number,
    points_of,
    reason,
    runs_mask,
)

_WITHOUT_AREA = ("polyline", "points", "cuboid", "skeleton", "tag")


def read_cvat(path: Path) -> list[Entry]:
    """The images of a CVAT file; of one image shapes of a higher z_order lie over others, then later ones.

    Polylines, points, cuboids, skeletons and tags have no area: they are left aside and counted.

    Raises:
        UserError: the file is no XML, no annotations of CVAT, or of a video.
    """
    root = _root(path)
    if root.tag != "annotations":
        raise UserError(
            f"Annotation file {path} has no <annotations>: it is no file of CVAT (found <{root.tag}>). Export the task"
            " as CVAT for images 1.1."
        )
    if root.find("track") is not None:
        raise UserError(f"Annotation file {path} is CVAT for video. Export the task as CVAT for images 1.1.")
    images = list(root.iter("image"))
    if any("name" not in image.attrib for image in images):
        raise UserError(f"Annotation file {path} has an <image> without name. Export the task again.")
    return [Entry(image.attrib["name"], partial(_read, path, image)) for image in images]


def label_names(path: Path) -> list[str] | None:
    """The classes that a CVAT file declares, those without shapes among them; None for an XML file of another form.

    Raises:
        UserError: the file is no XML.
    """
    root = _root(path)
    if root.tag != "annotations":
        return None
    return [label.findtext("name", "").strip() for label in root.iterfind(".//labels/label")]


def _root(path: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(f"Annotation file {path} cannot be read ({error}).") from None


def _read(path: Path, image: ElementTree.Element) -> Annotated:
    where = f"Annotation file {path}, image {image.attrib['name']!r}"
    try:
        has_size = image.get("height") and image.get("width")
        size = (int(image.attrib["height"]), int(image.attrib["width"])) if has_size else None
    except MALFORMED as error:
        raise UserError(f"{where} cannot be read: {reason(error)}.") from None
    found: list[tuple[int, Shape]] = []
    left_out = []
    for place, element in enumerate(image):
        if element.tag in _WITHOUT_AREA:
            left_out.append(f"<{element.tag}>")
            continue
        try:
            shape = Shape(element.attrib["label"], _form(element), f"shape {place} (<{element.tag}>)")
            found.append((int(element.get("z_order") or 0), shape))
        except MALFORMED as error:
            raise UserError(f"{where}, shape {place} (<{element.tag}>) cannot be read: {reason(error)}.") from None
    found.sort(key=lambda item: item[0])  # keeps the order of the file within a layer
    return Annotated(size, tuple(shape for _, shape in found), tuple(left_out))


def _form(element: ElementTree.Element) -> Form:
    def value(name: str) -> float:
        return number(float(element.attrib[name]))

    degrees = number(float(element.get("rotation") or 0))
    if element.tag == "polygon":
        pairs = [[float(c) for c in pair.split(",")] for pair in element.attrib["points"].split(";") if pair]
        return Polygons((points_of(pairs, 3),), "coco")
    if element.tag == "box":
        return Polygons((_box(value("xtl"), value("ytl"), value("xbr"), value("ybr"), degrees),), "coco")
    if element.tag == "ellipse":
        return Ellipse((value("cx"), value("cy")), (value("rx"), value("ry")), degrees)
    if element.tag == "mask":
        size = int(value("height")), int(value("width"))
        runs = [int(n) for n in element.attrib["rle"].split(",")]
        return Bitmap((int(value("left")), int(value("top"))), runs_mask(runs, size, "rows"))
    raise ValueError(f"there is no rule for <{element.tag}>")


def _box(left: float, top: float, right: float, bottom: float, degrees: float) -> tuple[tuple[float, float], ...]:
    """The corners of a box that is turned clockwise around its middle."""
    x, y = (left + right) / 2, (top + bottom) / 2
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    if not degrees:
        return corners
    return tuple((x + (a - x) * cos - (b - y) * sin, y + (a - x) * sin + (b - y) * cos) for a, b in corners)
