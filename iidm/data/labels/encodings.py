"""How the bytes of a label file become train ids.

Every public data set writes class ids in its own way: 8-bit gray (Cityscapes), palette indices (GTA5), the
red channel of a 16-bit PNG (SYNTHIA). A reader that guesses turns a palette into colours or a 16-bit id into
0; here each form is named, and an id that the data set does not have is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...types import IGNORE_INDEX, UserError
from ..files.reading import too_large

Kind = Literal["gray8", "palette", "red16", "auto"]

_ACCEPTED = {"gray8": ("L", "1"), "palette": ("P",), "red16": ("RGB", "RGBA"), "auto": ("L", "1", "P")}
_WANTED = {
    "gray8": "8-bit gray with one id a pixel",
    "palette": "a palette PNG whose indices are the ids",
    "red16": "a 16-bit RGB PNG with the id in its red channel",
    "auto": "8-bit gray or a palette PNG whose values are the ids",
}
_GRAY_SCALE = {"L;2": 85, "L;4": 17}
"""Pillow stretches 2- and 4-bit gray to 0..255; ids are the value divided by this."""
_UNKNOWN = -1


@dataclass(frozen=True)
class LabelEncoding:
    """How a label file is read, and which id on disk is which train id."""

    kind: Kind
    """`gray8`: 8-bit gray; `palette`: indices of a palette PNG; `red16`: the red channel of a 16-bit RGB PNG;
    `auto`: gray or palette, whichever the file is. RGB labels are refused."""
    train_ids: tuple[tuple[int, int], ...]
    """(id on disk, train id) of every id that may occur; 255 is ignored. Any other id is an error."""

    def __post_init__(self) -> None:
        ids = [i for i, _ in self.train_ids]
        top = 65535 if self.kind == "red16" else 255
        if len(set(ids)) != len(ids):
            double = next(i for i in ids if ids.count(i) > 1)
            raise UserError(f"The id map names id {double} more than once.")
        for i, train_id in self.train_ids:
            if not (0 <= i <= top and 0 <= train_id <= IGNORE_INDEX):
                raise UserError(f"The id map holds {i}:{train_id}; ids are 0 to {top}, train ids 0 to 255 (ignored).")

    @cached_property
    def lookup(self) -> NDArray[np.int16]:
        """int16 [256] or [65536]: train id of each id on disk, -1 where there is none."""
        table = np.full(65536 if self.kind == "red16" else 256, _UNKNOWN, np.int16)
        for i, train_id in self.train_ids:
            table[i] = train_id
        return table

    @property
    def known(self) -> tuple[int, ...]:
        """Every id that may occur on disk, sorted."""
        return tuple(sorted(i for i, _ in self.train_ids))

    def read(self, path: Path) -> NDArray[np.uint8]:
        """Read one label file.

        Returns:
            uint8 [H,W] train ids at the size on disk, 255 ignored.

        Raises:
            UserError: the file cannot be read, has another form, or holds an id that the encoding does not
                name.
        """
        ids = read_ids(path, self.kind)
        train_ids = np.take(self.lookup, ids)
        if train_ids.size and train_ids.min() < 0:
            unknown = np.unique(ids[train_ids < 0])
            shown = ", ".join(str(i) for i in unknown[:8]) + (", ..." if len(unknown) > 8 else "")
            raise UserError(
                f"Label {path} holds ids that its data set does not name: {shown} (known:"
                f" {_ranges(self.known)}). Add them to the id map (train id 255 ignores a class), or give the"
                " right data set."
            )
        return train_ids.astype(np.uint8)


def encoding(kind: Kind, train_ids: Mapping[int, int], ignored: Iterable[int] = ()) -> LabelEncoding:
    """The encoding of a map id -> train id; `ignored` ids are those that become 255 beside it."""
    table = {i: IGNORE_INDEX for i in ignored} | dict(train_ids)
    return LabelEncoding(kind, tuple(sorted(table.items())))


def merged(base: LabelEncoding, train_ids: Mapping[int, int]) -> LabelEncoding:
    """`base` followed by a map of its train ids to others; those that the map does not name become 255."""
    return LabelEncoding(base.kind, tuple((i, train_ids.get(t, IGNORE_INDEX)) for i, t in base.train_ids))


def read_ids(path: Path, kind: Kind) -> NDArray[Any]:
    """The ids of a label file, uint8 or uint16 [H,W]. Raises UserError for another form than `kind`."""
    try:
        with Image.open(path) as image:
            _require_form(path, image, kind)
            if kind == "red16":
                return _red_channel(path, image)
            scale = _GRAY_SCALE.get(_rawmode(image), 1)
            ids = np.asarray(image).astype(np.uint8, copy=False)
            return ids // np.uint8(scale) if scale > 1 else ids
    except FileNotFoundError:
        raise UserError(f"Label {path} does not exist.") from None
    except Image.DecompressionBombError:
        raise too_large("Label", path) from None
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"Label {path} cannot be read ({error}). Copy or download it again.") from None


def _rawmode(image: Image.Image) -> str:
    """Pillow's name for the layout of the pixels in the file."""
    tiles = getattr(image, "tile", None)
    args = tiles[0][3] if tiles else ""
    return args if isinstance(args, str) else ""


def _require_form(path: Path, image: Image.Image, kind: Kind) -> None:
    if image.format == "JPEG":
        raise UserError(f"Label {path} is a JPEG, which changes ids when it is saved. Labels must be PNG.")
    is_right = image.mode in _ACCEPTED[kind]
    if kind == "red16":
        is_right = is_right and _rawmode(image).endswith(";16B")
    if is_right:
        return
    have = f"{_rawmode(image) or image.mode} (mode {image.mode})"
    advice = "Give the right data set, or write the ids as 8-bit gray."
    if image.mode in ("RGB", "RGBA") and kind != "red16":
        advice = "Colours are not ids: write the class ids as 8-bit gray."
    raise UserError(f"Label {path} is {have}; needed is {_WANTED[kind]}. {advice}")


def _red_channel(path: Path, image: Image.Image) -> NDArray[np.uint16]:
    """Both bytes of the red channel of a 16-bit RGB PNG.

    Pillow keeps one byte of each 16-bit sample: the high one, as PNG is big-endian. Reading the same bytes as
    little-endian keeps the other one, so two exact reads give the 16 bits (about 9 ms for 1280x760) without a
    second image library. tests/data/test_encodings.py holds it to files of known content.
    """
    with Image.open(path) as low_image:
        codec, extents, offset, rawmode = low_image.tile[0]
        make_tile = getattr(type(low_image.tile[0]), "_make", tuple)
        low_image.tile = [make_tile((codec, extents, offset, rawmode[:-1] + "L"))]
        low = np.asarray(low_image.getchannel(0))
    high = image.getchannel(0)
    if high.getextrema() == (0, 0):
        return low.astype(np.uint16)
    return (np.asarray(high).astype(np.uint16) << 8) | low


def _ranges(ids: tuple[int, ...]) -> str:
    """0, 1, 2, 5 as `0-2, 5`."""
    parts: list[list[int]] = []
    for i in ids:
        if parts and i == parts[-1][1] + 1:
            parts[-1][1] = i
        else:
            parts.append([i, i])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
