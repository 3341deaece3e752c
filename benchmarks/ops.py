"""The cases of `bench_kernels.py`: each op's inputs, its bodies, and the bytes that it has to move."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from iidm.kernels.batch_norm import batch_norm
from iidm.kernels.blur import blur
from iidm.kernels.blur import reference as blur_reference
from iidm.kernels.classmix import Mix, classmix, draw_classes
from iidm.kernels.classmix import reference as classmix_reference
from iidm.kernels.confusion_matrix import confusion_matrix
from iidm.kernels.confusion_matrix import reference as confusion_reference
from iidm.kernels.cross_entropy import cross_entropy
from iidm.kernels.cross_entropy import reference as cross_entropy_reference
from iidm.kernels.depthwise import depthwise
from iidm.kernels.jitter import draw_jitter, empty_images, jitter
from iidm.kernels.jitter import reference as jitter_reference
from iidm.kernels.pseudo_label import pseudo_label
from iidm.kernels.pseudo_label import reference as pseudo_label_reference
from iidm.types import MEAN_RGB, STD_RGB

CLASSES = 19
STRIDE = 8
"""Output stride: the logits are this much smaller than the label."""
THRESHOLD = 0.968
Body = Callable[[], object]


class Case(NamedTuple):
    """One op on one input."""

    bodies: dict[str, Body]
    """impl -> the call that is timed: `fused`, `eager`, `compile`."""
    bytes: int
    """What it has to read and write at least."""


class Inputs:
    """Random tensors of a batch of `size` images, on `device`; logits and images of `dtype`."""

    def __init__(self, batch: int, size: tuple[int, int], dtype: torch.dtype, device: str) -> None:
        g = torch.Generator().manual_seed(0)
        height, width = size
        self.batch, self.size, self.dtype, self.device = batch, size, dtype, device
        self.pixels = batch * height * width
        low = (batch, CLASSES, height // STRIDE, width // STRIDE)
        # Neighbouring pixels mostly agree, in labels and in logits: blocks of 32 pixels, a tenth of them ignored.
        blocks = torch.randint(0, CLASSES, (batch, height // 32, width // 32), generator=g, dtype=torch.uint8)
        blocks[torch.rand(blocks.shape, generator=g) < 0.1] = 255
        label = blocks.repeat_interleave(32, 1).repeat_interleave(32, 2)
        logits = (torch.randn(low, generator=g) * 4).to(dtype).contiguous(memory_format=torch.channels_last)
        image, base = (torch.randint(0, 256, (batch, *size, 3), generator=g, dtype=torch.uint8) for _ in range(2))
        self.label, self.base_label = label.to(device), label.flip(0).contiguous().to(device)
        self.logits, self.image, self.base_image = logits.to(device), image.to(device), base.to(device)
        self.quality = torch.rand(batch, generator=g).to(device)
        self.keys = torch.rand((batch, 256), generator=g).to(device)
        self.jitter = draw_jitter(batch, 0.2, 1.0, False, None, device)
        self.sigma = torch.full((batch,), 1.0, device=device)
        self.blurred = torch.ones(batch, dtype=torch.bool, device=device)

    @property
    def number_bytes(self) -> int:
        """Bytes of an element of `dtype`."""
        return self.dtype.itemsize


def _bodies(body: Body, compiled: Body) -> dict[str, Body]:
    """Fused and eager are the same call; `kernels.set_implementation` says which it is."""
    return {"fused": body, "eager": body, "compile": compiled}


def fastest(*bodies: Body) -> Body:
    """The body that was the fastest in its third call; found out at the first call of the result."""
    found: list[Body] = []

    def seconds(body: Body) -> float:
        for _ in range(2):
            body()
        synchronize()
        start = time.perf_counter()
        body()
        synchronize()
        return time.perf_counter() - start

    def call() -> object:
        if not found:
            found.append(min(bodies, key=seconds))
        return found[0]()

    return call


def synchronize() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def cross_entropy_case(x: Inputs, mode: str) -> Case:
    """Upsampling and weighted cross-entropy, with its gradient (`forward_backward`) or without."""
    with_grad = mode == "forward_backward"
    logits, weight = x.logits.clone().requires_grad_(with_grad), x.quality

    def run(loss_of: Callable[[], Tensor]) -> Tensor:
        logits.grad = None
        loss = loss_of()
        if with_grad:
            loss.backward()
        return loss

    # The compiler at its best: the usual form with autograd's gradient, or the reference, which writes it out.
    def usual(low: Tensor, label: Tensor, weight: Tensor) -> Tensor:
        full = F.interpolate(low.float(), size=x.size, mode="bilinear")
        loss = F.cross_entropy(full, label.long(), ignore_index=255, reduction="none")
        return (loss * weight.view(-1, 1, 1)).mean()

    compiled = torch.compile(usual, fullgraph=True, dynamic=False)
    written_out = torch.compile(cross_entropy_reference.cross_entropy, dynamic=False)
    moved = x.logits.numel() * x.number_bytes + x.pixels
    if with_grad:
        moved += x.logits.numel() * 4
    return Case(
        _bodies(
            lambda: run(lambda: cross_entropy(logits, x.label, weight)),
            fastest(
                lambda: run(lambda: compiled(logits, x.label, weight)),
                lambda: written_out(x.logits, x.label, weight, None, "pixels", False, with_grad),
            ),
        ),
        moved,
    )


def pseudo_label_case(x: Inputs, mode: str) -> Case:
    """Labels and quality from low-resolution logits."""
    compiled = torch.compile(pseudo_label_reference.pseudo_label, fullgraph=True, dynamic=False)
    return Case(
        _bodies(
            lambda: pseudo_label(x.logits, x.size, THRESHOLD),
            lambda: compiled(x.logits, x.size, THRESHOLD, False, False, False),
        ),
        x.logits.numel() * x.number_bytes + x.pixels,
    )


def classmix_case(x: Inputs, mode: str) -> Case:
    """One stream: drawing the classes, mixing, jitter, normalization, label and weight."""
    out = Mix(
        empty_images(x.batch, *x.size, x.dtype, x.image.device),
        torch.empty_like(x.label),
        torch.empty(x.label.shape, device=x.device),
    )

    def fused() -> Mix:
        selected = draw_classes(x.label, x.keys)
        return classmix(
            x.image, x.label, x.base_image, x.base_label, x.quality, selected, x.jitter,
            pasted_weight=1.0, mean=MEAN_RGB, std=STD_RGB, out=out,
        )  # fmt: skip

    def plain() -> None:
        selected = classmix_reference.draw_classes(x.label, x.keys, False, "ceil", False)
        classmix_reference.classmix(
            x.image, x.label, x.base_image, x.base_label, x.quality, selected, x.jitter,
            1.0, MEAN_RGB, STD_RGB, (0, 0), *out,
        )  # fmt: skip

    compiled = torch.compile(plain, dynamic=False)
    # Read: a label twice (presence, mixing), the other label, one of the two images. Written: image, label, weight.
    moved = x.pixels * (2 + 1 + 3 + 3 * x.number_bytes + 1 + 4)
    return Case(_bodies(fused, compiled), moved)


def jitter_case(x: Inputs, mode: str) -> Case:
    """Colour jitter and normalization."""
    out = empty_images(x.batch, *x.size, x.dtype, x.image.device)

    def plain() -> None:
        jitter_reference.jitter(x.image, x.jitter, MEAN_RGB, STD_RGB, out)

    compiled = torch.compile(plain, dynamic=False)
    body = lambda: jitter(x.image, x.jitter, mean=MEAN_RGB, std=STD_RGB, out=out)  # noqa: E731
    return Case(_bodies(body, compiled), x.pixels * 3 * (1 + x.number_bytes))


def blur_case(x: Inputs, mode: str) -> Case:
    """Separable blur of every image."""
    image = jitter(x.image, None, mean=MEAN_RGB, std=STD_RGB, dtype=x.dtype)
    compiled = torch.compile(blur_reference.blur, dynamic=False)
    return Case(
        _bodies(lambda: blur(image, x.sigma, x.blurred), lambda: compiled(image, x.sigma, x.blurred, 5)),
        x.pixels * 3 * 2 * x.number_bytes,
    )


def confusion_matrix_case(x: Inputs, mode: str) -> Case:
    """Counts of low-resolution logits against full-size labels, without the check that reads a number back."""
    compiled = torch.compile(confusion_reference.confusion_counts, fullgraph=True, dynamic=False)
    return Case(
        _bodies(lambda: confusion_matrix(x.logits, x.label, check=False), lambda: compiled(x.logits, x.label, False)),
        x.logits.numel() * x.number_bytes + x.pixels,
    )


def batch_norm_case(x: Inputs, mode: str) -> Case:
    """A bottleneck's last norm layer at output stride 8: 256 channels, residual and ReLU, every image a group."""
    shape = (x.batch, 256, x.size[0] // STRIDE, x.size[1] // STRIDE)
    features, residual, grad = (
        torch.randn(shape, device=x.device, dtype=x.dtype).contiguous(memory_format=torch.channels_last)
        for _ in range(3)
    )
    weight, bias, mean, var = (torch.ones(shape[1], device=x.device) for _ in range(4))
    leaves = [t.requires_grad_(mode == "forward_backward") for t in (features, weight, bias, residual)]
    groups = (1,) * x.batch

    def run(y: Tensor) -> Tensor:
        if y.requires_grad:
            torch.autograd.grad(y, leaves, grad)
        return y

    def plain(features: Tensor, weight: Tensor, bias: Tensor, residual: Tensor) -> Tensor:
        parts = [F.batch_norm(part, mean, var, weight, bias, training=True) for part in features.split(groups)]
        return F.relu(torch.cat(parts) + residual)

    def op() -> Tensor:
        return batch_norm(features, weight, bias, mean, var, residual=residual, activation="relu", groups=groups)

    compiled = torch.compile(plain, dynamic=False)
    moved = features.numel() * x.number_bytes * (12 if mode == "forward_backward" else 4)
    return Case(_bodies(lambda: run(op()), lambda: run(compiled(*leaves))), moved)


def depthwise_case(x: Inputs, mode: str) -> Case:
    """A dilated convolution of DAFormer's head, of 1024 channels, at output stride 8, beside PyTorch's in x's dtype.
    On a GPU all three are PyTorch's."""
    shape = (x.batch, 1024, x.size[0] // STRIDE, x.size[1] // STRIDE)
    features, grad = (
        torch.randn(shape, device=x.device, dtype=x.dtype).contiguous(memory_format=torch.channels_last)
        for _ in range(2)
    )
    weight = torch.randn(shape[1], 1, 3, 3, device=x.device, dtype=x.dtype)
    leaves = [t.requires_grad_(mode == "forward_backward") for t in (features, weight)]

    def run(y: Tensor) -> Tensor:
        if y.requires_grad:
            torch.autograd.grad(y, leaves, grad)
        return y

    def plain(features: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(features, weight, padding=12, dilation=12, groups=shape[1])

    compiled = torch.compile(plain, dynamic=False)
    bodies: dict[str, Body] = {
        "fused": lambda: run(depthwise(features, weight, dilation=12)),
        "eager": lambda: run(plain(features, weight)),
        "compile": lambda: run(compiled(features, weight)),
    }
    return Case(bodies, features.numel() * x.number_bytes * (6 if mode == "forward_backward" else 2))


CASES: dict[tuple[str, str], Callable[[Inputs, str], Case]] = {
    ("cross_entropy", "forward_backward"): cross_entropy_case,
    ("cross_entropy", "forward"): cross_entropy_case,
    ("pseudo_label", "forward"): pseudo_label_case,
    ("classmix", "forward"): classmix_case,
    ("jitter", "forward"): jitter_case,
    ("blur", "forward"): blur_case,
    ("confusion_matrix", "forward"): confusion_matrix_case,
    ("batch_norm", "forward_backward"): batch_norm_case,
    ("batch_norm", "forward"): batch_norm_case,
    ("depthwise", "forward_backward"): depthwise_case,
    ("depthwise", "forward"): depthwise_case,
}
"""(op, mode) -> what makes its case."""
