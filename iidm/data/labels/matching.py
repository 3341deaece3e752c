"""Which annotated image is which file: annotation files name images with other folders and endings than the disk."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from ...types import UserError
from ..files.common import counted, first_few
from ..files.listing import IMAGE_ENDINGS

_ENDINGS = (*IMAGE_ENDINGS, ".gif", ".ppm", ".pgm", ".jp2")


def match(file_names: Sequence[str], images: Mapping[str, Path], where: str) -> dict[str, int]:
    """Sample name -> place of its image in `file_names`, by the end of the path.

    `drive/0001.jpg` is the image drive/0001.png of any folder; where several fit, the one that shares most folders is
    meant, and of those the one with the same ending. An image whose file has a suffix that its name lacks may have an
    entry by its name too.

    Args:
        file_names: as the annotation file says.
        images: sample name -> image.
        where: the annotation file, for errors.

    Raises:
        UserError: an image fits two entries of the file equally, or an entry two images.
    """
    by_stem: dict[str, list[int]] = defaultdict(list)
    parts = [_parts(name) for name in file_names]
    for place, path in enumerate(parts):
        by_stem[path[-1]].append(place)
    fits: dict[str, list[tuple[int, int, int]]] = {}
    for name, image in images.items():
        whole, short = _parts(image.absolute().as_posix()), len(PurePosixPath(name).parts)
        if whole[-1] not in by_stem:  # a copy of iidm.select, whose name lacks the images' suffix
            whole = (*whole[:-1], _parts(name)[-1])
        near = [(_common(parts[p], whole), _alike(file_names[p], image.name), p) for p in by_stem.get(whole[-1], ())]
        fits[name] = sorted((fit for fit in near if fit[0] >= min(len(parts[fit[2]]), short)), reverse=True)
    found: dict[str, int] = {}
    users: dict[int, str] = {}
    for alike in (2, 1, 0):  # what is the entry of an image by its ending too is no other image's
        taken = set(users)
        for name, image in images.items():
            free = [fit for fit in fits[name] if fit[2] not in taken]
            if name in found or not free or free[0][1] != alike:
                continue
            place = free[0][2]
            if len(free) > 1 and free[0][:2] == free[1][:2]:
                raise UserError(
                    f"{where} has two entries that may be image {image}: {file_names[free[1][2]]!r} and"
                    f" {file_names[place]!r}. Give the images the folders that the file names."
                )
            if place in users:
                raise UserError(
                    f"{where} has one entry {file_names[place]!r}, which fits two images:"
                    f" {images[users[place]]} and {image}."
                    " Give them other names, or name the folder of the images more closely."
                )
            users[place] = name
            found[name] = place
    return found


def match_but_for_case(file_names: Sequence[str], images: Mapping[str, Path]) -> dict[str, int]:
    """As `match`, for entries and images that it leaves over: whose names differ in upper and lower case only. Empty
    where several fit."""
    folded = {name: Path(str(path.absolute()).casefold()) for name, path in images.items()}
    try:
        return match([name.casefold() for name in file_names], folded, "")
    except UserError:
        return {}


def case_words(entries: Sequence[str], images: Sequence[Path]) -> str:
    """What is said of names that annotation files and disk write in another case."""
    pairs = [f"{entry!r} and {image.name}" for entry, image in zip(entries, images, strict=True)]
    return (
        f"{counted(len(pairs), 'annotated image')} and images on disk differ in upper and lower case only:"
        f" {first_few(pairs, 3)}. Rename the images as the annotations name them"
    )


def _parts(path: str) -> tuple[str, ...]:
    """Folders and stem; one form of accented letters, as disks and files differ in it."""
    pure = PurePosixPath(unicodedata.normalize("NFC", path.replace("\\", "/")))
    name = pure.name[: -len(pure.suffix)] if pure.suffix.lower() in _ENDINGS else pure.name
    return (*(part for part in pure.parts[:-1] if part not in ("/", ".", "..")), name)


def _alike(one: str, other: str) -> int:
    """How much the endings of two names are the same: 2 exactly, 1 but for capitals, 0 not."""
    a, b = PurePosixPath(one.replace("\\", "/")).suffix, PurePosixPath(other).suffix
    return (a == b) + (a.lower() == b.lower())


def _common(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """How many parts at the end are the same."""
    count = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        count += 1
    return count
