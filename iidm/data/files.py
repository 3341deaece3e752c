"""The files of a data set: lists of them by name, their bytes, and where derived ones are kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..types import UserError

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg")
LABEL_ENDINGS = (".png",)

Encoded = NDArray[np.uint8]
"""uint8 [bytes]: a file as it lies on disk."""

Progress = Callable[[int, int], None]
"""Called with how many are done and how many there are."""


@dataclass(frozen=True)
class Listing:
    """The files below a folder."""

    folder: Path
    paths: dict[str, Path]
    """Name (path below the folder without suffix and ending, `/` between parts) -> file, sorted by name."""


def list_files(folder: Path, endings: tuple[str, ...], suffix: str, what: str) -> Listing:
    """All files below `folder` (nested ones too) whose name ends with `suffix` and one of `endings`.

    Hidden files and folders are left aside. Raises UserError where there is none, or where two have the same
    name.
    """
    paths: dict[str, Path] = {}
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [f for f in folders if not f.startswith(".")]
        below = Path(parent).relative_to(folder).as_posix()
        prefix = "" if below == "." else f"{below}/"
        for file in files:
            stem, ending = os.path.splitext(file)
            if file.startswith(".") or ending.lower() not in endings or not stem.endswith(suffix):
                continue
            name = prefix + stem.removesuffix(suffix)
            path = Path(parent, file)
            if name in paths:
                raise UserError(f"Two files of {what} have the name {name!r}: {paths[name]} and {path}. Rename one.")
            paths[name] = path
    if not paths:
        patterns = ", ".join(f"*{suffix}{ending}" for ending in endings)
        raise UserError(f"{what} has no files {patterns} in {folder}.")
    return Listing(folder, dict(sorted(paths.items())))


def read_bytes(path: Path) -> Encoded:
    """A file's bytes. Raises UserError where it cannot be read."""
    try:
        encoded = np.fromfile(path, np.uint8)
    except FileNotFoundError:
        raise UserError(f"Image {path} does not exist.") from None
    except OSError as error:
        raise UserError(f"Image {path} cannot be read ({error.strerror}).") from None
    if not encoded.size:
        raise UserError(f"Image {path} is empty. Copy or download it again.")
    return encoded


def too_large(what: str, path: Path) -> UserError:
    """The error for a picture that Pillow refuses to open for its size (DecompressionBombError): it is not damaged."""
    most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
    return UserError(
        f"{what} {path} has more than {most:,} pixels, the most that training and evaluation read. Cut images and"
        " labels into smaller ones, or scale them down; iidm.predict labels images of that size."
    )


def first_few(names: Sequence[object], count: int = 5) -> str:
    """The first names of a list and how many more there are, for a message."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(str(n) for n in names[:count]) + more


def cache_folder() -> Path:
    """Where derived data is kept: $IIDM_CACHE, else $XDG_CACHE_HOME/iidm, else ~/.cache/iidm."""
    if os.environ.get("IIDM_CACHE"):
        return Path(os.environ["IIDM_CACHE"]).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base).expanduser() if base else Path.home() / ".cache") / "iidm"
