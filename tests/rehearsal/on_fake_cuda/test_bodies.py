"""What the ops do on CUDA, in steps on a GPU that is not there: fused, what they launch compiles without spills, and
before a capture; in plain PyTorch, they wait for nothing either."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from device_watch import DeviceWatch
from fake_steps import not_meant, read, step_of
from small_steps import CLASSES, B, K
from stand_ins import DEVICE, CUDAGraph

from iidm import kernels
from iidm.catalog import METHODS
from iidm.engine.metrics import evaluate
from iidm.evaluation import normalize_image
from iidm.kernels import _cells
from iidm.types import ClassSet, EvalBatch, LabeledImages, TrainBatch

pytest.importorskip("triton", reason="Triton is not installed")
from launches import ARCHES, Launches, launches

from iidm.kernels.batch_norm import fused_triton

MOST_REGISTERS = 128
"""As in tests/kernels/test_triton_builds.py."""
MOST_SHARED_BYTES = 48 * 1024
"""What every GPU gives to a block without being asked."""
SOME = ["iidm", "dst_cbc", "dldm"]
"""They differ most in what they launch."""
TABLES = {("copy", "kernels/_cells.py"), ("copy", "kernels/batch_norm/fused_triton.py")}
"""Small tables that are copied to the device once for each size."""


@pytest.fixture(autouse=True)
def no_tables_yet() -> None:
    for table in (_cells.axis, fused_triton._starts):
        table.cache_clear()


@pytest.fixture
def launched() -> Iterator[Launches]:
    with launches() as found:
        yield found


def assert_well_compiled(launched: Launches) -> None:
    assert {kernel.arch for kernel in launched.compiled} == set(ARCHES)
    for kernel, used in launched.used().items():
        assert used["stack"] == used["local"] == 0, (kernel, used)
        assert used["registers"] <= MOST_REGISTERS and used["shared"] <= MOST_SHARED_BYTES, (kernel, used)


@pytest.mark.parametrize("method", METHODS if os.environ.get("IIDM_REHEARSAL") == "all" else SOME)
def test_launches_of_a_step_compile_without_spills(method: str, launched: Launches) -> None:
    step = step_of(method, "bfloat16")
    batches = [read(step.config, number) for number in range(2)]
    with DeviceWatch(torch.bfloat16, classes=K, bodies=True) as first:
        step(batches[:1], 0)
    with DeviceWatch(torch.bfloat16, classes=K, bodies=True) as second:
        step(batches[1:], 1)
    once = [finding for finding in first.findings if str(finding) in not_meant(first)]
    assert {(finding.kind, finding.file) for finding in once} <= TABLES
    assert not_meant(second) == []
    assert_well_compiled(launched)
    assert {name for name, _ in launched.grids} >= {"sums_kernel", "normalize_kernel", "cross_entropy_kernel"}
    mixing = {"classmix", "blur"} if step.method.labels_images else set()
    assert {name for name, _ in launched.extension.calls} >= {"jitter"} | mixing


def test_launches_of_an_evaluation_compile_without_spills(launched: Launches) -> None:
    step = step_of("iidm", "bfloat16")
    batch = EvalBatch(loaded(64, 96).source.image, loaded(128, 192).source.label, ("a", "b"))  # type: ignore[union-attr]
    classes = ClassSet(CLASSES, tuple((i, i, i) for i in range(K)))
    with DeviceWatch(torch.bfloat16, classes=K, bodies=True) as watch:
        evaluate(
            step.networks, [batch], classes, device=DEVICE, amp_dtype=torch.bfloat16, normalize=normalize_image
        )  # fmt: skip
    assert {f.kind for f in watch.findings} == {"wait", "copy"}  # see test_evaluation.py
    assert [name for name, _ in launched.extension.calls] == ["jitter", "confusion_matrix"]


@pytest.mark.parametrize("method", SOME)
def test_plain_pytorch_on_a_gpu_waits_for_nothing(method: str) -> None:
    """`--kernels reference`, and what an old GPU gets."""
    step = step_of(method, "bfloat16")
    batches = [read(step.config)]
    kernels.set_implementation("reference", "cuda")
    try:
        with DeviceWatch(torch.bfloat16, classes=K, bodies=True) as watch:
            step(batches, 0)
    finally:
        kernels.set_implementation("auto", "cpu")
    assert [finding for finding in not_meant(watch) if not finding.startswith("layout: ")] == []


def loaded(height: int, width: int) -> TrainBatch:
    """A batch as the loader gives it: its streams are slices of one tensor, and begin where the one before ends."""
    images = torch.empty((3 * B, height, width, 3), dtype=torch.uint8, device=DEVICE)
    labels = torch.empty((3 * B, height, width), dtype=torch.uint8, device=DEVICE)
    source, target, unlabeled = (LabeledImages(*part) for part in zip(images.split(B), labels.split(B), strict=True))
    return TrainBatch(source, target, unlabeled.image)


@pytest.mark.parametrize("size", [(64, 96), (50, 58)], ids=["streams at any multiple of 16", "streams at any byte"])
def test_a_capture_meets_no_kernel_that_the_warm_up_did_not(size: tuple[int, int]) -> None:
    """Of 50x58 pixels a stream's labels are 5800 bytes and its logits 840, which no 16 divides: in the loader's slices
    a label and its logits both begin at such a byte, in a copy the logits alone, and Triton compiles that anew."""
    step = step_of("iidm", "bfloat16", graph="on")
    assert step._graph is not None
    warmup = step._graph.WARMUP
    with launches((90,)) as launched:
        for number in range(warmup + 2):
            batch = loaded(*size)
            with DeviceWatch(torch.bfloat16, classes=K, bodies=True) as watch:
                step([batch], number)
            assert step._graph.captured == (number >= warmup)
            if number == warmup:
                assert not_meant(watch) == []
                assert watch.calls["_fused_adamw_"] > 0 and not CUDAGraph.capturing
    assert launched.in_capture == {}
