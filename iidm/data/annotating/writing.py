"""Pre-annotations: labels that a network predicts, as files in which a labeling tool shows them to be corrected."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...types import ClassSet, UserError
from .regions import Regions
from .writers import AnnotatedImage, CocoWriter, CvatWriter, LabelMeWriter, Writer

AnnotationFormat = Literal["coco", "labelme", "cvat"]

WRITERS: dict[AnnotationFormat, type[Writer]] = {"coco": CocoWriter, "labelme": LabelMeWriter, "cvat": CvatWriter}

TOLERANCE_PX = 1.0
"""How far a border may be from that of the pixels."""
LEAST_PX = 32
"""Pixels of the smallest region that is written."""


class PredictedLabel(NamedTuple):
    """One image and its label."""

    file_name: str
    """By which the tool knows the image: its path below the folder of the images, `/` between parts."""
    image: Path
    """Where it lies."""
    label: NDArray[np.uint8]
    """uint8 [H,W] train ids at the image's own size, all of them of a class."""


class Written(NamedTuple):
    """What `write_annotations` wrote."""

    path: Path
    """The file, or LabelMe's folder of files."""
    images: int
    regions: int
    dropped: int
    """Regions below the least size, which went to a neighbour."""


def find_regions(label: NDArray[np.uint8], tolerance_px: float, least_px: int) -> Regions:
    """`tracing.trace_regions`, which is imported where it is needed: training runs without shapely.

    Raises:
        UserError: shapely is missing.
    """
    try:
        from .tracing import trace_regions
    except ImportError as error:
        raise UserError(f"Outlines of regions need shapely: pip install shapely ({error}).") from None
    return trace_regions(label, tolerance_px, least_px)


def write_annotations(
    form: AnnotationFormat,
    folder: Path,
    labels: Iterable[PredictedLabel],
    classes: ClassSet,
    *,
    unlabeled: int | None = None,
    tolerance_px: float = TOLERANCE_PX,
    least_px: int = LEAST_PX,
) -> Written:
    """Write the labels of images as the polygons of a labeling tool, one image at a time.

    Args:
        form: `coco`: FOLDER/annotations.json; `cvat`: FOLDER/annotations.xml (CVAT for images 1.1); `labelme`: a JSON
            file for each image.
        folder: made where it is missing; what it holds of an earlier call is replaced.
        labels: may be made one by one as they are asked for.
        unlabeled: train id of the class that pixels without a polygon are, of which none are written (but see
            `Regions.without`); None: all classes are written.
        tolerance_px: how far a border may be from that of the pixels; 0: not at all.
        least_px: regions of fewer pixels go to the neighbour with which they share the longest border.

    Raises:
        UserError: shapely is missing.
        OSError: a file cannot be written.
    """
    dropped = 0
    with WRITERS[form](folder, classes, unlabeled) as writer:
        for file_name, image, label in labels:
            regions = find_regions(label, tolerance_px, least_px)
            dropped += regions.dropped
            writer.add(AnnotatedImage(file_name, image, regions))
    return Written(writer.path, writer.images, writer.regions, dropped)
