"""The images that a user names one by one or by their folders, each with a name for its results."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ...types import UserError
from .listing import list_images


class Inputs(NamedTuple):
    """Images to be labeled."""

    images: list[tuple[Path, str]]
    """Each with a name that no other has: the path of its results below the output folder, without ending."""
    notes: tuple[str, ...]
    """Lines on what was left aside."""


def find_images(paths: Iterable[Path]) -> Inputs:
    """Every image named or below a named folder; one that is named twice counts once.

    Its name is its path below the folder, the parts joined by `_`. Where two would have one name, `a/b.jpg` and
    `a_b.jpg`, those in folders keep them: results go to `a/b.*`.

    Raises:
        UserError: a path that does not exist, a folder without images, or two images of one name from different paths.
    """
    found: dict[str, tuple[Path, str]] = {}
    notes: list[str] = []
    for path in paths:
        if path.is_dir():
            listing = list_images(path, what=str(path))
            notes += listing.notes
            for name, file in listing.paths.items():
                found.setdefault(os.path.realpath(file), (file, name))
        elif path.is_file():
            found.setdefault(os.path.realpath(path), (path, path.stem))
        else:
            raise UserError(f"There is no image {path}.")
    often = Counter(name.replace("/", "_") for _, name in found.values())
    images = [
        (path, name if often[joined] > 1 else joined)
        for path, name in found.values()
        for joined in (name.replace("/", "_"),)
    ]
    twice = sorted(name for name, count in Counter(name for _, name in images).items() if count > 1)
    if twice:
        raise UserError(
            f"Several images would write the same result {twice[0]!r}; label them into folders of their own."
        )
    return Inputs(images, tuple(notes))
