"""How many pixels of each class each labeled image holds: what rare class sampling draws by, and a run tells."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...types import IGNORE_INDEX, Sample, UserError
from ..files.common import Progress, cache_folder, first_few
from .dataset import Dataset, training_size

_log = logging.getLogger("iidm.data")


def class_pixel_counts(
    dataset: Dataset, *, skip_damaged: bool = False, cache: Path | None = None, jobs: int | None = None
) -> NDArray[np.signedinteger[Any]]:
    """int64 [N,K]: `label_pixel_counts` without the ignored pixels; of prepared images int32, perhaps of a mapped file
    and read-only."""
    if dataset.prepared is not None:
        return dataset.prepared.class_pixels(dataset.samples, len(dataset.classes))
    return label_pixel_counts(dataset, skip_damaged=skip_damaged, cache=cache, jobs=jobs)[:, :-1]


def label_pixel_counts(
    dataset: Dataset,
    *,
    skip_damaged: bool = False,
    cache: Path | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> NDArray[np.int64]:
    """Pixels of each class in each label, and those that are ignored, counted on disk and scaled to the area of the
    training resolution.

    Replaces DAFormer's class statistics files, which users had to make and which were missing or empty (its
    issues 50 and 82). A prepared data set has them in its index. Else the first call decodes every label on threads
    (Pillow lets the others run); later ones read the cache, whose key holds path, size and time of change of every
    label, the encoding and the training box.

    Args:
        skip_damaged: count nothing in a label that cannot be read.
        cache: folder of the cached counts; default: `cache_folder()`. One that cannot be written is left
            aside.
        jobs: threads; default: one per core.
        progress: called with (labels counted, labels in all) from this thread.

    Returns:
        int64 [N,K+1], rows as in `dataset.samples`; the last column holds the ignored pixels.

    Raises:
        UserError: an image has no label, or a label cannot be read or holds an id that the data set does not
            name.
    """
    shape = (len(dataset.samples), len(dataset.classes) + 1)
    if dataset.prepared is not None:
        counted = dataset.prepared.class_pixels(dataset.samples, len(dataset.classes))
        ignored = dataset.prepared.ignored_pixels(dataset.samples, counted)
        return np.concatenate([counted, ignored[:, None]], axis=1, dtype=np.int64)
    path = (cache or cache_folder()) / f"class-pixels-{_key(dataset, skip_damaged)}.npz"
    cached = _read(path, shape)
    if cached is not None:
        return cached
    counts = np.zeros(shape, np.int64)
    damaged: list[Path] = []
    with ThreadPoolExecutor(jobs or os.cpu_count() or 1) as pool:
        try:
            for row, count in enumerate(pool.map(lambda s: _count(dataset, s, skip_damaged), dataset.samples)):
                if count is None:
                    damaged.append(dataset.samples[row].label or dataset.samples[row].image)
                else:
                    counts[row] = count
                if progress is not None:
                    progress(row + 1, len(dataset.samples))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    if damaged:
        _log.warning("%d labels cannot be read and count nothing: %s.", len(damaged), first_few(damaged))
    else:
        _write(path, counts)
    return counts


def label_pixel_totals(
    dataset: Dataset, *, skip_damaged: bool = False, progress: Progress | None = None
) -> NDArray[np.int64]:
    """int64 [K+1]: the sum of `label_pixel_counts` over all images, without that table where they are prepared."""
    if dataset.prepared is None:
        return np.asarray(label_pixel_counts(dataset, skip_damaged=skip_damaged, progress=progress).sum(axis=0))
    counted = dataset.prepared.class_pixels(dataset.samples, len(dataset.classes))
    ignored = dataset.prepared.ignored_pixels(dataset.samples, counted)
    return np.array([*counted.sum(axis=0), ignored.sum()], np.int64)


def keep_counts(
    part: Dataset, counts: NDArray[np.int64], *, skip_damaged: bool = False, cache: Path | None = None
) -> None:
    """Cache what was counted of some images of a data set with the others, so that no label is decoded again for them.

    Nothing is kept where an image counts nothing: its label may be damaged, and is told of again.

    Args:
        part: the images.
        counts: int64 [N,K+1] as `label_pixel_counts` returns them, rows as in `part.samples`.
        skip_damaged, cache: as there.
    """
    if part.prepared is None and counts.any(axis=1).all():
        _write((cache or cache_folder()) / f"class-pixels-{_key(part, skip_damaged)}.npz", counts)


def _count(dataset: Dataset, sample: Sample, skip_damaged: bool) -> NDArray[np.int64] | None:
    try:
        return count_pixels(dataset, dataset.load_label(sample), with_ignored=True)
    except UserError:
        if skip_damaged:
            return None
        raise


def count_pixels(dataset: Dataset, label: NDArray[np.uint8], *, with_ignored: bool = False) -> NDArray[np.int64]:
    """Pixels of each class in a label at its size on disk, scaled to the area of the training resolution: int64 [K], or
    [K+1] with the ignored ones."""
    height, width = training_size(dataset, (label.shape[0], label.shape[1]))
    # Pillow's histogram reads bytes as they are; numpy's bincount makes an int64 copy first
    every = np.array(Image.fromarray(label).histogram(), np.int64)
    counted = [*range(len(dataset.classes)), *([IGNORE_INDEX] if with_ignored else [])]
    histogram = every[counted]
    area = height * width
    return histogram if area == label.size else (histogram * area + label.size // 2) // label.size


def _key(dataset: Dataset, skip_damaged: bool) -> str:
    """A hash of all that the counts depend on."""
    digest = hashlib.sha256(repr((len(dataset.classes), dataset.encoding, dataset.resize)).encode())
    for sample in dataset.samples:
        if sample.label is None:
            raise UserError(f"Image {sample.image} of {dataset.name} has no label to count.")
        try:
            stat = sample.label.stat()
        except OSError as error:
            if skip_damaged:
                continue
            raise UserError(f"Label {sample.label} cannot be read ({error.strerror}).") from None
        digest.update(os.fsencode(f"{sample.label.absolute()}\0{stat.st_size}\0{stat.st_mtime_ns}\n"))
    return digest.hexdigest()[:24]


def _read(path: Path, shape: tuple[int, int]) -> NDArray[np.int64] | None:
    try:
        with np.load(path) as file:
            counts: NDArray[np.int64] = file["counts"]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
    return counts if counts.shape == shape and counts.dtype == np.int64 else None


def _write(path: Path, counts: NDArray[np.int64]) -> None:
    """Write beside and rename, so that a reader or a killed run never meets half a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob("*.part"):  # of processes that were killed
            if time.time() - left.stat().st_mtime > 86400:
                left.unlink(missing_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            try:
                np.savez_compressed(file, counts=counts)
                file.close()
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        _log.warning("The class statistics are not cached: %s.", error)
