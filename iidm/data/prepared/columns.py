"""The index of a prepared folder in columns, which a run opens at once however many images there are.

    index.npz      what training needs of index.jsonl, a NumPy array a column, sorted by split and name

The lines of a million images take 15 s to read and gigabytes of memory; this file is mapped, so processes of one
machine share it and nothing is read that is not asked for. index.jsonl stays what counts: index.npz is written from it
by `iidm.prepare`, or by the first run that finds none, or one that is older or of other lines.
"""

from __future__ import annotations

import hashlib
import logging
import math
import mmap
import os
import struct
import zipfile
from array import array
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...text import put_in_place
from ...types import UserError
from ..files.common import cache_folder
from .entries import INDEX, Entry, iterate_index
from .folder import part_of

COLUMNS = "index.npz"
MAPPED_BYTES = 2**24
"""Smaller files are read and not mapped."""


class Columns(NamedTuple):
    """The arrays of index.npz, rows by split and name."""

    splits: NDArray[np.str_]
    """[S], sorted."""
    split_ends: NDArray[np.int64]
    """[S]: the row before which each split ends."""
    text: NDArray[np.uint8]
    """The names in UTF-8, one after the other."""
    starts: NDArray[np.int64]
    """[N+1]: where each name begins, and the end of the last."""
    disk_size: NDArray[np.int32]
    """[N,2] as in `Entry`."""
    size: NDArray[np.int32]
    """[N,2] as in `Entry`."""
    label_size: NDArray[np.int32]
    """[N,2] as in `Entry`, -1 without a label."""
    pixels: NDArray[np.int32]
    """[N,K] as in `Entry`, 0 without a label."""
    bytes: NDArray[np.int64]
    """[N,2] of image and label, 0 without a label."""
    lines_bytes: NDArray[np.int64]
    """[1]: the size of the index.jsonl that they come from."""


_log = logging.getLogger("iidm.data")


def open_columns(root: Path, images: int, classes: int) -> tuple[Columns, Path | None]:
    """The index of a prepared folder, and the file that it is mapped from; None: it could be kept nowhere.

    Where index.npz does not fit to index.jsonl it is made of that, beside it or, where that cannot be written, in the
    cache folder.

    Args:
        images: how many there must be.
        classes: how many the folder has.

    Raises:
        UserError: index.jsonl has another number of whole lines.
    """
    lines = root / INDEX
    try:
        stat = lines.stat()
        size, changed = stat.st_size, stat.st_mtime_ns
    except OSError:
        size, changed = 0, 0
    key = hashlib.sha256(os.fsencode(f"{lines.absolute()}\0{size}\0{changed}")).hexdigest()[:24]
    places = {root / COLUMNS: changed, cache_folder() / f"prepared-index-{key}.npz": 0}
    for path, not_before in places.items():
        found = _mapped(path, size, not_before)
        if found is not None and len(found.size) == images:
            return found, path
    columns = columns_of(iterate_index(lines), classes, size, lines)
    if len(columns.size) != images:
        raise UserError(
            f"{lines} is damaged: {len(columns.size)} of its {images} lines can be read. Remove it and run the"
            " iidm.prepare command of this folder again."
        )
    problem: OSError | None = None
    for path, not_before in places.items():
        try:
            found = _kept(path, columns, size, not_before)
        except OSError as error:
            problem = error
        else:
            if found is not None:
                return found, path
    _log.warning("%s is read anew at each start, as %s cannot be kept: %s.", lines, COLUMNS, problem)
    return columns, None


