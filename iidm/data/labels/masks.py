"""One mask a class: for the image x `road/x.png` and `car/x.png`, `x/road.png` and `x/car.png`, or `x_road.png` and
`x_car.png`.

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

    Where a file may be of several classes or images, it is of a class that is known; of several such readings the one
    holds whose form explains all other files too.

    Args:
        files: name below the folder, without ending -> picture.
        images: names of images.
        known: names of classes.

    Raises:
        UserError: a file has two readings of which none is the better one.
    """
    names, classes = frozenset(images), frozenset(known)
    ways = {name: list(_ways(name, names)) for name in files}
    named = {name: [way for way in own if way.name in classes] for name, own in ways.items()}
    told = [{way.form for way in own} for own in named.values() if own]
    forms = set[str]().union(*told).intersection(*told)
    found, alone = dict[str, list[Mask]](), list[str]()
    for name, path in files.items():
        if not ways[name]:
            alone.append(name)
            continue
        fits = named[name]
        if len({way[:2] for way in fits}) > 1 and len(forms) == 1:
            fits = [way for way in fits if way.form in forms]
        if len({way[:2] for way in fits}) > 1:
            raise UserError(_two_readings(path, fits))
        image, of, _ = (fits or ways[name])[0]
        found.setdefault(image, []).append(Mask(of, path))
    return {image: tuple(masks) for image, masks in found.items()}, alone


class _Way(NamedTuple):
    """What a file may be the mask of."""

    image: str
    name: str
    form: str
    """CLASS/IMAGE, IMAGE_CLASS or IMAGE/CLASS."""


def _ways(name: str, images: frozenset[str]) -> Iterator[_Way]:
    """What a file may be the mask of, by its name."""
    *folders, last = PurePosixPath(name).parts
    for place in reversed(range(len(folders))):
        of = folders[place]
        for own in {last: None, _without_end(last, of): None}:  # road/x.png, road/x_road.png
            image = "/".join([*folders[:place], *folders[place + 1 :], own])
            if image in images:
                yield _Way(image, of, "CLASS/IMAGE")
    for place in reversed(range(len(name) - len(last) + 1, len(name) - 1)):
        if name[place] in MARKS and name[:place] in images:
            yield _Way(name[:place], name[place + 1 :], "IMAGE_CLASS")
    for image in ("/".join(folders), "/".join([*folders, *folders[-1:]])):  # the second: x/x.jpg
        if image in images:
            for own in {without_start(last, folders[-1]): None, last: None}:  # x/x_road.png, x/road.png
                yield _Way(image, own, "IMAGE/CLASS")


def without_start(name: str, image: str) -> str:
    """`road` of `x_road` for the image x; the whole name where it does not begin so."""
    is_behind = len(name) > len(image) + 1 and name.startswith(image) and name[len(image)] in MARKS
    return name[len(image) + 1 :] if is_behind else name


def _without_end(name: str, of: str) -> str:
    is_before = len(name) > len(of) + 1 and name.endswith(of) and name[-len(of) - 1] in MARKS
    return name[: -len(of) - 1] if is_before else name


def _two_readings(path: Path, ways: Sequence[_Way]) -> str:
    one, other = list(dict.fromkeys(way[:2] for way in ways))[:2]
    return (
        f"Mask {path} may be of class {one[1]!r} of image {one[0]!r} or of class {other[1]!r} of image {other[0]!r};"
        " needed is one reading of CLASS/IMAGE.png, IMAGE/CLASS.png or IMAGE_CLASS.png. Rename it, the class or the"
        " image so that one is left: a class is called road, say, not 1 as images are."
    )


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
