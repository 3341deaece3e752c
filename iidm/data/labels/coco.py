"""COCO JSON: polygons and run lengths of every image in one file (COCO, CVAT, Roboflow, Label Studio ...)."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

from ...types import UserError
from .shapes import (
    MALFORMED,
    Annotated,
    Bitmap,
    Entry,
    Form,
    Polygons,
    Shape,
    decode_counts,
    number,
    points_of,
    reason,
    runs_mask,
)


def is_coco(table: object) -> bool:
    """Whether a JSON file has COCO's form."""
    return isinstance(table, dict) and {"images", "annotations", "categories"} <= table.keys()


def read_coco(path: Path, table: dict[str, Any]) -> list[Entry]:
    """The images of a COCO file; of one image later annotations lie over earlier ones.

    Crowds are their class like single things. A box without polygon or mask has no area: it is left aside and counted.

    Raises:
        UserError: the file has another form, or an annotation is of an image that the file does not list.
    """
    try:
        categories = {c["id"]: str(c["name"]) for c in table["categories"]}
        images = {i["id"]: i for i in table["images"]}
        names = {key: str(image["file_name"]) for key, image in images.items()}
        if len(images) < len(table["images"]):
            raise UserError(f"Annotation file {path} lists several images with one id.")
        by_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for annotation in table["annotations"]:
            if "segments_info" in annotation:
                raise UserError(f"Annotation file {path} is COCO panoptic. Export the data set as COCO instances.")
            by_image[annotation["image_id"]].append(annotation)
    except MALFORMED as error:
        raise UserError(f"Annotation file {path} is no COCO file that can be read: {reason(error)}.") from None
    strangers = [i for i in by_image if i not in images]
    if strangers:
        raise UserError(
            f"Annotation file {path}: annotation {by_image[strangers[0]][0].get('id')} is of image {strangers[0]!r},"
            f" which the file does not list ({len(strangers)} such images). Export the file again."
        )
    return [
        Entry(names[key], partial(_read, path, image, by_image.get(key, []), categories))
        for key, image in images.items()
    ]


def category_names(table: dict[str, Any]) -> list[str]:
    """The classes of a table that `read_coco` has read, those without annotations among them."""
    return [str(category["name"]) for category in table["categories"]]


def _read(
    path: Path, image: dict[str, Any], annotations: list[dict[str, Any]], categories: dict[Any, str]
) -> Annotated:
    where = f"Annotation file {path}, image {image['file_name']!r}"
    try:
        size = (int(image["height"]), int(image["width"])) if image.get("height") and image.get("width") else None
    except MALFORMED as error:
        raise UserError(f"{where} cannot be read: {reason(error)}.") from None
    shapes, left_out = [], []
    for annotation in annotations:
        place = f"annotation {annotation.get('id')}"
        try:
            if annotation["category_id"] not in categories:
                raise ValueError(f"the file has no category {annotation['category_id']!r}")
            form = _form(annotation.get("segmentation"), size)
        except MALFORMED as error:
            raise UserError(f"{where}, {place} cannot be read: {reason(error)}.") from None
        if form is None:
            left_out.append("boxes without polygon or mask")
        else:
            shapes.append(Shape(categories[annotation["category_id"]], form, place))
    return Annotated(size, tuple(shapes), tuple(left_out))


def _form(segmentation: Any, size: tuple[int, int] | None) -> Form | None:
    """The area of an annotation; None where it has none."""
    if not segmentation:
        return None
    if isinstance(segmentation, dict):
        height, width = (int(number(n)) for n in segmentation["size"])
        if size is not None and (height, width) != size:
            raise ValueError(f"its mask is {height}x{width} (HxW), its image {size[0]}x{size[1]}")
        counts = segmentation["counts"]
        runs = decode_counts(counts) if isinstance(counts, (str, bytes)) else [int(n) for n in counts]
        return Bitmap((0, 0), runs_mask(runs, (height, width), "columns"))
    flat = [segmentation] if isinstance(segmentation[0], (int, float)) else segmentation
    rings = []
    for ring in flat:
        if len(ring) % 2:
            raise ValueError(f"a polygon has {len(ring)} numbers; needed are pairs")
        if len(ring) >= 6:  # two points enclose nothing
            rings.append(points_of(list(zip(ring[::2], ring[1::2], strict=True)), 3))
    return Polygons(tuple(rings), "coco") if rings else None
