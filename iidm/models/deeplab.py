"""The DeepLabV2 head (arXiv 1606.00915): parallel dilated convolutions, summed."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .head import Head
from .stochastic import Dropout2d

WIDE, FEW = 1024, 32
"""From so many channels to fewer classes the head is faster by taps, in bfloat16 on a CPU (benchmarks/NOTES.md)."""


class DeepLabV2Head(Head):
    """Sum of 3x3 convolutions of several dilations straight to the classes ("ASPP-L"), with bias.

    No image pooling and no hidden layer. Starts at Normal(0, 0.01) with bias 0 (DAFormer's `DLV2Head`).

    Args:
        channels: C of the features.
        stride: image pixels behind each of their cells.
        num_classes: K.
        dilations: one convolution each; DACS and DAFormer use (6, 12).
        dropout: chance that a whole channel is dropped before the convolutions; 0 in DAFormer's `DLV2Head`,
            0.1 in the other heads of its library.
    """

    def __init__(
        self, channels: int, stride: int, num_classes: int, dilations: tuple[int, ...], dropout: float
    ) -> None:
        super().__init__(channels, stride)
        self.wide_to_few = channels >= WIDE and num_classes < FEW
        self.dropout = Dropout2d(dropout)
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
        if self.wide_to_few and features.device.type == "cpu" and features.dtype is torch.bfloat16:
            return self._by_taps(features)
        logits: Tensor = self.convs[0](features)
        for conv in self.convs[1:]:
            logits = torch.add(logits, conv(features))
        return logits

    def _by_taps(self, features: Tensor) -> Tensor:
        """The same sum, over the channels first: one matrix product gives what each tap of each convolution adds, and
        that is added where the tap looks from. oneDNN's convolutions reach a fifth of their rate with 19 outputs."""
        convs = [conv for conv in self.convs if isinstance(conv, nn.Conv2d)]
        taps = torch.cat([conv.weight.flip(2, 3).permute(0, 2, 3, 1).flatten(0, 2) for conv in convs])
        added = torch.matmul(taps.to(features.dtype), features.flatten(2)).float()  # [B, convolutions*K*9, h*w]
        height, width = features.shape[2:]
        logits = torch.zeros((), device=features.device)
        for conv, part in zip(convs, added.chunk(len(convs), 1), strict=True):
            assert conv.bias is not None
            summed = F.fold(part, (height, width), 3, conv.dilation, conv.padding)  # type: ignore[arg-type]
            logits = logits + summed + conv.bias[:, None, None]
        return logits.to(features.dtype, memory_format=torch.channels_last)
