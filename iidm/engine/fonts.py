"""Fonts for what is written into pictures: names of classes and files have the letters of any language."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

FONT_PX = 16
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_LATIN_GREEK_CYRILLIC = 0x530
"""What lies below is in matplotlib's font, which is not opened to know it: importing matplotlib takes half a second."""
_BOXES = "lastresort"
"""In the name of fonts that have a box for every letter there is."""


class Fonts:
    """The fonts of a picture: one for all of its texts, and others of the system for texts whose letters it lacks."""

    def __init__(self, texts: Iterable[str]) -> None:
        """Pillow's own font knows ASCII alone; where that is not enough, the usual one is that of matplotlib."""
        own = None if all(text.isascii() for text in texts) else _matplotlibs()
        self._file = own
        self._usual: Font = ImageFont.load_default(size=FONT_PX) if own is None else _opened(own)

    def has(self, text: str) -> bool:
        """Whether there is a font with all letters of a text."""
        return self._has(text) or _system_font(_letters(text)) is not None

    def of(self, text: str) -> Font:
        """The font that a text is written in; the usual one where none has its letters."""
        return self._usual if self._has(text) else _system_font(_letters(text)) or self._usual

    def readable(self, text: str) -> str:
        """The text with a question mark for each letter that the usual font lacks; as it is where some font has all."""
        return text if self.has(text) else "".join(c if self._has(c) else "?" for c in text)

    def _has(self, text: str) -> bool:
        if self._file is None:
            return text.isascii()
        return all(c < _LATIN_GREEK_CYRILLIC for c in map(ord, text)) or _letters(text) <= _letters_of(self._file)


def _letters(text: str) -> frozenset[int]:
    """What of a text is to be seen."""
    return frozenset(ord(c) for c in text if c.isprintable() and not c.isspace())


def _matplotlibs() -> str | None:
    spec = find_spec("matplotlib")
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    return str(file) if file.is_file() else None


@lru_cache
def _opened(file: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, FONT_PX - 1)


@cache
def _letters_of(file: str) -> frozenset[int]:
    """The letters that a font file has; none of one that is damaged."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(file).get_charmap())
    except (OSError, RuntimeError, ValueError):
        return frozenset()


@lru_cache
def _system_font(letters: frozenset[int]) -> Font | None:
    """A font of the system that has all of these letters, an upright one before others; None where there is none."""
    from matplotlib.font_manager import findSystemFonts

    files = [file for file in findSystemFonts() if _BOXES not in Path(file).name.lower()]
    for file in sorted(files, key=lambda file: ("regular" not in Path(file).name.lower(), file)):
        if letters <= _letters_of(file):
            with suppress(OSError):  # of pixels, as those of emojis, in other sizes
                return _opened(file)
    return None
