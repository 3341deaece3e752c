"""The files below a folder: links followed, each real folder once, junk left aside and counted."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter, deque
from pathlib import Path
from typing import NamedTuple

from ...types import UserError

JUNK_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini"}
"""What Windows leaves, in lower case."""
JUNK_FOLDERS = {"@eadir", "__macosx", "#recycle", "$recycle.bin", "lost+found", "system volume information"}
"""What network disks, archives and Windows leave, in lower case."""

SHEET = "contact sheet of iidm.inspect"
FRAMES = "iidm-frames.json"
"""What `iidm.predict` writes into a folder of a video's frames."""
FRAMES_FOLDER = "folder of frames of iidm.predict"


class Found(NamedTuple):
    """A file."""

    path: Path
    below: str
    """Its path below the folder, as the disk writes it."""
    real: str
    """Where it lies, every link followed."""
    is_link: bool

    @property
    def stem(self) -> str:
        """Its name without ending, in Unicode's composed form."""
        return unicodedata.normalize("NFC", os.path.splitext(os.path.basename(self.below))[0])

    @property
    def raw_ending(self) -> str:
        """`.JPG`."""
        return os.path.splitext(self.below)[1]

    @property
    def ending(self) -> str:
        """`.jpg`."""
        return self.raw_ending.lower()

    def has(self, suffix: str) -> bool:
        """Whether its name ends with a suffix (in NFC) before the ending, and is more than that. A suffix with a `/`
        begins in its folder's name: `/image` is the end of 0001/image.jpg."""
        name = self.name_without("") if "/" in suffix else self.stem
        return name.endswith(suffix) and name != suffix

    def name_without(self, suffix: str) -> str:
        """Its path below the folder without ending and suffix, in Unicode's composed form."""
        return unicodedata.normalize("NFC", os.path.splitext(self.below)[0]).removesuffix(suffix)


class _Place(NamedTuple):
    """A folder to look into."""

    path: str
    below: str
    real: str


def walk(folder: Path, *, without: str | None = None) -> tuple[list[Found], Counter[str]]:
    """Every file below a folder, in the order of their names, and what was left aside, by kind.

    Links to folders are followed after all that lies in the folder itself, so that a file is found where it lies, and
    not where a link leads to it. A broken link is a file: whoever opens it names it.

    Args:
        without: the real path of a folder below that is left out, uncounted.

    Raises:
        UserError: the folder cannot be read.
    """
    root = _Place(str(folder), "", os.path.realpath(folder))
    aside: Counter[str] = Counter()
    found: list[Found] = []
    seen = {root.real, without}
    places, links = deque([root]), deque[_Place]()
    while places or links:
        place = places.popleft() if places else links.popleft()
        if place.real in seen and place is not root:
            if place.real != without:
                aside["link to what is listed already"] += 1
            continue
        seen.add(place.real)
        try:
            with os.scandir(place.path) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError as error:
            if place is root:
                raise UserError(f"The folder {folder} cannot be read ({error.strerror}).") from None
            aside["folder that cannot be read"] += 1
            continue
        names = {entry.name for entry in entries}
        own = _own_folder(names) if place is not root else ""
        if own:
            aside[own] += 1
            continue
        for entry in entries:
            below = f"{place.below}/{entry.name}" if place.below else entry.name
            kind = _kind(entry)
            junk = _junk(entry.name, kind) or (SHEET if _is_sheet(entry.name, names) else "")
            if junk or kind == "none":
                aside[junk or "file that is none (a pipe, a device)"] += 1
            elif kind == "file":
                is_link = entry.is_symlink()
                real = os.path.realpath(entry.path) if is_link else os.path.join(place.real, entry.name)
                found.append(Found(Path(entry.path), below, real, is_link))
            elif not entry.is_symlink():
                places.append(_Place(entry.path, below, os.path.join(place.real, entry.name)))
            else:
                target = os.path.realpath(entry.path)
                if place.real == target or place.real.startswith(target.rstrip("/") + "/"):
                    aside["link to what is listed already"] += 1  # a folder above: its other files are not ours
                else:
                    links.append(_Place(entry.path, below, target))
    return sorted(found, key=lambda file: file.below), aside


def _kind(entry: os.DirEntry[str]) -> str:
    """`folder`, `file` (a broken link too) or `none`."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path)):
            return "file"
    except OSError:  # a link to itself
        return "file"
    return "none"


def _own_folder(names: set[str]) -> str:
    """What folder of ours holds files of such names, whose pictures are no images of a camera; empty for none."""
    if {"config.json", "splits", "metrics.jsonl"} <= names:
        return "folder of a run"
    if {"labeled.txt", "scores.csv"} <= names:
        return "choice of iidm.select"
    if FRAMES in names:
        return FRAMES_FOLDER
    return "prepared folder" if "prepared.json" in names else ""


def _is_sheet(name: str, names: set[str]) -> bool:
    """Whether a file is what iidm.inspect draws beside the description that it writes: camera.png of camera.toml."""
    return name.endswith(".png") and name.removesuffix(".png") + ".toml" in names


def _junk(name: str, kind: str) -> str:
    """What kind of junk something is, by its name; empty for none."""
    if name.startswith("."):
        return f"hidden {kind}" if kind != "none" else "hidden file"
    lower = name.lower()
    if kind == "folder":
        return f"folder {name}" if lower in JUNK_FOLDERS else ""
    return name if lower in JUNK_FILES else ""
