"""One mask a class: `road/x.png` and `car/x.png`, or `x_road.png` and `x_car.png`, for the image x.

A pixel of a mask is inside or it is not: 0 is outside and one other value inside, whichever it is. Pixels that masks of
two classes claim are ignored, and counted: which of the two holds cannot be told.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...types import UserError
from ..files.common import hw
from ..files.listing import MARKS
from .pictures import read_picture
from .shapes import Annotated, Bitmap, Shape


class Mask(NamedTuple):
    """The pixels of one class in one image."""

    name: str
    """Of the class."""
    path: Path


def group_masks(
    files: Mapping[str, Path], images: Collection[str], known: Collection[str]
) -> tuple[dict[str, tuple[Mask, ...]], list[str]]:
    """The masks of each image by its name, and the names of files that are the mask of no image.

    Args:
        files: name below the folder, without ending -> picture.
        images: names of images.
        known: names of classes: where a file may be of several classes, it is of one of these.
    """
    images, found, alone = frozenset(images), dict[str, list[Mask]](), list[str]()
    for name, path in files.items():
        ways = list(_ways(name, images))
        if not ways:
            alone.append(name)
            continue
        image, of = next((way for way in ways if way[1] in known), ways[0])
        found.setdefault(image, []).append(Mask(of, path))
    return {image: tuple(masks) for image, masks in found.items()}, alone


def _ways(name: str, images: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Pairs (image, class) that a file may be the mask of: one of its folders is the class, or the end of its name."""
    *folders, last = PurePosixPath(name).parts
    for place in reversed(range(len(folders))):
        image = "/".join([*folders[:place], *folders[place + 1 :], last])
        if image in images:
            yield image, folders[place]
    for place in reversed(range(len(name) - len(last) + 1, len(name) - 1)):
        if name[place] in MARKS and name[:place] in images:
            yield name[:place], name[place + 1 :]


def read_masks(masks: Sequence[Mask]) -> Annotated:
    """What the masks of an image say of it.

    Raises:
        UserError: a mask cannot be read, holds more than two values, or has another size than the others.
    """
    shapes = list[Shape]()
    size = (0, 0)
    for mask in masks:
        inside = read_mask(mask.path)
        if not shapes:
            size = (inside.shape[0], inside.shape[1])
        elif inside.shape != size:
            have = f"{mask.path} is {hw(inside.shape)}, {masks[0].path} {hw(size)}"
            raise UserError(f"Masks of one image must have one size: {have}. Export them again.")
        shapes.append(Shape(mask.name, Bitmap((0, 0), inside), f"mask {mask.path}"))
    return Annotated(size, tuple(shapes), is_exclusive=True)


def read_mask(path: Path) -> NDArray[np.bool_]:
    """bool [H,W]: where a mask is not 0. Raises UserError where it cannot be read or holds more than two values."""
    values = read_picture(path, "auto", has_colors=True).values
    inside = values != 0
    chosen = values[inside]
    if chosen.size and (chosen != chosen[0]).any():
        raise UserError(
            f"Mask {path} holds more than two values; needed are 0 outside and one other inside. Export it without"
            " smoothing, or give labels of several classes another label_kind."
        )
    return inside
