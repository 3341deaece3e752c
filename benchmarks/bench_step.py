"""A whole training step: iidm against plain PyTorch as the public code writes it, and against that at its best.

    pytest benchmarks/bench_step.py --long --benchmark-json step.json && python -m benchmarks.report_step step.json

One timed unit is one step on a batch that stays: teacher, mixing, student forward and backward over four branches,
AdamW, EMA. The three start from the same weights and make the same draws. The floor is the time that the convolutions'
multiplications take at the rate of the fastest matrix product here, in the dtype of autocast.
"""

from __future__ import annotations

import gc
import time
from typing import Any

import pytest
import torch

from iidm.engine.runtime import keep_freed_memory, pick_amp_dtype
from iidm.method import TrainStep

from .memory import peak_bytes
from .reference_step import ReferenceStep
from .steps import Case, Step, flops, iidm_step, reference_step

SMALL_RESNET = Case("resnet18", (240, 320), 2)
RESNET_101 = Case("resnet101-v1c", (512, 512), 2)
"""The two whose options are timed, on a CPU and on a GPU; the second is also the one that has to do with 8 GB."""
CPU_CASES = [
    Case("mobilenet_v2", (240, 320), 2, output_stride=32, head="segformer"),  # the default of one's own images
    Case("mobilenet_v2", (240, 320), 2, output_stride=16),
    SMALL_RESNET,
    Case("mit_b0", (256, 256), 2, head="daformer", hrda=True),
    Case("resnet18", (256, 256), 2, output_stride=16, head="daformer", hrda=True),
    pytest.param(Case("resnet18", (240, 320), 6), marks=pytest.mark.long),
    pytest.param(Case("resnet18", (480, 640), 2), marks=pytest.mark.long),
    pytest.param(Case("resnet101-v1c", (512, 512), 1), marks=pytest.mark.long),
]
GPU_CASES = [
    Case("mobilenet_v2", (512, 512), 2, output_stride=32, head="segformer"),
    Case("mobilenet_v2", (512, 512), 2, output_stride=16),
    Case("resnet18", (512, 512), 2),
    *(RESNET_101._replace(batch=batch) for batch in (2, 4, 8)),
    Case("mit_b5", (1024, 1024), 2, head="daformer", hrda=True),
]
IMPLS = ("iidm", "reference-best", "reference")
OPTIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "merged": {"branches": "merged"},
    "sequential": {"branches": "sequential"},
    "sequential, recompute": {"branches": "sequential", "recompute": True},
    "merged, recompute": {"branches": "merged", "recompute": True},
    "compile": {"compile": True},
    "no graph": {"graph": "off"},
}
Made = tuple[TrainStep | ReferenceStep, Step]
ROUNDS, WARMUP = {"cpu": 5, "cuda": 30}, {"cpu": 2, "cuda": 6}
SLOW_S = 10.0
"""A step that takes longer warms up once and is timed three times: its spread is small beside it."""


def _on(device: str, cases: list[Any]) -> list[Any]:
    """Parameters (device, case) of a test."""
    found = []
    for entry in cases:
        case = entry if isinstance(entry, Case) else entry.values[0]
        marks = [] if isinstance(entry, Case) else list(entry.marks)
        marks += [pytest.mark.gpu] if device == "cuda" else []
        found.append(pytest.param(device, case, marks=marks, id=f"{device}-{case}"))
    return found


@pytest.fixture(scope="module")
def matmul_tflops() -> dict[str, float]:
    """The rate of the fastest of some square matrix products in the dtype of autocast, by device."""
    found = {}
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        dtype = pick_amp_dtype(torch.device(device), amp=True) or torch.float32
        found[device] = max(_rate(size, dtype, device) for size in ((2048, 3072) if device == "cpu" else (8192, 16384)))
    return found


def _rate(size: int, dtype: torch.dtype, device: str, repeats: int = 10) -> float:
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out, seconds = torch.empty_like(left), []
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        torch.mm(left, right, out=out)
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds) / 1e12


def synchronize(device: str) -> None:
    """Wait for the GPU, if that is where it runs."""
    if device == "cuda":
        torch.cuda.synchronize()


