"""Drawn calls of every op: awkward shapes, layouts and values. Run by `__main__.py` with the sanitizers' library."""

from __future__ import annotations

import importlib.util
import math
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.bfloat16)
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
EXTREMES = (float("nan"), float("inf"), -float("inf"), 3e38, -3e38, 1e-45, 0.0, -0.0)
SIDES = (0, 1, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 67)
"""Of images; 0 is refused, the others meet every remainder of a vector's width."""
CLASSES = (1, 2, 3, 5, 7, 8, 16, 17, 19, 33, 254, 255, 256)


def use(extension: Path) -> None:
    """Let `iidm.kernels` have this extension in place of the one that is installed."""
    name = "iidm.kernels._C"
    spec = importlib.util.spec_from_file_location(name, extension)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[name] = module
    from iidm.kernels._extension import extension as used

    assert used is module, "the ops call another extension"


class Draw:
    """Values of one case."""

    def __init__(self, number: int) -> None:
        self.random = random.Random(number)
        torch.manual_seed(number)

    def side(self) -> int:
        """Pixels, rarely none."""
        side = self.random.choice(SIDES)
        return side if side or self.random.random() < 0.1 else 1

    def batch(self) -> int:
        """Images, rarely none."""
        return self.random.choice((0, 1, 1, 1, 2, 2, 3, 5)) if self.random.random() < 0.2 else self.random.randint(1, 3)

    def is_so(self) -> bool:
        """True or False."""
        return self.random.random() < 0.5

    def floats(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Numbers around zero, sometimes with NaN, infinities and the largest ones, in any layout."""
        values = torch.randn(shape) * self.random.choice((0.1, 1.0, 30.0))
        if values.numel() and self.random.random() < 0.3:
            places = torch.randint(values.numel(), (self.random.randint(1, 8),))
            values.view(-1)[places] = torch.tensor([self.random.choice(EXTREMES) for _ in places])
        return self.laid_out(values.to(dtype or self.random.choice(FLOATS)))

    def ids(self, *shape: int, classes: int = 256) -> Tensor:
        """uint8 labels: of the classes, ignored ones, and sometimes those of no class."""
        top = 256 if self.random.random() < 0.2 else min(classes, 255)
        label = torch.randint(0, max(top, 1), shape, dtype=torch.uint8)
        return self.laid_out(label.masked_fill(torch.rand(shape) < 0.2, 255))

    def laid_out(self, value: Tensor) -> Tensor:
        """The same values dense, channels-last, with large or other strides, behind an offset, or expanded."""
        kind = self.random.randrange(6)
        if kind == 1 and value.dim() == 4:
            return value.contiguous(memory_format=torch.channels_last)
        if kind == 2 and value.dim() >= 2:
            return value.transpose(0, -1).contiguous().transpose(0, -1)
        if kind == 3 and value.dim() >= 1:
            wide = torch.empty([*value.shape[:-1], 3 * value.shape[-1] + 1], dtype=value.dtype)
            return wide[..., 1::3][..., : value.shape[-1]].copy_(value)
        if kind == 4:
            flat = torch.empty(value.numel() + 1, dtype=value.dtype)[1:]
            return flat.view(value.shape).copy_(value)
        if kind == 5 and value.dim() >= 1 and value.shape[0] > 1:
            return value[:1].expand(value.shape)
        return value

    def jitter(self, batch: int) -> Any:
        """Parameters, also far beyond those that are drawn in training."""
        from iidm.kernels.jitter import JitterParams

        order = torch.stack([torch.randperm(4) for _ in range(batch)]) if batch else torch.zeros(0, 4).long()
        numbers = [self.floats(batch, dtype=torch.float32) for _ in range(4)]
        return JitterParams(torch.rand(batch) < 0.7, *numbers, order)


def upsampled(draw: Draw) -> tuple[Tensor, Tensor]:
    """Logits [B,K,h,w] and a label [B,H,W]."""
    batch, classes = draw.batch(), draw.random.choice(CLASSES)
    height, width = draw.side(), draw.side()
    ratio = draw.random.choice((1, 2, 4, 8, 8, 16))
    low = (math.ceil(height / ratio), math.ceil(width / ratio)) if draw.is_so() else (draw.side(), draw.side())
    return draw.floats(batch, classes, *low), draw.ids(batch, height, width, classes=classes)


def cross_entropy(draw: Draw) -> None:
    """Loss and gradient."""
    from iidm.kernels.cross_entropy import cross_entropy as op

    logits, label = upsampled(draw)
    logits.requires_grad_(draw.is_so())
    weight = draw.random.choice([None, (len(label),), tuple(label.shape)])
    loss = op(
        logits,
        label,
        None if weight is None else draw.floats(*weight, dtype=torch.float32),
        class_weight=draw.floats(logits.shape[1], dtype=torch.float32) if draw.is_so() else None,
        normalizer=draw.random.choice(["sum", "pixels", "valid"]),  # type: ignore[arg-type]
        align_corners=draw.is_so(),
    )
    if loss.requires_grad:
        loss.backward()


def pseudo_label(draw: Draw) -> None:
    """Labels and quality."""
    from iidm.kernels.pseudo_label import pseudo_label as op

    logits, label = upsampled(draw)
    size = (label.shape[1], label.shape[2])
    threshold = draw.random.choice((0.0, 0.5, 0.968, 1.0))
    op(logits, size, threshold, align_corners=draw.is_so(), inclusive=draw.is_so(), with_confidence=draw.is_so())


def confusion_matrix(draw: Draw) -> None:
    """Counts."""
    from iidm.kernels.confusion_matrix import confusion_matrix as op

    op(*upsampled(draw), align_corners=draw.is_so(), check=draw.is_so())


def draw_classes(draw: Draw) -> None:
    """Classes of labels."""
    from iidm.kernels.classmix import draw_classes as op

    batch = draw.batch()
    label, keys = draw.ids(batch, draw.side(), draw.side()), draw.floats(batch, 256, dtype=torch.float32)
    op(
        label,
        keys,
        from_batch=draw.is_so(),
        rounding=draw.random.choice(["ceil", "floor"]),
        include_ignored=draw.is_so(),
    )


def _images(draw: Draw, shape: Sequence[int]) -> Tensor:
    return draw.laid_out(torch.randint(0, 256, (*shape, 3), dtype=torch.uint8))


def classmix(draw: Draw) -> None:
    """Pasting, jitter, normalization."""
    from iidm.kernels.classmix import classmix as op

    shape = (draw.batch(), draw.side(), draw.side())
    op(
        _images(draw, shape),
        draw.ids(*shape),
        _images(draw, shape),
        draw.ids(*shape),
        draw.floats(*(shape if draw.is_so() else shape[:1]), dtype=torch.float32),
        draw.laid_out(torch.rand(shape[0], 256) < 0.5),
        draw.jitter(shape[0]) if draw.is_so() else None,
        pasted_weight=draw.random.choice((None, 1.0)),
        mean=MEAN,
        std=STD,
        dtype=draw.random.choice((*FLOATS, torch.float16)),
        margins=(draw.random.choice((0, 0, 1, 7, 1000)), draw.random.choice((0, 0, 1, 7, 1000, 2**31 - 1))),
    )


def jitter(draw: Draw) -> None:
    """Colour jitter and normalization."""
    from iidm.kernels.jitter import jitter as op

    shape = (draw.batch(), draw.side(), draw.side())
    dtype = draw.random.choice((*FLOATS, torch.float16))
    op(_images(draw, shape), draw.jitter(shape[0]) if draw.is_so() else None, mean=MEAN, std=STD, dtype=dtype)


def blur(draw: Draw) -> None:
    """Gaussian blur."""
    from iidm.kernels.blur import blur as op

    batch = draw.batch()
    image, sigma = draw.floats(batch, 3, draw.side(), draw.side()), draw.floats(batch, dtype=torch.float32)
    op(image, sigma, torch.rand(batch) < 0.7, radius=draw.random.choice((0, 1, 2, 5, 24, 25, 26)))


def batch_norm(draw: Draw) -> None:
    """Normalization in groups, and its gradients."""
    from iidm.kernels.batch_norm import batch_norm as op

    batch, channels = draw.batch(), draw.random.choice((1, 3, 8, 15, 16, 17, 64, 70))
    shape = (batch, channels, draw.side(), draw.side())
    x = draw.floats(*shape).requires_grad_(draw.is_so())
    cuts = sorted(draw.random.randint(0, batch) for _ in range(draw.random.randrange(3)))
    ends = [*cuts, batch]
    groups = [end - start for start, end in zip([0, *cuts], ends, strict=True)]
    statistics = [draw.floats(channels, dtype=torch.float32).abs() for _ in range(2)] if draw.is_so() else [None, None]
    y = op(
        x,
        draw.floats(channels, dtype=torch.float32).requires_grad_(x.requires_grad),
        draw.floats(channels, dtype=torch.float32),
        *statistics,
        residual=draw.floats(*shape, dtype=x.dtype) if draw.is_so() else None,
        activation=draw.random.choice(["none", "relu", "relu6"]),  # type: ignore[arg-type]
        groups=groups if draw.is_so() else None,
    )
    if y.requires_grad:
        y.backward(draw.floats(*y.shape, dtype=y.dtype))


def depthwise(draw: Draw) -> None:
    """Convolution and its gradients."""
    from iidm.kernels.depthwise import depthwise as op

    channels = draw.random.choice((1, 3, 8, 15, 16, 17, 64, 70))
    x = draw.floats(draw.batch(), channels, draw.side(), draw.side()).requires_grad_(draw.is_so())
    weight = draw.floats(channels, 1, 3, 3, dtype=x.dtype).requires_grad_(draw.is_so())
    y = op(x, weight, stride=draw.random.choice((1, 1, 2, 3)), dilation=draw.random.choice((1, 2, 3, 6, 18, 70)))
    if y.requires_grad:
        y.backward(draw.floats(*y.shape, dtype=y.dtype))


OPS: tuple[Callable[[Draw], None], ...] = (
    cross_entropy,
    pseudo_label,
    confusion_matrix,
    draw_classes,
    classmix,
    jitter,
    blur,
    batch_norm,
    depthwise,
)


def main(extension: Path, first: int, count: int) -> None:
    """Call the ops, a line before each case that names it, and one at the end: how many ran, and how many were refused,
    which no kernel has seen."""
    use(extension)
    ends: Counter[str] = Counter()
    refused = 0
    for number in range(first, first + count):
        op = OPS[number % len(OPS)]
        print(number, op.__name__, flush=True)
        try:
            op(Draw(number))
            ends[op.__name__] += 1
        except (ValueError, TypeError):  # what an op refuses: empty images, labels of no class, 256 classes
            refused += 1
    ran = ", ".join(f"{name} {ends[name]}" for name in sorted(ends))
    print(f"{ends.total()} of {count} calls ran ({ran}), {refused} were refused")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
