"""Pictures a person can look at: class colours, overlays, and sheets of captioned panels with a legend."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from ..text import put_in_place
from ..types import ClassSet
from .fonts import Font, Fonts

PANEL_WIDTH = 384
"""Pixels; smaller pictures are enlarged to it, larger ones reduced."""
MARGIN, LINE = 8, 24
ROWS = "rows"
"""Text in the PNG of a sheet: JSON, for each row the caption of its first panel, and its first and last line + 1."""
NUMBERED = "class 0, 1, ...: no font here has the letters of the name"
"""Stands in the legend below such classes."""


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
    """Write rows of panels with captions, a title and the legend of the classes as one PNG (whole or not at all).

    A class whose name no font of the machine can write is called by its number from 0, in captions too.
    """
    fonts = Fonts([title, *classes.names, *(panel.caption for row in rows for panel in row)])
    names = {name: name if fonts.has(name) else f"class {k}" for k, name in enumerate(classes.names)}

    def write(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, width: int) -> None:
        if not fonts.has(text):
            for name in sorted(names, key=len, reverse=True):  # one may be a part of another
                text = text.replace(name, names[name])
            text = fonts.readable(text)
        draw.text(place, _clipped(text, fonts.of(text), width), fill="black", font=fonts.of(text))

    pictures = [[_fitted(panel.image) for panel in row] for row in rows]
    columns = max(len(row) for row in rows)
    width = columns * (PANEL_WIDTH + MARGIN) + MARGIN
    heights = [max(p.height for p in row) + LINE for row in pictures]
    legend = _legend(list(names.values()), classes, width, fonts)
    sheet = Image.new("RGB", (width, LINE + MARGIN + sum(heights) + MARGIN * len(heights) + legend.height), "white")
    draw = ImageDraw.Draw(sheet)
    write(draw, (MARGIN, MARGIN // 2), title, width - 2 * MARGIN)
    y, places = LINE + MARGIN, []
    for row, inside, height in zip(rows, pictures, heights, strict=True):
        for column, (panel, picture) in enumerate(zip(row, inside, strict=True)):
            x = MARGIN + column * (PANEL_WIDTH + MARGIN)
            write(draw, (x, y), panel.caption, PANEL_WIDTH)
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


def _legend(names: Sequence[str], classes: ClassSet, width: int, fonts: Fonts) -> Image.Image:
    """Colour patches with names, as many lines as the width needs, and a line on names that are numbers."""
    entries = [*zip(names, classes.palette, strict=True), ("ignored", (0, 0, 0))]
    places, x, y = [], MARGIN, 0
    for name, _ in entries:
        needed = 30 + int(fonts.of(name).getlength(name)) + 14
        if x + needed > width and x > MARGIN:
            x, y = MARGIN, y + LINE
        places.append((x, y))
        x += needed
    is_numbered = list(names) != list(classes.names)
    picture = Image.new("RGB", (width, y + LINE * (1 + is_numbered) + MARGIN), "white")
    draw = ImageDraw.Draw(picture)
    for (name, color), (left, top) in zip(entries, places, strict=True):
        draw.rectangle((left, top + 4, left + 20, top + 18), fill=color, outline="gray")
        draw.text((left + 26, top), name, fill="black", font=fonts.of(name))
    if is_numbered:
        font = fonts.of(NUMBERED)
        draw.text((MARGIN, y + LINE), _clipped(NUMBERED, font, width - 2 * MARGIN), fill="black", font=font)
    return picture
