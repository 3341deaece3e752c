"""Calls of every Triton kernel at awkward sizes, with outputs that begin as NaN, for the sanitizer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

CLASSES = 3
# (pixels, logits), align_corners, dtype: whole cells; odd ones; cells that several programs share; one; no upsampling.
UPSAMPLINGS: list[tuple[tuple[tuple[int, int], tuple[int, int]], bool, torch.dtype]] = [
    (((16, 24), (2, 3)), False, torch.float32),
    (((13, 10), (2, 2)), True, torch.bfloat16),
    (((70, 3), (2, 1)), False, torch.float32),
    (((1, 1), (1, 1)), False, torch.float32),
    (((4, 5), (4, 5)), False, torch.bfloat16),
]
# channels, images of each group, pixels, activation
NORMALIZATIONS = [
    (5, [2, 1, 1], (3, 5), "relu"),
    (70, [1, 2], (4, 4), "none"),
    (24, [3], (9, 7), "relu6"),
    (1, [1, 1], (1, 2), "relu"),
]


def channels_last(*shape: int) -> Tensor:
    return torch.randn(*shape).contiguous(memory_format=torch.channels_last)


def cross_entropy(module: ModuleType) -> Iterator[list[Tensor]]:
    weightings = itertools.cycle([("none", "sum"), ("image", "valid"), ("pixel", "pixels")])
    for ((height, width), low), align_corners, dtype in UPSAMPLINGS:
        weighting, normalizer = next(weightings)
        logits = channels_last(2, CLASSES, *low).to(dtype)
        label = torch.randint(0, CLASSES, (2, height, width), dtype=torch.uint8)
        label = label.masked_fill(torch.rand(label.shape) < 0.2, 255)
        weight = {"none": None, "image": torch.rand(2), "pixel": torch.rand(2, height, width)}[weighting]
        class_weight = torch.rand(CLASSES) if weighting == "image" else None
        yield list(module.cross_entropy(logits, label, weight, class_weight, normalizer, align_corners, True))


def pseudo_label(module: ModuleType) -> Iterator[list[Tensor]]:
    for (size, low), align_corners, dtype in UPSAMPLINGS:
        logits = channels_last(2, CLASSES, *low).to(dtype)
        yield list(module.pseudo_label(logits, size, 0.5, align_corners, True, False, True))


def batch_norm(module: ModuleType) -> Iterator[list[Tensor]]:
    for channels, groups, pixels, activation in NORMALIZATIONS:
        x, residual, grad = (channels_last(sum(groups), channels, *pixels) for _ in range(3))
        weight, bias, mean, var = (
            torch.rand(channels),
            torch.rand(channels),
            torch.zeros(channels),
            torch.ones(channels),
        )
        y, *statistics = module.batch_norm(x, residual, weight, bias, mean, var, 0.1, 1e-5, groups, activation)
        yield [y, *statistics, mean, var]
        yield list(module.batch_norm_backward(grad, x, y, *statistics, weight, groups, activation, True))


LAUNCHES: dict[str, Callable[[ModuleType], Iterator[list[Tensor]]]] = {
    "cross_entropy": cross_entropy,
    "pseudo_label": pseudo_label,
    "batch_norm": batch_norm,
}
KERNELS = {
    "cross_entropy": {"cross_entropy_kernel", "finish_kernel", "add_planes_kernel"},
    "pseudo_label": {"pseudo_label_kernel"},
    "batch_norm": {
        "sums_kernel", "finish_forward_kernel", "normalize_kernel", "finish_backward_kernel", "gradient_kernel"
    },
}  # fmt: skip
"""Names of the kernels of each op."""


def unwritten(op: str, module: ModuleType) -> Iterator[int]:
    """Runs the op's kernels of `module`; for each call how many numbers of its results are NaN, as memory is here that
    nobody wrote."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with np.errstate(all="ignore"):  # lanes that are masked divide by zero
            for results in LAUNCHES[op](module):
                yield sum(int(t.isnan().sum()) for t in results if t.is_floating_point())
    finally:
        torch.use_deterministic_algorithms(False)
