"""Labels of one mask a class, in each form in which their files may be called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from iidm.config import DatasetConfig
from iidm.data.datasets.dataset import open_dataset
from iidm.data.inspection.report import inspect_folders
from iidm.types import UserError

from .base import CLASSES, Kind, description, every, ids, photo, read_all

FORMS = {"classes": "{name}/{image}.png", "images": "{image}/{name}.png", "names": "{image}_{name}.png"}
"""Data set -> a mask's place below the folder of its masks."""


def write_masks(folder: Path) -> None:
    """Three data sets of four images; the last has no mask, the one before no car. Masks of all kinds of pictures."""
    for data_set, form in FORMS.items():
        root = folder / data_set
        (root / "images").mkdir(parents=True)
        (root / "camera.toml").write_text(description("masks", 'label_kind = "masks"'))
        for seed, image in enumerate("abcd"):
            photo(seed).save(root / "images" / f"{image}.jpg")
            for value, name in enumerate(CLASSES):
                if image != "d" and (image, name) != ("c", "car"):
                    path = root / "masks" / form.format(image=image, name=name)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    _save(ids(seed) == value, path, seed + value)


def _save(inside: np.ndarray, path: Path, number: int) -> None:
    """As a picture of 1 or 8 bits, of a palette, of colours, or as TIFF."""
    gray = Image.fromarray(inside.astype(np.uint8) * (1 if number == 1 else 255))
    if number == 2:
        gray = gray.convert("P")
    elif number == 3:
        gray = Image.fromarray(np.dstack([inside.astype(np.uint8) * v for v in (255, 0, 128)]))
    if number == 4:
        gray.save(path.with_suffix(".tif"), compression="tiff_lzw")
    else:
        Image.fromarray(inside).save(path) if number == 0 else gray.save(path)


def use_masks(folder: Path, path: Path) -> None:
    """A run that reads them, and `iidm inspect`, which refuses none and tells what it found."""
    root = folder / path.relative_to(folder).parts[0]

    def inspects() -> None:
        doubts = inspect_folders([root]).doubts
        if any(path.name in line for line in doubts):
            raise UserError(next(line for line in doubts if path.name in line))

    every(
        lambda: read_all(open_dataset(DatasetConfig(spec=str(root / "camera.toml")), None, "train", labels="some")),
        inspects,
    )


MASKS = (Kind("masks", write_masks, ("*/masks/**/*.*", "*/camera.toml"), use_masks, is_decoded=True),)
