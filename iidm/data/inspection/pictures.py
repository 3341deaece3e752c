"""What pictures are like: their headers, whether they look like labels, and the values of labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...types import UserError
from ..labels.encodings import read_ids

SAMPLED = 64
"""Labels whose pixels are counted, evenly spaced."""
_ORIENTATION = 0x0112
_PATCH = 512
"""Side of the part, in pixels, by which a picture is judged."""
T = TypeVar("T")


class Header(NamedTuple):
    """What a picture's header says, or what is wrong with it."""

    problem: str = ""
    format: str = ""
    mode: str = ""
    size: tuple[int, int] = (0, 0)
    """(H, W) of the picture as a viewer shows it, upright."""
    turned: int = 1
    """EXIF orientation; 1: stored upright."""


def read_header(path: Path) -> Header:
    """The header of a picture; never raises for a bad file."""
    try:
        if path.stat().st_size == 0:
            return Header("empty")
        with Image.open(path) as image:
            turned = int(image.getexif().get(_ORIENTATION, 1) or 1)
            size = (image.width, image.height) if turned in (5, 6, 7, 8) else (image.height, image.width)
            form = "JPEG" if image.format == "MPO" else image.format or ""  # with a camera's preview behind it
            return Header("", form, _mode(image), size, turned)
    except Image.DecompressionBombError:
        return Header("too large to be opened")
    except (OSError, SyntaxError, ValueError):
        return Header("cannot be read")


def read_headers(paths: Sequence[Path]) -> dict[Path, Header]:
    """The headers of many pictures."""
    with ThreadPoolExecutor(8) as pool:
        return dict(zip(paths, pool.map(read_header, paths), strict=True))


def _mode(image: Image.Image) -> str:
    """Pillow's mode; `RGB16` where each channel has 16 bits, of which Pillow keeps 8."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    deep = isinstance(arguments, str) and arguments.endswith(";16B") and image.mode in ("RGB", "RGBA")
    return "RGB16" if deep else image.mode


def evenly(items: Sequence[T], count: int) -> list[T]:
    """At most `count` of the items, evenly spaced."""
    if len(items) <= count:
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]


class Look(NamedTuple):
    """What the middle of a picture looks like."""

    colors: int
    """Different values in it."""
    flat: float
    """Share of pixels that equal their right neighbour: above 0.9 in labels, below 0.5 in photographs."""
    format: str
    mode: str


def look_at(path: Path) -> Look | None:
    """Decode a picture and judge its middle; None where it cannot be read."""
    try:
        with Image.open(path) as image:
            left, top = max(0, (image.width - _PATCH) // 2), max(0, (image.height - _PATCH) // 2)
            patch = image.crop((left, top, min(image.width, left + _PATCH), min(image.height, top + _PATCH)))
            values = np.asarray(patch.convert("RGB") if image.mode in ("RGBA", "CMYK", "LA") else patch)
            mode, form = image.mode, "JPEG" if image.format == "MPO" else image.format or ""
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    if values.ndim == 3:
        values = _packed(values[..., :3])
    if form == "JPEG":  # its blur hides flat areas
        values = values & (0xE0E0E0 if mode != "L" else 0xE0)
    flat = float((values[:, 1:] == values[:, :-1]).mean()) if values.shape[1] > 1 else 1.0
    return Look(len(np.unique(values)), flat, form, mode)


def _packed(rgb: NDArray[Any]) -> NDArray[np.int32]:
    """[H,W,3] RGB as int32 [H,W] 0xrrggbb."""
    wide = rgb.astype(np.int32)
    packed: NDArray[np.int32] = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    return packed


class Values(NamedTuple):
    """What the pixels of some labels hold."""

    kind: str
    """`ids`, `palette` (ids that have colours), `ids16` (16 bits), `red16` (SYNTHIA's form) or `colors` (0xrrggbb)."""
    pixels: Counter[int]
    """Value -> how many pixels have it."""
    labels: Counter[int]
    """Value -> how many labels hold it."""
    read: int
    """How many labels were read."""
    colors: dict[int, int]
    """Index -> 0xrrggbb of palette labels."""
    mixed: bool
    """Whether the labels are of several kinds, of which the most frequent was counted."""
    differing: int
    """Palette labels whose palette is another than the first one's."""


def count_values(paths: Sequence[Path], headers: dict[Path, Header]) -> Values:
    """Count the values of at most `SAMPLED` of the labels. Those that cannot be read are left aside."""
    readable = [p for p in paths if not headers[p].problem]
    kinds = Counter(kind_of(headers[p]) for p in readable)
    kind = kinds.most_common(1)[0][0] if kinds else "ids"
    pixels: Counter[int] = Counter()
    labels: Counter[int] = Counter()
    colors: dict[int, int] = {}
    read = differing = 0
    for path in evenly([p for p in readable if kind_of(headers[p]) == kind], SAMPLED):
        try:
            codes = read_codes(path, kind)
        except UserError:
            continue
        found, counts = _counted(codes)
        pixels.update(dict(zip(found, counts, strict=True)))
        labels.update(found)
        read += 1
        if kind == "palette":
            own = {i: c for i, c in palette_of(path).items() if i in found}
            differing += any(colors.setdefault(i, c) != c for i, c in own.items())
    if kind == "ids16" and pixels and max(pixels) < 256:
        kind = "ids"
    return Values(kind, pixels, labels, read, colors, len(kinds) > 1, differing)


def kind_of(header: Header) -> str:
    """The kind of values that labels with this header have."""
    if header.mode in ("L", "1"):
        return "ids"
    if header.mode == "P":
        return "palette"
    if header.mode == "RGB16":
        return "red16"
    return "ids16" if header.mode.startswith(("I", "F")) else "colors"


def read_codes(path: Path, kind: str) -> NDArray[Any]:
    """The values of a label as whole numbers [H,W]: ids, or colours 0xrrggbb. Raises UserError for a bad file."""
    if kind == "red16":
        return read_ids(path, "red16")
    try:
        with Image.open(path) as image:
            if kind in ("ids", "palette") and image.format != "JPEG":
                return read_ids(path, "auto")
            if kind == "colors":
                return _packed(np.asarray(image.convert("RGB")))
            return np.asarray(image).astype(np.int64)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"Label {path} cannot be read ({error}).") from None


def palette_of(path: Path) -> dict[int, int]:
    """Index -> 0xrrggbb of a palette picture."""
    with Image.open(path) as image:
        flat = image.getpalette() or []
    return {i // 3: flat[i] << 16 | flat[i + 1] << 8 | flat[i + 2] for i in range(0, len(flat) - 2, 3)}


def _counted(codes: NDArray[Any]) -> tuple[list[int], list[int]]:
    top = codes.max(initial=0)
    if top < 1 << 16 or (top < 1 << 24 and codes.size > 1 << 20):  # sorting would be slower
        counts = np.bincount(codes.ravel())
        found = np.flatnonzero(counts)
        return found.tolist(), counts[found].tolist()
    values, counts = np.unique(codes, return_counts=True)
    return values.tolist(), counts.tolist()
