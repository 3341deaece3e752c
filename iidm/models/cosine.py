"""A classifier by cosine similarity (MME, arXiv 1904.06487)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .head import Head
from .stochastic import Dropout2d

TEMPERATURE = 0.05
"""MME's T."""


class CosineHead(Head):
    """W f / (|f| T) in each cell: a 1x1 convolution without bias on features of unit length, T = 0.05.

    The rows of W are the classes' prototypes; they are not normalized themselves, as in MME's code, and start at
    Normal(0, 0.1) as there.

    Args:
        channels: C of the features.
        stride: image pixels behind each of their cells.
        num_classes: K.
        dropout: chance that a whole channel is dropped.
    """

    def __init__(self, channels: int, stride: int, num_classes: int, dropout: float) -> None:
        super().__init__(channels, stride)
        self.dropout = Dropout2d(dropout)
        self.conv = nn.Conv2d(channels, num_classes, 1, bias=False)
        nn.init.normal_(self.conv.weight, 0.0, 0.1)

    def forward(self, features: Tensor) -> Tensor:
        """float [B,C,h,w] -> logits [B,K,h,w]."""
        unit = F.normalize(self.dropout(features).float(), dim=1)
        logits: Tensor = self.conv(unit / TEMPERATURE)
        return logits
