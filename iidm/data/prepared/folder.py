"""A prepared folder: images at training resolution, labels as 8-bit train ids, and an index that tells what they are.

    prepared.json          what was prepared, from where and how; `complete` once every image is there
    index.jsonl            one line an image: sizes, bytes, CRC-32, pixels of each class
    images/<split>/<name>  .npy (raw uint8, read by crop), .jpg (quality 95, 4:4:4) or .png
    labels/<split>/<name>  .npy beside raw images, else .png: uint8 train ids, 255 ignored. Training labels have their
                           image's size, validation labels their full size.
    splits/<split>.txt     the names of each split

`iidm.prepare` writes it (preparation.py); a run that is given it in place of the raw data set reads it through here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...types import IGNORE_INDEX, ClassSet, Sample, UserError
from ..files.common import first_few
from ..labels.encodings import LabelEncoding, read_ids
from ..specs.spec import DatasetSpec, SplitSpec
from .arrays import map_rows

MANIFEST = "prepared.json"
INDEX = "index.jsonl"
FORMAT_VERSION = 2
"""1: images as stored, not turned as their EXIF orientation says."""

ImageFormat = Literal["raw", "jpeg", "png"]
IMAGE_SUFFIX: Mapping[str, str] = {"raw": ".npy", "jpeg": ".jpg", "png": ".png"}
LABEL_SUFFIX: Mapping[str, str] = {"raw": ".npy", "jpeg": ".png", "png": ".png"}

_ENDS: Mapping[str, bytes] = {"jpeg": b"\xff\xd9", "png": b"IEND\xaeB`\x82"}
"""The last bytes of a whole file."""


class FileFacts(NamedTuple):
    """What a file of the folder must be."""

    bytes: int
    crc32: int


class Entry(NamedTuple):
    """One line of the index."""

    split: str
    name: str
    disk_size: tuple[int, int]
    """(H, W) of the image before it was prepared."""
    size: tuple[int, int]
    """(H, W) of the image."""
    label_size: tuple[int, int] | None
    """(H, W) of the label; None: the image has none."""
    pixels: tuple[int, ...]
    """Pixels of each class at training resolution, as `class_pixel_counts` counts them; empty without a label."""
    image: FileFacts
    label: FileFacts | None
    source: tuple[int, ...]
    """Bytes and time of change (ns) of the files that were prepared: a second run redoes those that changed."""

    def line(self) -> str:
        """As it stands in the index."""
        return json.dumps(self._asdict(), separators=(",", ":")) + "\n"

    @staticmethod
    def parse(line: str) -> Entry:
        """Read a line; ValueError, TypeError or KeyError for what is none."""
        fields = json.loads(line)
        return Entry(
            split=fields["split"],
            name=fields["name"],
            disk_size=tuple(fields["disk_size"]),
            size=tuple(fields["size"]),
            label_size=None if fields["label_size"] is None else tuple(fields["label_size"]),
            pixels=tuple(fields["pixels"]),
            image=FileFacts(*fields["image"]),
            label=None if fields["label"] is None else FileFacts(*fields["label"]),
            source=tuple(fields["source"]),
        )


@dataclass(frozen=True)
class Manifest:
    """What prepared.json says."""

    dataset: str
    classes: tuple[str, ...]
    train_ids: tuple[tuple[int, int], ...]
    """(id, colour or name on disk, train id), as `keys` of the encoding that the labels were read by."""
    resize: tuple[int, int] | None
    format: ImageFormat
    splits: Mapping[str, SplitSpec]
    root: str
    """The folder that was prepared."""
    complete: bool = False
    images: int = 0
    """How many there are, all splits together, once it is complete."""
    skipped: tuple[str, ...] = ()
    """Damaged files that were left out, as the user allowed."""

    def as_json(self) -> dict[str, Any]:
        """For prepared.json."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        splits = {name: where.__dict__ for name, where in self.splits.items()}
        return {"format_version": FORMAT_VERSION, **fields, "splits": splits}

    @staticmethod
    def from_json(fields: Mapping[str, Any]) -> Manifest:
        """From prepared.json; KeyError or TypeError where something is missing."""
        splits = {
            name: SplitSpec(where["images"], where["labels"], tuple(where["sequences"]), tuple(where["frames"]))
            for name, where in fields["splits"].items()
        }
        return Manifest(
            dataset=fields["dataset"],
            classes=tuple(fields["classes"]),
            train_ids=tuple((int(i), int(t)) for i, t in fields["train_ids"]),
            resize=None if fields["resize"] is None else tuple(fields["resize"]),
            format=fields["format"],
            splits=splits,
            root=fields["root"],
            complete=fields["complete"],
            images=fields["images"],
            skipped=tuple(fields["skipped"]),
        )


