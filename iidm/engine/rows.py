"""Resizing an image, or logits, a few rows at a time, with the result of resizing all of it.

Bilinear resizing is separable: along W each row is resized by itself, along H an output row is a weighted sum of few
input rows, its taps. So rows can be made as they are needed, and nothing of the whole is held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .windows import Rows

STRIP_ROWS = 64
"""Rows that are resized at once: at 14,000 columns and 19 classes 68 MB of float32 logits."""


class Taps(NamedTuple):
    """Of which input rows each output row is made."""

    inputs: NDArray[np.int64]
    """[rows, taps], not falling from one row to the next."""
    weight: NDArray[np.float32]
    """[rows, taps]; each row sums up to 1."""

    def blend(self, rows: Tensor, first: int, begin: int, end: int) -> Tensor:
        """Output rows `begin` to `end`, [B,C,end-begin,w], of input rows [B,C,n,w] that start with row `first`."""
        index = torch.from_numpy(self.inputs[begin:end] - first).to(rows.device)
        weight = torch.from_numpy(self.weight[begin:end]).to(rows.device)[:, :, None]
        total = rows[:, :, index[:, 0]] * weight[:, 0]
        for tap in range(1, index.shape[1]):
            # Not addcmul: whether that rounds once or twice may depend on how many rows there are.
            total += rows[:, :, index[:, tap]] * weight[:, tap]
        return total


def antialias_taps(height: int, new_height: int) -> Taps:
    """Those of `F.interpolate(mode="bilinear", antialias=True)`: a triangle as wide as the reduction, as Pillow's."""
    one, half = np.float32(1), np.float32(0.5)
    scale = np.float32(height) / np.float32(new_height)
    support = max(scale, one)
    center = scale * (np.arange(new_height, dtype=np.float32) + half)
    low = np.maximum((center - support + half).astype(np.int64), 0)
    high = np.minimum((center + support + half).astype(np.int64), height)
    index = low[:, None] + np.arange((high - low).max())
    distance = np.abs(index.astype(np.float32) - center[:, None] + half) * (one / support)
    weight = np.where(index < high[:, None], np.maximum(one - distance, 0), 0).astype(np.float32)
    return Taps(np.minimum(index, height - 1), weight / weight.sum(1, keepdims=True))


def bilinear_taps(height: int, new_height: int, align_corners: bool) -> Taps:
    """Those of `F.interpolate(mode="bilinear")`, positions computed in float32 as there."""
    row, half = np.arange(new_height, dtype=np.float32), np.float32(0.5)
    if align_corners:
        position = row * (np.float32(height - 1) / np.float32(max(new_height - 1, 1)))
    else:
        position = np.maximum((row + half) * (np.float32(height) / np.float32(new_height)) - half, 0)
    low = np.minimum(position.astype(np.int64), height - 1)
    share = np.minimum(position - low.astype(np.float32), 1).astype(np.float32)
    return Taps(np.stack([low, np.minimum(low + 1, height - 1)], 1), np.stack([1 - share, share], 1))


def resized_rows(
    image: NDArray[np.uint8], size: tuple[int, int], normalize: Callable[[Tensor], Tensor], device: torch.device
) -> Rows:
    """The rows of one normalized image resized to `size`, each made when it is asked for.

    Args:
        image: uint8 [H,W,3] RGB, on the CPU.
        size: (h, w) after resizing: bilinear with antialiasing, up to rounding that of `F.interpolate` of the whole;
            which rows are asked for together changes no bit.
        normalize: uint8 [B,H,W,3] -> float [B,3,H,W].
        device: where the rows lie.

    Returns:
        (top, bottom) -> float [1,3,bottom-top,w].
    """
    height, width = image.shape[:2]
    taps = antialias_taps(height, size[0])
    step = max(STRIP_ROWS * size[0] // height, 1)

    def strip(begin: int, end: int) -> Tensor:
        if size == (height, width):
            return normalize(torch.from_numpy(image[begin:end])[None].to(device))
        first, last = int(taps.inputs[begin, 0]), int(taps.inputs[end - 1, -1])
        rows = normalize(torch.from_numpy(image[first : last + 1])[None].to(device))
        rows = F.interpolate(rows, size=(rows.shape[2], size[1]), mode="bilinear", antialias=True)
        return taps.blend(rows, first, begin, end)

    return lambda top, bottom: torch.cat([strip(i, min(i + step, bottom)) for i in range(top, bottom, step)], 2)


def resized_strips(strips: Iterable[Tensor], height: int, new_height: int, *, align_corners: bool) -> Iterator[Tensor]:
    """Resize logits along H while they come strip by strip from the top: bilinear, as `F.interpolate` of the whole.

    Args:
        strips: float [B,K,n,w], `height` rows together; one may be overwritten when the next is asked for.

    Yields:
        float [B,K,n,w] with n <= STRIP_ROWS, `new_height` rows together. Of the input no more than STRIP_ROWS and two
        rows are held.
    """
    taps = bilinear_taps(height, new_height, align_corners)
    held: Tensor | None = None
    first = done = 0
    for strip in strips:
        for part in strip.split(STRIP_ROWS, 2):
            if height == new_height:
                yield part
                continue
            held = torch.cat([part[:, :, :0] if held is None else held, part], 2)
            ready = int(np.searchsorted(taps.inputs[:, 1], first + held.shape[2]))
            while done < ready:
                end = min(done + STRIP_ROWS, ready)
                yield taps.blend(held, first, done, end)
                done = end
            needed = int(taps.inputs[done, 0]) if done < new_height else height
            spent = min(needed - first, held.shape[2])
            held, first = held[:, :, spent:], first + spent
