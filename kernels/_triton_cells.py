"""What the Triton kernels of upsampled logits share: which pixels a program has, and a class's logits there.

Tensors are [Y,C,X]: lines of a cell, cells, columns of a cell. Y stands first, so that a thread has several lines of
one column: what depends on the column alone, half of the interpolation, is computed once for them.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def pixels_of(
    row_begin, row_fraction, column_begin, column_fraction, low_w, SPLITS_X: tl.constexpr, SPLITS: tl.constexpr,
    CELLS: tl.constexpr, SIDE_Y: tl.constexpr, SIDE_X: tl.constexpr,
):  # fmt: skip
    """(cell [C], y [Y,1,1], x [1,C,X], inside [Y,C,X], fraction_y [Y,1,1], fraction_x [1,C,X]) of this program."""
    group = tl.program_id(0) // SPLITS
    split = tl.program_id(0) % SPLITS
    strip = tl.program_id(1)
    cell = group * CELLS + tl.arange(0, CELLS)
    exists = cell <= low_w
    y = tl.load(row_begin + strip) + (split // SPLITS_X) * SIDE_Y + tl.arange(0, SIDE_Y)[:, None, None]
    in_strip = y < tl.load(row_begin + strip + 1)
    x_begin = tl.load(column_begin + cell, mask=exists, other=0)[None, :, None]
    x_end = tl.load(column_begin + cell + 1, mask=exists, other=0)[None, :, None]
    x = x_begin + (split % SPLITS_X) * SIDE_X + tl.arange(0, SIDE_X)[None, None, :]
    in_cell = x < x_end
    fraction_y = tl.load(row_fraction + y, mask=in_strip, other=0.0)
    fraction_x = tl.load(column_fraction + x, mask=in_cell, other=0.0)
    return cell, y, x, in_strip & in_cell, fraction_y, fraction_x


@triton.jit
def corners_of(cell, low_h, low_w, stride_y, stride_x):
    """Offsets [1,C,1] of the four logits around each cell: upper left, upper right, lower left, lower right."""
    strip = tl.program_id(1)
    upper = tl.maximum(strip - 1, 0) * stride_y
    lower = tl.minimum(strip, low_h - 1) * stride_y
    cell = cell[None, :, None]
    left = tl.minimum(tl.maximum(cell - 1, 0), low_w - 1) * stride_x
    right = tl.minimum(cell, low_w - 1) * stride_x
    return upper + left, upper + right, lower + left, lower + right


@triton.jit
def upsampled(logits, upper_left, upper_right, lower_left, lower_right, fraction_y, fraction_x):
    """float32 [Y,C,X]: one class's logits, along x first as torch does. `logits` points at the class.

    The fused products are written out. Left to the compiler, one loop rounded one product first and another loop the
    other, lane by lane (seen for bfloat16 on sm_90): a class's logit had several values in one kernel, and of equal
    classes the first one did not win.
    """
    ul = tl.load(logits + upper_left).to(tl.float32)
    ur = tl.load(logits + upper_right).to(tl.float32)
    ll = tl.load(logits + lower_left).to(tl.float32)
    lr = tl.load(logits + lower_right).to(tl.float32)
    upper = tl.fma(ur, fraction_x, ul * (1 - fraction_x))
    lower = tl.fma(lr, fraction_x, ll * (1 - fraction_x))
    return tl.fma(lower, fraction_y, upper * (1 - fraction_y))


@triton.jit
def sum_all(x):
    """The sum of [Y,C,X], in a fixed order."""
    return tl.sum(tl.sum(tl.sum(x, 0), 1), 0)
