"""Pseudo-labels on a GPU: cell by cell (`_cells.py`), in Triton. Reads the logits, writes a byte a pixel."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._cells import cells
from .._dispatch import TRITON_OPTIONS
from .._triton_cells import corners_of, pixels_of, sum_all, upsampled
from .reference import quality


@triton.jit
def pseudo_label_kernel(
    logits, row_begin, row_fraction, column_begin, column_fraction, label, confidence, confident,
    classes, low_h, low_w, high_h, high_w, stride_b, stride_k, stride_y, stride_x, threshold,
    INCLUSIVE: tl.constexpr, WITH_CONFIDENCE: tl.constexpr,
    SPLITS_X: tl.constexpr, SPLITS: tl.constexpr, CELLS: tl.constexpr, SIDE_Y: tl.constexpr, SIDE_X: tl.constexpr,
):  # fmt: skip
    """logits [B,K,h,w] by its strides; label uint8 and confidence float32 [B,H,W]; confident int32 [B,h+1,grid x]."""
    image = tl.program_id(2).to(tl.int64)
    cell, y, x, inside, fraction_y, fraction_x = pixels_of(
        row_begin, row_fraction, column_begin, column_fraction, low_w, SPLITS_X, SPLITS, CELLS, SIDE_Y, SIDE_X
    )
    ul, ur, ll, lr = corners_of(cell, low_h, low_w, stride_y, stride_x)
    start = logits + image * stride_b
    largest = upsampled(start, ul, ur, ll, lr, fraction_y, fraction_x)
    index = tl.zeros(largest.shape, tl.int32)
    here = start  # stepped, not k * stride_k, which may be beyond int32
    for k in range(1, classes):
        here += stride_k
        value = upsampled(here, ul, ur, ll, lr, fraction_y, fraction_x)
        index = tl.where(value > largest, k, index)
        largest = tl.maximum(largest, value)
    total = tl.zeros_like(largest)
    here = start
    for _ in range(classes):
        total += tl.exp(upsampled(here, ul, ur, ll, lr, fraction_y, fraction_x) - largest)
        here += stride_k
    # The largest softmax value is exp(0) over the shifted sum.
    certainty = 1.0 / total
    at = (image * high_h + y) * high_w + x
    tl.store(label + at, index.to(tl.uint8), mask=inside)
    if WITH_CONFIDENCE:
        tl.store(confidence + at, certainty, mask=inside)
    if INCLUSIVE:
        sure = inside & (certainty >= threshold)
    else:
        sure = inside & (certainty > threshold)
    program = (image * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(0) + tl.program_id(0)
    tl.store(confident + program, sum_all(sure.to(tl.int32)))


def pseudo_label(
    logits: Tensor,
    size: tuple[int, int],
    threshold: float,
    align_corners: bool,
    inclusive: bool,
    per_batch: bool,
    with_confidence: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `iidm.kernels.pseudo_label.pseudo_label`; the confidence is empty unless asked for."""
    batch, classes, low_h, low_w = logits.shape
    plan = cells(batch, (low_h, low_w), size, align_corners, logits.device)
    label = torch.empty((batch, *size), dtype=torch.uint8, device=logits.device)
    confidence = torch.empty((batch, *size) if with_confidence else (0,), dtype=torch.float32, device=logits.device)
    confident = torch.empty((batch, plan.grid[1], plan.grid[0]), dtype=torch.int32, device=logits.device)
    pseudo_label_kernel[plan.grid](
        logits, plan.rows.begin, plan.rows.fraction, plan.columns.begin, plan.columns.fraction,
        label, confidence, confident,
        classes, low_h, low_w, *size, *logits.stride(), threshold,
        INCLUSIVE=inclusive, WITH_CONFIDENCE=with_confidence,
        SPLITS_X=plan.columns.splits, SPLITS=plan.splits, CELLS=plan.per_program,
        SIDE_Y=plan.rows.side, SIDE_X=plan.columns.side, num_warps=plan.warps, **TRITON_OPTIONS,
    )  # fmt: skip
    return label, quality(confident.sum((1, 2)), size, per_batch), confidence
