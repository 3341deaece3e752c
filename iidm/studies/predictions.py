"""What a run's student says about a few validation images, kept as small pictures that need no checkpoint."""

from __future__ import annotations

import os
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iidm.config import Config
from iidm.data import Dataset, require_validation
from iidm.engine.runtime import pick_device
from iidm.prediction.labeled import compare
from iidm.runs import load_network, run_precision
from iidm.text import put_in_place
from iidm.types import IGNORE_INDEX, UserError

COUNT = 4
"""Validation images where none are named."""
NETWORK = "student"
"""The network that the tables compare first."""


def choose_images(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """The validation images of those names, or evenly spaced ones. Raises UserError for a name that none has."""
    by_name = {sample.name: sample for sample in dataset.samples}
    for name in names:
        if name not in by_name:
            near = get_close_matches(name, by_name, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"there is {next(iter(by_name))!r}, for example."
            raise UserError(f"--strips: there is no validation image {name!r}; {hint}")
    if names:
        return dataset.with_samples(by_name[name] for name in names)
    last = len(dataset.samples) - 1
    chosen = sorted({round(i * last / (COUNT - 1)) for i in range(COUNT)})
    return dataset.with_samples(dataset.samples[i] for i in chosen)


def save_predictions(config: Config, checkpoint: Path, labels: Path, pictures: Path, names: Sequence[str]) -> None:
    """Write LABELS/<name>.png, the student's train ids at the size that it sees, and PICTURES/<name>.jpg and .png, the
    image and its truth at that size. What is there already is not done again."""
    device = pick_device(config.device)
    dataset = choose_images(require_validation(config), names)
    # A label is the last that is written of an image.
    dataset = dataset.with_samples(s for s in dataset.samples if not label_file(labels, s.name).is_file())
    if not dataset.samples:
        return
    network = load_network(config, checkpoint, NETWORK, len(dataset.classes), device)
    amp_dtype = run_precision(config, "run", device)
    for sample, image, truth, predicted in compare(network, dataset, config, amp_dtype):
        _save(image, pictures / f"{sample.name}.jpg")
        _save(_resized(truth, (image.shape[0], image.shape[1])), label_file(pictures, sample.name))
        _save(predicted, label_file(labels, sample.name))


def label_file(folder: Path, name: str) -> Path:
    """The train ids of an image."""
    return folder / f"{name}.png"


def list_labels(folder: Path) -> list[str]:
    """Names of the images that a folder has train ids of."""
    files = (path for path in folder.rglob("*.png") if not path.name.startswith("."))
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in files)


def read_label(path: Path) -> NDArray[np.uint8]:
    """uint8 [H,W] train ids of a picture that `save_predictions` wrote."""
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


def _resized(label: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A label at another size (H, W), each pixel that of the nearest place; ignored ones stay ignored."""
    assert label.dtype == np.uint8 and IGNORE_INDEX <= np.iinfo(label.dtype).max
    return np.asarray(Image.fromarray(label).resize((size[1], size[0]), Image.Resampling.NEAREST))


def _save(array: NDArray[np.uint8], path: Path) -> None:
    """Whole or not at all: several runs may write the same image at once, be killed, or lose their power."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{os.getpid()}{path.suffix}")
    Image.fromarray(array).save(half, quality=90)
    put_in_place(half, path)
