"""Lists that tools and data sets put beside labels: of classes, of the images that validate."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from ...text import read_text
from ...types import UserError
from ..datasets.splits import read_list
from ..labels import label_map
from ..labels.colors import packed

_COLOR_LISTS = (label_map.NAME, "label_colors.txt", "class_dict.csv")
"""Names with colours: CVAT's, CamVid's and Kaggle's."""
NAMES_OF_ONE = "label_names.txt"
"""What LabelMe's labelme_json_to_dataset puts beside each label picture."""
_NAME_LISTS = ("codes.txt", "classes.txt", "class_names.txt", "labels.txt", NAMES_OF_ONE, "_classes.csv")
"""One class name a line, in the order of the ids; Roboflow's _classes.csv has `id, name` lines."""
LIST_NAMES = (*_COLOR_LISTS, *_NAME_LISTS)
"""In lower case."""
_LONGEST = 60
_RGB = r"(\d+)[ ,\t]+(\d+)[ ,\t]+(\d+)"


class ValList(NamedTuple):
    """A list of the images that validate."""

    path: Path
    images: int
    """How many it names."""


class Lists(NamedTuple):
    """What lists beside the labels say."""

    colors: dict[Path, dict[str, int]]
    """List -> class -> 0xrrggbb."""
    names: dict[Path, list[str]]
    """List -> classes in the order of their ids."""
    problems: list[str]
    """Lines on those that cannot be read."""


def read_lists(paths: Iterable[Path]) -> Lists:
    """Read them; those without a class in a form that is known are left out."""
    lists = Lists({}, {}, [])
    paths = list(paths)
    try:
        longest = longest_of_one(paths)
    except UserError as error:
        lists.problems.append(str(error))
        longest = None
    for path in paths:
        if is_of_one(path) and path != longest:
            continue
        try:
            if path.name.lower() not in _COLOR_LISTS:
                lists.names.update({path: names} if (names := read_names(path)) else {})
            elif colors := read_colors(path):
                lists.colors[path] = colors
        except UserError as error:
            lists.problems.append(str(error))
    return lists


def read_colors(path: Path) -> dict[str, int]:
    """Class -> 0xrrggbb of CVAT's labelmap.txt, CamVid's label_colors.txt (`r g b name`) or class_dict.csv
    (`name,r,g,b`). Raises UserError for a labelmap.txt of another form."""
    if path.name.lower() == label_map.NAME:
        return {name: packed(color) for name, color in label_map.read_label_map(path).items()}
    found: dict[str, int] = {}
    for line in _lines(path):
        if path.suffix.lower() == ".csv":
            try:
                cells = [cell.strip() for cell in next(csv.reader([line]))]
            except csv.Error:  # a cell of 131,072 letters and more is no class
                continue
            name, rgb = cells[0], re.fullmatch(_RGB, ",".join(cells[1:4]))
        else:
            rgb = re.match(_RGB + r"\s+(?=\S)", line)
            name = line[rgb.end() :] if rgb else ""
        if rgb and max(map(int, rgb.groups())) < 256:
            red, green, blue = map(int, rgb.groups())
            found[name] = packed((red, green, blue))
    return found


def read_names(path: Path) -> list[str]:
    """One class name a line; empty for a file that is no such list. LabelMe's `__ignore__` has no id. Lines of a
    .csv are `id, name`, from 0 on."""
    names = [line for line in _lines(path) if line != "__ignore__"]
    if path.suffix.lower() == ".csv":
        rows = [line.partition(",") for line in names if line[0].isdigit()]
        if [number.strip() for number, _, _ in rows] != [str(k) for k in range(len(rows))]:
            return []
        names = [name.strip() for _, _, name in rows]
    return names if len(set(names)) == len(names) and all(len(n) < _LONGEST for n in names) else []


def is_of_one(path: Path) -> bool:
    """Whether a list is about one label picture, the one beside it."""
    return path.name.lower() == NAMES_OF_ONE


def longest_of_one(paths: Iterable[Path]) -> Path | None:
    """Of the lists that are about one label picture each the longest, which names the ids of all; None without one.

    LabelMe counts the classes of each image anew, so that 1 may be road here and car there.

    Raises:
        UserError: two of them name an id differently, or one cannot be read.
    """
    first: dict[int, tuple[str, Path]] = {}
    longest, count = None, 0
    for path in filter(is_of_one, paths):
        names = read_names(path)
        for number, name in enumerate(names):
            known, where = first.setdefault(number, (name, path))
            if known != name:
                raise UserError(f"id {number} is {known!r} in {where} and {name!r} in {path}")
        if len(names) > count:
            longest, count = path, len(names)
    return longest


def _lines(path: Path) -> list[str]:
    try:
        text = read_text(path, "List of classes")
    except OSError as error:
        raise UserError(f"List of classes {path} cannot be read ({error.strerror}).") from None
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def find_val_list(paths: Iterable[Path], labeled: Collection[str]) -> ValList | None:
    """Of text files the one that names most of the labeled images, but not all, and nothing else; None without one."""
    found = []
    for path in paths:
        try:
            found.append(ValList(path, len(read_list(path, list(labeled)))))
        except UserError:  # a list of something else
            continue
    return max((entry for entry in found if entry.images < len(labeled)), key=lambda entry: entry.images, default=None)
