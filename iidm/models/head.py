"""What stands between a backbone's feature maps and the logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn


class Level(NamedTuple):
    """One of the feature maps of a backbone."""

    channels: int
    stride: int
    """Image pixels behind each cell, in both directions."""


class Head(nn.Module):
    """Makes one feature map of a backbone's levels (`fuse`), and logits of that (`forward`).

    Args:
        channels: C of what is classified.
        stride: image pixels behind each cell of it, and of the logits.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.channels, self.stride = channels, stride

    @property
    def name(self) -> str:
        """As `--model.head` has it."""
        return type(self).__name__.removesuffix("Head").lower()

    def fuse(self, levels: Sequence[Tensor]) -> Tensor:
        """Levels [B,C_i,h_i,w_i], from fine to coarse -> [B,C,h,w]; here the deepest level as it is."""
        return levels[-1]

    def forward(self, features: Tensor) -> Tensor:
        """float [B,C,h,w] -> logits [B,K,h,w]."""
        raise NotImplementedError