def _measure(
    benchmark: Any, provenance: dict[str, Any], device: str, case: Case, made: Made, tflops: float, **extra: Any
) -> None:
    """Time a step, measure its memory, and write down what the figures mean.

    `peak_bytes` is what it needs beside weights and optimiser state; gradients count, whether they are kept or not. On
    a GPU it is that of the first steps, since a graph allocates when it is captured and never when it is replayed.
    """
    owner, step = made

    def unit() -> None:
        step()
        synchronize(device)

    keep_freed_memory(torch.device(device))  # as iidm.train does; here the references gain by it too
    rounds = 1
    if benchmark.enabled:
        if device == "cuda":
            gc.collect()
            torch.cuda.reset_peak_memory_stats()
            others = torch.cuda.memory_allocated() - held_bytes(owner)
        start = time.perf_counter()
        unit()
        slow = time.perf_counter() - start > SLOW_S
        for _ in range(0 if slow else WARMUP[device] - 1):
            unit()
        if device == "cuda":
            extra["peak_bytes"] = torch.cuda.max_memory_allocated() - others - held_bytes(owner)
        else:
            kept = sum(p.grad.nbytes for p in owner.student.parameters() if p.grad is not None)
            extra["peak_bytes"] = kept + peak_bytes(unit, device)
        rounds = 3 if slow else ROUNDS[device]
    benchmark.pedantic(unit, rounds=rounds)
    if benchmark.stats is not None:  # None where timing is off
        seconds = benchmark.stats.stats.median
        work = flops(case)
        extra |= {"steps_per_s": 1 / seconds, "flops": work, "matmul_tflops": tflops}
        extra["floor_share"] = work / (tflops * 1e12) / seconds
    dtype = pick_amp_dtype(torch.device(device), amp=True) or torch.float32
    benchmark.extra_info.update(
        op="step", device=device, model=case.network, crop=case.crop, batch=case.batch, dtype=str(dtype)[6:],
        output_stride=case.output_stride, head=case.head, hrda=case.hrda, **extra, **provenance,
    )  # fmt: skip


def held_bytes(owner: TrainStep | ReferenceStep) -> int:
    """Weights and buffers of both networks, and the optimiser's state."""
    teacher = owner.teacher.network if isinstance(owner, TrainStep) else owner.teacher
    tensors = [t for network in (owner.student, teacher) for t in (*network.parameters(), *network.buffers())]
    tensors += [t for state in owner.optimizer.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
    return sum(t.nbytes for t in tensors)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(("device", "case"), _on("cpu", CPU_CASES) + _on("cuda", GPU_CASES))
def bench_step(
    benchmark: Any, provenance: dict[str, Any], matmul_tflops: dict[str, float], device: str, case: Case, impl: str
) -> None:
    """One step of one implementation."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    best = impl == "reference-best"
    made: Made = iidm_step(case, device) if impl == "iidm" else reference_step(case, device, best=best)
    _measure(benchmark, provenance, device, case, made, matmul_tflops[device], impl=impl)


@pytest.mark.long
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("device", "case"), _on("cpu", [SMALL_RESNET]) + _on("cuda", [RESNET_101]))
def bench_step_options(
    benchmark: Any, provenance: dict[str, Any], matmul_tflops: dict[str, float], device: str, case: Case, options: str
) -> None:
    """What each of iidm's options costs and saves."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    if device == "cpu" and options == "no graph":
        pytest.skip("a CPU has no graphs")
    torch._dynamo.reset()
    made = iidm_step(case, device, OPTIONS[options])
    _measure(benchmark, provenance, device, case, made, matmul_tflops[device], impl="iidm", options=options)


@pytest.mark.gpu
@pytest.mark.long
@pytest.mark.parametrize("options", ["sequential", "sequential, recompute"])
def bench_step_on_8_gb(
    benchmark: Any, provenance: dict[str, Any], matmul_tflops: dict[str, float], options: str
) -> None:
    """ResNet-101, 512x512, 2 + 2 + 2 where torch may take 8 GB of the card."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    gc.collect()  # a step and its graph hold each other, and the memory of the case before
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(8e9 / torch.cuda.get_device_properties(0).total_memory)
    try:
        made, rate = iidm_step(RESNET_101, "cuda", OPTIONS[options]), matmul_tflops["cuda"]
        _measure(benchmark, provenance, "cuda", RESNET_101, made, rate, impl="iidm", options=f"8 GB, {options}")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
