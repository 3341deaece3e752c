"""DAFormer's head (arXiv 2111.14887): every level embedded, resized to the finest, and seen by dilated separable
convolutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .depthwise import DepthwiseConv2d
from .head import Level
from .levels import CHANNELS, LevelHead, resized
from .norm import BatchNorm2d
from .pointwise import PointwiseConv2d

DILATIONS = (6, 12, 18)


class DAFormerHead(LevelHead):
    """Context-aware fusion of all levels: 3.7 million parameters on MiT-B5's.

    Its 1x1 branch is linear up to its BatchNorm, so it is computed on each level at that level's own size and summed at
    the finest: a third of the arithmetic, the same up to rounding.
    """

    def __init__(self, levels: Sequence[Level], num_classes: int, dropout: float) -> None:
        super().__init__(levels, num_classes, dropout)
        wide = CHANNELS * len(levels)
        self.dilated = nn.ModuleList(SeparableConv2d(wide, CHANNELS, dilation) for dilation in DILATIONS)
        self.bottleneck = nn.Conv2d(CHANNELS * (1 + len(DILATIONS)), CHANNELS, 3, padding=1, bias=False)
        self.bottleneck_norm = BatchNorm2d(CHANNELS, "relu")

    def fuse(self, levels: Sequence[Tensor]) -> Tensor:
        """Levels [B,C_i,h_i,w_i] -> [B,256,h,w] on the grid of the finest."""
        embedded = self.embedded(levels)
        wide = torch.cat([resized(level, levels[0].shape[2:]) for level in embedded], 1)
        branches = [self.pointwise(embedded), *(dilated(wide) for dilated in self.dilated)]
        fused: Tensor = self.bottleneck_norm(self.bottleneck(torch.cat(branches, 1)))
        return fused


class SeparableConv2d(nn.Module):
    """A dilated depthwise 3x3 and a 1x1 convolution, each with BatchNorm and ReLU."""

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.depthwise = DepthwiseConv2d(inputs, dilation=dilation)
        self.depthwise_norm = BatchNorm2d(inputs, "relu")
        self.pointwise, self.pointwise_norm = PointwiseConv2d(inputs, outputs), BatchNorm2d(outputs, "relu")

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,h,w] -> [B,outputs,h,w]."""
        x = self.depthwise_norm(self.depthwise(x))
        y: Tensor = self.pointwise_norm(self.pointwise(x))
        return y
