"""Small folders as people have them, what is written about them, and what opens of that."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iidm.config import DatasetConfig
from iidm.data.datasets.dataset import Dataset, open_dataset
from iidm.data.inspection.describe import describe
from iidm.data.inspection.report import Report

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


SIZE = (48, 64)
RGB = tuple[int, int, int]


def bands(values: Sequence[Any], size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """Upright bands of equal width, one a value: [H,W] of ids or [H,W,3] of colours."""
    columns = np.arange(size[1]) * len(values) // size[1]
    return np.broadcast_to(np.asarray(values, np.uint8)[columns], (*size, *np.shape(values)[1:])).copy()


def photo(path: Path, seed: int = 0, size: tuple[int, int] = SIZE, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, **options)


def mask(path: Path, values: Sequence[Any] = (0, 1), size: tuple[int, int] = SIZE, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(bands(values, size)).save(path, **options)


def box_mask(path: Path, box: tuple[int, int, int, int], inside: int = 255, size: tuple[int, int] = SIZE) -> None:
    """A mask of 0 and one other value: rows and columns of a box."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(size, np.uint8)
    pixels[box[0] : box[1], box[2] : box[3]] = inside
    Image.fromarray(pixels).save(path)


def palette_mask(path: Path, ids: Sequence[int], colors: dict[int, RGB]) -> None:
    image = Image.fromarray(bands(ids)).convert("P")
    image.putdata(bands(ids).ravel().tolist())
    image.putpalette([v for i in range(256) for v in colors.get(i, (0, 0, 0))])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def write(root: Path, text: str) -> None:
    root.parent.mkdir(parents=True, exist_ok=True)
    root.write_text(text, encoding="utf-8")


def described(report: Report, folder: Path) -> tuple[Path, dict[str, Any]]:
    """The written TOML file and its content."""
    path = folder / "written.toml"
    path.write_text(describe(report, path), encoding="utf-8")
    return path, tomllib.loads(path.read_text(encoding="utf-8"))


def opened(path: Path, split: str = "train") -> Dataset:
    return open_dataset(DatasetConfig(spec=str(path)), None, split, labels="some")  # type: ignore[arg-type]


def counts(dataset: Dataset) -> tuple[int, int]:
    return len(dataset.samples), sum(sample.label is not None for sample in dataset.samples)


def parallel(root: Path) -> None:
    for split, count in (("train", 4), ("val", 2)):
        for i in range(count):
            photo(root / "images" / split / f"{split}{i}.jpg", i)
            mask(root / "labels" / split / f"{split}{i}.png", (0, 1, 2))


KEYS = ("images", "labels", "val_images", "val_labels", "image_suffix", "label_suffix")
