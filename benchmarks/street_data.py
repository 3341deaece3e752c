"""Generated data in the layout, size and encoding of GTA5 and Cityscapes, for the benchmarks of the data path.

StreetScenes drawn at the official sizes, grainy or soft enough that a PNG has 2.3 to 2.9 MB, about as the real ones:
that is what the time of decoding depends on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from iidm.config import DatasetConfig
from iidm.data.files.common import cache_folder
from iidm.data.preparation.plan import make_plan, prepare
from iidm.data.prepared.entries import ImageFormat
from iidm.data.scenes.draw import draw_scene
from iidm.data.specs.known import CITYSCAPES_IDS
from iidm.locks import locked

VERSION = 2
GTA5_SIZE, CITYSCAPES_SIZE = (1052, 1914), (1024, 2048)
COUNT = 12
"""Training images of each data set; they stay in the page cache: the benchmarks are of the processor, not of a disk."""
VAL_COUNT = 2
"""Validation images of Cityscapes."""


class Roots(NamedTuple):
    """Where the two data sets lie."""

    gta5: Path
    cityscapes: Path


def official(count: int = COUNT) -> Roots:
    """The data sets as they would be downloaded, drawn where they are not there yet."""
    root = cache_folder() / f"benchmark-data-v{VERSION}"
    roots = Roots(root / "gta5", root / "cityscapes")
    tasks: list[Callable[[], None]] = []
    for number in range(count):
        name = f"{number + 1:05d}.png"
        tasks.append(partial(_write_gta5, number, roots.gta5 / "images" / name, roots.gta5 / "labels" / name))
    for split, numbers in (("train", range(count)), ("val", range(count, count + VAL_COUNT))):
        for number in numbers:
            stem = f"{split}/generated/generated_{number:06d}_000019"
            image = roots.cityscapes / "leftImg8bit" / f"{stem}_leftImg8bit.png"
            label = roots.cityscapes / "gtFine" / f"{stem}_gtFine_labelIds.png"
            tasks.append(partial(_write_cityscapes, number, image, label))
    with _alone(root), ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda task: task(), tasks))
    return roots


def prepared(image_format: ImageFormat, count: int = COUNT) -> Roots:
    """The same, prepared."""
    raw = official(count)
    root = raw.gta5.parent / image_format
    roots = Roots(root / "gta5", root / "cityscapes")
    with _alone(root):
        for name, splits in (("gta5", ["train"]), ("cityscapes", ["train", "val"])):
            config = DatasetConfig(spec=name)
            prepare(
                make_plan(config, getattr(raw, name), getattr(roots, name), image_format=image_format, splits=splits)
            )
    return roots


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Let the benchmarks of one process write `root`; those of others wait, and find it written."""
    root.parent.mkdir(parents=True, exist_ok=True)
    with locked(root.with_name(f".{root.name}.lock")):
        yield


def _write_gta5(number: int, image_path: Path, label_path: Path) -> None:
    if label_path.exists():
        return
    image, label = draw_scene("rendered", 0, number, GTA5_SIZE)
    grain = np.random.default_rng(number).normal(0, 1, image.shape)
    ids = Image.fromarray(_official_ids(label), "P")
    ids.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    _save(Image.fromarray(np.clip(image + grain, 0, 255).astype(np.uint8)), image_path)
    _save(ids, label_path)


def _write_cityscapes(number: int, image_path: Path, label_path: Path) -> None:
    if label_path.exists():
        return
    image, label = draw_scene("camera", 0, number, CITYSCAPES_SIZE)
    _save(Image.fromarray(image).filter(ImageFilter.GaussianBlur(0.8)), image_path)
    _save(Image.fromarray(_official_ids(label)), label_path)


def _official_ids(label: NDArray[np.uint8]) -> NDArray[np.uint8]:
    table = np.zeros(256, np.uint8)
    for i, train_id in CITYSCAPES_IDS.items():
        table[train_id] = i
    return table[label]


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}")
    image.save(half, "PNG")
    os.replace(half, path)
