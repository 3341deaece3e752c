"""What holds for all fused ops alike: the same bits from run to run, and outputs that are written in full."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import emulated
import pytest
import torch
from bodies import run_with
from torch import Tensor

from iidm.kernels.batch_norm import batch_norm
from iidm.kernels.blur import blur
from iidm.kernels.classmix import classmix, draw_classes
from iidm.kernels.confusion_matrix import confusion_matrix
from iidm.kernels.cross_entropy import cross_entropy
from iidm.kernels.depthwise import depthwise
from iidm.kernels.jitter import draw_jitter, jitter
from iidm.kernels.pseudo_label import pseudo_label

pytestmark = run_with("fused", "emulated")

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
Call = Callable[[], list[Tensor]]


def calls(height: int, width: int) -> dict[str, Call]:
    """One call of every op, with its inputs made once; each returns all that the op writes."""
    classes, low = 19, (-(-height // 8), -(-width // 8))
    images = [torch.randint(0, 256, (2, height, width, 3), dtype=torch.uint8) for _ in range(2)]
    labels = [torch.randint(0, classes, (2, height, width), dtype=torch.uint8) for _ in range(2)]
    labels[0] = labels[0].masked_fill(torch.rand(labels[0].shape) < 0.2, 255)
    logits, weight, keys = torch.randn(2, classes, *low) * 4, torch.rand(2, height, width), torch.rand(2, 256)
    params = draw_jitter(2, 0.2, 1.0, False, None, logits.device)
    selected = draw_classes(labels[0], keys)
    sigma, on = torch.tensor([0.4, 1.1]), torch.tensor([True, False])
    floats = torch.randn(2, 3, height, width)

    def loss_and_gradient() -> list[Tensor]:
        leaf = logits.clone().requires_grad_()
        loss = cross_entropy(leaf, labels[0], weight, normalizer="valid")
        loss.backward()
        assert leaf.grad is not None
        return [loss.detach(), leaf.grad]

    features = torch.randn(5, 70, *(n + 1 for n in low)).contiguous(memory_format=torch.channels_last)
    residual, gamma, beta = torch.randn_like(features), torch.randn(70), torch.randn(70)

    def normalized_and_gradients() -> list[Tensor]:
        leaves = [t.clone().requires_grad_() for t in (features, gamma, beta, residual)]
        mean, var = torch.zeros(70), torch.ones(70)
        y = batch_norm(*leaves[:3], mean, var, residual=leaves[3], activation="relu", groups=(2, 1, 2))
        y.backward(residual)
        return [y.detach(), mean, var, *(leaf.grad for leaf in leaves if leaf.grad is not None)]

    kernels = torch.randn(70, 1, 3, 3)

    def convolved_and_gradients() -> list[Tensor]:
        leaves = [t.clone().requires_grad_() for t in (features, kernels)]
        y = depthwise(*leaves, dilation=6)
        y.backward(residual)
        return [y.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]

    return {
        "cross_entropy": loss_and_gradient,
        "pseudo_label": lambda: list(pseudo_label(logits, (height, width), 0.5, with_confidence=True)),
        "confusion_matrix": lambda: [confusion_matrix(logits, labels[0], check=False)],
        "draw_classes": lambda: [draw_classes(labels[0], keys)],
        "classmix": lambda: list(
            classmix(
                images[0], labels[0], images[1], labels[1], weight, selected, params,
                pasted_weight=None, mean=MEAN, std=STD, dtype=torch.bfloat16,
            )
        ),
        "jitter": lambda: [jitter(images[0], params, mean=MEAN, std=STD)],
        "blur": lambda: [blur(floats, sigma, on)],
        "batch_norm": normalized_and_gradients,
        "depthwise": convolved_and_gradients,
    }  # fmt: skip


OPS = (
    "cross_entropy", "pseudo_label", "confusion_matrix", "draw_classes", "classmix", "jitter", "blur", "batch_norm",
    "depthwise",
)  # fmt: skip
SIZES = [(1, 1), (63, 500), (64, 128)]


def skip_without_a_kernel(op: str, body: str) -> None:
    if body == "emulated" and op not in (*emulated.OPS, "draw_classes"):
        pytest.skip("has no CUDA kernel")
    if body == "gpu" and op == "depthwise":
        pytest.skip("is PyTorch's on a GPU")


@pytest.fixture
def poisoned() -> Iterator[None]:
    """torch.empty gives NaN, or the largest integer: what a kernel leaves unwritten shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("op", OPS)
def test_two_calls_are_bitwise_equal_and_every_number_is_written(
    op: str, size: tuple[int, int], body: str, poisoned: None
) -> None:
    skip_without_a_kernel(op, body)
    call = calls(*size)[op]
    assert torch.empty(3).isnan().all()
    first, second = call(), call()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(bool(t.isfinite().all()) for t in first if t.is_floating_point())


@pytest.mark.parametrize("op", OPS)
def test_the_number_of_threads_changes_no_bit(op: str, body: str) -> None:
    if body != "fused":
        pytest.skip("threads of the CPU")
    call, before = calls(72, 130)[op], torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(call())
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("op", OPS)
def test_the_order_of_threads_and_blocks_changes_no_bit(op: str, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if body != "emulated":
        pytest.skip("orders of emulated threads")
    skip_without_a_kernel(op, body)
    call = calls(40, 130)[op]
    results = []
    for order in range(4):
        monkeypatch.setenv("CUDA_ON_CPU_ORDER", str(order))
        results.append(call())
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("op", OPS)
def test_no_op_waits_for_the_gpu_and_all_run_in_a_cuda_graph(op: str, body: str) -> None:
    if body != "gpu":
        pytest.skip("needs a CUDA device")
    skip_without_a_kernel(op, body)
    call = calls(64, 128)[op]
    expected = call()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = call()
    for t in captured:
        t.fill_(1)
    graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(expected, captured, strict=True))
