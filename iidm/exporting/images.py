"""The images that a file is checked on, and those that it is calibrated on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iidm.config import Config
from iidm.data import Dataset, find_images, open_folder, open_plain_target, read_image
from iidm.data.datasets.validation import open_validation
from iidm.data.files.common import evenly
from iidm.data.prepared.arrays import map_rows
from iidm.types import Sample, UserError

CALIBRATION_IMAGES = 64
"""From which int8 learns the range of each layer's inputs."""


class Known(NamedTuple):
    """An image and, where there is one, its label."""

    image: NDArray[np.uint8]
    """[H,W,3] RGB."""
    label: NDArray[np.uint8] | None
    """[H,W] train ids, 255 ignored; of prepared images at their size."""


class Images:
    """Images of a data set, or plain ones, read when they are asked for.

    Args:
        dataset: of which all are read, with their labels; None: `paths`.
        paths: images without labels.
        size: (H, W) that all are made to have, labels as the nearest pixel; None: their own.
    """

    def __init__(self, dataset: Dataset | None, paths: list[Path], size: tuple[int, int] | None) -> None:
        self.dataset, self.paths, self.size = dataset, paths, size
        self.resized = 0
        """How many of those that were read had another size."""

    def __len__(self) -> int:
        return len(self.paths) if self.dataset is None else len(self.dataset.samples)

    def __iter__(self) -> Iterator[Known]:
        self.resized = 0
        for known in self._read():
            if self.size is None or known.image.shape[:2] == self.size:
                yield known
                continue
            self.resized += 1
            label = None if known.label is None else _at(known.label, self.size, Image.Resampling.NEAREST)
            yield Known(_at(known.image, self.size, Image.Resampling.BILINEAR), label)

    def _read(self) -> Iterator[Known]:
        for path in self.paths:
            yield Known(read_image(path), None)
        for sample in self.dataset.samples if self.dataset is not None else ():
            assert self.dataset is not None
            image = _image(self.dataset, sample)
            size = (image.shape[0], image.shape[1])
            label = None if sample.label is None else self.dataset.load_fitting_label(sample, size)
            if label is not None and label.shape != size:  # of prepared images, which are smaller than on disk
                label = _at(label, size, Image.Resampling.NEAREST)
            yield Known(image, label)


def images_to_check(
    config: Config,
    given: tuple[Path, ...],
    labels: Path | None,
    target_root: Path | None,
    count: int,
    size: tuple[int, int] | None,
) -> Images:
    """`count` images, evenly spaced: of those given, with labels where these are given too, else of the validation.

    Raises: UserError where there are none any more.
    """
    if given and labels is None:
        return Images(None, evenly([path for path, _ in find_images(given).images], count), size)
    if given and labels is not None:
        if len(given) > 1:
            raise UserError(f"--labels belongs to one folder of images, and --images names {len(given)}.")
        dataset: Dataset | None = open_folder(config, given[0], labels)
    else:
        dataset = open_validation(config, target_root=target_root)
    if dataset is None or not dataset.samples:
        raise UserError("the run has no validation images")
    return Images(dataset.with_samples(evenly(dataset.samples, count)), [], size)


def images_to_calibrate(config: Config, target_root: Path | None, size: tuple[int, int] | None) -> Images:
    """Plain target images that the run trained on. Raises UserError where there are none any more."""
    dataset = open_plain_target(config, target_root=target_root)
    if dataset is None:
        raise UserError(
            "--precision int8 is calibrated on target images that the run trained on, and there are none where they"
            " were. Name their data set with --target-root, or leave int8 out."
        )
    return Images(dataset.with_samples(evenly(dataset.samples, CALIBRATION_IMAGES)), [], size)


def _image(dataset: Dataset, sample: Sample) -> NDArray[np.uint8]:
    if dataset.is_raw:
        return np.array(map_rows(sample.image, (*dataset.image_size(sample), 3)))
    return read_image(sample.image)


def _at(array: NDArray[np.uint8], size: tuple[int, int], how: Image.Resampling) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(array).resize((size[1], size[0]), how))
