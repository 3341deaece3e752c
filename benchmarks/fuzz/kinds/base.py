"""A kind of input, and what several kinds share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from iidm.data import Dataset
from iidm.types import UserError

SIZE = (24, 32)
"""(H, W) of every picture."""
CLASSES = ("road", "car", "sky")
COLORS = ("#804080", "#00008e", "#4682b4")


class Kind(NamedTuple):
    """One kind of what is read."""

    name: str
    write: Callable[[Path], None]
    """Write valid files into an empty folder."""
    files: tuple[str, ...]
    """Patterns below that folder of the files that are changed. One called hostile is also read as it is."""
    use: Callable[[Path, Path], None]
    """Read the folder whose file (second) was changed, as a command does. UserError where that cannot be."""
    may_raise: tuple[str, ...] = ("-",)
    """Modules whose exceptions are no fault: what no command opens for a user."""
    is_decoded: bool = False
    """Decoders in C (libjpeg, libtiff) may write lines of their own to the standard error."""
    is_written_apart: bool = False
    """The valid files are written in a process of its own: it starts threads, which forked ones would wait for."""
    share: float = 1
    """Of all inputs, beside the other kinds: some take longer."""


def every(*calls: Callable[[], Any]) -> None:
    """All of them, also behind one that refuses; raises the first UserError then."""
    refused: list[UserError] = []
    for call in calls:
        try:
            call()
        except UserError as error:
            refused.append(error)
    if refused:
        raise refused[0]


def read_all(dataset: Dataset) -> None:
    """Every label of a data set."""
    for sample in dataset.samples:
        if sample.label is not None:
            dataset.load_label(sample)


def ids(seed: int = 0) -> Any:
    """uint8 [H,W]: blocks of the classes, a corner ignored."""
    label = np.random.default_rng(seed).integers(0, 3, (6, 8), np.uint8).repeat(4, 0).repeat(4, 1)
    label[:4, :4] = 255
    return label


def photo(seed: int = 0) -> Image.Image:
    """A smooth picture."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8)
    return Image.fromarray(small).resize((SIZE[1], SIZE[0]), Image.Resampling.BICUBIC)


def write_pictures(folder: Path, names: tuple[str, ...] = ("a", "b", "c", "d")) -> None:
    """images/NAME.jpg (or .png) and labels/NAME.png."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for seed, name in enumerate(names):
        photo(seed).save(folder / "images" / f"{name}.{'png' if seed % 2 else 'jpg'}")
        Image.fromarray(ids(seed)).save(folder / "labels" / f"{name}.png")


def description(labels: str, more: str = "", with_colors: bool = False) -> str:
    """The TOML file of a data set in the folder."""
    lines = ['images = "images"', f'labels = "{labels}"', more]
    for name, color in zip(CLASSES, COLORS, strict=True):
        lines += ["[[classes]]", f'name = "{name}"', f'color = "{color}"' if with_colors else ""]
    return "\n".join(lines) + "\n"
