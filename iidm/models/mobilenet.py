"""MobileNetV2 (arXiv 1801.04381) as a backbone, in torchvision's parameter names."""

from __future__ import annotations

from torch import Tensor, nn

from ..types import UserError
from .depthwise import DepthwiseConv2d
from .head import Level
from .norm import BatchNorm2d, Stage
from .resnet import initialize

SETTINGS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, blocks, stride of each stage (the paper's Table 2)."""

LEVELS = ((3, 24, 4), (6, 32, 8), (13, 96, 16), (17, 320, 32))
"""The last block at each stride: its number, channels, stride."""


class ConvNormActivation(nn.Sequential):
    """Convolution, BatchNorm with ReLU6; torchvision's keys 0 and 1."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__(convolution, BatchNorm2d(convolution.out_channels, "relu6"))


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1; a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int, dilation: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        parts: list[nn.Module] = []
        if expansion != 1:
            parts.append(ConvNormActivation(nn.Conv2d(inputs, hidden, 1, bias=False)))
        parts += [
            ConvNormActivation(DepthwiseConv2d(hidden, stride, dilation)),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            BatchNorm2d(outputs),
        ]
        self.conv = nn.ModuleList(parts)
        self.shortcut = inputs == outputs
        # torchvision decides by the stride too; no stage here starts with a stride and equal channels.
        assert stride == 1 or not self.shortcut

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for part in list(self.conv)[:-1]:
            out = part(out)
        y: Tensor = self.conv[-1](out, x if self.shortcut else None)
        return y


class MobileNetV2(nn.Module):
    """torchvision's `features` 0 to 17: 320 channels.

    Its last 1x1 convolution to 1280 channels (`features.18`) is left out: it serves the classifier, and the
    head's 3x3 convolutions on 1280 channels would cost four times as much. At output stride 16 and 8 the
    later strides become 1; their depthwise convolutions get no dilation unless `dilate` is set, since dilated
    ones are slower on a CPU.

    Args:
        output_stride: 8, 16 or 32.
        dilate: put the lost strides into dilation, as DeepLabV3 does; the features on the grid of stride 32
            are then those of the undilated network.

    Raises:
        UserError: another output stride.
    """

    def __init__(self, *, output_stride: int, dilate: bool = False) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise UserError(f"MobileNetV2 has output stride 8, 16 or 32, not {output_stride} (--model.output-stride).")
        features: list[nn.Module] = [ConvNormActivation(nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False))]
        channels, reached, dilation = 32, 2, 1
        for expansion, outputs, blocks, stride in SETTINGS:
            # The block that loses its stride still reads its neighbours at the distance of the stage before.
            first_dilation = dilation
            if stride == 2 and reached == output_stride:
                stride, dilation = 1, (dilation * 2 if dilate else 1)
            reached *= stride
            features.append(InvertedResidual(channels, outputs, expansion, stride, first_dilation))
            features += [InvertedResidual(outputs, outputs, expansion, 1, dilation) for _ in range(1, blocks)]
            channels = outputs
        self.features = Stage(*features)
        self.levels = tuple(Level(channels, min(stride, output_stride)) for _, channels, stride in LEVELS)
        initialize(self)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """float [B,3,H,W] -> a map for each of `levels`: [B,C,ceil(H/stride),ceil(W/stride)]."""
        ends = [end for end, _, _ in LEVELS]
        return tuple(out for number, out in enumerate(self.features.outputs(x)) if number in ends)
