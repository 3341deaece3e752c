"""The images of a prepared split, made as they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from ...types import Sample

if TYPE_CHECKING:  # it makes the samples
    from .opened import Prepared

_SEARCHES = 20
"""A search costs about as much as so many entries of a table of all names."""


class PreparedSamples(Sequence[Sample]):
    """Images of a prepared split by their rows in its index, made as they are asked for: a million take 4 MB.

    Args:
        rows: int32 [N], increasing.
        with_labels: False: samples have no label.
    """

    def __init__(self, prepared: Prepared, rows: NDArray[np.int32], with_labels: bool = True) -> None:
        self.prepared, self.rows, self.with_labels = prepared, rows, with_labels

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> Sample: ...
    @overload
    def __getitem__(self, place: slice) -> PreparedSamples: ...
    def __getitem__(self, place: int | slice) -> Sample | PreparedSamples:
        if isinstance(place, slice):
            return PreparedSamples(self.prepared, self.rows[place], self.with_labels)
        sample = self.prepared.sample(int(self.rows[place]))
        return sample if self.with_labels else sample._replace(label=None)

    def __iter__(self) -> Iterator[Sample]:
        return map(self.__getitem__, range(len(self)))

    def take(self, places: NDArray[np.integer[Any]]) -> PreparedSamples:
        """Those at some places, increasing."""
        return PreparedSamples(self.prepared, self.rows[places], self.with_labels)

    def without_labels(self) -> PreparedSamples:
        """The same images without labels."""
        return PreparedSamples(self.prepared, self.rows, with_labels=False)

    @property
    def has_label(self) -> NDArray[np.bool_]:
        """bool [N]."""
        return self.prepared.index.has_label[self.rows] & self.with_labels

    def names(self) -> list[str]:
        """All names."""
        names = self.prepared.index.names()
        return names if len(names) == len(self) else [names[row] for row in self.rows.tolist()]

    def place(self, name: str) -> int:
        """The place of a name. KeyError where there is none."""
        row = self.prepared.index.row(name)
        place = int(np.searchsorted(self.rows, row))
        if place == len(self.rows) or self.rows[place] != row:
            raise KeyError(name)
        return place


class Places(Mapping[str, int]):
    """Name -> place among prepared samples. Names are searched for until so many were that a table pays."""

    def __init__(self, samples: PreparedSamples) -> None:
        self._samples = samples
        self._left = len(samples) // _SEARCHES
        self._table: dict[str, int] | None = None

    def __getitem__(self, name: str) -> int:
        if self._table is None and self._left > 0:
            self._left -= 1
            return self._samples.place(name)
        if self._table is None:
            self._table = {name: place for place, name in enumerate(self)}
        return self._table[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._samples.names())

    def __len__(self) -> int:
        return len(self._samples)