@dataclass(frozen=True)
class Prepared:
    """One split of a prepared folder, as a data set reads it."""

    root: Path
    format: ImageFormat
    entries: Mapping[str, Entry]
    """By sample name."""
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

    def paths(self, entry: Entry) -> tuple[Path, Path | None]:
        """Image and label of an entry."""
        return entry_paths(self.root, self.format, entry)

    def is_reduced(self, sample: Sample) -> bool:
        """Whether a label has another size than it had before it was prepared."""
        entry = self.entries[sample.name]
        return entry.label_size not in (None, entry.disk_size)

    def load_label(self, sample: Sample) -> NDArray[np.uint8]:
        """uint8 [H,W] train ids of the run. Raises UserError where the file is missing or damaged."""
        entry = self.entries[sample.name]
        assert sample.label is not None and entry.label_size is not None
        if self.format == "raw":
            label = map_rows(sample.label, entry.label_size)
        else:
            label = read_ids(sample.label, "gray8")
            if label.shape != entry.label_size or ((label >= len(entry.pixels)) & (label != IGNORE_INDEX)).any():
                raise UserError(f"Label {sample.label} is damaged. Remove it and run iidm.prepare again.")
        return label if self.relabel is None else np.take(self._lookup, label)

    def require_whole(self, sample: Sample, encoded: NDArray[np.uint8]) -> None:
        """Raise UserError for the bytes of an image that are cut off, or were not all written.

        A JPEG is decoded where the crop lies only, so what is wrong below it would not be noticed.
        """
        expected = self.entries[sample.name].image.bytes
        if len(encoded) != expected or not encoded[-16:].tobytes().endswith(_ENDS[self.format]):
            raise UserError(
                f"Image {sample.image} is damaged: it has {len(encoded)} bytes, its index says {expected}, or its end"
                " is missing. Remove it and run iidm.prepare again."
            )

    def label_pixels(self, samples: Iterable[Sample], num_classes: int) -> NDArray[np.int64]:
        """int64 [N,K+1] pixels of each class and ignored ones at training resolution, rows as in `samples`."""
        entries = [self.entries[sample.name] for sample in samples]
        stored = np.array([entry.pixels for entry in entries], np.int64).reshape(len(entries), -1)
        counts = np.zeros((len(entries), num_classes + 1), np.int64)
        for before in range(stored.shape[1]):
            after = before if self.relabel is None else self.relabel[before]
            if after != IGNORE_INDEX:
                counts[:, after] += stored[:, before]
        areas = np.array([entry.size[0] * entry.size[1] for entry in entries], np.int64)
        counts[:, -1] = np.maximum(areas - counts.sum(axis=1), 0)  # counts are rounded one by one
        return counts


def entry_paths(root: Path, image_format: ImageFormat, entry: Entry) -> tuple[Path, Path | None]:
    """Image and label of an entry in a prepared folder."""
    image = root / "images" / entry.split / f"{entry.name}{IMAGE_SUFFIX[image_format]}"
    label = root / "labels" / entry.split / f"{entry.name}{LABEL_SUFFIX[image_format]}"
    return image, label if entry.label_size is not None else None


def check_length(path: Path, facts: FileFacts | None) -> None:
    """Raise UserError for a file that is missing or has another length than its entry says."""
    try:
        length = os.stat(path).st_size
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    if facts is None or length != facts.bytes:
        raise UserError(f"{path} is damaged: it has {length} bytes, its index says {facts.bytes if facts else 0}")


def is_prepared(root: Path | None) -> bool:
    """Whether a folder was written by `iidm.prepare`."""
    return root is not None and (root.expanduser() / MANIFEST).is_file()


def read_manifest(root: Path) -> Manifest:
    """Read ROOT/prepared.json. Raises UserError where it cannot be used."""
    path = root / MANIFEST
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        version = fields["format_version"]
        if version != FORMAT_VERSION:
            raise UserError(
                f"{root} was prepared in format {version}, this iidm reads {FORMAT_VERSION}: prepare it again."
            )
        return Manifest.from_json(fields)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error!r}). Prepare the folder again.") from None


def write_text(path: Path, text: str) -> None:
    """Write beside and rename, so that a reader or a killed process never meets half a file."""
    half = path.with_name(f".{path.name}.part")
    half.write_text(text, encoding="utf-8")
    os.replace(half, path)


def read_index(path: Path) -> list[Entry]:
    """Every whole line of an index or of its journal: a kill may have cut off the last one."""
    entries = []
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                try:
                    entries.append(Entry.parse(line))
                except (ValueError, KeyError, TypeError):
                    break
    except FileNotFoundError:
        pass
    return entries


def open_prepared(
    root: Path,
    spec: DatasetSpec,
    where: SplitSpec,
    resize: tuple[int, int] | None,
    name: str,
    split: str,
) -> tuple[Prepared, list[Sample]]:
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
    index = read_index(root / INDEX)
    if len(index) != manifest.images:
        raise UserError(
            f"{root / INDEX} is damaged: {len(index)} of its {manifest.images} lines can be read. Remove it and run the"
            " iidm.prepare command of this folder again."
        )
    entries = {entry.name: entry for entry in index if entry.split == found}
    chosen = list(entries)
    if not manifest.splits[found].is_filtered and where.is_filtered:
        chosen = where.select(chosen)
    if not chosen:
        raise UserError(f"{name} has no images in {root}, split {found}.")
    if split == "val" and any(entries[n].label_size not in (None, entries[n].disk_size) for n in chosen):
        raise UserError(
            f"{root} holds the labels of {name} at training resolution only, but validation counts every pixel of them:"
            f" prepare {spec.name} itself in a folder of its own."
        )
    prepared = Prepared(root, manifest.format, entries, where.images, relabel)
    return prepared, [Sample(n, *prepared.paths(entries[n])) for n in chosen]


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
