"""Every op against its reference at its best: fused, eager PyTorch, torch.compile.

    pytest benchmarks/bench_kernels.py --benchmark-json kernels.json && python -m benchmarks.report kernels.json

On a GPU a timed call replays a CUDA graph of 100 calls (10 of the unfused bodies, which launch many kernels each), so
launch costs of Python are in no figure; `cold_us` is one call after the L2 cache was overwritten, and what it moves a
second is compared with a copy.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from iidm import kernels

from .memory import peak_bytes
from .ops import CASES, CLASSES, Body, Inputs
from .report import OF_PYTORCH

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SIZE = (512, 512)
GRAPH_CALLS = {"fused": 100, "eager": 10, "compile": 10}
FLUSH_BYTES = 256 << 20


@pytest.mark.parametrize("impl", ["fused", "eager", "compile"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("op", "mode"), CASES)
@pytest.mark.parametrize(
    ("device", "batch"),
    [
        ("cpu", 2),
        pytest.param("cpu", 8, marks=pytest.mark.long),
        *(pytest.param("cuda", batch, marks=pytest.mark.gpu) for batch in (2, 32)),
    ],
)
def bench_op(
    benchmark: Any,
    provenance: dict[str, Any],
    copy_gb_per_s: float,
    device: str,
    batch: int,
    op: str,
    mode: str,
    dtype: str,
    impl: str,
) -> None:
    """Time one body of one op on `batch` images of 512x512 pixels and 19 classes."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    if device == "cuda" and impl == "compile" and dtype == "float32":
        pytest.skip("the compiler takes 10 seconds a case; a GPU trains in bfloat16")
    if impl == "fused" and (device, op) in OF_PYTORCH:
        pytest.skip("it has no fused kernel there")
    torch._dynamo.reset()
    inputs = Inputs(batch, SIZE, DTYPES[dtype], device)
    case = CASES[op, mode](inputs, mode)
    body = case.bodies[impl]
    calls = GRAPH_CALLS[impl] if device == "cuda" else 1
    kernels.set_implementation("fused" if impl == "fused" else "reference", device)
    try:
        body()
        peak = peak_bytes(body, device)
        extra: dict[str, Any] = {}
        if device == "cuda":
            extra["cold_us"] = cold_us(body)
            benchmark.pedantic(graph_of(body, calls), rounds=10, warmup_rounds=1)
        else:
            benchmark(body)
    finally:
        kernels.set_implementation("auto", device)
    if benchmark.stats is not None:  # None where timing is off
        seconds = benchmark.stats.stats.median / calls
        extra |= {"us": seconds * 1e6, "copy_gb_per_s": copy_gb_per_s}
        extra["gb_per_s"] = case.bytes / (extra["cold_us"] / 1e6 if "cold_us" in extra else seconds) / 1e9
    shape = [batch, CLASSES, *SIZE]
    benchmark.extra_info.update(
        op=op, impl=impl, device=device, dtype=dtype, shape=shape, batch=batch, mode=mode, calls=calls,
        bytes=case.bytes, peak_bytes=peak, **extra, **provenance,
    )  # fmt: skip


def captured(body: Body, calls: int) -> torch.cuda.CUDAGraph:
    """That many calls as a graph."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            body()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            body()
    return graph


def graph_of(body: Body, calls: int) -> Body:
    """Replays that many calls and waits for them."""
    graph = captured(body, calls)

    def replay() -> None:
        graph.replay()
        torch.cuda.synchronize()

    return replay


def cold_us(body: Body, repeats: int = 20) -> float:
    """Microseconds of one call when nothing of it lies in the L2 cache: the median over `repeats`."""
    flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    graph = captured(body, 1)
    times = []
    for _ in range(repeats):
        flush.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) * 1e3)
    return sorted(times)[repeats // 2]
