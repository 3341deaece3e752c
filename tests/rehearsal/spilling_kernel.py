"""A Triton kernel that holds more than a thread has registers."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def spilling_kernel(x, SIZE: tl.constexpr):
    """x [2 SIZE]: SIZE / 32 numbers of each half in a thread of one warp, for longer than it can hold them."""
    at = tl.arange(0, SIZE)
    first = tl.load(x + at)
    second = tl.load(x + SIZE + at)
    total = tl.sum(first * second, 0)
    tl.store(x + at, first * total + second)
