"""Colours as numbers, and class colours as a table for whole pictures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...types import UserError
from .label_map import find_label_map, read_label_map

RGB = tuple[int, int, int]

SHOWN_COLORS = 3
"""Unknown colours that an error names, the most frequent first."""
SMOOTHED = 16
"""So many unknown colours in one picture are no forgotten classes: it was smoothed or compressed."""


def parse_color(text: str) -> RGB:
    """#rrggbb as RGB 0..255."""
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        raise UserError(f"A colour must be #rrggbb such as #804080, not {text!r}.")
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def color_text(color: int) -> str:
    """A packed colour as #rrggbb."""
    return f"#{color:06x}"


def packed(color: RGB) -> int:
    """RGB 0..255 as one number 0xrrggbb."""
    return color[0] << 16 | color[1] << 8 | color[2]


def unpacked(colors: NDArray[Any]) -> NDArray[np.int64]:
    """int64 [N,3] RGB of packed colours [N]."""
    return np.stack([colors >> 16, colors >> 8 & 255, colors & 255], axis=-1).astype(np.int64)


def look_up(colors: NDArray[np.uint32], table: Mapping[int, int]) -> NDArray[np.int16]:
    """Train ids of packed colours, any shape; -1 where the table has none."""
    known = np.array(sorted(table), np.uint32)
    train_ids = np.array([table[c] for c in sorted(table)], np.int16)
    place = np.minimum(np.searchsorted(known, colors), len(known) - 1)
    return np.where(known[place] == colors, train_ids[place], np.int16(-1))


def unknown_colors(
    path: Path,
    colors: NDArray[np.uint32],
    missing: NDArray[np.bool_],
    table: Mapping[int, int],
    names: Mapping[int, str],
) -> UserError:
    """The error for colours of a label picture that are no class's.

    Args:
        path: the picture.
        colors: uint32 [H,W], packed.
        missing: bool [H,W], where no class has the colour.
        table: packed colour -> train id of those that are known.
        names: train id -> class name; others are ignored ones.
    """
    found, counts = np.unique(colors[missing], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    told = []
    label_map = find_label_map(path)
    mapped = read_label_map(label_map) if label_map is not None else {}
    by_color = {packed(color): name for name, color in mapped.items()}
    known = np.array(sorted(table), np.int64)
    for i in order[:SHOWN_COLORS]:
        color = int(found[i])
        row, column = np.argwhere(colors == found[i])[0]
        near = int(known[np.square(unpacked(known) - unpacked(np.array([color]))).sum(-1).argmin()])
        owner = names.get(table[near])
        whose = f"class {owner!r}" if owner is not None else "ignored"
        told.append(
            f"{color_text(color)} ({_share(int(counts[i]), colors.size)} of the picture, first at row {row}, column"
            f" {column}; nearest known: {color_text(near)}, {whose}"
            + (f"; {label_map} names it {by_color[color]!r}" if color in by_color else "")
            + ")"
        )
    more = f" and {len(found) - SHOWN_COLORS} more colours" if len(found) > SHOWN_COLORS else ""
    advice = "Give it to a class (color, colors) or to ignore_colors in the TOML file."
    if len(found) > SMOOTHED:
        advice = (
            "So many colours come from smoothing or lossy compression: export the label again without either (PNG,"
            " resized with nearest neighbour)."
        )
    elif label_map is not None and not any(int(c) in by_color for c in found):
        advice += f" {label_map} lists the colours that the labeling tool wrote."
    return UserError(f"Label {path} has a colour that no class names: {', '.join(told)}{more}. {advice}")


def _share(count: int, of: int) -> str:
    return f"{count / of:.1%}" if 1000 * count >= of else f"{count} pixels"
