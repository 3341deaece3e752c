"""What the Triton kernels of upsampled logits share: which pixels a program has, and a class's logits there."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def pixels_of(
    row_begin, row_fraction, column_begin, column_fraction, low_w, SPLITS_X: tl.constexpr, SPLITS: tl.constexpr,
    CELLS: tl.constexpr, SIDE_Y: tl.constexpr, SIDE_X: tl.constexpr,
):  # fmt: skip
    """(cell [C], y [1,P], x [C,P], inside [C,P], fraction_y [1,P], fraction_x [C,P]) of this program."""
    group = tl.program_id(0) // SPLITS
    split = tl.program_id(0) % SPLITS
    strip = tl.program_id(1)
    pixel = tl.arange(0, SIDE_Y * SIDE_X)
    cell = group * CELLS + tl.arange(0, CELLS)
    exists = cell <= low_w
    y = tl.load(row_begin + strip) + (split // SPLITS_X) * SIDE_Y + pixel // SIDE_X
    in_strip = y < tl.load(row_begin + strip + 1)
    x_begin = tl.load(column_begin + cell, mask=exists, other=0)
    x_end = tl.load(column_begin + cell + 1, mask=exists, other=0)
    x = x_begin[:, None] + ((split % SPLITS_X) * SIDE_X + pixel % SIDE_X)[None, :]
    inside = in_strip[None, :] & (x < x_end[:, None])
    fraction_y = tl.load(row_fraction + y, mask=in_strip, other=0.0)[None, :]
    fraction_x = tl.load(column_fraction + x, mask=inside, other=0.0)
    return cell, y[None, :], x, inside, fraction_y, fraction_x


@triton.jit
def corners_of(cell, low_h, low_w, stride_y, stride_x):
    """Offsets [C] of the four logits around each cell: upper left, upper right, lower left, lower right."""
    strip = tl.program_id(1)
    upper = tl.maximum(strip - 1, 0) * stride_y
    lower = tl.minimum(strip, low_h - 1) * stride_y
    left = tl.minimum(tl.maximum(cell - 1, 0), low_w - 1) * stride_x
    right = tl.minimum(cell, low_w - 1) * stride_x
    return upper + left, upper + right, lower + left, lower + right


@triton.jit
def upsampled(logits, upper_left, upper_right, lower_left, lower_right, fraction_y, fraction_x):
    """float32 [C,P]: one class's logits, along x first as torch does. `logits` points at the class."""
    ul = tl.load(logits + upper_left).to(tl.float32)[:, None]
    ur = tl.load(logits + upper_right).to(tl.float32)[:, None]
    ll = tl.load(logits + lower_left).to(tl.float32)[:, None]
    lr = tl.load(logits + lower_right).to(tl.float32)[:, None]
    upper = ul * (1 - fraction_x) + ur * fraction_x
    lower = ll * (1 - fraction_x) + lr * fraction_x
    return upper * (1 - fraction_y) + lower * fraction_y
