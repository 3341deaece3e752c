"""A prepared folder as a run reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...types import IGNORE_INDEX, ClassSet, Sample, UserError
from ..files.common import first_few
from ..labels.encodings import LabelEncoding, read_ids
from ..specs.spec import DatasetSpec, SplitSpec
from .arrays import map_rows
from .columns import open_columns
from .entries import IMAGE_SUFFIX, LABEL_SUFFIX, ImageFormat
from .folder import Manifest, read_manifest
from .index import Index
from .samples import PreparedSamples

_ENDS: Mapping[str, bytes] = {"jpeg": b"\xff\xd9", "png": b"IEND\xaeB`\x82"}
"""The last bytes of a whole file."""


@dataclass(frozen=True)
class Prepared:
    """One split of a prepared folder, as a data set reads it."""

    root: Path
    format: ImageFormat
    split: str
    index: Index
    images: str
    """The image folder that was prepared, as the data set names it."""
    relabel: tuple[int, ...] | None = None
    """Train id of the run for each of 0..255 in the label files, where the run's classes are merged ones."""

    @cached_property
    def _lookup(self) -> NDArray[np.uint8]:
        return np.array(self.relabel, np.uint8)

    @property
    def maps_labels(self) -> bool:
        """Whether labels are views of mapped files, for which no cache is worth its memory."""
        return self.format == "raw" and self.relabel is None

    def sample(self, row: int) -> Sample:
        """The image at a row of the index, with the label that it has."""
        name, below = self.index.name(row), f"{self.root}/{{}}/{self.split}/"
        image = Path(f"{below.format('images')}{name}{IMAGE_SUFFIX[self.format]}")
        if self.index.label_size[row, 0] < 0:
            return Sample(name, image, None)
        return Sample(name, image, Path(f"{below.format('labels')}{name}{LABEL_SUFFIX[self.format]}"))

    def rows(self, samples: Sequence[Sample]) -> NDArray[np.int32]:
        """int32 [N]: where samples stand in the index."""
        if isinstance(samples, PreparedSamples):
            return samples.rows
        return np.array([self.index.row(sample.name) for sample in samples], np.int32)

    def image_size(self, sample: Sample) -> tuple[int, int]:
        """(H, W) of an image."""
        return _size(self.index.size[self.index.row(sample.name)])

    def image_sizes(self, samples: Sequence[Sample]) -> Counter[tuple[int, int]]:
        """How many images there are of each size (H, W)."""
        height, width = self.index.size[self.rows(samples)].astype(np.int64).T
        sizes, counts = np.unique(height << 32 | width, return_counts=True)
        return Counter({(s >> 32, s & 0xFFFFFFFF): n for s, n in zip(sizes.tolist(), counts.tolist(), strict=True)})

    def has_reduced(self, samples: Sequence[Sample]) -> bool:
        """Whether a label has another size than it had before it was prepared."""
        rows = self.rows(samples)
        label, disk = self.index.label_size[rows], self.index.disk_size[rows]
        return bool(((label[:, 0] >= 0) & (label != disk).any(axis=1)).any())

    def lengths(self, sample: Sample) -> list[tuple[Path, int]]:
        """The files of a sample, image first, and the bytes that each must have."""
        expected = self.index.bytes[self.index.row(sample.name)].tolist()
        return [(path, n) for path, n in zip((sample.image, sample.label), expected, strict=True) if path is not None]

    def load_label(self, sample: Sample) -> NDArray[np.uint8]:
        """uint8 [H,W] train ids of the run. Raises UserError where the file is missing or damaged."""
        size = _size(self.index.label_size[self.index.row(sample.name)])
        assert sample.label is not None and size[0] >= 0
        if self.format == "raw":
            label = map_rows(sample.label, size)
        else:
            label = read_ids(sample.label, "gray8")
            num_classes = self.index.pixels.shape[1]
            if label.shape != size or ((label >= num_classes) & (label != IGNORE_INDEX)).any():
                raise UserError(f"Label {sample.label} is damaged. Remove it and run iidm.prepare again.")
        return label if self.relabel is None else np.take(self._lookup, label)

    def require_whole(self, sample: Sample, encoded: NDArray[np.uint8]) -> None:
        """Raise UserError for the bytes of an image that are cut off, or were not all written.

        A JPEG is decoded where the crop lies only, so what is wrong below it would not be noticed.
        """
        expected = int(self.index.bytes[self.index.row(sample.name), 0])
        if len(encoded) != expected or not encoded[-16:].tobytes().endswith(_ENDS[self.format]):
            raise UserError(
                f"Image {sample.image} is damaged: it has {len(encoded)} bytes, its index says {expected}, or its end"
                " is missing. Remove it and run iidm.prepare again."
            )

    def class_pixels(self, samples: Sequence[Sample], num_classes: int) -> NDArray[np.int32]:
        """int32 [N,K] pixels of each class at training resolution, rows as in `samples`; of all images of the split a
        view of its index where the classes are its own."""
        rows = self.rows(samples)
        is_whole = len(rows) == len(self.index) and isinstance(samples, PreparedSamples)
        stored = self.index.pixels if is_whole else self.index.pixels[rows]
        if self.relabel is None:
            return stored
        counts = np.zeros((len(rows), num_classes), np.int32)
        for before, after in enumerate(self.relabel[: stored.shape[1]]):
            if after != IGNORE_INDEX:
                counts[:, after] += stored[:, before]
        return counts

    def ignored_pixels(self, samples: Sequence[Sample], counts: NDArray[np.int32]) -> NDArray[np.int64]:
        """int64 [N]: pixels of each image that are of no class, by its `class_pixels`."""
        areas = self.index.size[self.rows(samples)].astype(np.int64).prod(axis=1)
        return np.maximum(areas - counts.sum(axis=1), 0)  # counts are rounded one by one


