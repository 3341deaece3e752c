"""Which files of a folder are images or labels, and their names."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ...types import UserError

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg")
LABEL_ENDINGS = (".png",)


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
