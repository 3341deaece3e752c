"""labelmap.txt, in which CVAT and the VOC tools say which colour is which class."""

from __future__ import annotations

from pathlib import Path

from ...text import read_text
from ...types import UserError

NAME = "labelmap.txt"
_LEVELS = 4
"""Folders above a label in which its labelmap.txt may lie: CVAT writes it beside the folder SegmentationClass."""


def read_label_map(path: Path) -> dict[str, tuple[int, int, int]]:
    """The classes of a labelmap.txt: name -> RGB 0..255, in the order of the file.

    A line is `name:r,g,b:parts:actions`, `#` begins a comment; parts and actions are left aside.

    Raises:
        UserError: the file cannot be read, or a line has another form.
    """
    try:
        text = read_text(path, "Label map")
    except OSError as error:
        raise UserError(f"Label map {path} cannot be read ({error}).") from None
    classes: dict[str, tuple[int, int, int]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        # the colour stands in the second field from the left that has the form of one: names may hold colons
        fields = line.rstrip().split(":")
        at = next((i for i in range(1, len(fields)) if _color(fields[i]) is not None), None)
        color = None if at is None else _color(fields[at])
        if at is None or color is None:
            raise UserError(f"Label map {path}, line {number}: needed is name:r,g,b:parts:actions, not {line!r}.")
        classes[":".join(fields[:at]).strip()] = color
    return classes


def find_label_map(label: Path) -> Path | None:
    """The labelmap.txt that lies beside a label or in a folder above it."""
    for folder in list(label.absolute().parents)[:_LEVELS]:
        if (folder / NAME).is_file():
            return folder / NAME
    return None


def _color(text: str) -> tuple[int, int, int] | None:
    try:
        red, green, blue = (int(part) for part in text.split(","))
    except ValueError:
        return None
    return (red, green, blue) if all(0 <= part <= 255 for part in (red, green, blue)) else None
