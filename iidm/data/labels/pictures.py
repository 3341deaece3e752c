"""The pixels of a label picture: ids or colours, exactly as they are on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...types import UserError
from ..files.headers import JPEG_FORMATS, open_picture
from ..files.reading import too_large
from ..files.whole import LABEL_FORMATS

PictureKind = Literal["gray8", "palette", "red16", "ids", "colors", "auto"]

_GRAY16 = ("I;16", "I;16B", "I;16L", "I")
"""Pillow before 11 opens a 16-bit gray PNG as `I`."""
_IDS = ("L", "1", "P", *_GRAY16)
_COLOR_MODES = ("RGB", "RGBA")
_ACCEPTED: dict[str, tuple[str, ...]] = {
    "gray8": ("L", "1"),
    "palette": ("P",),
    "red16": _COLOR_MODES,
    "ids": _IDS,
    "colors": ("L", "1", "P", *_COLOR_MODES),
    "auto": (*_IDS, *_COLOR_MODES),
}
_WANTED = {
    "gray8": "8-bit gray with one id a pixel",
    "palette": "a palette PNG whose indices are the ids",
    "red16": "a 16-bit RGB PNG with the id in its red channel",
    "ids": "gray (8 or 16 bits) or a palette picture whose values are the ids",
    "colors": "a picture in the classes' colours, 8 bits a channel",
    "auto": "gray (8 or 16 bits) or a palette picture whose values are the ids, or one in the classes' colours",
}
_GRAY_SCALE = {"L;2": 85, "L;4": 17}
"""Pillow stretches 2- and 4-bit gray to 0..255; ids are the value divided by this."""
_LOSSY = ("jpeg", "tiff_jpeg", "webp")


class Picture(NamedTuple):
    """What a label picture holds."""

    values: NDArray[Any]
    """uint8 or uint16 [H,W] ids, or uint32 [H,W] packed colours."""
    is_color: bool
    palette: NDArray[np.uint32] | None = None
    """Packed colours of the indices, where a palette picture was read as ids."""


def read_ids(path: Path, kind: PictureKind) -> NDArray[Any]:
    """The ids of a label file, uint8 or uint16 [H,W]. Raises UserError for another form than `kind`."""
    return read_picture(path, kind, has_colors=False).values


def read_picture(path: Path, kind: PictureKind, *, has_colors: bool) -> Picture:
    """Read a label picture.

    Args:
        kind: the form that it must have; `auto`: whichever of ids and colours its header says.
        has_colors: whether classes have colours, without which a colour picture means nothing.

    Raises:
        UserError: the file cannot be read, changes ids when saved (JPEG), or has another form.
    """
    try:
        with path.open("rb") as file, open_picture(file, limited=True) as image:
            _require_form(path, image, kind, has_colors)
            if kind == "red16":
                return Picture(_red_channel(path, image), False)
            if kind == "colors" or image.mode in _COLOR_MODES:
                return Picture(packed_colors(image), True)
            ids = _ids(path, image)
            return Picture(ids, False, _palette(image) if image.mode == "P" else None)
    except FileNotFoundError:
        raise UserError(f"Label {path} does not exist.") from None
    except Image.DecompressionBombError:
        raise too_large("Label", path) from None
    except UserError:
        raise
    except Exception as error:  # Pillow's parsers and decoders raise whatever the bytes lead them to
        raise UserError(f"Label {path} cannot be read ({error}). Copy or download it again.") from None


def is_color_picture(path: Path) -> bool:
    """Whether a picture's header says RGB or RGBA; False where it cannot be read."""
    try:
        with Image.open(path) as image:
            return image.mode in _COLOR_MODES
    except Exception:  # as above
        return False


def _ids(path: Path, image: Image.Image) -> NDArray[Any]:
    scale = _GRAY_SCALE.get(_rawmode(image), 1)  # before the pixels are read: then Pillow forgets it
    values = np.asarray(image)
    if image.mode in _GRAY16:
        if values.size and (values.min() < 0 or values.max() > 65535):
            raise UserError(f"Label {path} holds ids beyond 65535 or below 0; needed are ids from 0 to 65535.")
        return values.astype(np.uint16)
    ids = values.astype(np.uint8, copy=False)
    return ids // np.uint8(scale) if scale > 1 else ids


def packed_colors(image: Image.Image) -> NDArray[np.uint32]:
    """A picture as uint32 [H,W] packed colours; how opaque a pixel is does not matter."""
    pixels = np.asarray(image if image.mode == "RGBA" else image.convert("RGB").convert("RGBA"))
    packed: NDArray[np.uint32] = (np.ascontiguousarray(pixels).view(">u4")[..., 0] >> 8).astype(np.uint32)
    return packed


def _palette(image: Image.Image) -> NDArray[np.uint32]:
    rows = np.array(image.getpalette("RGB") or [], np.uint32).reshape(-1, 3)
    return (rows[:, 0] << 16 | rows[:, 1] << 8 | rows[:, 2]).astype(np.uint32)


def _rawmode(image: Image.Image) -> str:
    """Pillow's name for the layout of the pixels in the file."""
    tiles = getattr(image, "tile", None)
    args = tiles[0][3] if tiles else ""
    if isinstance(args, tuple) and args:
        args = args[0]
    return args if isinstance(args, str) else ""


def _require_form(path: Path, image: Image.Image, kind: PictureKind, has_colors: bool) -> None:
    layout = _rawmode(image)
    if image.format in JPEG_FORMATS or str(image.info.get("compression")) in _LOSSY:
        raise UserError(
            f"Label {path} is a JPEG, which changes ids and colours when it is saved. Labels must be PNG (or BMP, TIFF"
            " without loss): export them again."
        )
    if image.format not in LABEL_FORMATS:
        raise UserError(f"Label {path} is {image.format}; labels must be PNG, BMP or TIFF.")
    if getattr(image, "n_frames", 1) > 1:
        raise UserError(f"Label {path} has {getattr(image, 'n_frames', 1)} pages; needed is one.")
    if image.format == "TIFF" and layout.endswith(";I"):
        raise UserError(f"Label {path} is a TIFF in which 0 is white, so its ids are not certain. Save it as PNG.")
    is_deep = image.mode in _COLOR_MODES and "16" in layout
    is_right = image.mode in _ACCEPTED[kind] and is_deep == (kind == "red16")
    if is_right and image.mode in _COLOR_MODES and kind == "auto" and not has_colors:
        raise UserError(
            f"Label {path} is a picture in colours ({image.mode}), but the classes have none. Give each class its"
            ' `color = "#rrggbb"` in the TOML file (--data.*.palette without one), or write the ids as 8-bit gray.'
        )
    if is_right:
        return
    have = f"{layout or image.mode} (mode {image.mode})"
    advice = "Give the right data set, or write the ids as 8-bit gray."
    if image.mode in _COLOR_MODES and kind != "red16" and not is_deep:
        advice = 'Colours are not ids: write the class ids as 8-bit gray, or set label_kind = "colors" in a TOML file.'
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
