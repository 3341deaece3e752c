"""Pictures inside an HTML file: validation images with truth, prediction and difference, and strips of previews."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from iidm.config import Config
from iidm.data import Dataset
from iidm.data.files.common import evenly
from iidm.engine.preview import ROWS, colorize
from iidm.models import Network
from iidm.prediction.labeled import compare
from iidm.types import IGNORE_INDEX, ClassSet

from .folder import list_previews
from .scoring import ImageScore

WIDTH_PX, STRIP_PX = 400, 1000
"""Widest picture of a panel, and of a strip of previews."""
MOST_PX = 800
"""Tallest picture."""
WRONG, IGNORED = (216, 48, 24), (255, 255, 255)
"""Colours of a difference."""
PREVIEW_STEPS = 6
"""Steps whose previews are shown, evenly spaced."""


class Album:
    """Pictures as `data:` addresses, up to a size in all; what is more is counted."""

    def __init__(self, most_bytes: int) -> None:
        self._left = most_bytes
        self.left_out = 0

    def add(self, encoded: tuple[str, bytes] | None) -> str | None:
        """The address of a picture (kind, bytes), or None where there is no room for it."""
        if encoded is None:
            return None
        kind, body = encoded
        text = f"data:image/{kind};base64,{base64.b64encode(body).decode('ascii')}"
        if len(text) > self._left:
            self.left_out += 1
            return None
        self._left -= len(text)
        return text


@dataclass(frozen=True)
class ImagePanels:
    """One validation image, small."""

    name: str
    score: ImageScore
    pictures: dict[str, tuple[str, bytes]] = field(repr=False)
    """Caption -> (kind, bytes): image, truth, prediction, difference."""


def panels_of(
    network: Network,
    dataset: Dataset,
    places: Sequence[int],
    scores: Sequence[ImageScore],
    config: Config,
    amp_dtype: torch.dtype | None,
) -> list[ImagePanels]:
    """Label some images of a data set and draw them.

    Raises: UserError for an image or a label that cannot be read.
    """
    found = []
    samples = [dataset.samples[place] for place in places]
    seen = compare(network, dataset.with_samples(samples), config, amp_dtype)
    for (sample, image, label, answer), score in zip(seen, scores, strict=True):
        small = _fitted((image.shape[0], image.shape[1]))
        picture = np.asarray(Image.fromarray(image).resize(small[::-1], Image.Resampling.BILINEAR))
        truth, predicted = _nearest(label, small), _nearest(answer, small)
        pictures = {
            "image": as_jpeg(picture),
            "truth": as_png(truth, dataset.classes),
            "prediction": as_png(predicted, dataset.classes),
            "difference": as_jpeg(difference(picture, truth, predicted)),
        }
        found.append(ImagePanels(sample.name, score, pictures))
    return found


def difference(image: NDArray[np.uint8], truth: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 [H,W,3]: the image in pale gray, `WRONG` where the labels [H,W] differ, `IGNORED` where truth is."""
    gray = np.asarray(Image.fromarray(image).convert("L"), np.uint16)
    shown = np.repeat((gray // 2 + 100).astype(np.uint8)[..., None], 3, axis=-1)
    ignored = truth == IGNORE_INDEX
    shown[~ignored & (truth != predicted)] = WRONG
    shown[ignored] = IGNORED
    return shown


def preview_strips(run_dir: Path, kind: str, caption: str | None) -> list[tuple[int, tuple[str, bytes]]]:
    """(steps done, picture) of evenly spaced previews of one kind, the last one among them: of each sheet the row whose
    first panel has this caption, None the first row; the whole sheet where it does not tell its rows (those of older
    versions). Sheets without such a row, and those that cannot be read, are left out."""
    found = list_previews(run_dir, kind)
    shown = [*evenly(found[:-1], PREVIEW_STEPS - 1), *found[-1:]]
    strips = []
    for done, path in shown:
        try:
            with Image.open(path) as sheet:
                told = json.loads(sheet.info.get(ROWS, "null"))
                strip = _row(sheet, told, caption)
        except Exception:  # Pillow's parsers and decoders raise whatever the bytes lead them to
            continue
        if strip is not None:
            strips.append((done, strip))
    return strips


def _row(sheet: Image.Image, told: list[tuple[str, int, int]] | None, caption: str | None) -> tuple[str, bytes] | None:
    picture = sheet.convert("RGB")
    if told is not None:
        places = [(top, bottom) for name, top, bottom in told if caption in (None, name)]
        if not places:
            return None
        picture = picture.crop((0, places[0][0], picture.width, places[0][1]))
    if picture.width > STRIP_PX:
        height = round(picture.height * STRIP_PX / picture.width)
        picture = picture.resize((STRIP_PX, max(1, height)), Image.Resampling.LANCZOS)
    return as_jpeg(np.asarray(picture))


def as_jpeg(image: NDArray[np.uint8]) -> tuple[str, bytes]:
    """uint8 [H,W,3] as JPEG."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, format="JPEG", quality=80, optimize=True)
    return "jpeg", out.getvalue()


def as_png(label: NDArray[np.uint8], classes: ClassSet) -> tuple[str, bytes]:
    """A label uint8 [H,W] in class colours as PNG, lossless: colours that blend would be those of other classes."""
    out = io.BytesIO()
    picture = Image.fromarray(label)
    picture.putpalette(colorize(np.arange(256, dtype=np.uint8)[None], classes).tobytes())
    picture.save(out, format="PNG", optimize=True)
    return "png", out.getvalue()


def _fitted(size: tuple[int, int]) -> tuple[int, int]:
    """(H, W) of a panel."""
    scale = min(1.0, WIDTH_PX / size[1], MOST_PX / size[0])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _nearest(label: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(label).resize(size[::-1], Image.Resampling.NEAREST))
