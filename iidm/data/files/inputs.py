"""The images and videos that a user names one by one or by their folders, each with a name for its results."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ...types import UserError
from .listing import VIDEO_ENDINGS, list_images, list_videos


class Input(NamedTuple):
    """An image or a video to be labeled."""

    path: Path
    name: str
    """That no other has: the path of its results below the output folder, without ending."""
    file_name: str
    """Its path below the folder that was named, `/` between parts; of one that was named itself its file's name."""

    @property
    def is_video(self) -> bool:
        """By its ending."""
        return self.path.suffix.lower() in VIDEO_ENDINGS


class Inputs(NamedTuple):
    """Images to be labeled."""

    images: list[tuple[Path, str]]
    """Each with its name as an `Input`."""
    notes: tuple[str, ...]
    """Lines on what was left aside."""


def find_images(paths: Iterable[Path]) -> Inputs:
    """The images that `find_inputs` finds, videos being none.

    Raises:
        UserError: as there.
    """
    found, notes = find_inputs(paths, with_videos=False)
    return Inputs([(one.path, one.name) for one in found], notes)


def find_inputs(paths: Iterable[Path], *, with_videos: bool = True) -> tuple[list[Input], tuple[str, ...]]:
    """Every image and video named or below a named folder, and lines on what was left aside; one that is named twice
    counts once.

    Its name is its path below the folder, the parts joined by `_`. Where two would have one name, `a/b.jpg` and
    `a_b.jpg`, those in folders keep them: results go to `a/b.*`. So do those whose joined name would be too long for a
    file.

    Raises:
        UserError: a path that does not exist, a folder without images and videos, or two images (or two videos) of
            one name from different paths.
    """
    found: dict[str, Input] = {}
    notes: list[str] = []
    for path in paths:
        if path.is_dir():
            videos = list_videos(path) if with_videos else {}
            others = VIDEO_ENDINGS if with_videos else ()
            listing = list_images(path, what=str(path), others=others, may_be_empty=bool(videos))
            notes += listing.notes
            for name, file in [*listing.paths.items(), *videos.items()]:
                below = Path(os.path.relpath(file, path)).as_posix()
                found.setdefault(os.path.realpath(file), Input(file, name, below))
        elif path.is_file():
            # `..png` without its ending is a folder, and its results would lie above or beside theirs
            name = path.stem if path.stem.strip(".") else path.name
            found.setdefault(os.path.realpath(path), Input(path, name, path.name))
        else:
            if path.exists():
                raise UserError(f"{path} is no file and no folder (a pipe, a device). Give a file or a folder.")
            raise UserError(f"There is no image {path}.")
    # An image and a video of one name have different results.
    often = Counter((one.name.replace("/", "_"), one.is_video) for one in found.values())
    named = [
        one if often[joined, one.is_video] > 1 or is_too_long(joined) else one._replace(name=joined)
        for one in found.values()
        for joined in (one.name.replace("/", "_"),)
    ]
    first: dict[tuple[str, bool], Input] = {}
    for one in sorted(named, key=lambda one: one.name):
        other = first.setdefault((one.name, one.is_video), one)
        if other is not one:
            raise UserError(
                f"{other.path} and {one.path} would write the same result {one.name!r}. Label them one after the other,"
                " with an --out of their own, or name the folder that both lie in."
            )
    return named, tuple(notes)


MOST_NAME_BYTES = 255 - len("..probabilities.npz")
"""A file's name has up to 255 bytes on most file systems; this is put around an image's name for its results."""


def is_too_long(name: str) -> bool:
    """Whether a file of results could not have a name of this and an ending."""
    return len(os.fsencode(os.path.basename(name))) > MOST_NAME_BYTES


def name_problem(one: Input) -> str:
    """What is wrong with the name of an image or a video as that of its results; empty where nothing is."""
    if not is_too_long(one.name):
        return ""
    return (
        f"The name of {one.path} is too long for files of results beside it, which have its name and an ending: rename"
        f" it to at most {MOST_NAME_BYTES} bytes."
    )
