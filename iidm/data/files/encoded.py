"""The bytes of an image, as the decoder takes them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...types import UserError
from . import jpeg, png
from .headers import exif_orientation, open_picture
from .reading import TAIL_BYTES, Encoded, read_bytes

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What shows an image upright, by its EXIF orientation."""

_whole: set[Path] = set()
"""JPEGs and PNGs of which this process knows that DALI can decode them."""


def decodable_bytes(path: Path) -> Encoded:
    """An image's bytes in a form that DALI decodes exactly as Pillow does.

    That is the file itself for PNG and JPEG, if its end is there: without it DALI writes to the standard error, or
    fails, though all pixels may be there. DALI fails on some WebP files with EXIF and on 1-bit TIFF, takes a gray
    TIFF's alpha for a colour and rounds a TIFF's palette: other formats are decoded here, turned upright, and given to
    it as an uncompressed picture (PPM).

    Raises:
        UserError: the file is missing or damaged: a JPEG in its middle too, where DALI would make pixels up, and a PNG
            whose checksums are wrong. Each process looks at each file once.
    """
    encoded = read_bytes(path)
    head = encoded[:8].tobytes()
    form = jpeg if jpeg.is_jpeg(head) else png if png.is_png(head) else None
    if form is not None:
        if path not in _whole:
            damage = jpeg.jpeg_damage(encoded) if form is jpeg else png.png_damage(encoded)
            if damage:
                raise UserError(f"Image {path} is damaged: {damage}. Copy or download it again, or remove it.")
            if form.END in encoded[-TAIL_BYTES:].tobytes():
                _whole.add(path)
        if path in _whole:
            return encoded
    pixels = pillow_pixels(path, encoded)
    header = f"P6\n{pixels.shape[1]} {pixels.shape[0]}\n255\n".encode()
    return np.concatenate([np.frombuffer(header, np.uint8), pixels.reshape(-1)])


def pillow_pixels(path: Path, encoded: Encoded) -> NDArray[np.uint8]:
    """uint8 [H,W,3] RGB of an image's bytes as Pillow decodes them, upright. Raises UserError where it cannot."""
    try:
        with open_picture(io.BytesIO(encoded.data), limited=False) as image:
            is_turned = image.format == "TIFF"  # Pillow does that as it loads one
            exif = image.info.get("exif", b"")
            picture = image.convert("RGB")
    except Exception:  # Pillow's decoders raise whatever the bytes lead them to
        raise UserError(f"Image {path} is damaged or is no image. Copy or download it again, or remove it.") from None
    turn = None if is_turned else _TURNS.get(exif_orientation(exif))
    return np.asarray(picture if turn is None else picture.transpose(turn))
