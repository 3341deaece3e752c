from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from bodies import run_with

from iidm.kernels.confusion_matrix import confusion_matrix

pytestmark = run_with("reference", "fused", "emulated")

Upsample = Callable[[torch.Tensor, int, int, bool], np.ndarray]
CASES = [
    (2, 1, (1, 1), (1, 1)),
    (3, 19, (8, 9), (63, 70)),
    (1, 1, (2, 3), (9, 5)),
    (2, 255, (3, 2), (24, 40)),
    (1, 5, (9, 8), (4, 3)),
    (2, 2, (5, 1), (40, 1)),
    (1, 111, (4, 4), (32, 31)),
]


def decided_case(
    upsample64: Upsample, case: tuple[int, int, tuple[int, int], tuple[int, int]], align_corners: bool
) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Logits; a label that ignores pixels whose best two logits float32 cannot tell apart; the matrix."""
    batch, classes, low, size = case
    logits = torch.randn(batch, classes, *low) * 3
    full = upsample64(logits, *size, align_corners)
    truth = np.random.default_rng().integers(0, classes, (batch, *size))
    truth[np.random.default_rng().random(truth.shape) < 0.2] = 255
    if classes > 1:
        best = np.sort(full, axis=1)
        close = best[:, -1] - best[:, -2] < 1e-5
        assert close.mean() < 0.05
        truth[close] = 255
    expected = np.zeros((classes, classes), dtype=np.int64)
    for b, y, x in np.ndindex(*truth.shape):
        if truth[b, y, x] != 255:
            expected[truth[b, y, x], full[b, :, y, x].argmax()] += 1
    return logits, torch.from_numpy(truth.astype(np.uint8)).to(logits.device), expected


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_counts_are_those_of_the_definition(
    upsample64: Upsample,
    case: tuple[int, int, tuple[int, int], tuple[int, int]],
    align_corners: bool,
) -> None:
    logits, label, expected = decided_case(upsample64, case, align_corners)
    matrix = confusion_matrix(logits, label, align_corners=align_corners)
    assert matrix.dtype == torch.int64
    np.testing.assert_array_equal(matrix.cpu().numpy(), expected)


def test_ignored_pixels_are_never_counted() -> None:
    label = torch.full((2, 9, 9), 255, dtype=torch.uint8)
    assert not confusion_matrix(torch.randn(2, 4, 3, 3), label).any()


def test_rows_are_truth_and_columns_prediction() -> None:
    logits = torch.zeros(1, 3, 1, 1)
    logits[0, 2] = 1.0
    label = torch.tensor([[[0, 0, 1, 255]]], dtype=torch.uint8)
    assert confusion_matrix(logits, label).tolist() == [[0, 0, 2], [0, 0, 1], [0, 0, 0]]


def test_equal_logits_take_the_lowest_class() -> None:
    matrix = confusion_matrix(torch.ones(1, 4, 3, 2), torch.full((1, 7, 5), 2, dtype=torch.uint8))
    assert matrix[2].tolist() == [35, 0, 0, 0] and int(matrix.sum()) == 35


def test_a_label_without_a_class_is_an_error_or_not_counted() -> None:
    logits, label = torch.zeros(1, 3, 2, 2), torch.tensor([[[0, 7, 3, 255]]], dtype=torch.uint8)
    with pytest.raises(ValueError, match="2 label pixels hold no class: the logits have 3 classes, labels go up to 7"):
        confusion_matrix(logits, label)
    assert confusion_matrix(logits, label, check=False).tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_logits_are_interpolated_in_float32(dtype: torch.dtype) -> None:
    logits = torch.randn(2, 5, 3, 3).to(dtype)
    label = torch.randint(0, 5, (2, 17, 16), dtype=torch.uint8)
    assert torch.equal(confusion_matrix(logits, label), confusion_matrix(logits.float(), label))


def test_layout_of_the_inputs_does_not_matter() -> None:
    logits, label = torch.randn(2, 5, 4, 3), torch.randint(0, 5, (2, 10, 9), dtype=torch.uint8)
    dense = confusion_matrix(logits, label)
    turned = logits.contiguous(memory_format=torch.channels_last)
    view = torch.stack([label, label], -1)[..., 0]
    assert torch.equal(confusion_matrix(turned, view), dense)


def test_more_threads_count_the_same() -> None:
    logits, label = torch.randn(3, 7, 9, 8), torch.randint(0, 7, (3, 70, 65), dtype=torch.uint8)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(confusion_matrix(logits, label))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1]) and int(results[0].sum()) == label.numel()


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(TypeError, match="label must be uint8, not int64"):
        confusion_matrix(torch.zeros(1, 3, 2, 2), torch.zeros(1, 4, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match="has 256 classes"):
        confusion_matrix(torch.zeros(1, 256, 2, 2), torch.zeros(1, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match="label lies on meta, logits on (cpu|cuda)"):
        confusion_matrix(torch.zeros(1, 3, 2, 2), torch.zeros(1, 4, 4, dtype=torch.uint8, device="meta"))


def test_opcheck_and_one_graph() -> None:
    logits, label = torch.randn(2, 3, 2, 2), torch.randint(0, 3, (2, 9, 8), dtype=torch.uint8)
    torch.library.opcheck(torch.ops.iidm.confusion_matrix.default, (logits, label, False))
    torch._dynamo.reset()

    def count(x: torch.Tensor) -> torch.Tensor:
        return confusion_matrix(x, label, check=False) * 2

    compiled = torch.compile(count, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(logits), count(logits))
