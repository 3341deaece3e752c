"""The images of one split of a prepared folder: found by name or row, in columns."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...types import UserError
from .columns import Columns, columns_of, mapped_columns, name_bytes, name_text
from .entries import Entry


class Index:
    """The images of one split, in the order of their names.

    Its columns are those of `Columns`, cut to the split.
    """

    def __init__(self, columns: Columns, split: str, path: Path | None = None) -> None:
        ends = [0, *columns.split_ends.tolist()]
        of_split = {name: slice(*ends[i : i + 2]) for i, name in enumerate(columns.splits.tolist())}
        rows = of_split.get(split, slice(0, 0))
        self.disk_size: NDArray[np.int32] = columns.disk_size[rows]
        self.size: NDArray[np.int32] = columns.size[rows]
        self.label_size: NDArray[np.int32] = columns.label_size[rows]
        self.pixels: NDArray[np.int32] = columns.pixels[rows]
        self.bytes: NDArray[np.int64] = columns.bytes[rows]
        self._starts = columns.starts[rows.start : rows.stop + 1]
        self._text = columns.text
        self._from = path, split
        self._last = "", -1

    @staticmethod
    def of(entries: Iterable[Entry]) -> Index:
        """The index of entries of one split."""
        entries = list(entries)
        classes = max(len(entry.pixels) for entry in entries)
        return Index(columns_of(entries, classes), entries[0].split)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __reduce__(self) -> Any:
        """A worker process maps the file itself: sent to it, a million images would take seconds and memory of each."""
        path, split = self._from
        return (_open_again, (path, split)) if path is not None else super().__reduce__()

    @property
    def has_label(self) -> NDArray[np.bool_]:
        """bool [N]."""
        return self.label_size[:, 0] >= 0

    def name(self, row: int) -> str:
        """The name at a row."""
        name = self._inside(self._name(row))
        self._last = name, row  # whoever asked for it is likely to ask for its row
        return name

    def names(self) -> list[str]:
        """All names."""
        text, starts = memoryview(self._text.data), self._starts.tolist()
        return [self._inside(text[a:b]) for a, b in zip(starts, starts[1:], strict=False)]

    def row(self, name: str) -> int:
        """The row of a name. KeyError where there is none."""
        last, row = self._last
        if last == name and row >= 0:
            return row
        sought, low, high = name_bytes(name), 0, len(self)
        while low < high:  # names are sorted as their bytes are: UTF-8 keeps the order of code points
            middle = (low + high) // 2
            if self._name(middle) < sought:
                low = middle + 1
            else:
                high = middle
        if low == len(self) or self._name(low) != sought:
            raise KeyError(name)
        return low

    def _inside(self, name: bytes | memoryview) -> str:
        """A name as text. UserError for one that would lead out of the folder: results are called like images."""
        try:
            text = name_text(name)
            if text[:1] != "/" and (".." not in text or ".." not in text.split("/")):
                return text
        except UnicodeDecodeError:
            text = repr(bytes(name))
        where = self._from[0] or "The index of a prepared folder"
        raise UserError(f"{where} is damaged: it names an image {text}, which lies outside of it. Prepare it again.")

    def _name(self, row: int) -> bytes:
        return self._text[self._starts[row] : self._starts[row + 1]].tobytes()


def _open_again(path: Path, split: str) -> Index:
    return Index(mapped_columns(path), split, path)
