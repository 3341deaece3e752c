"""`python -m benchmarks.report`: a table and a picture from a result file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

from benchmarks.report import OF_PYTORCH, from_memory
from iidm.kernels._dispatch import ON_CPUS

ROOT = Path(__file__).parents[1]


def result(op: str, impl: str, seconds: float, device: str = "cpu", calls: int = 1) -> dict[str, object]:
    info = {
        "op": op, "impl": impl, "device": device, "dtype": "bfloat16", "mode": "forward_backward", "batch": 2,
        "shape": [2, 19, 512, 512], "bytes": 3_000_000, "peak_bytes": 2_000_000, "calls": calls,
        "machine": {"cpu": "a processor", "cores": 2, "python": "3.11", "gpu": "a GPU"},
        "versions": {"torch": "2.13.0", "triton": ""}, "commit": "abc1234",
    }  # fmt: skip
    if device == "cuda":
        info |= {"copy_gb_per_s": 4000.0, "cold_us": 4.0}
    return {"extra_info": info, "stats": {"median": seconds * calls}}


def test_the_table_tells_times_ratios_and_the_machine(tmp_path: Path) -> None:
    results = [result("blur", "fused", 1e-3), result("blur", "eager", 6e-3), result("blur", "compile", 2.5e-3)]
    results += [
        result("jitter", "fused", 1.5e-6, "cuda", calls=100),
        result("jitter", "eager", 3e-5, "cuda", calls=100),
    ]
    results += [result("depthwise", impl, 3e-5, "cuda") for impl in ("fused", "eager")]
    results.append(result("loader", "dataloader-png", 1.0))  # another kind of benchmark: not in this table
    (tmp_path / "kernels.json").write_text(json.dumps({"benchmarks": results}))
    words = [sys.executable, "-m", "benchmarks.report", str(tmp_path / "kernels.json")]
    run = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    text = (tmp_path / "kernels.md").read_text()
    assert run.stdout.strip() == text.strip()
    cells = (
        "| blur | forward + backward | 2 | bfloat16 | 1.00 ms | 6.00 ms | 2.50 ms | 6.0x | 2.5x | 3.0 | - | 2.0 | 2.0 |"
    )
    assert cells in text
    # What it moves a second is that of a call from memory, as the copy's is: 4 us, and not 1.5 out of a cache.
    assert "| 1.5 us | 30.0 us | - | 20.0x | - | 4.0 us | 750.0 | 19 % |" in text
    assert "| depthwise | forward + backward | 2 | bfloat16 | - | 30.0 us | - | - | - | - | - | - | - | 2.0 |" in text
    assert "cpu: 2 cores of a processor; Python 3.11, torch 2.13.0; commit abc1234." in text
    assert "cuda: a GPU;" in text and "loader" not in text
    with Image.open(tmp_path / "kernels.png") as picture:
        assert min(picture.size) > 100


def test_ops_without_a_fused_kernel_are_those_of_the_package() -> None:
    assert {("cuda", op) for op in ON_CPUS} == OF_PYTORCH


def test_a_rate_that_was_not_measured_from_memory_is_not_told() -> None:
    row = {"device": "cuda", "seconds": 1e-6}
    assert from_memory(row) is None and from_memory({**row, "cold_us": 2.0}) == 2e-6
    assert from_memory({**row, "device": "cpu"}) == 1e-6


def step(impl: str, seconds: float, **more: object) -> dict[str, object]:
    info = {
        "op": "step", "impl": impl, "device": "cpu", "model": "resnet18", "crop": [240, 320], "batch": 2,
        "dtype": "bfloat16", "peak_bytes": 80_000_000, "floor_share": 0.25, "matmul_tflops": 1.5, "flops": 10**12,
        "machine": {"cpu": "a processor", "cores": 2, "python": "3.11"}, "versions": {"torch": "2.13.0"},
        "commit": "abc1234", **more,
    }  # fmt: skip
    return {"extra_info": info, "stats": {"median": seconds}}


def test_the_table_of_steps_tells_times_ratios_memory_and_options(tmp_path: Path) -> None:
    results = [step("iidm", 0.5), step("reference-best", 0.75), step("reference", 3.0, peak_bytes=200_000_000)]
    results.append(step("iidm", 0.6, options="sequential, recompute", peak_bytes=40_000_000))
    (tmp_path / "step.json").write_text(json.dumps({"benchmarks": results}))
    words = [sys.executable, "-m", "benchmarks.report_step", str(tmp_path / "step.json")]
    run = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == (tmp_path / "step.md").read_text().strip()
    assert (
        "| resnet18 | 240x320 | 2+2+2 | bfloat16 | 500.0 ms | 750.0 ms | 3.00 s | 1.50x | 6.00x | 25 % |" in run.stdout
    )
    assert "| 80 | 80 | 200 |" in run.stdout
    assert "| sequential, recompute | resnet18 | 240x320 | 2+2+2 | 600.0 ms | 40 |" in run.stdout
    assert "at 1.50 TFLOP/s" in run.stdout and "commit abc1234" in run.stdout
    with Image.open(tmp_path / "step.png") as picture:
        assert min(picture.size) > 100
