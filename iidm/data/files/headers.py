"""What an image file is, by its header, and whether training reads it: one answer for every command.

An image is turned as its EXIF orientation says, as cameras mean it and viewers show it. Only EXIF counts (a JPEG's
APP1, a PNG's eXIf, a WebP's EXIF, a TIFF's own tag), and XMP does not: browsers and DALI agree on that.
"""

from __future__ import annotations

import io
import logging
import struct
import warnings
from pathlib import Path
from typing import IO, NamedTuple

from PIL import Image, JpegImagePlugin, MpoImagePlugin, TiffImagePlugin

from ...types import UserError
from .bmp import keep_bits
from .reading import too_large

JPEG_FORMATS = ("JPEG", "MPO")
"""Pillow calls a JPEG with further pictures (cameras' previews) MPO; the first one is read."""
READ_MODES = {
    **dict.fromkeys(JPEG_FORMATS, {"L", "RGB", "CMYK"}),
    "PNG": {"1", "L", "LA", "P", "RGB", "RGBA"},
    "WEBP": {"RGB", "RGBA"},
    "BMP": {"1", "L", "P", "RGB", "RGBA"},
    "TIFF": {"1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"},
}
"""Format -> modes, as Pillow names both, of 8 bits a channel or fewer. Alpha is dropped."""

# On odd tags of EXIF, TIFF or PNG, without the file's name. Not around the calls: filters are not a thread's own.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())  # else Python prints what Pillow logs of damaged TIFFs

_ORIENTATION = 0x0112
_BITS_PER_SAMPLE, _SUBFILE_TYPE = 258, 254
_MOST_FRAMES = 64
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis"}
"""What stands in the head of a HEIF file, in which phones keep photographs."""


class Header(NamedTuple):
    """What a file says of itself."""

    format: str
    """As Pillow names it."""
    mode: str
    bits: int
    """Of a channel."""
    stored: tuple[int, int]
    """(H, W) as stored, pixels."""
    orientation: int
    """EXIF's, 1 to 8; 1: as stored."""
    pictures: int
    """More than 1: animated, or several pages."""
    is_reduced: bool
    """Whether the first picture is a small copy of another one, as in the raw files of cameras (DNG, NEF: TIFFs)."""

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) once turned by the orientation, pixels."""
        height, width = self.stored
        return (width, height) if self.orientation >= 5 else (height, width)

    @property
    def words(self) -> str:
        """`480x640 (HxW, turned by its EXIF orientation 6)`, for errors."""
        turned = f", turned by its EXIF orientation {self.orientation}" if self.orientation > 1 else ""
        return f"{self.size[0]}x{self.size[1]} (HxW{turned})"


def image_header(path: Path, *, most_px: int | None = None) -> Header:
    """The header of an image that training reads.

    Args:
        most_px: the most pixels that are read; None: as many as Pillow opens (179 million).

    Raises:
        UserError: the file is missing, empty, cut off, too large, or of a kind that is not read; the message begins
            with `Image` and names it.
    """
    header = read_header(path, "Image", most_px=most_px)
    reason = _reason(path, header)
    if reason:
        raise UserError(f"Image {path} {reason}")
    return header


def read_header(path: Path, what: str, *, most_px: int | None = None) -> Header:
    """What a picture says of itself, whether or not training reads it. `what` it is begins the errors, as above."""
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise UserError(f"{what} {path} is empty. Copy or download it again.")
            with open_picture(file, limited=most_px is None) as image:
                pixels = image.width * image.height
                if pixels > (most_px or 2 * (Image.MAX_IMAGE_PIXELS or pixels)):
                    raise too_large(what, path, most_px)
                return _header(image, file)
    except FileNotFoundError:
        raise UserError(f"{what} {path} does not exist.") from None
    except Image.DecompressionBombError:
        raise too_large(what, path) from None
    except Image.UnidentifiedImageError:
        form = _other_form(path)
        if form:
            raise UserError(f"{what} {path} is {form}, which is not read. Save it as PNG.") from None
        raise UserError(
            f"{what} {path} cannot be read or is cut off: it is no picture by its content. Copy or download it again,"
            " or remove it."
        ) from None
    except UserError:
        raise
    except Exception as error:  # Pillow's parsers raise whatever the bytes lead them to
        raise UserError(
            f"{what} {path} cannot be read or is cut off ({error}). Copy or download it again, or remove it."
        ) from None


def _other_form(path: Path) -> str:
    """What a picture is that Pillow does not know, as it comes from phones; empty where that cannot be told."""
    with path.open("rb") as file:
        head = file.read(12)
    if head[4:8] == b"ftyp" and head[8:] in _HEIF_BRANDS:
        return "HEIF (.heic, .avif)"
    return "JPEG XL" if head.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")) else ""


def open_picture(file: IO[bytes], *, limited: bool) -> Image.Image:
    """Pillow's image of a file; not `limited`, one of any number of pixels."""
    image = _opened(file, limited)
    keep_bits(image, file)
    return image


