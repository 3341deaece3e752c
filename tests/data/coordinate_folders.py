"""Folders of coordinate images, as downloaded and in each prepared format, and what their crops show."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import make_coordinates as make
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from iidm.config import DataConfig, DatasetConfig
from iidm.data.datasets.dataset import Dataset, open_dataset
from iidm.data.datasets.places import Split
from iidm.data.preparation.plan import make_plan, prepare
from iidm.data.prepared.entries import ImageFormat
from iidm.types import TrainBatch

Kind = Literal["downloaded", "raw", "jpeg", "png"]
FORMATS: tuple[ImageFormat, ...] = ("raw", "jpeg", "png")
CROP = (32, 48)
SIZES = (*make.SIZES, (40, 61), (41, 60))
"""(H, W) of the training images as downloaded: larger than the crop, and smaller along one side and along both."""
BOXED_SIZES = ((120, 150), (90, 130), (40, 140), (50, 60), (130, 90), (120, 151))
BOX = (45, 70)
"""They become 45x56, 45x65, 20x70, 45x54, 65x45 and 45x57."""
SPACING = 40
"""Image k is blue k * SPACING, far enough apart for JPEG."""
DATA = DataConfig(crop_size=CROP, source_batch=2, target_batch=1, unlabeled_batch=2, rare_class_sampling=False)
RARE = replace(
    DATA, rare_class_sampling=True, rare_class_target=True, rare_class_min_px=1, rare_class_min_crop_px=3, crop_tries=4
)
RULES = pytest.mark.parametrize("data", [DATA, RARE], ids=["shuffled", "by-rare-class"])


def config_of(boxed: bool = False) -> DatasetConfig:
    return DatasetConfig(
        images="{split}/images",
        labels="{split}/labels",
        class_names=make.CLASS_SET.names,
        resize=BOX if boxed else None,
    )


def write_images(folder: Path, sizes: Sequence[tuple[int, int]]) -> None:
    """Images whose pixels are (row, column, number) and labels that are a function of the three."""
    for number, size in enumerate(sizes, start=1):
        image = make.coordinates(size, SPACING * number)
        make.save(image, folder / "images" / f"{number:03d}.png")
        make.save(make.label_of(image), folder / "labels" / f"{number:03d}.png")


class Folders:
    """The coordinates as downloaded and in each prepared format, with and without a training box."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for boxed, sizes in ((False, SIZES), (True, BOXED_SIZES)):
            downloaded = self._root("downloaded", boxed)
            write_images(downloaded / "train", sizes)
            write_images(downloaded / "val", [size for size in sizes[:3] for _ in range(2)])
            for kind in FORMATS:
                plan = make_plan(config_of(boxed), downloaded, self._root(kind, boxed), image_format=kind)
                prepare(plan, jobs=1)

    def _root(self, kind: Kind, boxed: bool) -> Path:
        return self.root / ("boxed" if boxed else "whole") / kind

    def open(self, kind: Kind, *, boxed: bool = False, split: Split = "train") -> Dataset:
        """One split of one of the folders; not to be written to."""
        return open_dataset(config_of(boxed), self._root(kind, boxed), split)

    def copy(self, kind: Kind, folder: Path) -> Dataset:
        """The training images in a folder of one's own, where they may be damaged."""
        shutil.copytree(self._root(kind, False), folder / kind)
        return open_dataset(config_of(), folder / kind, "train")


def labeled_crops(batches: Sequence[TrainBatch]) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    for batch in batches:
        for part in (batch.source, batch.target):
            if part is not None:
                yield from zip(part.image.numpy(), part.label.numpy(), strict=True)


def number_of(image: torch.Tensor) -> int:
    """Which image a crop was cut from: 1 for the first."""
    return round(int(image[..., 2].max()) / SPACING)


def is_window(image: NDArray[np.uint8], sizes: Sequence[tuple[int, int]]) -> bool | None:
    """Whether a crop is mirrored; None where it is no window, padded with 0, of its image."""
    number = int(image[..., 2].max()) // SPACING
    inside = image[..., 2] > 0
    y, x = image[inside][:, 0].min(), image[inside][:, 1].min()
    part = make.coordinates(sizes[number - 1], number * SPACING)[y : y + CROP[0], x : x + CROP[1]]
    window = np.zeros_like(image)
    window[: part.shape[0], : part.shape[1]] = part
    for flip in (False, True):
        if np.array_equal(image[:, ::-1] if flip else image, window):
            return flip
    return None


def mapped(folder: Path) -> list[str]:
    """Files below a folder in the map of this process's memory."""
    maps = Path("/proc/self/maps")
    return [line for line in maps.read_text().splitlines() if f"{folder}/" in line] if maps.exists() else []
