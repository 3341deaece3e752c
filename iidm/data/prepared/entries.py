"""The lines of a prepared folder's index: what each image and its label are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

INDEX = "index.jsonl"
ImageFormat = Literal["raw", "jpeg", "png"]
IMAGE_SUFFIX: Mapping[str, str] = {"raw": ".npy", "jpeg": ".jpg", "png": ".png"}
LABEL_SUFFIX: Mapping[str, str] = {"raw": ".npy", "jpeg": ".png", "png": ".png"}


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
        entry = Entry(
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
        sizes = (entry.disk_size, entry.size, entry.label_size or (0, 0))
        numbers = (*sizes, entry.pixels, entry.image, entry.label or (), entry.source)
        if type(entry.name) is not str or type(entry.split) is not str or any(len(size) != 2 for size in sizes):
            raise ValueError("a name is no text, or a size no two numbers")
        if any(type(number) is not int for some in numbers for number in some):
            raise ValueError("a number is none")
        return entry


def entry_paths(root: Path, image_format: ImageFormat, entry: Entry) -> tuple[Path, Path | None]:
    """Image and label of an entry in a prepared folder."""
    image = root / "images" / entry.split / f"{entry.name}{IMAGE_SUFFIX[image_format]}"
    label = root / "labels" / entry.split / f"{entry.name}{LABEL_SUFFIX[image_format]}"
    return image, label if entry.label_size is not None else None


def read_index(path: Path) -> list[Entry]:
    """Every whole line of an index or of its journal: a kill may have cut off the last one."""
    return list(iterate_index(path))


def iterate_index(path: Path) -> Iterator[Entry]:
    """The entries of `read_index` one after the other: those of a million images take gigabytes together."""
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                try:
                    entry = Entry.parse(line)
                except (ValueError, KeyError, TypeError, RecursionError):
                    return
                yield entry
    except (FileNotFoundError, UnicodeDecodeError):  # lines are ASCII: the second is damage, and ends them as well
        return
