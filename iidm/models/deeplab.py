"""The DeepLabV2 head (arXiv 1606.00915): parallel dilated convolutions, summed."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DeepLabV2Head(nn.Module):
    """Sum of 3x3 convolutions of several dilations straight to the classes ("ASPP-L"), with bias.

    No image pooling and no hidden layer. Starts at Normal(0, 0.01) with bias 0 (DAFormer's `DLV2Head`).

    Args:
        channels: C of the features.
        num_classes: K.
        dilations: one convolution each; DACS and DAFormer use (6, 12).
        dropout: chance that a whole channel is dropped before the convolutions; 0 in DAFormer's `DLV2Head`,
            0.1 in the other heads of its library.
    """

    def __init__(self, channels: int, num_classes: int, dilations: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(dropout) if dropout > 0 else nn.Identity()
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, num_classes, 3, padding=dilation, dilation=dilation) for dilation in dilations
        )
        for conv in self.convs:
            assert isinstance(conv, nn.Conv2d) and conv.bias is not None
            nn.init.normal_(conv.weight, 0.0, 0.01)
            nn.init.zeros_(conv.bias)

    def forward(self, features: Tensor) -> Tensor:
        """float [B,C,h,w] -> logits [B,K,h,w]."""
        features = self.dropout(features)
        logits: Tensor = self.convs[0](features)
        for conv in self.convs[1:]:
            logits = torch.add(logits, conv(features))
        return logits