def _size(row: NDArray[np.int32]) -> tuple[int, int]:
    return int(row[0]), int(row[1])


def open_prepared(
    root: Path,
    spec: DatasetSpec,
    where: SplitSpec,
    resize: tuple[int, int] | None,
    name: str,
    split: str,
) -> tuple[Prepared, PreparedSamples]:
    """The images of a split, in the order of their names; no file of theirs is opened.

    A folder serves every data set that reads the same images at the same size and whose classes can be told from the
    stored train ids: cityscapes-16 reads a prepared cityscapes, camvid-dusk a prepared camvid.

    Args:
        split: `train` or `val`; where the folder has no such split of these images, another one may hold them.
            Validation needs the labels as they were before anything was resized.

    Raises:
        UserError: the folder is unfinished, or was prepared from other images, at another size or with other classes.
    """
    root = root.expanduser()
    manifest = read_manifest(root)
    if not manifest.complete:
        raise UserError(f"{root} is not finished: run its iidm.prepare command again, it goes on where it stopped.")
    if manifest.resize != resize:
        wanted = "--data.resize " + " ".join(map(str, resize)) if resize else "no --data.resize"
        raise UserError(
            f"{root} was prepared with {_box(manifest.resize)}, but {name} is to be trained with {_box(resize)}:"
            f" prepare it with {wanted}, or train with that box (--data.source.resize, --data.target.resize)."
        )
    relabel = _relabel(manifest, spec.encoding, spec.classes, root, name)
    found = _find_split(manifest, where, root, name, split)
    columns, path = open_columns(root, manifest.images, len(manifest.classes))
    index = Index(columns, found, path)
    rows = np.arange(len(index), dtype=np.int32)
    if not manifest.splits[found].is_filtered and where.is_filtered:
        names = index.names()
        place = {name: row for row, name in enumerate(names)}
        rows = np.array([place[name] for name in where.select(names)], np.int32)
    if not len(rows):
        raise UserError(f"{name} has no images in {root}, split {found}.")
    prepared = Prepared(root, manifest.format, found, index, where.images, relabel)
    samples = PreparedSamples(prepared, rows)
    if split == "val" and prepared.has_reduced(samples):
        raise UserError(
            f"{root} holds the labels of {name} at training resolution only, but validation counts every pixel of them:"
            f" prepare {spec.name} itself in a folder of its own."
        )
    return prepared, samples


def _find_split(manifest: Manifest, where: SplitSpec, root: Path, name: str, wanted: str) -> str:
    """The split of the folder whose images are those of `where`; the one of the wanted name before others."""
    for split, prepared in sorted(manifest.splits.items(), key=lambda item: item[0] != wanted):
        same_part = (prepared.sequences, prepared.frames) == (where.sequences, where.frames)
        if prepared.images == where.images and (same_part or not prepared.is_filtered):
            return split
    have = first_few([f"{split} ({prepared.images})" for split, prepared in manifest.splits.items()])
    raise UserError(
        f"{name} reads the images of {where.images}, which {root} (prepared from {manifest.dataset}) does not hold;"
        f" it has {have}. Give another folder, or prepare this one."
    )


def _relabel(
    manifest: Manifest, encoding: LabelEncoding, classes: ClassSet, root: Path, name: str
) -> tuple[int, ...] | None:
    """The run's train id of each stored one; None where they are the same.

    Raises UserError where a stored train id stands for ids that the run tells apart.
    """
    stored, wanted = dict(manifest.train_ids), dict(encoding.keys_like(manifest.train_ids))
    table = {IGNORE_INDEX: IGNORE_INDEX}
    for i in stored.keys() | wanted.keys():
        before, after = stored.get(i, IGNORE_INDEX), wanted.get(i, IGNORE_INDEX)
        if table.setdefault(before, after) != after:
            raise UserError(
                f"{root} was prepared from {manifest.dataset}, whose labels do not tell apart all classes of {name}."
                " Prepare it again for this data set."
            )
    same_order = manifest.classes == classes.names
    if all(before == after for before, after in table.items()):
        if not same_order:
            raise UserError(
                f"{root} was prepared with the classes {first_few(manifest.classes)}; {name} has"
                f" {first_few(classes.names)}. Prepare it again."
            )
        return None
    return tuple(table.get(i, IGNORE_INDEX) for i in range(256))


def _box(resize: tuple[int, int] | None) -> str:
    return f"the box {resize[0]}x{resize[1]} (HxW)" if resize else "its size on disk"
