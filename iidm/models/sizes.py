"""Whether a backbone from elsewhere sees images of any size: tried on shapes alone, before anything is trained."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import nn

from .head import Level
from .timm_weights import in_one_line


def unseen(backbone: nn.Module, sizes: Iterable[tuple[int, int]], *, spare: int) -> tuple[tuple[int, int], str] | None:
    """The first of the sizes (H, W) whose images a backbone does not see as its `levels` say, and why not.

    Args:
        backbone: says its `levels`, and returns a map for each.
        sizes: which its levels' strides divide.
        spare: cells that a map may have more or less in each direction.

    None where it sees them all, and where an op of the backbone cannot be tried without numbers, or takes as long
    without them: an LSTM is computed step by step.
    """
    if any(isinstance(module, nn.RNNBase) for module in backbone.modules()):
        return None
    twin = _without_numbers(backbone)
    levels = cast("tuple[Level, ...]", backbone.levels)
    for height, width in sizes:
        try:
            with torch.no_grad(), torch.device("meta"):
                found = [tuple(level.shape) for level in twin(torch.empty(2, 3, height, width))]
        except Exception as error:
            # A model of one size asserts it, or cannot view or add what it was not built for, in kinds of their own.
            reason = in_one_line(error)
            return None if re.search(r"\bmeta\b", str(error), re.IGNORECASE) else ((height, width), reason)
        expected = [(2, level.channels, height // level.stride, width // level.stride) for level in levels]
        off = [abs(a - b) for pair in zip(found, expected, strict=False) for a, b in zip(*pair, strict=False)]
        same = [shape[:2] for shape in found] == [shape[:2] for shape in expected]
        if not same or max(off) > spare:
            return (height, width), f"its maps are {_grids(found)}, not {_grids(expected)}"
    return None


def _without_numbers(module: nn.Module) -> nn.Module:
    """A copy for evaluation whose tensors are shapes alone: it costs neither memory nor time."""
    known: dict[int, Any] = {id(one): torch.empty_like(one, device="meta") for one in module.buffers()}
    for parameter in module.parameters():
        known[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
    return copy.deepcopy(module, known).eval()


def _grids(shapes: Iterable[tuple[int, ...]]) -> str:
    """Shapes [B,C,h,w] for people."""
    return ", ".join("x".join(map(str, shape[1:])) for shape in shapes)
