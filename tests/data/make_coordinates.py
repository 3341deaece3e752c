"""A data set whose every pixel says where it lies, so that an image and its label can be held to each other.

Red is the row, green the column, blue the image's number; the label of a pixel is `label_of` of these three.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iidm.data.datasets.dataset import Dataset, Domains
from iidm.data.labels.encodings import LabelEncoding
from iidm.types import ClassSet, Sample

CLASSES = 251
CLASS_SET = ClassSet(tuple(f"class {k}" for k in range(CLASSES)), tuple((k, k, k) for k in range(CLASSES)))
ENCODING = LabelEncoding("gray8", tuple((k, k) for k in range(CLASSES)))
SIZES = ((40, 60), (33, 47), (20, 70), (24, 30))
"""(H, W); the last ones are smaller than a crop of 32x48 along one side and along both."""


def label_of(image: Any) -> NDArray[np.uint8]:
    """The label of an image of [...,3] coordinates, as float or integer."""
    row, column, number = np.moveaxis(np.asarray(image, np.int64), -1, 0)
    return ((7 * row + 3 * column + 11 * number) % CLASSES).astype(np.uint8)


def coordinates(size: tuple[int, int], number: int) -> NDArray[np.uint8]:
    """uint8 [H,W,3] whose pixels are (row, column, number)."""
    rows, columns = np.indices(size)
    return np.stack([rows, columns, np.full(size, number)], axis=-1).astype(np.uint8)


def save(image: NDArray[np.uint8], path: Path) -> Path:
    """Write a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def write_dataset(
    root: Path,
    sizes: Sequence[tuple[int, int]] = SIZES,
    *,
    resize: tuple[int, int] | None = None,
    label: str | None = None,
) -> Dataset:
    """One image and label of each size. Numbers begin at 1, as padding is 0.

    Args:
        resize: the data set's training box.
        label: `row` or `column`: labels that are that coordinate, in place of `label_of`.
    """
    samples = []
    for number, size in enumerate(sizes, start=1):
        image = coordinates(size, number)
        ids = label_of(image) if label is None else image[..., ("row", "column").index(label)]
        name = f"{number:03d}"
        paths = save(image, root / "images" / f"{name}.png"), save(ids, root / "labels" / f"{name}.png")
        samples.append(Sample(name, *paths))
    return Dataset("coordinates", CLASS_SET, tuple(samples), ENCODING, resize)


def domains_of(dataset: Dataset, *, source: bool = True, labeled: bool = True, unlabeled: bool = True) -> Domains:
    """The same data set as every domain that is asked for."""
    return Domains(
        CLASS_SET, dataset if source else None, dataset if labeled else None, dataset if unlabeled else None, dataset
    )