def _opened(file: IO[bytes], limited: bool) -> Image.Image:
    file.seek(0)
    if limited:
        return Image.open(file)
    Image.init()
    head = file.read(16)
    for name in READ_MODES:
        make, accepts = Image.OPEN.get(name, (None, None))  # MPO is opened as JPEG
        if make is not None and accepts is not None and accepts(head) is True:
            file.seek(0)
            return make(file, "")
    file.seek(0)
    return Image.open(file)


def _header(image: Image.Image, file: IO[bytes]) -> Header:
    name = image.format or "?"
    stored = (image.height, image.width)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        orientation = image.tag_v2.get(_ORIENTATION, 1)
        orientation = orientation if orientation in range(1, 9) else 1
        if orientation >= 5:  # Pillow says the size that it will have
            stored = (image.width, image.height)
    elif name == "PNG":
        orientation = exif_orientation(_png_exif(file))
    else:
        orientation = exif_orientation(image.info.get("exif", b""))
    return Header(name, image.mode, _bits(image, file), stored, orientation, _pictures(image), _is_reduced(image))


def exif_orientation(exif: bytes) -> int:
    """The orientation that a block of EXIF holds, 1 where it holds none or is damaged.

    Read as DALI reads it, so that the size said here is that of its image: the value is two bytes whatever its kind is,
    and a list that is cut off counts as far as it goes.
    """
    exif = exif.removeprefix(b"Exif\0\0")
    order = "<" if exif[:4] == b"II*\0" else ">" if exif[2:4] == b"\0*" else ""
    if not order or len(exif) < 10:
        return 1
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    if start + 2 > len(exif):
        return 1
    (count,) = struct.unpack_from(f"{order}H", exif, start)
    if 12 * count > len(exif):
        return 1
    for place in range(start + 2, min(start + 2 + 12 * count, len(exif) - 9), 12):
        tag, _, _, value = struct.unpack_from(f"{order}HHIH", exif, place)
        if tag == _ORIENTATION:
            return value if value in range(1, 9) else 1
    return 1


def _png_exif(file: IO[bytes]) -> bytes:
    """The eXIf chunk of a PNG, wherever it stands: exiftool writes it behind the pixels, where Pillow looks late."""
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind == b"eXIf":
            return file.read(length)
        if kind == b"IEND":
            break
        file.seek(length + 4, io.SEEK_CUR)
    return b""


def _bits(image: Image.Image, file: IO[bytes]) -> int:
    if image.format == "PNG":
        file.seek(24)
        return file.read(1)[0]
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = image.tag_v2.get(_BITS_PER_SAMPLE, (1,))
        return int(max(bits) if isinstance(bits, tuple) else bits)
    deep = {"I;16": 16, "I;16B": 16, "I;16L": 16, "I": 32, "F": 32}
    return deep.get(image.mode, 8)


def _pictures(image: Image.Image) -> int:
    """How many pictures a file holds; a camera's previews and a map's smaller copies are none of their own."""
    frames = int(getattr(image, "n_frames", 1))
    if isinstance(image, (JpegImagePlugin.JpegImageFile, MpoImagePlugin.MpoImageFile)) or frames == 1:
        return 1
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return frames
    pages = 1
    for number in range(1, min(frames, _MOST_FRAMES)):
        image.seek(number)
        pages += image.tag_v2.get(_SUBFILE_TYPE, 0) == 0
    image.seek(0)
    return pages


def _is_reduced(image: Image.Image) -> bool:
    return isinstance(image, TiffImagePlugin.TiffImageFile) and bool(image.tag_v2.get(_SUBFILE_TYPE, 0) & 1)


def _reason(path: Path, header: Header) -> str:
    """Why training does not read an image, as the rest of a sentence; empty where it does."""
    if header.format not in READ_MODES:
        return f"is {header.format}; needed is PNG, JPEG, WebP, BMP or TIFF. Save it as one of them."
    if header.is_reduced:
        return "shows a small copy first, as a camera's raw file does, which is not read. Develop it to PNG or JPEG."
    if header.bits > 8:
        return (
            f"has {header.bits} bits a channel{_range(path)}; images are read with 8. Bring all images to 8 bits with"
            " one and the same range, e.g. `magick IN.png -level LOW,HIGH -depth 8 OUT.png`."
        )
    if header.mode not in READ_MODES[header.format]:
        return (
            f"has mode {header.mode}; needed are 8-bit colours or gray"
            f" ({', '.join(sorted(READ_MODES[header.format]))}). Save it as RGB."
        )
    if header.pictures > 1:
        return f"holds {header.pictures} pictures (an animation, or pages); needed is one. Save each as a file."
    return ""


def _range(path: Path) -> str:
    """The values of an image of more than 8 bits, for its error."""
    try:
        with Image.open(path) as image:
            low, high = _value_range(image)
    except Exception:  # as above; the error has enough to say without it
        return ""
    return f" (values {low:g} to {high:g})"


def _value_range(image: Image.Image) -> tuple[float, float]:
    """Lowest and highest value of an image; of 16-bit colours Pillow keeps the high byte, so nearly."""
    extrema = image.getextrema()
    pairs = extrema if isinstance(extrema[0], tuple) else (extrema,)
    low, high = min(pair[0] for pair in pairs), max(pair[1] for pair in pairs)
    is_high_byte = isinstance(extrema[0], tuple)
    return (low * 256, high * 256 + 255) if is_high_byte else (low, high)
