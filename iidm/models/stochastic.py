"""Layers that draw random numbers in training: dropout and stochastic depth, from a generator that can be given.

Without one they draw from torch's global generator, whose state is in a checkpoint too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd


class Dropout2d(_DropoutNd):
    """Drops whole channels of an image, and scales the others by 1 / (1 - p).

    Args:
        p: chance that a channel is dropped, 0 <= p < 1.
    """

    generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,h,w] -> the same; in evaluation and with p = 0 the input itself."""
        if not self.training or self.p == 0:
            return x
        draws = torch.rand(x.shape[:2], generator=self.generator, device=x.device)
        return x * ((draws >= self.p).to(x.dtype) / (1 - self.p))[:, :, None, None]


class StochasticDepth(_DropoutNd):
    """The factors of the residual branches of a whole network (arXiv 1603.09382), drawn per image.

    All of a forward's are drawn at once, outside the blocks, so that a block which is computed again in the backward
    has the same ones, and image by image: on a CPU branches in one pass draw what they would one after the other, where
    no other layer draws too.

    Args:
        rates: chance of each residual branch to be dropped, 0 <= rate < 1.
    """

    generator: torch.Generator | None = None
    rates: Tensor

    def __init__(self, rates: Sequence[float]) -> None:
        super().__init__(max(rates, default=0.0))
        # On the device: a captured graph cannot copy numbers from the host.
        self.register_buffer("rates", torch.tensor(rates), persistent=False)

    def forward(self, images: int, device: torch.device) -> list[Tensor | None]:
        """Of each residual branch: float32 [images], 0 or 1 / (1 - rate); None in evaluation and where nothing is ever
        dropped."""
        if not self.training or self.p == 0:
            return [None] * len(self.rates)
        draws = torch.rand(images, len(self.rates), generator=self.generator, device=device)
        factors = (draws >= self.rates).float() / (1 - self.rates)
        return list(factors.unbind(1))

    def extra_repr(self) -> str:
        """The highest rate and how many there are."""
        return f"up to {self.p:g}, {len(self.rates)} branches"


def draw_from(network: nn.Module, generator: torch.Generator | None) -> None:
    """Let every layer of this module's kinds draw from `generator`; it must be of the device of the network."""
    for module in network.modules():
        if isinstance(module, (Dropout2d, StochasticDepth)):
            module.generator = generator
