"""How the Triton kernels cut an upsampled image: into cells, the pixels between the same four logits.

With positions s = (i + 0.5) n / N - 0.5 (or i (n - 1) / (N - 1) with align_corners) the pixels of one axis
whose floor(s) is c - 1 form cell c, 0 <= c <= n: at a scale of 8, every cell but the two at the border holds 8
of them, whatever the convention. A cell's pixels share their four corners, so one program loads those once a
class and sums the gradient to them without atomics.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

MAX_SIDE = 32
"""Pixels of a cell that one program takes along an axis; larger cells are split."""
LANES = 128
"""Pixels that a program should hold; small cells share one."""


class Axis(NamedTuple):
    """One axis of an upsampling."""

    begin: Tensor
    """int32 [n + 2]: cell c holds the pixels begin[c] .. begin[c + 1] - 1."""
    fraction: Tensor
    """float32 [N]: weight of the second of the two logits between which a pixel lies."""
    side: int
    """Pixels that a program takes: a power of two."""
    splits: int
    """Programs that it takes to cover the largest cell."""


def source_positions(low: int, high: int, align_corners: bool) -> np.ndarray:
    """float32 [high]: where each output lies between the inputs, computed as torch does; may be below 0."""
    index = np.arange(high, dtype=np.float32)
    if align_corners:
        scale = np.float32(low - 1) / np.float32(high - 1) if high > 1 else np.float32(0)
        return scale * index
    scale = np.float32(low) / np.float32(high)
    return scale * (index + np.float32(0.5)) - np.float32(0.5)


# Without a bound: a captured graph keeps the addresses of the tables, which are a few kilobytes each.
@cache
def axis(low: int, high: int, align_corners: bool, device: torch.device) -> Axis:
    """The cells of `high` outputs between `low` inputs. The tables are copied to the device once and kept.

    Raises:
        RuntimeError: the first call for a size while a CUDA graph is being captured, which allows no such copy.
    """
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            f"Upsampling {low} to {high} is new, and its tables cannot be copied to the GPU while a CUDA graph is"
            " being captured. Run the step once before the capture."
        )
    position = source_positions(low, high, align_corners)
    cell = np.clip(np.floor(position).astype(np.int64) + 1, 0, low)
    begin = np.searchsorted(cell, np.arange(low + 2)).astype(np.int32)
    clamped = np.maximum(position, np.float32(0))
    fraction = np.clip(clamped - np.floor(clamped), np.float32(0), np.float32(1)).astype(np.float32)
    largest = int(np.diff(begin).max())
    side = min(1 << (largest - 1).bit_length(), MAX_SIDE)
    return Axis(
        begin=torch.from_numpy(begin).to(device),
        fraction=torch.from_numpy(fraction).to(device),
        side=side,
        splits=-(-largest // side),
    )


class Cells(NamedTuple):
    """Both axes, and how programs share the cells."""

    rows: Axis
    columns: Axis
    per_program: int
    """Neighbouring cells of one strip that a program takes: a power of two."""
    splits: int
    """Programs to a cell."""
    grid: tuple[int, int, int]
    """(groups of cells x splits, strips, images)."""
    warps: int


def cells(batch: int, low: tuple[int, int], high: tuple[int, int], align_corners: bool, device: torch.device) -> Cells:
    """The programs for `batch` images of `low` (h, w) logits upsampled to `high` (H, W)."""
    rows = axis(low[0], high[0], align_corners, device)
    columns = axis(low[1], high[1], align_corners, device)
    pixels = rows.side * columns.side
    per_program = max(1, LANES // pixels)
    splits = rows.splits * columns.splits
    groups = -(-(low[1] + 1) // per_program)
    # One warp for 128 pixels: the sums of a cell then need no barrier.
    return Cells(rows, columns, per_program, splits, (groups * splits, low[0] + 1, batch), max(1, pixels // LANES))
