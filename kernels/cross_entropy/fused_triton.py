"""Upsampling and cross-entropy on a GPU: cell by cell (`_cells.py`), in Triton.

Three kernels. The first computes loss and gradient of each cell's pixels and sums the gradient to the cell's
four corners, each into a plane of its own: nothing is added atomically. The second sums the losses and forms
the normalizer, in a fixed order. The third adds the four planes, shifted, and applies the normalizer. So the
result is the same bit for bit from run to run, which PyTorch's own pair is not.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._cells import cells
from .._dispatch import TRITON_OPTIONS
from .._triton_cells import corners_of, pixels_of, sum_all, upsampled

ADD_BLOCK = 256
FINISH_BLOCK, FINISH_WARPS = 4096, 16


@triton.jit
def cross_entropy_kernel(
    logits, label, weight, class_weight, row_begin, row_fraction, column_begin, column_fraction,
    planes, losses, valid,
    classes, low_h, low_w, high_h, high_w, stride_b, stride_k, stride_y, stride_x,
    WEIGHT_DIM: tl.constexpr, CLASS_WEIGHT: tl.constexpr, WITH_GRAD: tl.constexpr,
    SPLITS_X: tl.constexpr, SPLITS: tl.constexpr, CELLS: tl.constexpr, SIDE_Y: tl.constexpr, SIDE_X: tl.constexpr,
):  # fmt: skip
    """planes float32 [SPLITS,2,2,B,K,h+1,w+1]; losses float32 and valid int32, one of each a program."""
    image = tl.program_id(2).to(tl.int64)
    cell, y, x, inside, fraction_y, fraction_x = pixels_of(
        row_begin, row_fraction, column_begin, column_fraction, low_w, SPLITS_X, SPLITS, CELLS, SIDE_Y, SIDE_X
    )
    ul, ur, ll, lr = corners_of(cell, low_h, low_w, stride_y, stride_x)
    start = logits + image * stride_b
    at = (image * high_h + y) * high_w + x
    truth = tl.load(label + at, mask=inside, other=255).to(tl.int32)
    known = truth < classes
    factor = known.to(tl.float32)
    if CLASS_WEIGHT:
        factor = tl.load(class_weight + truth, mask=known, other=0.0)
    # Selected, not multiplied: a weight of inf or NaN on an ignored pixel must stay without effect.
    if WEIGHT_DIM == 1:
        factor = tl.where(known, factor * tl.load(weight + image), 0.0)
    if WEIGHT_DIM == 3:
        factor = tl.where(known, factor * tl.load(weight + at, mask=known, other=0.0), 0.0)

    largest = upsampled(start, ul, ur, ll, lr, fraction_y, fraction_x)
    at_truth = tl.where(truth == 0, largest, 0.0)
    here = start  # stepped, not k * stride_k, which may be beyond int32
    for k in range(1, classes):
        here += stride_k
        value = upsampled(here, ul, ur, ll, lr, fraction_y, fraction_x)
        at_truth = tl.where(truth == k, value, at_truth)
        largest = tl.maximum(largest, value)
    total = tl.zeros_like(largest)
    here = start
    for _ in range(classes):
        total += tl.exp(upsampled(here, ul, ur, ll, lr, fraction_y, fraction_x) - largest)
        here += stride_k
    loss = factor * (tl.log(total) + (largest - at_truth))
    # A label without a class cannot raise without stopping the device: it shows as a NaN loss.
    loss = tl.where((truth >= classes) & (truth != 255), float("nan"), loss)
    loss = tl.where(inside, loss, 0.0)
    program = (image * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(0) + tl.program_id(0)
    tl.store(losses + program, sum_all(loss))
    tl.store(valid + program, sum_all((truth != 255).to(tl.int32)))

    if WITH_GRAD:
        exists = cell <= low_w
        split = tl.program_id(0) % SPLITS
        plane = (low_h + 1) * (low_w + 1)
        corner = tl.num_programs(2).to(tl.int64) * classes * plane
        out = planes + split * 4 * corner + image * classes * plane + tl.program_id(1) * (low_w + 1) + cell
        scale = factor / total
        along = tl.sum(fraction_x, 0)  # of the one line that it has: [C,X], as sums over lines are
        here = start
        for k in range(classes):
            value = upsampled(here, ul, ur, ll, lr, fraction_y, fraction_x)
            grad = tl.exp(value - largest) * scale - tl.where(truth == k, factor, 0.0)
            lower = tl.sum(grad * fraction_y, 0)
            upper = tl.sum(grad, 0) - lower
            tl.store(out, tl.sum(upper * (1 - along), 1), mask=exists)
            tl.store(out + corner, tl.sum(upper * along, 1), mask=exists)
            tl.store(out + 2 * corner, tl.sum(lower * (1 - along), 1), mask=exists)
            tl.store(out + 3 * corner, tl.sum(lower * along, 1), mask=exists)
            here += stride_k
            out += plane


@triton.jit
def finish_kernel(losses, valid, programs, pixels, loss, scale, NORMALIZER: tl.constexpr, BLOCK: tl.constexpr):
    """loss float32 [] normalized, scale float32 [] = 1 / normalizer. One program; sums in float64."""
    lane = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float64)
    counted = tl.zeros((BLOCK,), tl.int64)
    for begin in range(0, programs, BLOCK):
        mask = begin + lane < programs
        total += tl.load(losses + begin + lane, mask=mask, other=0.0).to(tl.float64)
        counted += tl.load(valid + begin + lane, mask=mask, other=0).to(tl.int64)
    factor = tl.full((), 1.0, tl.float64)
    if NORMALIZER == "pixels":
        factor = factor / pixels
    if NORMALIZER == "valid":
        factor = factor / tl.maximum(tl.sum(counted, 0), 1)
    tl.store(loss, (tl.sum(total, 0) * factor).to(tl.float32))
    tl.store(scale, factor.to(tl.float32))


@triton.jit
def add_planes_kernel(planes, scale, grad, low_h, low_w, SPLITS: tl.constexpr, BLOCK: tl.constexpr):
    """grad float32 [B,K,h,w]: each logit takes what the cells around it gave to it. A fixed order, no atomics.

    Row i is the upper corner of strip i + 1 and the lower one of strip i; strip 0 gives to row 0 alone, and so
    does the last strip to the last row. Columns likewise. A program has logits of one image and class, whose places are
    int32: divisions of int64 would cost more than the sums.
    """
    map_BK = tl.program_id(0).to(tl.int64)
    size = low_h * low_w
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    exists = at < size
    x = at % low_w
    y = at // low_w
    plane = (low_h + 1) * (low_w + 1)
    start = planes + map_BK * plane
    corner = tl.num_programs(0).to(tl.int64) * plane
    total = tl.zeros((BLOCK,), tl.float32)
    for split in range(SPLITS):
        for row in tl.static_range(4):
            strip = y + (1 if row == 0 else 0)
            takes_y = exists
            if row == 2:
                strip = tl.zeros_like(y)
                takes_y = exists & (y == 0)
            if row == 3:
                strip = y + 1
                takes_y = exists & (y == low_h - 1)
            lower = 1 if (row == 1 or row == 3) else 0
            for column in tl.static_range(4):
                cell = x + (1 if column == 0 else 0)
                takes = takes_y
                if column == 2:
                    cell = tl.zeros_like(x)
                    takes = takes_y & (x == 0)
                if column == 3:
                    cell = x + 1
                    takes = takes_y & (x == low_w - 1)
                right = 1 if (column == 1 or column == 3) else 0
                offset = (split * 4 + lower * 2 + right) * corner + strip * (low_w + 1) + cell
                total += tl.load(start + offset, mask=takes, other=0.0)
    tl.store(grad + map_BK * size + at, total * tl.load(scale), mask=exists)


def cross_entropy(
    logits: Tensor,
    label: Tensor,
    weight: Tensor | None,
    class_weight: Tensor | None,
    normalizer: str,
    align_corners: bool,
    with_grad: bool,
) -> tuple[Tensor, Tensor]:
    """See `iidm.kernels.cross_entropy.reference.cross_entropy`."""
    batch, classes, low_h, low_w = logits.shape
    size = (label.shape[1], label.shape[2])
    plan = cells(batch, (low_h, low_w), size, align_corners, logits.device)
    label = label.contiguous()
    weight = None if weight is None else weight.contiguous()
    class_weight = None if class_weight is None else class_weight.contiguous()

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=logits.device)

    programs = plan.grid[0] * plan.grid[1] * plan.grid[2]
    losses, valid = empty(programs), empty(programs, dtype=torch.int32)
    planes = empty(plan.splits, 2, 2, batch, classes, low_h + 1, low_w + 1) if with_grad else losses
    cross_entropy_kernel[plan.grid](
        logits, label, label if weight is None else weight, label if class_weight is None else class_weight,
        plan.rows.begin, plan.rows.fraction, plan.columns.begin, plan.columns.fraction,
        planes, losses, valid,
        classes, low_h, low_w, *size, *logits.stride(),
        WEIGHT_DIM=0 if weight is None else weight.dim(), CLASS_WEIGHT=class_weight is not None, WITH_GRAD=with_grad,
        SPLITS_X=plan.columns.splits, SPLITS=plan.splits, CELLS=plan.per_program,
        SIDE_Y=plan.rows.side, SIDE_X=plan.columns.side, num_warps=plan.warps, **TRITON_OPTIONS,
    )  # fmt: skip
    loss, scale = empty(), empty()
    finish_kernel[(1,)](
        losses, valid, programs, label.numel(), loss, scale,
        NORMALIZER=normalizer, BLOCK=FINISH_BLOCK, num_warps=FINISH_WARPS, **TRITON_OPTIONS,
    )  # fmt: skip
    if not with_grad:
        return loss, empty(0)
    grad = empty(batch, classes, low_h, low_w)
    add_planes_kernel[(batch * classes, triton.cdiv(low_h * low_w, ADD_BLOCK))](
        planes, scale, grad, low_h, low_w, SPLITS=plan.splits, BLOCK=ADD_BLOCK, **TRITON_OPTIONS
    )
    return loss, grad
