"""What networks and methods remember beside their parameters, where a step has several batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Memories:
    """Buffers (BatchNorm's statistics, prototypes, class counts) in a step of several batches.

    Each batch finds them as they were before the step, and the step leaves the mean of what the batches made of them:
    as on several devices with a batch each, none of which sees the others. One batch after the other would move them
    several times a step, and a prototype's memory, which is a share of the steps, would be shorter.

    Args:
        modules: whose buffers; read when this is made. Buffers that are no fractions are what the first batch made.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._buffers = list(dict.fromkeys(buffer for module in modules for buffer in module.buffers()))
        self._before = [buffer.clone() for buffer in self._buffers]
        self._after: list[list[Tensor]] = []

    @contextmanager
    def of_one_batch(self) -> Iterator[None]:
        """Around a batch."""
        if self._after:
            torch._foreach_copy_(self._buffers, self._before)
        yield
        self._after.append([buffer.clone() for buffer in self._buffers])

    @torch.no_grad()
    def settle(self) -> None:
        """After the last batch: put the mean into the buffers."""
        for buffer, made in zip(self._buffers, zip(*self._after, strict=True), strict=True):
            if buffer.is_floating_point():
                total = made[0].clone()  # one after the other, as ranks add theirs
                for other in made[1:]:
                    total += other
                buffer.copy_(total.div_(len(made)))
            else:
                buffer.copy_(made[0])
