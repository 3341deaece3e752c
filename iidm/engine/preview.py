"""Pictures a person can look at: class colours, overlays, and sheets of captioned panels with a legend."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from ..text import put_in_place
from ..types import ClassSet

PANEL_WIDTH = 384
"""Pixels; smaller pictures are enlarged to it, larger ones reduced."""
MARGIN, LINE, FONT_PX = 8, 24, 16
ROWS = "rows"
"""Text in the PNG of a sheet: JSON, for each row the caption of its first panel, and its first and last line + 1."""
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class Panel(NamedTuple):
    """One picture of a sheet."""

    caption: str
    image: NDArray[np.uint8]
    """uint8 [H,W,3] RGB."""


def colorize(label: NDArray[np.uint8], classes: ClassSet) -> NDArray[np.uint8]:
    """A label in class colours: uint8 [H,W] -> uint8 [H,W,3]; ignored pixels are black."""
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(classes)] = classes.palette
    return np.take(palette, label, axis=0)


def overlay(
    image: NDArray[np.uint8], label: NDArray[np.uint8], classes: ClassSet, alpha: float = 0.5
) -> NDArray[np.uint8]:
    """The label's colours over the image, both uint8 of the same [H,W]; `alpha` is the share of the colours."""
    if alpha == 0.5:  # the same in whole numbers, rounded half to even as below, in a third of the time
        total = np.add(image, colorize(label, classes), dtype=np.uint16)
        return ((total + (total >> 1 & 1)) >> 1).astype(np.uint8)
    mixed = image * (1.0 - alpha) + colorize(label, classes) * alpha
    return mixed.round().astype(np.uint8)


def save_sheet(path: Path, rows: Sequence[Sequence[Panel]], classes: ClassSet, title: str) -> None:
    """Write rows of panels with captions, a title and the legend of the classes as one PNG (whole or not at all)."""
    font = _font([title, *classes.names, *(panel.caption for row in rows for panel in row)])
    pictures = [[_fitted(panel.image) for panel in row] for row in rows]
    columns = max(len(row) for row in rows)
    width = columns * (PANEL_WIDTH + MARGIN) + MARGIN
    heights = [max(p.height for p in row) + LINE for row in pictures]
    legend = _legend(classes, width, font)
    sheet = Image.new("RGB", (width, LINE + MARGIN + sum(heights) + MARGIN * len(heights) + legend.height), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN // 2), _clipped(title, font, width - 2 * MARGIN), fill="black", font=font)
    y, places = LINE + MARGIN, []
    for row, inside, height in zip(rows, pictures, heights, strict=True):
        for column, (panel, picture) in enumerate(zip(row, inside, strict=True)):
            x = MARGIN + column * (PANEL_WIDTH + MARGIN)
            draw.text((x, y), _clipped(panel.caption, font, PANEL_WIDTH), fill="black", font=font)
            sheet.paste(picture, (x, y + LINE - 2))
        places.append((row[0].caption, y, y + height))
        y += height + MARGIN
    sheet.paste(legend, (0, y))
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}")
    told = PngInfo()
    told.add_text(ROWS, json.dumps(places))
    sheet.save(half, format="PNG", pnginfo=told)
    put_in_place(half, path)


def _font(texts: Iterable[str]) -> Font:
    """Pillow's own font, which knows ASCII alone; where that is not enough, the one that comes with matplotlib."""
    spec = None if all(text.isascii() for text in texts) else find_spec("matplotlib")
    if spec is not None and spec.origin is not None:  # found, not imported: that takes half a second
        with suppress(OSError):
            file = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
            return ImageFont.truetype(str(file), FONT_PX - 1)
    return ImageFont.load_default(size=FONT_PX)


def _fitted(image: NDArray[np.uint8]) -> Image.Image:
    picture = Image.fromarray(image)
    size = (PANEL_WIDTH, max(1, round(picture.height * PANEL_WIDTH / picture.width)))
    # Labels (few colours) must not blend, and enlarged pixels may be seen as such; photographs shrink without jags.
    is_photo = picture.width > PANEL_WIDTH and picture.getcolors(maxcolors=256) is None
    return picture.resize(size, Image.Resampling.BILINEAR if is_photo else Image.Resampling.NEAREST)


def _clipped(text: str, font: Font, width: int) -> str:
    """As much of the text as is not wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


def _legend(classes: ClassSet, width: int, font: Font) -> Image.Image:
    """Colour patches with names, as many lines as the width needs."""
    entries = [*zip(classes.names, classes.palette, strict=True), ("ignored", (0, 0, 0))]
    places, x, y = [], MARGIN, 0
    for name, _ in entries:
        needed = 30 + int(font.getlength(name)) + 14
        if x + needed > width and x > MARGIN:
            x, y = MARGIN, y + LINE
        places.append((x, y))
        x += needed
    picture = Image.new("RGB", (width, y + LINE + MARGIN), "white")
    draw = ImageDraw.Draw(picture)
    for (name, color), (x, y) in zip(entries, places, strict=True):
        draw.rectangle((x, y + 4, x + 20, y + 18), fill=color, outline="gray")
        draw.text((x + 26, y), name, fill="black", font=font)
    return picture
