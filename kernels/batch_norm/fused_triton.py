"""Batch normalization of groups on a GPU, three kernels in each direction: sums, their end, one pass that writes.

The activations are a matrix [pixels, channels]. The rows of a group are split among `splits` programs for each tile of
channels; their partial sums are added in a fixed order, without atomics: the same bits from run to run.
"""

from __future__ import annotations

from functools import cache
from itertools import accumulate
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._dispatch import TRITON_OPTIONS

MAX_CHANNELS = 64
"""Channels of a tile."""
TILE = 4096
"""Numbers of a tile that is written."""
SUMMED_BYTES = 8192
"""Of a tile that is added up: 32 for each thread."""
STAGES = 3
"""Of a program of the sums: a tile is added up while the next is on its way. Both, of three tensors, fill 48 KB."""
PROGRAMS = 256
"""Programs among which the sums of a layer are split: few, as each waits for memory when it begins, and then reads
ahead (benchmarks/NOTES.md has what more and fewer take on an H200)."""
MAX_SPLITS = 256
"""Of a group and tile: one group of 64 channels still has two programs for each processor."""
FINISH_CHANNELS = 8
"""Channels whose sums one program ends: a sector of 32 bytes."""
WARPS = 8


class Plan(NamedTuple):
    """How a matrix is cut."""

    starts: Tensor
    """int32 [G + 1]: first row of each group, and the number of all."""
    groups: int
    block_groups: int
    """A power of two, at least the groups."""
    block_rows: int
    summed_rows: int
    """Of a tile that is added up."""
    block_channels: int
    splits: int
    """A power of two."""
    rows: int
    """Of the largest group."""
    finish_warps: int
    """Of a program that ends the sums of 8 channels: eight sums or more a thread."""


# Without a bound: a captured graph keeps the addresses of these tables, which are a few bytes each.
@cache
def _starts(groups: tuple[int, ...], pixels: int, device: torch.device) -> Tensor:
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            f"Groups of {groups} images are new, and their table cannot be copied to the GPU while a CUDA graph is"
            " being captured. Run the step once before the capture."
        )
    return torch.tensor([n * pixels for n in accumulate(groups, initial=0)], dtype=torch.int32, device=device)


