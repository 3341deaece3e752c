"""The fused kernels against float64, by one rule: no further from the truth than PyTorch in the same dtype.

Logits are rounded to their dtype first, so the truth is that of the numbers which both sides get.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from bodies import tested_with
from torch import Tensor

from iidm.kernels.blur import blur
from iidm.kernels.blur.reference import taps
from iidm.kernels.cross_entropy import cross_entropy
from iidm.kernels.jitter import normalize
from iidm.kernels.pseudo_label import pseudo_label

TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2}
DTYPES = list(TOLERANCE)
SHAPES = [
    (2, 19, (16, 16), (128, 128)),  # the 8x cells
    (1, 2, (17, 17), (129, 129)),
    (1, 19, (1, 1), (1, 1)),
    (2, 5, (8, 7), (63, 50)),
    (1, 255, (5, 9), (40, 71)),
    (1, 3, (63, 4), (500, 3)),
    (3, 1, (2, 2), (9, 9)),
]


def no_further(kernel: Tensor, torch_same: Tensor, truth: Tensor, dtype: torch.dtype) -> None:
    """|truth - kernel| <= |truth - PyTorch| + tolerance, in the largest error of the tensor."""
    ours = float((kernel.double() - truth).abs().max())
    theirs = float((torch_same.double() - truth).abs().max())
    assert ours <= theirs + TOLERANCE[dtype], (ours, theirs)


def logits_and_label(
    batch: int, classes: int, low: tuple[int, int], size: tuple[int, int], dtype: torch.dtype, spread: float
) -> tuple[Tensor, Tensor]:
    logits = (torch.randn(batch, classes, *low) * spread).to(dtype).contiguous(memory_format=torch.channels_last)
    label = torch.randint(0, classes, (batch, *size), dtype=torch.uint8)
    return logits, label.masked_fill(torch.rand(label.shape) < 0.2, 255)


def plain_loss(logits: Tensor, label: Tensor, weight: Tensor, align_corners: bool) -> Tensor:
    full = F.interpolate(logits, size=list(label.shape[1:]), mode="bilinear", align_corners=align_corners)
    loss = F.cross_entropy(full, label.long(), ignore_index=255, reduction="none")
    return (loss * weight.to(loss.dtype).view(-1, 1, 1)).mean()


def with_gradient(function: Callable[[Tensor], Tensor], logits: Tensor) -> tuple[Tensor, Tensor]:
    leaf = logits.detach().clone().requires_grad_()
    loss = function(leaf)
    loss.backward()
    assert leaf.grad is not None
    return loss.detach(), leaf.grad


@tested_with("fused")
@pytest.mark.parametrize("spread", [1.0, 30.0])  # 30: nearly every pixel is certain
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_cross_entropy_and_its_gradient(
    shape: tuple[int, int, tuple[int, int], tuple[int, int]], dtype: torch.dtype, align_corners: bool, spread: float
) -> None:
    logits, label = logits_and_label(*shape, dtype, spread)
    weight = torch.rand(shape[0])
    truth = with_gradient(lambda x: plain_loss(x, label, weight, align_corners), logits.double())
    same = with_gradient(lambda x: plain_loss(x, label, weight, align_corners), logits)
    ours = with_gradient(lambda x: cross_entropy(x, label, weight, align_corners=align_corners), logits)
    for kernel, torch_same, exact in zip(ours, same, truth, strict=True):
        no_further(kernel, torch_same, exact, dtype)


@tested_with("fused")
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_confidence(
    shape: tuple[int, int, tuple[int, int], tuple[int, int]], dtype: torch.dtype, align_corners: bool
) -> None:
    logits, label = logits_and_label(*shape, dtype, 3.0)
    size = (label.shape[1], label.shape[2])

    def plain(x: Tensor) -> Tensor:
        full = F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)
        return full.softmax(1).amax(1)

    ours = pseudo_label(logits, size, 0.9, align_corners=align_corners, with_confidence=True)
    assert ours.confidence is not None
    no_further(ours.confidence, plain(logits), plain(logits.double()), dtype)
    share = (ours.confidence > 0.9).float().mean((1, 2))
    torch.testing.assert_close(ours.quality, share, atol=1e-6, rtol=0)


@tested_with("fused", "emulated")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(1, 1), (63, 500), (32, 33)])
def test_blur(size: tuple[int, int], dtype: torch.dtype) -> None:
    image = torch.randn(2, 3, *size).to(dtype).contiguous(memory_format=torch.channels_last)
    sigma, on = torch.tensor([0.3, 1.15]), torch.ones(2, dtype=torch.bool)
    weight = taps(sigma, on, 5).to(dtype)

    def plain(x: Tensor, half: Tensor) -> Tensor:
        kernel = torch.cat([half.flip(1), half[:, 1:]], 1).to(x.dtype)
        rows = [reflected(size[0], i) for i in range(-5, size[0] + 5)]
        columns = [reflected(size[1], i) for i in range(-5, size[1] + 5)]
        padded = x[:, :, rows][:, :, :, columns]
        out = []
        for picture, k in zip(padded, kernel, strict=True):
            down = F.conv2d(picture[:, None], k.view(1, 1, -1, 1))
            out.append(F.conv2d(down, k.view(1, 1, 1, -1))[:, 0])
        return torch.stack(out)

    truth = plain(image.double(), taps(sigma.double(), on, 5).double())
    no_further(blur(image, sigma, on), plain(image, weight), truth, dtype)


def reflected(size: int, i: int) -> int:
    """Where position i of a line is found, by walking: one step inward for each beyond the end."""
    if size == 1:
        return 0
    place, step = 0, 1
    for _ in range(abs(i)):
        if not 0 <= place + step < size:
            step = -step
        place += step
    return place


@tested_with("fused", "emulated")
@pytest.mark.parametrize("dtype", DTYPES)
def test_normalize(dtype: torch.dtype) -> None:
    image = torch.randint(0, 256, (2, 31, 63, 3), dtype=torch.uint8)
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

    def plain(kind: torch.dtype) -> Tensor:
        x = image.to(kind).permute(0, 3, 1, 2)
        return (x - torch.tensor(mean, dtype=kind).view(3, 1, 1)) / torch.tensor(std, dtype=kind).view(3, 1, 1)

    no_further(normalize(image, mean=mean, std=std, dtype=dtype), plain(dtype), plain(torch.float64), dtype)
