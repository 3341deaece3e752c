"""BMP files of palettes that Pillow takes for a narrower form than they have."""

from __future__ import annotations

from typing import IO

from PIL import Image, ImagePalette

_BITS_PLACE = {12: 24}
"""Length of the header's second part -> place of the bits a pixel; 28 in all but the oldest form."""
_TAKEN_FOR = {"1": 1, "L": 8}
"""Mode -> bits a pixel that Pillow reads it by."""
_LAYOUTS = {1: "P;1", 4: "P;4", 8: "P"}
"""Bits a pixel -> Pillow's name for the indices of a palette."""


def keep_bits(image: Image.Image, file: IO[bytes]) -> None:
    """Let a BMP that Pillow opened be read by the bits a pixel that its header says.

    Pillow (10.1 to 13.0, BmpImagePlugin.py) judges by the palette alone: one of black and white is one bit a pixel to
    it, one of the grays 0, 1, 2, ... eight. Files of eight or four bits with such a palette come out as noise.
    """
    if image.format != "BMP" or image.mode not in _TAKEN_FOR:
        return
    bits = _bits(file)
    if bits == _TAKEN_FOR[image.mode] or bits not in _LAYOUTS:
        return
    grays = (0, 255) if image.mode == "1" else range(256)
    image._mode = "P"
    image.palette = ImagePalette.raw("RGB", bytes(gray for gray in grays for _ in range(3)))
    codec, extents, offset, arguments = image.tile[0]  # type: ignore[attr-defined]
    make_tile = getattr(type(image.tile[0]), "_make", tuple)  # type: ignore[attr-defined]
    image.tile = [make_tile((codec, extents, offset, (_LAYOUTS[bits], *arguments[1:])))]  # type: ignore[attr-defined]


def _bits(file: IO[bytes]) -> int:
    file.seek(14)
    length = int.from_bytes(file.read(4), "little")
    file.seek(_BITS_PLACE.get(length, 28))
    return int.from_bytes(file.read(2), "little")
