"""Preparing one image and its label, in a process of its own."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...processes import leave_signals_to_the_main_process
from ...types import Sample, UserError
from ..datasets.dataset import Dataset, training_size
from ..datasets.places import Split
from ..datasets.statistics import count_pixels
from ..files.encoded import decodable_bytes
from ..loading.crops import resize_label
from ..loading.decoder_warnings import damage_warnings
from ..loading.decoding import decode_single
from ..prepared.arrays import array_file
from ..prepared.entries import Entry, FileFacts, ImageFormat, entry_paths
from ..prepared.folder import part_of

JPEG_QUALITY = 95
PNG_LEVEL = 1
"""zlib's fastest."""


class Task(NamedTuple):
    """One image to prepare."""

    split: Split
    sample: Sample
    source: tuple[int, ...]
    """As in `Entry`."""


class Worker:
    """Prepares images into a folder.

    Args:
        out: the folder.
        image_format: of the images.
        datasets: what the images of each split are; their samples come with each task.
    """

    def __init__(self, out: Path, image_format: ImageFormat, datasets: Mapping[Split, Dataset]) -> None:
        self.out, self.image_format, self.datasets = out, image_format, datasets

    def prepare(self, task: Task) -> Entry | str:
        """Write image and label; returns the line of the index, or what is wrong with the files."""
        try:
            entry, image, label = encode_sample(self.datasets[task.split], task, self.image_format)
        except UserError as error:
            return str(error)
        image_path, label_path = entry_paths(self.out, self.image_format, entry)
        _publish(image_path, image)
        if label_path is not None and label is not None:
            _publish(label_path, label)
        return entry


_worker: Worker | None = None


def start_process(out: Path, image_format: ImageFormat, datasets: Mapping[Split, Dataset]) -> None:
    """What each process of a pool runs first."""
    global _worker
    leave_signals_to_the_main_process()
    _worker = Worker(out, image_format, datasets)


def prepare_in_process(task: Task) -> Entry | str:
    """`Worker.prepare` in a process that `start_process` began."""
    assert _worker is not None
    return _worker.prepare(task)


def encode_sample(dataset: Dataset, task: Task, image_format: ImageFormat) -> tuple[Entry, bytes, bytes | None]:
    """Decode, resize and encode one image and its label."""
    sample = task.sample
    disk_size = dataset.image_size(sample)
    size = training_size(dataset, disk_size)
    image = _decode(sample, None if size == disk_size else size)
    image_bytes = _encode_image(image, image_format)
    label_bytes: bytes | None = None
    pixels: tuple[int, ...] = ()
    label_size: tuple[int, int] | None = None
    if sample.label is not None:
        full = dataset.load_fitting_label(sample, disk_size)
        pixels = tuple(count_pixels(dataset, full).tolist())
        label = full if task.split == "val" else resize_label(full, size)
        label_size = (label.shape[0], label.shape[1])
        label_bytes = array_file(label) if image_format == "raw" else _png(label)
    facts = [None if body is None else FileFacts(len(body), zlib.crc32(body)) for body in (image_bytes, label_bytes)]
    assert facts[0] is not None
    entry = Entry(task.split, sample.name, disk_size, size, label_size, pixels, facts[0], facts[1], task.source)
    return entry, image_bytes, label_bytes


def _decode(sample: Sample, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """uint8 [H,W,3] at `size`, with the filter of the training pipeline. Raises UserError where the decoder warns of
    damage too."""
    encoded = decodable_bytes(sample.image)
    with damage_warnings() as said:
        image = decode_single(sample.image, encoded, size)
    if said:
        raise UserError(
            f"Image {sample.image} is damaged (the decoder says: {said[0]}). Copy or download it again, or remove it."
        )
    return image


def _encode_image(image: NDArray[np.uint8], image_format: ImageFormat) -> bytes:
    if image_format == "raw":
        return array_file(image)
    if image_format == "png":
        return _png(image)
    buffer = io.BytesIO()
    # 4:4:4: halved colours would blur small objects, and crops would differ at their edges.
    Image.fromarray(image).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def _png(array: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()


def _publish(path: Path, body: bytes) -> None:
    """Write beside and rename: the file is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = part_of(path)
    half.write_bytes(body)
    try:
        os.replace(half, path)
    except FileNotFoundError:  # the folder was finished by another process of the same shard: this one was there
        if not path.exists():
            raise
