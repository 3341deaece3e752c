"""Lists of classes that tools and data sets put beside labels."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path

from .files import COLOR_LISTS, NAME_LISTS


def read_colors(path: Path) -> Mapping[str, int]:
    """Class -> 0xrrggbb of CVAT's labelmap.txt (`name:r,g,b:parts:actions`), CamVid's label_colors.txt (`r g b name`)
    or class_dict.csv (`name,r,g,b`); empty for another file."""
    if path.name.lower() not in COLOR_LISTS:
        return {}
    found: dict[str, int] = {}
    for line in _lines(path):
        numbers = r"(\d+)[ ,\t]+(\d+)[ ,\t]+(\d+)"
        match = re.fullmatch(rf"([^:]+):{numbers}(?::.*)?", line)
        if match is None and path.suffix == ".csv":
            row = next(csv.reader([line]))
            match = re.fullmatch(rf"(.+),{numbers}", ",".join(cell.strip() for cell in row[:4]))
        if match:
            name, rgb = match[1].strip(), match.groups()[1:4]
        else:
            match = re.fullmatch(rf"{numbers}\s+(.+)", line)
            if match is None:
                continue
            name, rgb = match[4].strip(), match.groups()[:3]
        red, green, blue = (int(v) for v in rgb)
        if max(red, green, blue) < 256:
            found[name] = red << 16 | green << 8 | blue
    return found


def read_names(path: Path) -> list[str]:
    """One class name a line; empty for a file that is no such list. LabelMe's `__ignore__` has no id."""
    if path.name.lower() not in NAME_LISTS:
        return []
    names = [line for line in _lines(path) if line != "__ignore__"]
    return names if len(set(names)) == len(names) and all(len(n) < 60 for n in names) else []


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return []
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
