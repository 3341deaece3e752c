"""Palette labels whose colours stand at other ids than in most: a sign that their ids are swapped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from ..files.common import evenly, first_few
from .dataset import Dataset

SAMPLED_PALETTES = 2000
"""Labels of a set whose palettes are compared, evenly spaced."""

Palette = tuple[tuple[int, int, int], ...]


def palettes_note(dataset: Dataset) -> str | None:
    """A line that names labels in whose palette a colour stands at another id than in most, where the ids themselves
    are read; None where all agree. Prepared labels have no palettes.

    Other colours alone say nothing: tools write those of what occurs in an image, and fill up the rest as they like.
    The colour of one id at the place of another does.
    """
    if dataset.prepared is not None or dataset.encoding.kind not in ("auto", "ids", "palette"):
        return None
    labels = [sample.label for sample in dataset.samples if sample.label is not None]
    return swapped_note(dataset.name, labels, dataset.encoding.known)


def swapped_note(what: str, labels: Sequence[Path], known: Iterable[int]) -> str | None:
    """`palettes_note` of label pictures of `what` that hold the `known` ids."""
    chosen = evenly(labels, SAMPLED_PALETTES)
    with ThreadPoolExecutor(8) as pool:
        read = zip(chosen, pool.map(read_palette, chosen), strict=True)
        palettes = [(label, palette) for label, palette in read if palette]
    odd, ids = swapped(palettes, [i for i in known if i < 256])
    if not odd:
        return None
    return (
        f"{len(odd)} of {len(palettes)} palette labels of {what} have the colour of id {first_few(ids, 4)} at"
        f" another id than most: {first_few(odd, 3)}. Ids are read and colours are not: look whether their classes are"
        " in another order"
    )


def read_palette(path: Path) -> Palette | None:
    """The RGB colours of a palette picture, by id; None for any other file."""
    try:
        with Image.open(path) as image:
            flat = image.getpalette("RGB") if image.mode == "P" else None
    except Exception:  # the check of the label names it
        return None
    if not flat:
        return None
    return tuple((flat[i], flat[i + 1], flat[i + 2]) for i in range(0, len(flat) - 2, 3))


def swapped(palettes: Iterable[tuple[Path, Palette]], ids: Iterable[int]) -> tuple[list[Path], list[int]]:
    """The files in which the colour that most give to one of `ids` stands for another of them, and those ids."""
    palettes, ids = list(palettes), list(ids)
    usual: dict[tuple[int, int, int], int] = {}
    for i in ids:
        colours = Counter(palette[i] for _, palette in palettes if i < len(palette))
        if colours:
            usual.setdefault(colours.most_common(1)[0][0], i)
    odd: dict[Path, None] = {}
    about: set[int] = set()
    for path, palette in palettes:
        for i in ids:
            home = usual.get(palette[i], i) if i < len(palette) else i
            # A colour that stands in both places is one for all that a tool does not use, black as a rule.
            if home != i and (home >= len(palette) or palette[home] != palette[i]):
                odd[path] = None
                about.add(home)
    return list(odd), sorted(about)