def plan_of(x: Tensor, groups: list[int]) -> Plan:
    """The plan of a layer, whatever the GPU."""
    pixels, channels = x.shape[2] * x.shape[3], x.shape[1]
    block_channels = min(triton.next_power_of_2(channels), MAX_CHANNELS)
    block_rows, summed_rows = TILE // block_channels, SUMMED_BYTES // (block_channels * x.element_size())
    rows = max(groups) * pixels
    block_groups = triton.next_power_of_2(len(groups))
    tiles = triton.cdiv(channels, block_channels) * block_groups
    wanted = min(triton.cdiv(PROGRAMS, tiles), triton.cdiv(rows, summed_rows), MAX_SPLITS)
    splits = triton.next_power_of_2(wanted)
    warps = min(max(block_groups * splits * FINISH_CHANNELS // 256, 1), 16)
    starts = _starts(tuple(groups), pixels, x.device)
    return Plan(starts, len(groups), block_groups, block_rows, summed_rows, block_channels, splits, rows, warps)


def launches(plan: Plan, channels: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the kernels that write a tile are launched with, and what those are that add one up."""
    each = {"ROWS": plan.block_rows, "CHANNELS": plan.block_channels, "num_warps": WARPS, **TRITON_OPTIONS}
    # Triton knows by `channels` alone that rows are aligned. Where they are not, tiles would wait in registers: 180.
    return each, {**each, "ROWS": plan.summed_rows, "STAGES": STAGES if channels % 16 == 0 else 1}


@triton.jit
def masked(grad, y, ACTIVATION: tl.constexpr):
    """The gradient in front of the activation, by what came out of it."""
    if ACTIVATION == "relu":
        grad = tl.where(y <= 0, 0.0, grad)
    if ACTIVATION == "relu6":
        grad = tl.where((y <= 0) | (y >= 6), 0.0, grad)
    return grad


@triton.jit
def sums_kernel(
    x, grad, y, mean, starts, partial, channels,
    ACTIVATION: tl.constexpr, BACKWARD: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """partial float32 [G,2,S,C]. Forward: sums of x - pilot and of its square, where the pilot is the group's first
    row: digits are lost only as far as it lies from the mean. Backward: sums of the masked gradient and of its product
    with x - mean."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    split, splits, group = tl.program_id(1), tl.num_programs(1), tl.program_id(2)
    exists = channel < channels
    begin, end = tl.load(starts + group), tl.load(starts + group + 1)
    if BACKWARD:
        centre = tl.load(mean + group * channels + channel, mask=exists, other=0.0)
    else:
        centre = tl.load(x + begin.to(tl.int64) * channels + channel, mask=exists, other=0.0).to(tl.float32)
    first = tl.zeros((ROWS, CHANNELS), tl.float32)
    second = tl.zeros((ROWS, CHANNELS), tl.float32)
    for start in tl.range(begin + split * ROWS, end, splits * ROWS, num_stages=STAGES):
        row = start + tl.arange(0, ROWS)
        inside = (row < end)[:, None] & exists[None, :]
        at = row.to(tl.int64)[:, None] * channels + channel[None, :]
        distance = tl.load(x + at, mask=inside, other=0.0).to(tl.float32) - centre[None, :]
        if BACKWARD:
            value = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32)
            if ACTIVATION != "none":
                value = masked(value, tl.load(y + at, mask=inside, other=0.0).to(tl.float32), ACTIVATION)
            first += value
            second += value * distance
        else:
            distance = tl.where(inside, distance, 0.0)
            first += distance
            second += distance * distance
    out = partial + ((group * 2 * splits + split) * channels + channel)
    tl.store(out, tl.sum(first, 0), mask=exists)
    tl.store(out + splits * channels, tl.sum(second, 0), mask=exists)


@triton.jit
def sums_of(partial, group, channel, kept, channels, SPLITS: tl.constexpr):
    """The first and second sums float32 [G,C] over all splits; of all groups at once, to wait for memory once."""
    split = tl.arange(0, SPLITS)[None, :, None]
    here = partial + (group[:, None, None] * (2 * SPLITS) + split) * channels + channel[None, None, :]
    first = tl.sum(tl.load(here, mask=kept[:, None, :], other=0.0), 1)
    second = tl.sum(tl.load(here + SPLITS * channels, mask=kept[:, None, :], other=0.0), 1)
    return first, second


@triton.jit
def finish_forward_kernel(
    partial, x, starts, weight, bias, running_mean, running_var, mean, rstd, factors,
    groups, channels, momentum, eps,
    GROUPS: tl.constexpr, SPLITS: tl.constexpr, RUNNING: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Mean and rstd [G,C], the running ones, and factors float32 [G,2,C]: y = factor_0 x + factor_1."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    exists = channel < channels
    group = tl.arange(0, GROUPS)
    kept = (group < groups)[:, None] & exists[None, :]
    begin = tl.load(starts + group, mask=group < groups, other=0)
    count = (tl.load(starts + group + 1, mask=group < groups, other=1) - begin).to(tl.float32)[:, None]
    pilot_at = begin.to(tl.int64)[:, None] * channels + channel[None, :]
    pilot = tl.load(x + pilot_at, mask=kept, other=0.0).to(tl.float32)
    gamma = tl.load(weight + channel, mask=exists, other=0.0)[None, :]
    beta = tl.load(bias + channel, mask=exists, other=0.0)[None, :]
    first, second = sums_of(partial, group, channel, kept, channels, SPLITS)
    distance = first / count
    variance = tl.maximum(second / count - distance * distance, 0.0)
    centre = pilot + distance
    scale = 1.0 / tl.sqrt(variance + eps)
    out = group[:, None] * channels + channel[None, :]
    tl.store(mean + out, centre, mask=kept)
    tl.store(rstd + out, scale, mask=kept)
    out = group[:, None] * (2 * channels) + channel[None, :]
    tl.store(factors + out, gamma * scale, mask=kept)
    tl.store(factors + out + channels, beta - centre * gamma * scale, mask=kept)
    if RUNNING:
        unbiased = variance * count / (count - 1)
        new_mean = tl.load(running_mean + channel, mask=exists, other=0.0)
        new_var = tl.load(running_var + channel, mask=exists, other=0.0)
        for turn in range(groups):
            here = (group == turn)[:, None]
            new_mean = (1 - momentum) * new_mean + momentum * tl.sum(tl.where(here, centre, 0.0), 0)
            new_var = (1 - momentum) * new_var + momentum * tl.sum(tl.where(here, unbiased, 0.0), 0)
        tl.store(running_mean + channel, new_mean, mask=exists)
        tl.store(running_var + channel, new_var, mask=exists)


@triton.jit
def finish_backward_kernel(
    partial, starts, weight, mean, rstd, grad_weight, grad_bias, factors, groups, channels,
    GROUPS: tl.constexpr, SPLITS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Gradients of weight and bias [C]; factors [G,3,C]: the gradient of x is factor_0 g + factor_1 x + factor_2."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    exists = channel < channels
    group = tl.arange(0, GROUPS)
    kept = (group < groups)[:, None] & exists[None, :]
    begin = tl.load(starts + group, mask=group < groups, other=0)
    count = (tl.load(starts + group + 1, mask=group < groups, other=1) - begin).to(tl.float32)[:, None]
    at = group[:, None] * channels + channel[None, :]
    gamma = tl.load(weight + channel, mask=exists, other=0.0)[None, :]
    scale = tl.load(rstd + at, mask=kept, other=0.0)
    centre = tl.load(mean + at, mask=kept, other=0.0)
    total, projected = sums_of(partial, group, channel, kept, channels, SPLITS)
    # Not `*=`: fused into the sum over groups, each lane would round in its own way, and any of them may store.
    projected = tl.where(kept, projected * scale, 0.0)
    by_grad = gamma * scale
    by_x = -by_grad * scale * projected / count
    out = factors + group[:, None] * (3 * channels) + channel[None, :]
    tl.store(out, by_grad, mask=kept)
    tl.store(out + channels, by_x, mask=kept)
    tl.store(out + 2 * channels, -by_grad * total / count - by_x * centre, mask=kept)
    tl.store(grad_weight + channel, tl.sum(projected, 0), mask=exists)
    tl.store(grad_bias + channel, tl.sum(total, 0), mask=exists)


@triton.jit
def tile_of(starts, channels, ROWS: tl.constexpr, CHANNELS: tl.constexpr):
    """(group, channel [N], exists [N], inside [M,N], at [M,N]) of this program: where its numbers lie."""
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    group = tl.program_id(2)
    exists = channel < channels
    row = tl.load(starts + group) + tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = (row < tl.load(starts + group + 1))[:, None] & exists[None, :]
    return group, channel, exists, inside, row.to(tl.int64)[:, None] * channels + channel[None, :]


@triton.jit
def normalize_kernel(
    x, residual, factors, starts, y, channels,
    RESIDUAL: tl.constexpr, ACTIVATION: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """y = activation(factor_0 x + factor_1 + residual)."""
    group, channel, exists, inside, at = tile_of(starts, channels, ROWS, CHANNELS)
    scale = tl.load(factors + group * 2 * channels + channel, mask=exists, other=0.0)[None, :]
    shift = tl.load(factors + (group * 2 + 1) * channels + channel, mask=exists, other=0.0)[None, :]
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32) * scale + shift
    if RESIDUAL:
        value += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
    if ACTIVATION != "none":
        value = tl.where(value < 0, 0.0, value)
    if ACTIVATION == "relu6":
        value = tl.where(value > 6, 6.0, value)
    tl.store(y + at, value.to(y.dtype.element_ty), mask=inside)


@triton.jit
def gradient_kernel(
    grad, x, y, factors, starts, grad_x, grad_residual, channels,
    RESIDUAL: tl.constexpr, ACTIVATION: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """grad_x = factor_0 g + factor_1 x + factor_2, and grad_residual = g, where g is the masked gradient."""
    group, channel, exists, inside, at = tile_of(starts, channels, ROWS, CHANNELS)
    factor = factors + group * 3 * channels + channel
    by_grad = tl.load(factor, mask=exists, other=0.0)[None, :]
    by_x = tl.load(factor + channels, mask=exists, other=0.0)[None, :]
    offset = tl.load(factor + 2 * channels, mask=exists, other=0.0)[None, :]
    value = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32)
    if ACTIVATION != "none":
        value = masked(value, tl.load(y + at, mask=inside, other=0.0).to(tl.float32), ACTIVATION)
    if RESIDUAL:
        tl.store(grad_residual + at, value.to(grad_residual.dtype.element_ty), mask=inside)
    out = by_grad * value + (by_x * tl.load(x + at, mask=inside, other=0.0).to(tl.float32) + offset)
    tl.store(grad_x + at, out.to(grad_x.dtype.element_ty), mask=inside)


def batch_norm(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float,
    eps: float,
    groups: list[int],
    activation: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `iidm.kernels.batch_norm.reference.batch_norm`."""
    plan, channels = plan_of(x, groups), x.shape[1]
    each, sums = launches(plan, channels)
    tiles = triton.cdiv(channels, plan.block_channels)

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=x.device)

    partial, factors = empty(plan.groups, 2, plan.splits, channels), empty(plan.groups, 2, channels)
    mean, rstd, y = empty(plan.groups, channels), empty(plan.groups, channels), torch.empty_like(x)
    sums_kernel[(tiles, plan.splits, plan.groups)](
        x, x, x, x, plan.starts, partial, channels, ACTIVATION="none", BACKWARD=False, **sums
    )
    finish_forward_kernel[(triton.cdiv(channels, FINISH_CHANNELS),)](
        partial, x, plan.starts, weight, bias,
        mean if running_mean is None else running_mean, rstd if running_var is None else running_var,
        mean, rstd, factors, plan.groups, channels, momentum, eps,
        GROUPS=plan.block_groups, SPLITS=plan.splits, RUNNING=running_mean is not None, CHANNELS=FINISH_CHANNELS,
        num_warps=plan.finish_warps, **TRITON_OPTIONS,
    )  # fmt: skip
    normalize_kernel[(triton.cdiv(plan.rows, plan.block_rows), tiles, plan.groups)](
        x, x if residual is None else residual, factors, plan.starts, y, channels,
        RESIDUAL=residual is not None, ACTIVATION=activation, **each,
    )  # fmt: skip
    return y, mean, rstd


def batch_norm_backward(
    grad: Tensor,
    x: Tensor,
    y: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor,
    groups: list[int],
    activation: str,
    has_residual: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `iidm.kernels.batch_norm.reference.batch_norm_backward`."""
    plan, channels = plan_of(x, groups), x.shape[1]
    each, sums = launches(plan, channels)
    tiles = triton.cdiv(channels, plan.block_channels)
    wanted = has_residual and activation != "none"
    to_x, to_weight, to_bias = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)
    to_residual = torch.empty_like(x) if wanted else x.new_empty(0)
    partial = torch.empty((plan.groups, 2, plan.splits, channels), dtype=torch.float32, device=x.device)
    factors = torch.empty((plan.groups, 3, channels), dtype=torch.float32, device=x.device)
    sums_kernel[(tiles, plan.splits, plan.groups)](
        x, grad, y, mean, plan.starts, partial, channels, ACTIVATION=activation, BACKWARD=True, **sums
    )
    finish_backward_kernel[(triton.cdiv(channels, FINISH_CHANNELS),)](
        partial, plan.starts, weight, mean, rstd, to_weight, to_bias, factors, plan.groups, channels,
        GROUPS=plan.block_groups, SPLITS=plan.splits, CHANNELS=FINISH_CHANNELS,
        num_warps=plan.finish_warps, **TRITON_OPTIONS,
    )  # fmt: skip
    gradient_kernel[(triton.cdiv(plan.rows, plan.block_rows), tiles, plan.groups)](
        grad, x, y, factors, plan.starts, to_x, to_residual if wanted else to_x, channels,
        RESIDUAL=wanted, ACTIVATION=activation, **each,
    )  # fmt: skip
    return to_x, to_residual, to_weight, to_bias
