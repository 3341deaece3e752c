"""Regions as files in each tool's form, written image by image: nothing of the images before is held but their names.

- COCO: one JSON file; a region with holes is a run-length mask with iscrowd 1, as a polygon there has no holes.
- CVAT for images 1.1: one XML file; holes are covered by the regions in them, which have a higher z_order.
- LabelMe: a JSON file for each image; holes are covered by later shapes.
"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...text import written_whole
from ...types import ClassSet
from ..labels.shapes import Points, Polygons
from .regions import Region, Regions, inward


class AnnotatedImage(NamedTuple):
    """An image and what an annotation file shall say of it."""

    file_name: str
    """By which the tool knows the image: its path below the folder of the images, `/` between parts."""
    image: Path
    """Where it lies."""
    regions: Regions


class Writer:
    """Writes annotations of some images below a folder: a context, at whose end the files are whole.

    After an error there is no file of several images, and those that were there before are as they were.
    """

    file_name = ""
    """The one file; empty: a file for each image."""
    has_holes = False
    """Whether a polygon may have holes."""

    def __init__(self, folder: Path, classes: ClassSet, unlabeled: int | None = None) -> None:
        """`unlabeled` is the train id of pixels without a polygon, of which none are written; None: all are written."""
        self.folder, self.classes, self.unlabeled = folder, classes, unlabeled
        self.images = self.regions = 0
        """How many were written."""
        self.taken: set[Path] = set()
        """Files of this call, its own and those of writers beside it, that nothing else is written to."""

    @property
    def path(self) -> Path:
        """The file, or the folder of the files."""
        return self.folder / self.file_name

    def there(self) -> Path | None:
        """A file of this form that the folder holds already; None: it holds none."""
        return self.path if self.path.exists() else None

    def __enter__(self) -> Writer:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def add(self, image: AnnotatedImage) -> None:
        """Write what there is to say of an image."""
        image = image._replace(regions=image.regions.without(self.unlabeled, has_holes=self.has_holes))
        self._add(image)
        self.images += 1
        self.regions += len(image.regions.regions)

    def _add(self, image: AnnotatedImage) -> None:
        raise NotImplementedError


class _OneFile(Writer):
    """A file that is written under another name and renamed at the end."""

    def __enter__(self) -> Writer:
        super().__enter__()
        with ExitStack() as stack:
            half = stack.enter_context(written_whole(self.path))
            # a name that is no Unicode has escapes
            opened = half.open("w", encoding="utf-8", errors="backslashreplace", newline="\n")
            self._file: IO[str] = stack.enter_context(opened)
            self._begin()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if error is not None:
                raise error  # so that what was written is removed, as after one of the next line
            self._end()

    def _begin(self) -> None:
        raise NotImplementedError

    def _end(self) -> None:
        raise NotImplementedError


class CocoWriter(_OneFile):
    """annotations.json: an annotation for each region; categories are numbered from 1 in the order of the classes."""

    file_name = "annotations.json"
    has_holes = True

    def _begin(self) -> None:
        self._images: list[dict[str, Any]] = []
        names = enumerate(self.classes.names, start=1)
        categories = [{"id": number, "name": name, "supercategory": ""} for number, name in names]
        self._file.write(f'{{"categories": {json.dumps(categories)},\n"annotations": [')

    def _add(self, image: AnnotatedImage) -> None:
        height, width = image.regions.size
        number = self.images + 1
        self._images.append({"id": number, "file_name": image.file_name, "height": height, "width": width})
        for place, region in enumerate(image.regions.regions, start=self.regions):
            left, top = region.outer.min(0).tolist()
            right, bottom = region.outer.max(0).tolist()
            annotation = {
                "id": place + 1,
                "image_id": number,
                "category_id": region.train_id + 1,
                "segmentation": _runs(region, (height, width)) if region.holes else [_short(region.flat)],
                "area": round(region.area_px, 2),
                "bbox": _short([left, top, right - left, bottom - top]),
                "iscrowd": int(bool(region.holes)),
            }
            self._file.write(("," if place else "") + "\n" + json.dumps(annotation, separators=(",", ":")))

    def _end(self) -> None:
        self._file.write(f'\n],\n"images": {json.dumps(self._images)}}}\n')


class CvatWriter(_OneFile):
    """annotations.xml: a polygon for each region, its z_order by its place."""

    file_name = "annotations.xml"

    def _begin(self) -> None:
        meta = ElementTree.Element("meta")
        labels = ElementTree.SubElement(ElementTree.SubElement(meta, "task"), "labels")
        for name, color in zip(self.classes.names, self.classes.palette, strict=True):
            label = ElementTree.SubElement(labels, "label")
            ElementTree.SubElement(label, "name").text = name
            ElementTree.SubElement(label, "color").text = "#{:02x}{:02x}{:02x}".format(*color)
        self._file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n')
        self._write(meta)

    def _add(self, image: AnnotatedImage) -> None:
        height, width = image.regions.size
        size = {"width": str(width), "height": str(height)}
        element = ElementTree.Element("image", {"id": str(self.images), "name": image.file_name, **size})
        for place, region in enumerate(image.regions.regions):
            points = ";".join(f"{x:g},{y:g}" for x, y in np.round(region.outer[:-1], 2).tolist())
            about = {"label": self.classes.names[region.train_id], "source": "auto", "occluded": "0"}
            ElementTree.SubElement(element, "polygon", {**about, "points": points, "z_order": str(place)})
        self._write(element)

    def _end(self) -> None:
        self._file.write("</annotations>\n")

    def _write(self, element: ElementTree.Element) -> None:
        ElementTree.indent(element)
        self._file.write(ElementTree.tostring(element, encoding="unicode") + "\n")


class LabelMeWriter(Writer):
    """<image>.json for each image, in the folders that the images lie in below theirs."""

    def there(self) -> Path | None:
        """As of any form; a file of COCO may lie among them, and what a kill left of one."""
        coco, half = self.folder / CocoWriter.file_name, self.folder / f".{CocoWriter.file_name}"
        files = self.folder.rglob("*.json")
        return next((path for path in files if path != half and (path != coco or _is_labelme(path))), None)

    def _add(self, image: AnnotatedImage) -> None:
        whole = PurePosixPath(image.file_name)
        path = self.folder / whole.with_suffix(".json")
        if path in self.taken:  # x.png after x.jpg, and annotations.jpg beside COCO's annotations.json
            path = self.folder / f"{whole}.json"
        self.taken.add(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        names = [self.classes.names[region.train_id] for region in image.regions.regions]
        common: dict[str, Any] = {"group_id": None, "description": "", "shape_type": "polygon", "flags": {}}
        shapes = [
            {"label": name, "points": points, **common}
            for name, points in zip(names, _pixel_polygons(image.regions), strict=True)
        ]
        table: dict[str, Any] = {
            "version": "5.4.1",
            "flags": {},
            "shapes": shapes,
            "imagePath": Path(os.path.relpath(image.image, path.parent)).as_posix(),
            "imageData": None,
            "imageHeight": image.regions.size[0],
            "imageWidth": image.regions.size[1],
        }
        with written_whole(path) as half:
            half.write_text(json.dumps(table, separators=(",", ":")) + "\n", encoding="utf-8")


def _is_labelme(path: Path) -> bool:
    """Whether a file is LabelMe's, of an image that has the name of COCO's file."""
    with path.open("rb") as file:
        return b'"shapes"' in file.read(MOST_BEFORE_SHAPES)


MOST_BEFORE_SHAPES = 10_000
"""Bytes of a LabelMe file before its shapes, at most; a file of COCO may be far too large to be read for this."""


def _short(numbers: list[float]) -> list[float]:
    """With two digits, and none where they are zero."""
    return [int(n) if n == int(n) else round(n, 2) for n in numbers]


def _runs(region: Region, size: tuple[int, int]) -> dict[str, Any]:
    """COCO's run lengths of a region with holes, column by column."""
    canvas = Image.new("L", (size[1], size[0]))
    for value, rings in ((1, (region.outer,)), (0, region.holes)):
        Polygons(tuple(_points(ring) for ring in rings), "coco").paint(canvas, value)
    mask: NDArray[np.uint8] = np.asarray(canvas).ravel("F")
    ends = np.flatnonzero(np.diff(mask, prepend=0, append=2))
    return {"counts": np.diff(ends, prepend=0).tolist(), "size": list(size)}


def _points(ring: NDArray[np.float64]) -> Points:
    return tuple((x, y) for x, y in ring[:-1].tolist())


def _pixel_polygons(regions: Regions) -> list[list[list[float]]]:
    """The outer rings as LabelMe draws polygons: a corner is a pixel, which is part of the polygon.

    A corner becomes the pixel beside it that lies in the region. Where regions share it, all take that of the one that
    is painted last: it covers what of others lies there, and between them remains no gap.
    """
    chosen: dict[tuple[float, float], list[float]] = {}
    polygons = []
    for region in reversed(regions.regions):
        pixels = np.floor(region.outer[:-1] + inward(region.outer) / 2).tolist()
        polygons.append(
            [chosen.setdefault(corner, pixel) for corner, pixel in zip(_points(region.outer), pixels, strict=True)]
        )
    return polygons[::-1]
