"""The fused kernels on a GPU against plain PyTorch on the CPU, at sizes that fill many blocks and use whole vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest
import torch
from torch import Tensor

from iidm import kernels
from iidm.kernels.batch_norm import batch_norm
from iidm.kernels.blur import MAX_RADIUS, blur
from iidm.kernels.classmix import classmix, draw_classes
from iidm.kernels.confusion_matrix import confusion_matrix
from iidm.kernels.cross_entropy import cross_entropy
from iidm.kernels.jitter import JitterParams, draw_jitter, jitter
from iidm.kernels.pseudo_label import pseudo_label

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
SIZES = [(512, 512), (250, 333)]
TOLERANCE = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
Result = TypeVar("Result")


def both(
    call: Callable[[Callable[[Tensor], Tensor]], Result], plain: Callable[[Tensor], Tensor] = lambda t: t
) -> tuple[Result, Result]:
    """The call with fused kernels on the GPU, and with plain PyTorch on the CPU; it gets what moves inputs there."""
    try:
        kernels.set_implementation("fused", "cuda")
        ours = call(lambda t: t.cuda())
        kernels.set_implementation("reference", "cpu")
        return ours, call(plain)
    finally:
        kernels.set_implementation("auto", "cpu")


def moved(params: JitterParams, to: Callable[[Tensor], Tensor]) -> JitterParams:
    return JitterParams(*(to(p) for p in params))


def random_label(size: tuple[int, int], classes: int) -> Tensor:
    label = torch.randint(0, classes, (2, *size), dtype=torch.uint8)
    return label.masked_fill(torch.rand(label.shape) < 0.2, 255)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("size", SIZES)
def test_classmix_and_jitter(size: tuple[int, int], dtype: torch.dtype) -> None:
    image, base = (torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8) for _ in range(2))
    label, base_label, weight = random_label(size, 19), random_label(size, 19), torch.rand(2, *size)
    params, keys = draw_jitter(2, 0.2, 1.0, False, None, "cpu"), torch.rand(2, 256)

    def call(to: Callable[[Tensor], Tensor]) -> list[Tensor]:
        selected = draw_classes(to(label), to(keys), include_ignored=True)
        mix = classmix(
            to(image), to(label), to(base), to(base_label), to(weight), selected, moved(params, to),
            pasted_weight=None, mean=MEAN, std=STD, dtype=dtype, margins=(3, 7),
        )  # fmt: skip
        return [selected, *mix, jitter(to(image), moved(params, to), mean=MEAN, std=STD, dtype=dtype)]

    ours, plain = both(call)
    for exact in (0, 2, 3):  # selected, label, weight
        assert torch.equal(ours[exact].cpu(), plain[exact])
    for picture in (1, 4):
        torch.testing.assert_close(ours[picture].cpu(), plain[picture], atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("radius", [5, MAX_RADIUS])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("size", SIZES)
def test_blur(size: tuple[int, int], dtype: torch.dtype, memory_format: torch.memory_format, radius: int) -> None:
    image = torch.randn(2, 3, *size).to(dtype).contiguous(memory_format=memory_format)
    sigma, on = torch.tensor([1.1, radius / 4]), torch.tensor([True, True])
    ours, plain = both(lambda to: blur(to(image), to(sigma), to(on), radius=radius))
    assert ours.stride() == image.stride()
    torch.testing.assert_close(ours.cpu(), plain, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("size", SIZES)
def test_ops_of_logits(size: tuple[int, int], dtype: torch.dtype, align_corners: bool) -> None:
    low = (-(-size[0] // 8), -(-size[1] // 8))
    logits = (torch.randn(2, 19, *low) * 4).to(dtype).contiguous(memory_format=torch.channels_last)
    label, weight = random_label(size, 19), torch.rand(2, *size)

    def call(to: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        leaf = to(logits).clone().requires_grad_()
        loss = cross_entropy(leaf, to(label), to(weight), normalizer="sum", align_corners=align_corners)
        loss.backward()
        assert leaf.grad is not None
        pseudo = pseudo_label(leaf, size, 0.9, align_corners=align_corners, with_confidence=True)
        assert pseudo.confidence is not None
        counts = confusion_matrix(leaf, to(label), align_corners=align_corners)
        return {
            "loss": loss.detach(),
            "grad": leaf.grad.float(),
            "label": pseudo.label,
            "quality": pseudo.quality,
            "confidence": pseudo.confidence,
            "counts": counts,
        }

    ours, plain = both(call)
    ours = {name: value.cpu() for name, value in ours.items()}
    torch.testing.assert_close(ours["loss"], plain["loss"], atol=0, rtol=1e-5)
    torch.testing.assert_close(ours["confidence"], plain["confidence"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours["grad"], plain["grad"], atol=1e-2, rtol=max(1e-3, TOLERANCE[dtype]))
    # Two logits that tie within rounding may fall either way.
    assert (ours["label"] != plain["label"]).float().mean() < 1e-4
    torch.testing.assert_close(ours["quality"], plain["quality"], atol=1e-4, rtol=0)
    assert int((ours["counts"] - plain["counts"]).abs().sum()) <= 2e-4 * label.numel()
    assert int(ours["counts"].sum()) == int(plain["counts"].sum())


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("shape", [(8, 256, 64, 64), (4, 2048, 17, 19), (5, 24, 65, 33)], ids=str)
def test_batch_norm(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, residual, grad = (
        (torch.randn(shape) * 2 + 1).to(dtype).contiguous(memory_format=torch.channels_last) for _ in range(3)
    )
    weight, bias = torch.rand(shape[1]) + 0.5, torch.randn(shape[1])
    groups = (shape[0] - 3, 2, 1)

    def call(to: Callable[[Tensor], Tensor]) -> list[Tensor]:
        leaves = [to(t).clone().requires_grad_() for t in (x, weight, bias, residual)]
        mean, var = to(torch.zeros(shape[1])), to(torch.ones(shape[1]))
        y = batch_norm(*leaves[:3], mean, var, residual=leaves[3], groups=groups)
        y.backward(to(grad))
        return [y.detach(), mean, var, *(leaf.grad for leaf in leaves if leaf.grad is not None)]

    ours, truth = both(call, Tensor.double)  # in float32 a sum of gradients on the CPU is farther off than the kernel's
    for got, want in zip(ours, truth, strict=True):
        scale = 1 + float(want.abs().max())
        torch.testing.assert_close(got.cpu().float(), want.float(), rtol=0, atol=TOLERANCE[dtype] * scale)
