"""ResNet (arXiv 1512.03385) as a dilated backbone, in torchvision's and OpenMMLab's parameter names.

v1 has the 7x7 stem; v1c (arXiv 1812.01187, OpenMMLab's `ResNetV1c`) three 3x3 convolutions in its place. The
stride of a bottleneck lies in its 3x3 convolution ("pytorch" style); the first block of a dilated stage uses
half of its dilation (OpenMMLab's `contract_dilation`), so a bottleneck network's features on the grid of
stride 32 are those of the undilated one.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..types import UserError
from .head import Level
from .norm import BatchNorm2d, Stage
from .pointwise import PointwiseConv2d

STAGES: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {
    32: ((1, 2, 2, 2), (1, 1, 1, 1)),
    16: ((1, 2, 2, 1), (1, 1, 1, 2)),
    8: ((1, 2, 1, 1), (1, 1, 2, 4)),
}
"""Output stride -> strides and dilations of the four stages."""


def conv3x3(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """3x3 convolution that keeps the size at stride 1."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; stride and dilation lie in the first, the second has none (OpenMMLab)."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int, dilation: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv3x3(inputs, planes, stride, dilation), BatchNorm2d(planes, "relu")
        self.conv2, self.bn2 = conv3x3(planes, planes), BatchNorm2d(planes, "relu")
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y: Tensor = self.bn2(self.conv2(self.bn1(self.conv1(x))), shortcut)
        return y


class Bottleneck(nn.Module):
    """1x1, 3x3 (stride and dilation), 1x1."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int, dilation: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1, self.bn1 = PointwiseConv2d(inputs, planes), BatchNorm2d(planes, "relu")
        self.conv2, self.bn2 = conv3x3(planes, planes, stride, dilation), BatchNorm2d(planes, "relu")
        self.conv3, self.bn3 = PointwiseConv2d(planes, planes * 4), BatchNorm2d(planes * 4, "relu")
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        y: Tensor = self.bn3(self.conv3(out), shortcut)
        return y


class ResNet(nn.Module):
    """The four stages without pooling and classifier.

    Args:
        block: BasicBlock (18) or Bottleneck (50, 101).
        depths: blocks of each stage.
        output_stride: 8, 16 or 32.
        deep_stem: v1c.

    Raises:
        UserError: another output stride.
    """

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        depths: tuple[int, ...],
        *,
        output_stride: int,
        deep_stem: bool,
    ) -> None:
        super().__init__()
        if output_stride not in STAGES:
            raise UserError(f"A ResNet has output stride 8, 16 or 32, not {output_stride} (--model.output-stride).")
        if deep_stem:
            self.stem: nn.Sequential | None = nn.Sequential(
                *_conv_bn_relu(3, 32, stride=2), *_conv_bn_relu(32, 32), *_conv_bn_relu(32, 64)
            )
        else:
            self.stem = None
            self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False), BatchNorm2d(64, "relu")
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        strides, dilations = STAGES[output_stride]
        self.channels = 64
        self.layer1 = self._stage(block, 64, depths[0], strides[0], dilations[0])
        self.layer2 = self._stage(block, 128, depths[1], strides[1], dilations[1])
        self.layer3 = self._stage(block, 256, depths[2], strides[2], dilations[2])
        self.layer4 = self._stage(block, 512, depths[3], strides[3], dilations[3])
        self.levels = tuple(
            Level(planes * block.expansion, min(stride, output_stride))
            for planes, stride in ((64, 4), (128, 8), (256, 16), (512, 32))
        )
        initialize(self)

    def _stage(
        self, block: type[BasicBlock | Bottleneck], planes: int, depth: int, stride: int, dilation: int
    ) -> Stage:
        outputs = planes * block.expansion
        downsample = None
        if stride != 1 or self.channels != outputs:
            downsample = nn.Sequential(PointwiseConv2d(self.channels, outputs, stride), BatchNorm2d(outputs))
        blocks = [block(self.channels, planes, stride, max(dilation // 2, 1), downsample)]
        blocks += [block(outputs, planes, 1, dilation, None) for _ in range(1, depth)]
        self.channels = outputs
        return Stage(*blocks)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """float [B,3,H,W] -> the four stages' outputs, as `levels` says: [B,C,ceil(H/stride),ceil(W/stride)]."""
        x = self.bn1(self.conv1(x)) if self.stem is None else self.stem(x)
        found = []
        x = self.maxpool(x)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            found.append(x)
        return tuple(found)


def _conv_bn_relu(inputs: int, outputs: int, stride: int = 1) -> tuple[nn.Module, ...]:
    # The third keeps OpenMMLab's numbering: its ReLU is in the norm layer.
    return conv3x3(inputs, outputs, stride), BatchNorm2d(outputs, "relu"), nn.Identity()


def initialize(module: nn.Module) -> None:
    """Random start: He's normal (fan out, as torchvision and OpenMMLab) for convolutions; BatchNorm as it is.

    The last BatchNorm of a residual block does not start at 0, as it does in OpenMMLab's random start: AdamW
    moves a weight by about the learning rate a step, so at 6e-5 such a block would stay all but shut for the
    first thousands of steps.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def resnet18(output_stride: int, deep_stem: bool) -> ResNet:
    """ResNet-18: 512 channels."""
    return ResNet(BasicBlock, (2, 2, 2, 2), output_stride=output_stride, deep_stem=deep_stem)


def resnet50(output_stride: int, deep_stem: bool) -> ResNet:
    """ResNet-50: 2048 channels."""
    return ResNet(Bottleneck, (3, 4, 6, 3), output_stride=output_stride, deep_stem=deep_stem)


def resnet101(output_stride: int, deep_stem: bool) -> ResNet:
    """ResNet-101: 2048 channels; with v1c the paper's backbone."""
    return ResNet(Bottleneck, (3, 4, 23, 3), output_stride=output_stride, deep_stem=deep_stem)