def columns_of(
    entries: Iterable[Entry], classes: int, lines_bytes: int = 0, where: Path | str = "The index"
) -> Columns:
    """The columns of entries in any order.

    Args:
        where: the entries are from, for errors.

    Raises:
        UserError: two of one name, pixels of another number of classes, numbers or names that are none.
    """
    try:
        return _columns_of(entries, classes, lines_bytes)
    except (UserError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise UserError(f"{where} is damaged: {str(error).removesuffix('.')}. Prepare the folder again.") from None


def _columns_of(entries: Iterable[Entry], classes: int, lines_bytes: int) -> Columns:
    splits, text, starts = array("q"), bytearray(), array("q", [0])
    numbers, pixels, facts = array("i"), array("i"), array("q")
    titles: dict[str, int] = {}
    last, is_sorted = ("", b""), True
    for entry in entries:
        if len(entry.pixels) != (classes if entry.label_size else 0):
            raise UserError(f"{entry.name} has pixels of {len(entry.pixels)} classes")
        name = name_bytes(entry.name)
        is_sorted, last = is_sorted and last < (entry.split, name), (entry.split, name)
        splits.append(titles.setdefault(entry.split, len(titles)))
        text += name
        starts.append(len(text))
        numbers.extend((*entry.disk_size, *entry.size, *(entry.label_size or (-1, -1))))
        pixels.extend(entry.pixels or (0,) * classes)
        facts.extend((entry.image.bytes, entry.label.bytes if entry.label else 0))
    sizes = np.array(numbers, np.int32).reshape(len(splits), 3, 2)
    of_split = np.array(splits, np.int64)
    columns = Columns(
        splits=np.array(sorted(titles), np.str_),
        split_ends=_ends(of_split, titles),
        text=np.frombuffer(text, np.uint8),
        starts=np.array(starts, np.int64),
        disk_size=sizes[:, 0],
        size=sizes[:, 1],
        label_size=sizes[:, 2],
        pixels=np.array(pixels, np.int32).reshape(len(splits), classes),
        bytes=np.array(facts, np.int64).reshape(len(splits), 2),
        lines_bytes=np.array([lines_bytes], np.int64),
    )
    return columns if is_sorted else _sorted(columns, of_split, list(titles))


def _sorted(columns: Columns, of_split: NDArray[np.int64], titles: list[str]) -> Columns:
    """The rows by split and name."""
    body, starts = columns.text.tobytes(), columns.starts.tolist()
    names = [body[a:b] for a, b in zip(starts, starts[1:], strict=False)]
    keys = [(titles[number], name) for number, name in zip(of_split.tolist(), names, strict=True)]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    for one, other in zip(order, order[1:], strict=False):
        if keys[one] == keys[other]:
            raise UserError(f"it names {name_text(names[one])} twice")
    return columns._replace(
        text=np.frombuffer(b"".join(names[row] for row in order), np.uint8),
        starts=np.cumsum([0, *(len(names[row]) for row in order)], dtype=np.int64),
        disk_size=columns.disk_size[order],
        size=columns.size[order],
        label_size=columns.label_size[order],
        pixels=columns.pixels[order],
        bytes=columns.bytes[order],
    )


def _ends(of_split: NDArray[np.int64], titles: Mapping[str, int]) -> NDArray[np.int64]:
    counts = np.bincount(of_split, minlength=len(titles))
    return np.cumsum([counts[titles[title]] for title in sorted(titles)], dtype=np.int64)


def is_wrong(root: Path, columns: Columns) -> bool:
    """Whether a run would read other columns in ROOT/index.npz than these, which are those of its lines."""
    lines = (root / INDEX).stat()
    if _mapped(root / COLUMNS, lines.st_size, lines.st_mtime_ns) is None:
        return False  # it is made anew
    try:
        with np.load(root / COLUMNS) as found:
            return not all(np.array_equal(found[name], column) for name, column in columns._asdict().items())
    except Exception:  # its checksums, or what else the bytes lead NumPy to
        return True


def write_columns(path: Path, columns: Columns) -> None:
    """Write index.npz whole or not at all; the same bytes for the same columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = part_of(path)
    try:
        with half.open("wb") as file:
            arrays: dict[str, Any] = columns._asdict()
            np.savez(file, **arrays)
        put_in_place(half, path)
    finally:
        half.unlink(missing_ok=True)


def _kept(path: Path, columns: Columns, size: int, not_before: int) -> Columns | None:
    """What is at `path` after a try to write it there. OSError where that cannot be written.

    What another process of a run has written meanwhile stays: a process that has mapped it dies where a network file
    system loses it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    half = part_of(path)
    write_columns(half, columns)
    try:
        os.link(half, path)
    except OSError:  # one is there, or the file system has no links
        if _mapped(path, size, not_before) is None:
            os.replace(half, path)
    finally:
        half.unlink(missing_ok=True)
    return _mapped(path, size, not_before)


def _mapped(path: Path, lines_bytes: int, not_before: int) -> Columns | None:
    """The columns at `path`; None where there are none of an index.jsonl of that size and time of change (ns)."""
    try:
        with path.open("rb") as file:
            stat = os.fstat(file.fileno())
            if stat.st_mtime_ns < not_before:
                return None
            pages: Any = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if stat.st_size > MAPPED_BYTES else None
            columns = _views(file, file.read() if pages is None else pages)
    except Exception:  # the parsers of zip files and of NumPy's headers raise whatever the bytes lead them to
        return None
    return columns if _is_whole(columns) and columns.lines_bytes[0] == lines_bytes else None


def _is_whole(columns: Columns) -> bool:
    """Whether arrays have the lengths of each other, as far as that is known without reading them."""
    count, splits = len(columns.starts) - 1, len(columns.splits)
    shapes = [columns.disk_size.shape, columns.size.shape, columns.label_size.shape, columns.bytes.shape]
    return (
        shapes == [(count, 2)] * 4
        and columns.pixels.shape[:1] == (count,)
        and columns.pixels.ndim == 2
        and columns.split_ends.shape == (splits,)
        and columns.lines_bytes.shape == (1,)
        and splits > 0
        and int(columns.split_ends[-1]) == count
        and int(columns.starts[-1]) == len(columns.text)
        and all(column.dtype.kind in "iu" for name, column in columns._asdict().items() if name != "splits")
    )


def mapped_columns(path: Path) -> Columns:
    """The columns at `path`, mapped."""
    with path.open("rb") as file:
        return _views(file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _views(file: BinaryIO, body: Any) -> Columns:
    """Views of the arrays of an uncompressed .npz file, whose bytes are `body`. TypeError where one is missing."""
    found = {}
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            file.seek(member.header_offset + 26)  # its own header tells how long name and extra field are in it
            file.seek(sum(struct.unpack("<HH", file.read(4))), os.SEEK_CUR)
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            column = np.frombuffer(body, dtype, math.prod(shape), file.tell())
            found[member.filename.removesuffix(".npy")] = column.reshape(shape)
    return Columns(**found)


def name_bytes(name: str) -> bytes:
    """A name in UTF-8, which sorts as names do; also one that is no Unicode."""
    return name.encode("utf-8", "surrogatepass")


def name_text(name: bytes | memoryview) -> str:
    """The name of `name_bytes`."""
    return str(name, "utf-8", "surrogatepass")
