"""Uncompressed images and labels: one .npy file each, of which only the rows of a crop are read.

A crop of 512x512 from a 704x1280 image takes about 0.1 ms of one core from the page cache, where decoding the PNG takes
8 ms. numpy, and so every user, can open the files.
"""

from __future__ import annotations

import io
import mmap
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...types import UserError

HEADER_BYTES = 128
"""Of a .npy file of uint8 with two or three axes, whatever their lengths."""


def array_bytes(shape: tuple[int, ...]) -> int:
    """The size of the file of `array_file`."""
    return HEADER_BYTES + int(np.prod(shape))


def array_file(array: NDArray[np.uint8]) -> bytes:
    """The .npy file of uint8 [H,W] or [H,W,3]."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    assert buffer.tell() == array_bytes(array.shape), "a .npy header of another length"
    return buffer.getvalue()


def map_rows(path: Path, shape: tuple[int, ...], first: int = 0, last: int | None = None) -> NDArray[np.uint8]:
    """Rows `first` to before `last` (default: all) of a file of `array_file`, read-only, loaded as they are read.

    Raises:
        UserError: the file is missing or has not the length of an array of `shape`.
    """
    row_bytes = int(np.prod(shape[1:]))
    count = (shape[0] if last is None else last) - first
    start = HEADER_BYTES + first * row_bytes
    page_start = start - start % mmap.ALLOCATIONGRANULARITY
    try:
        file = os.open(path, os.O_RDONLY)
        try:
            length = os.fstat(file).st_size
            if length != array_bytes(shape):
                raise UserError(
                    f"{path} is damaged: it has {length} bytes, its index says {array_bytes(shape)}."
                    " Remove it and run iidm.prepare again."
                )
            span = start - page_start + count * row_bytes
            pages = mmap.mmap(file, span, prot=mmap.PROT_READ, offset=page_start)
        finally:
            os.close(file)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist. Run iidm.prepare again.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from None
    rows = np.frombuffer(pages, np.uint8, count * row_bytes, start - page_start)
    return rows.reshape(count, *shape[1:])


def read_crop(
    path: Path, shape: tuple[int, int], anchor: tuple[int, int], crop_size: tuple[int, int]
) -> NDArray[np.uint8]:
    """uint8 [h,w,3]: the crop at `anchor` (y, x) of an image of `shape` (H, W), 0 beyond its end."""
    height, width = (min(crop, side - a) for crop, side, a in zip(crop_size, shape, anchor, strict=True))
    y, x = anchor
    rows = map_rows(path, (*shape, 3), y, y + height)
    if (height, width) == crop_size:
        return np.ascontiguousarray(rows[:, x : x + width])
    crop = np.zeros((*crop_size, 3), np.uint8)
    crop[:height, :width] = rows[:, x : x + width]
    return crop
