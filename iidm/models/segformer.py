"""SegFormer's head (arXiv 2105.15203): every level embedded, resized to the finest, summed by a 1x1 convolution."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .levels import LevelHead


class SegFormerHead(LevelHead):
    """A light head: on a backbone with levels of one stride, such as a ViT, it is two layers of 1x1 convolutions."""

    def fuse(self, levels: Sequence[Tensor]) -> Tensor:
        """Levels [B,C_i,h_i,w_i] -> [B,256,h,w] on the grid of the finest."""
        return self.pointwise(self.embedded(levels))
