"""The files below some folders, by what their names say, and how names are put together."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ..files.listing import IMAGE_ENDINGS

_UNREAD = (".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".heic", ".heif")
PICTURE_ENDINGS = frozenset({*IMAGE_ENDINGS, *_UNREAD})
"""Those that training does not read among them: they are told."""
COLOR_LISTS = ("labelmap.txt", "label_colors.txt", "class_dict.csv")
"""Names with colours: CVAT's, CamVid's and Kaggle's."""
NAME_LISTS = ("codes.txt", "classes.txt", "class_names.txt", "labels.txt")
"""One class name a line, in the order of the ids."""
_JUNK = {"@eadir", "__macosx", "__pycache__", "$recycle.bin", "thumbs.db"}


@dataclass(frozen=True)
class File:
    """One file below one of the folders."""

    root: Path
    folders: tuple[str, ...]
    """Folders between the root and the file."""
    stem: str
    ending: str
    """With its dot, as it is spelled."""

    @cached_property
    def path(self) -> Path:
        """Where it lies."""
        return self.root.joinpath(*self.folders, self.stem + self.ending)

    @property
    def name(self) -> str:
        """The stem in Unicode's composed form, in which names are compared."""
        return unicodedata.normalize("NFC", self.stem)

    @property
    def folder(self) -> Path:
        """Where its folder lies."""
        return self.root.joinpath(*self.folders)


@dataclass
class Files:
    """What lies below the folders, sorted by path."""

    roots: tuple[Path, ...]
    pictures: list[File] = field(default_factory=list)
    documents: list[File] = field(default_factory=list)
    """.json and .xml files, which may be annotations."""
    lists: list[Path] = field(default_factory=list)
    """Files that may name classes."""
    others: Counter[str] = field(default_factory=Counter)
    """Ending -> files that are none of these."""


def find_files(roots: Iterable[Path]) -> Files:
    """All files below the folders. Each real folder is read once, whatever links lead to it; hidden files and what
    systems and viewers leave behind are left aside."""
    found = Files(tuple(roots))
    seen: set[str] = set()
    for root in found.roots:
        for parent, folders, names in os.walk(root, followlinks=True):
            real = os.path.realpath(parent)
            if real in seen:
                folders[:] = []
                continue
            seen.add(real)
            folders[:] = sorted(f for f in folders if not _is_junk(f))
            parts = Path(parent).relative_to(root).parts
            for name in sorted(n for n in names if not _is_junk(n)):
                _sort_in(found, File(root, parts, *os.path.splitext(name)))
    return found


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name.lower() in _JUNK


def _sort_in(found: Files, file: File) -> None:
    ending = file.ending.lower()
    if ending in PICTURE_ENDINGS:
        found.pictures.append(file)
    elif ending in (".json", ".xml"):
        found.documents.append(file)
    elif (file.stem + file.ending).lower() in COLOR_LISTS + NAME_LISTS:
        found.lists.append(file.path)
    else:
        found.others[ending or "(no ending)"] += 1


def tails(stem: str) -> list[str]:
    """What may be a suffix of a name, longest first and the empty one last: up to three words at its end, with the mark
    before each. `a_000001_gtFine_labelIds` has `_gtFine_labelIds` and `_labelIds`; numbers are no suffix."""
    found, end = [""], len(stem)
    while len(found) < 4:
        match = re.search(r"[_\-. ][A-Za-z][A-Za-z0-9]*$", stem[:end])
        if match is None or match.start() == 0:
            break
        end = match.start()
        found.append(stem[end:])
    return found[::-1]


def words(text: str) -> list[str]:
    """The words of a name in lower case: `gtFine_labelIds` -> gtfine, labelids."""
    return [w for w in re.split(r"[_\-. /]+", text.lower()) if w]


_SPLITS = {
    "train": "train",
    "training": "train",
    "trn": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_SPLIT_WORD = re.compile(
    r"(?:^|(?<=[_\-. ]))(training|train|trn|validation|valid|val|testing|test)"
    r"(?=$|[_\-. ]|annot|labels?$|masks?$|images?$|\d{4}$)",
    re.IGNORECASE,
)
SPLIT = "{split}"
SPLITS = ("train", "val", "test")


def split_of(part: str) -> tuple[str, str, str] | None:
    """Which split a folder's or a file's name tells: (the name with {split} in place of it, train or val or test, its
    spelling); None where it tells none. `trainannot` -> ({split}annot, train, train)."""
    match = _SPLIT_WORD.search(part)
    if match is None:
        return None
    spelling = match[1]
    return part[: match.start()] + SPLIT + part[match.end() :], _SPLITS[spelling.lower()], spelling


def abstract(parts: Iterable[str]) -> tuple[tuple[str, ...], str, str]:
    """Folders with {split} in place of the first one that tells a split, which split, and its spelling."""
    parts = tuple(parts)
    for i, part in enumerate(parts):
        found = split_of(part)
        if found is not None:
            return (*parts[:i], found[0], *parts[i + 1 :]), found[1], found[2]
    return parts, "", ""
