"""Whether a picture's file is whole, without decoding it where its format allows that."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

from ...types import UserError
from . import jpeg, png
from .headers import JPEG_FORMATS, Header, image_header, open_picture, read_header
from .reading import TAIL_BYTES

LABEL_FORMATS = ("PNG", "BMP", "TIFF")
"""Of label pictures, as Pillow names them: lossless ones."""

_ENDS = {"PNG": png.END, **dict.fromkeys(JPEG_FORMATS, jpeg.END)}
"""The last bytes of a whole file; others may follow."""
_OFFSETS, _LENGTHS = (273, 324), (279, 325)
"""Tags of a TIFF: where its strips or tiles lie, and how long they are."""


def check_picture(path: Path, what: str, *, decode: bool = False, read_all: bool = False) -> Header:
    """The header of an image or a label that is whole and of a kind that is read.

    A file that is cut off is found by its last bytes, or by the lengths that it names; where that cannot be told it is
    decoded.

    Args:
        what: `image` or `label`.
        decode: decode it in any case.
        read_all: read all of a JPEG or PNG, and look for damage in its middle.

    Raises:
        UserError: what is wrong; the message begins with `what` and names the file.
    """
    try:
        header = image_header(path) if what == "image" else _label_header(path)
    except UserError as error:
        message = str(error)
        raise UserError(message[0].lower() + message[1:]) from None
    try:
        look = png.png_damage if header.format == "PNG" else jpeg.jpeg_damage if header.format in JPEG_FORMATS else None
        if (read_all or decode) and look is not None:
            damage = look(np.fromfile(path, np.uint8))
            if damage:
                raise UserError(f"{what} {path} is damaged: {damage}")
        if decode or not _is_whole(path, header):
            with path.open("rb") as file, open_picture(file, limited=False) as image:
                image.load()
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever the bytes lead them to
        raise UserError(f"{what} {path} cannot be read or is cut off ({error})") from None
    return header


def _label_header(path: Path) -> Header:
    header = read_header(path, "Label")
    if header.format in (*JPEG_FORMATS, "WEBP"):
        raise UserError(
            f"Label {path} is {header.format}, which changes ids when it is saved. Write labels as PNG from the tool"
            " that drew them."
        )
    if header.format not in LABEL_FORMATS:
        raise UserError(f"Label {path} is {header.format}; needed is PNG, BMP or TIFF")
    if header.format == "TIFF" and header.orientation > 1:  # Pillow would turn it as it loads it
        raise UserError(f"Label {path} has an orientation, and labels are taken as stored. Save it without")
    return header


def _is_whole(path: Path, header: Header) -> bool:
    """Whether a file is known to be whole; False where it is not or cannot be told."""
    with path.open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        if header.format in _ENDS:
            file.seek(max(0, length - TAIL_BYTES))
            return _ENDS[header.format] in file.read()
        file.seek(0)
        head = file.read(8)
        if header.format == "WEBP":
            return length >= 8 + int.from_bytes(head[4:8], "little")
        if header.format == "BMP":
            return length >= int.from_bytes(head[2:6], "little") > 0
        file.seek(0)
        with Image.open(file) as image:
            return isinstance(image, TiffImagePlugin.TiffImageFile) and length >= _tiff_end(image.tag_v2)


def _tiff_end(tags: Any) -> float:
    """The byte behind a TIFF's last strip or tile; infinity where it does not say."""
    for where, how_long in zip(_OFFSETS, _LENGTHS, strict=True):
        if where in tags and how_long in tags:
            starts, lengths = np.atleast_1d(tags[where]), np.atleast_1d(tags[how_long])
            return float((starts + lengths).max()) if len(starts) == len(lengths) else np.inf
    return np.inf
