"""Evaluation, prediction and BatchNorm statistics on a GPU that is not there: they read what they must and no more."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from device_watch import DeviceWatch
from fake_steps import AMP, MEANT, key_of, step_of
from small_steps import CLASSES, K

from iidm.config import SlidingWindow
from iidm.engine.metrics import evaluate
from iidm.engine.norm_statistics import NormStatistics
from iidm.evaluation import normalize_image
from iidm.prediction.looking import predict
from iidm.types import ClassSet, EvalBatch

CUDA = torch.device("cuda:0")
CLASS_SET = ClassSet(CLASSES, tuple((i, i, i) for i in range(K)))
WINDOWS = SlidingWindow((32, 48), (16, 24), batch=4)
STRIPS = 3
"""Rows of such windows in 64 rows of pixels."""
METHODS = ["iidm", "hrda"]


def found(watch: DeviceWatch) -> Counter[tuple[str, str]]:
    """How often each kind of finding that is not meant in a step was met in each file."""
    counts: Counter[tuple[str, str]] = Counter()
    for finding, count in watch.findings.items():
        if key_of(finding) not in MEANT:
            counts[finding.kind, finding.file] += count
    return counts


def uint8(*shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.uint8, device=CUDA)


@pytest.mark.parametrize("windows", [None, WINDOWS], ids=["whole", "windows"])
@pytest.mark.parametrize(("method", "amp"), [("iidm", "float32"), ("iidm", "float16"), ("hrda", "bfloat16")])
def test_evaluation_waits_once_a_batch_and_network(method: str, amp: str, windows: SlidingWindow | None) -> None:
    """To look for labels that are no class; the counts are copied at the end, what covers a window for each strip."""
    step = step_of(method, amp)
    batches = [EvalBatch(uint8(1, 64, 96, 3), uint8(1, 128, 192), ("name",)) for _ in range(2)]
    options = {"device": CUDA, "amp_dtype": AMP[amp], "normalize": normalize_image, "windows": windows}
    with DeviceWatch(AMP[amp], classes=K) as watch:
        scores = evaluate(step.networks, batches, CLASS_SET, **options)  # type: ignore[arg-type]
    counts = found(watch)
    made_on_cpu = counts.pop(("cpu", "iidm/engine/windows.py"), 0)  # in how many windows a pixel lies
    assert (made_on_cpu > 0) == (windows is not None)
    expected = {("wait", "kernels/confusion_matrix/__init__.py"): 4, ("copy", "iidm/engine/metrics.py"): 2}
    if windows:
        expected["copy", "iidm/engine/windows.py"] = 4 * STRIPS
    assert counts == expected
    assert all(score.confusion.device.type == "cpu" for score in scores.values())


@pytest.mark.parametrize("windows", [None, WINDOWS], ids=["whole", "windows"])
@pytest.mark.parametrize("size", [(64, 96), (50, 70)], ids=["as-large", "resized"])
def test_prediction_copies_the_image_there_and_the_label_back(
    size: tuple[int, int], windows: SlidingWindow | None
) -> None:
    network = step_of("iidm", "bfloat16").student.eval()
    image = np.zeros((64, 96, 3), np.uint8)
    with DeviceWatch(torch.bfloat16, classes=K) as watch:
        label = predict(network, image, size, torch.bfloat16, windows=windows)  # type: ignore[arg-type]
    assert label.shape == (64, 96)
    copied = {("copy", "iidm/engine/rows.py"), ("copy", "iidm/prediction/looking.py")}
    counted = {("copy", "iidm/engine/windows.py"), ("cpu", "iidm/engine/windows.py")} if windows else set()
    # Rows of a picture are cut from a numpy array, and three channels are put together in any layout.
    rows = {("cpu", "iidm/engine/rows.py"), ("layout", "iidm/engine/rows.py")}
    assert copied <= found(watch).keys() <= copied | counted | rows


@pytest.mark.parametrize("method", METHODS)
def test_statistics_are_estimated_and_put_back_without_waiting(method: str) -> None:
    step = step_of(method, "bfloat16")
    statistics = NormStatistics([uint8(2, 32, 48, 3) for _ in range(2)], normalize_image, torch.bfloat16)
    with DeviceWatch(torch.bfloat16, classes=K) as watch, statistics.applied(step.networks) as own:
        assert own.keys() == {"student", "teacher"}
        assert all(value.is_cuda for values in own.values() for value in values.values())
    assert found(watch) == Counter()
