"""What is written of an image that was labeled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iidm.engine.preview import colorize, overlay
from iidm.engine.rows import STRIP_ROWS
from iidm.text import written_whole
from iidm.types import ClassSet

from .looking import Prediction

RUNS = 3
"""zlib's Z_RLE, which finds no repeats but runs. Overlays become as small as by the default, in a seventh of the time:
a photograph repeats nothing. Class colours become smaller yet."""


class Pictures(NamedTuple):
    """Writes what was asked for of an image, each file whole or not at all."""

    kinds: Sequence[str]
    """Of ids, color, overlay, confidence, probabilities."""
    classes: ClassSet
    own_ids: NDArray[np.uint8] | NDArray[np.uint16] | None = None
    """[256]: the data set's own id of each train id, which the ids are then written as."""

    def save(self, stem: Path, image: NDArray[np.uint8], said: Prediction) -> None:
        """Write <stem>.ids.png and so on, one after the other: beside image uint8 [H,W,3] and label uint8 [H,W] one
        picture is in memory (4 bytes a pixel in Pillow)."""
        stem.parent.mkdir(parents=True, exist_ok=True)
        label, shape = said.label, said.label.shape
        if "ids" in self.kinds:
            _save(f"{stem}.ids.png", self._ids(label))
        if "color" in self.kinds:
            _save(f"{stem}.color.png", _painted(shape, lambda rows: colorize(label[rows], self.classes)))
        if "overlay" in self.kinds:
            _save(f"{stem}.overlay.png", _painted(shape, lambda rows: overlay(image[rows], label[rows], self.classes)))
        if "confidence" in self.kinds and said.confidence is not None:
            _save(f"{stem}.confidence.png", Image.fromarray(said.confidence))
        if "probabilities" in self.kinds and said.probabilities is not None:
            path = Path(f"{stem}.probabilities.npz")
            with written_whole(path) as half, half.open("wb") as file:
                np.savez(file, probabilities=said.probabilities, classes=np.array(self.classes.names))

    def _ids(self, label: NDArray[np.uint8]) -> Image.Image:
        if self.own_ids is not None:
            return Image.fromarray(self.own_ids[label])
        picture = Image.fromarray(label)
        picture.putpalette([channel for color in self.classes.palette for channel in color])
        return picture


def _painted(shape: tuple[int, ...], paint: Callable[[slice], NDArray[np.uint8]]) -> Image.Image:
    """A picture of (H, W) that `paint` makes strip by strip; all of an overlay is 24 bytes a pixel in float64."""
    height, width = shape
    picture = Image.new("RGB", (width, height))
    for top in range(0, height, STRIP_ROWS):
        picture.paste(Image.fromarray(paint(slice(top, top + STRIP_ROWS))), (0, top))
    return picture


def _save(path: str, picture: Image.Image) -> None:
    # 8 bits for palettes of few colours too: some programs read no others
    bits: dict[str, Any] = {"bits": 8} if picture.mode == "P" else {}
    with written_whole(Path(path)) as half:
        picture.save(half, format="PNG", compress_type=RUNS, **bits)
