"""The files below some folders, by what their names say, and how names are put together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..files.aside import RESULTS
from ..files.listing import IMAGE_ENDINGS, predicted_among
from ..files.walking import Found, walk
from .lists import LIST_NAMES


@dataclass(frozen=True)
class File:
    """One file below one of the folders."""

    root: Path
    folders: tuple[str, ...]
    """Folders between the root and the file."""
    name: str
    """Without ending, in Unicode's composed form, in which names are compared."""
    ending: str
    """With its dot, in lower case."""
    path: Path


@dataclass
class Files:
    """What lies below the folders, sorted by path."""

    pictures: list[File] = field(default_factory=list)
    documents: list[File] = field(default_factory=list)
    """.json and .xml files, which may be annotations."""
    lists: list[Path] = field(default_factory=list)
    """Files that may name classes."""
    val_lists: list[Path] = field(default_factory=list)
    """Text files that may name the images that validate (VOC's ImageSets/Segmentation/val.txt)."""
    others: Counter[str] = field(default_factory=Counter)
    """Ending, or kind of what is left aside everywhere -> how many there are."""


def find_files(roots: Iterable[Path]) -> Files:
    """All files below the folders, each once, as `walk` finds them. What `iidm.predict` wrote is left aside.

    Raises:
        UserError: a folder cannot be read.
    """
    files = Files()
    seen: set[str] = set()
    for root in roots:
        found, aside = walk(root)
        files.others += aside
        predicted = predicted_among(found)
        for file in sorted(found, key=lambda file: file.is_link):
            if file.below in predicted:
                files.others[RESULTS] += 1
            elif file.real not in seen:
                seen.add(file.real)
                _sort_in(files, root, file)
    for group in (files.pictures, files.documents):
        group.sort(key=lambda file: file.path)
    return files


def _sort_in(files: Files, root: Path, found: Found) -> None:
    file = File(root, tuple(found.below.split("/")[:-1]), found.stem, found.ending, found.path)
    if file.ending in IMAGE_ENDINGS:
        files.pictures.append(file)
    elif file.ending in (".json", ".xml"):
        files.documents.append(file)
    elif file.path.name.lower() in LIST_NAMES:
        files.lists.append(file.path)
    elif file.ending == ".txt" and (split_of(file.name) or ("", ""))[1] == "val":
        files.val_lists.append(file.path)
    else:
        files.others[file.ending or "file without ending"] += 1


def tails(stem: str) -> list[str]:
    """What may be a suffix of a name, longest first, the empty one last: up to three words at its end, with the mark
    before each. `a_000001_gtFine_labelIds` has `_gtFine_labelIds` and `_labelIds`; numbers are no suffix. Of a name
    with the folder of its sample, `0001/label`, it is all behind that."""
    if "/" in stem:
        return [stem[stem.rindex("/") :]]
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
