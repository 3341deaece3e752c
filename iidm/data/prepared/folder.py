"""A prepared folder: images at training resolution, labels as 8-bit train ids, and an index that tells what they are.

    prepared.json          what was prepared, from where and how; `complete` once every image is there
    index.jsonl            one line an image: sizes, bytes, CRC-32, pixels of each class
    index.npz              the same in columns, for training (columns.py)
    images/<split>/<name>  .npy (raw uint8, read by crop), .jpg (quality 95, 4:4:4) or .png
    labels/<split>/<name>  .npy beside raw images, else .png: uint8 train ids, 255 ignored. Training labels have their
                           image's size, validation labels their full size.
    splits/<split>.txt     the names of each split

`iidm.prepare` writes it (preparation/); a run that is given it in place of the raw data set reads it (opened.py).
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...text import put_in_place
from ...types import UserError
from ..specs.spec import SplitSpec
from .entries import ImageFormat

MANIFEST = "prepared.json"
PART = ".part"
"""Ending of files that are not written to their end."""
FORMAT_VERSION = 2
"""1: images as stored, not turned as their EXIF orientation says."""


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
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error!r}). Prepare the folder again.") from None


def part_of(path: Path) -> Path:
    """Where a process writes what becomes `path` when it is whole: a file that no other machine writes."""
    return path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}{PART}")


def is_abandoned(half: Path) -> bool:
    """Whether a file of `part_of` is of a process of this machine that has ended."""
    host, _, number = half.name.removesuffix(PART).rpartition("-")
    if not host.endswith(f".{socket.gethostname()}") or not number.isdigit():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except OSError:  # it lives, and is another user's
        return False
    return False


def write_text(path: Path, text: str) -> None:
    """Write beside, sync and rename: nobody ever meets half a file, also after a kill or a power cut."""
    half = part_of(path)
    half.write_text(text, encoding="utf-8")
    put_in_place(half, path)
