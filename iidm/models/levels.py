"""What heads that read all levels of a backbone share."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from .head import Head, Level
from .norm import BatchNorm2d
from .pointwise import PointwiseConv2d
from .stochastic import Dropout2d

CHANNELS = 256
"""Of each embedded level and of what is classified, in SegFormer's and DAFormer's heads."""


class LevelEmbedding(nn.Linear):
    """A linear map of the channels of each cell, with bias."""

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,h,w] -> [B,outputs,h,w]; channels-last is read and written as it lies."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """[B,C,h,w] on another grid, bilinear; the corners of both are those of the image."""
    if x.shape[2:] == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def sum_of_levels(weight: Tensor, levels: Sequence[Tensor]) -> Tensor:
    """The 1x1 convolution of levels that are resized to the finest and stacked, without stacking them.

    Each level is convolved on its own grid by its part of the weights, then resized and added: convolving cells and
    weighing neighbours are both linear, so their order does not matter but for rounding.

    Args:
        weight: [O, sum of C_i, 1, 1].
        levels: [B,C_i,h_i,w_i], from fine to coarse.

    Returns: [B,O,h,w].
    """
    size = levels[0].shape[2:]
    parts = weight.split([level.shape[1] for level in levels], 1)
    total = F.conv2d(levels[0], parts[0])
    for level, part in zip(levels[1:], parts[1:], strict=True):
        total = total + resized(F.conv2d(level, part), size)
    return total


class LevelHead(Head):
    """Embeds every level and classifies what a subclass fuses them to, on the grid of the finest.

    Args:
        levels: of the backbone, from fine to coarse.
        num_classes: K.
        dropout: chance that a whole channel is dropped before the classifier; SegFormer and DAFormer: 0.1.
    """

    def __init__(self, levels: Sequence[Level], num_classes: int, dropout: float) -> None:
        super().__init__(CHANNELS, levels[0].stride)
        self.embeds = nn.ModuleList(LevelEmbedding(level.channels, CHANNELS) for level in levels)
        self.point, self.point_norm = PointwiseConv2d(CHANNELS * len(levels), CHANNELS), BatchNorm2d(CHANNELS, "relu")
        self.dropout = Dropout2d(dropout)
        self.classify = nn.Conv2d(CHANNELS, num_classes, 1)
        nn.init.normal_(self.classify.weight, 0.0, 0.01)
        nn.init.zeros_(self.classify.bias)  # type: ignore[arg-type]

    def embedded(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Levels [B,C_i,h_i,w_i] -> [B,256,h_i,w_i]."""
        return [embed(level) for embed, level in zip(self.embeds, levels, strict=True)]

    def pointwise(self, embedded: Sequence[Tensor]) -> Tensor:
        """The 1x1 convolution over all embedded levels, BatchNorm and ReLU: [B,256,h,w] on the finest grid."""
        y: Tensor = self.point_norm(sum_of_levels(self.point.weight, embedded))
        return y

    def forward(self, features: Tensor) -> Tensor:
        """float [B,256,h,w] -> logits [B,K,h,w]."""
        logits: Tensor = self.classify(self.dropout(features))
        return logits
