"""The shapes of the GPU kernels on paper stay as they were reached; no GPU is needed, only what compiles for one."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import machine_code
from benchmarks.gpu_models import PROCESSORS, Shape, resident_blocks
from benchmarks.machine_code import CudaCode, CudaLaunch

ROOT = Path(__file__).parents[1]
needs_compilers = pytest.mark.skipif(machine_code.missing() is not None, reason=f"{machine_code.missing()}")
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")

REGISTERS = {"presence": 32, "draw": 32, "classmix": 40, "jitter": 40, "blur": 56, "confusion_matrix": 40}
"""At most, of the kernels that a training step and evaluation launch."""


@pytest.fixture(scope="module")
def cuda(tmp_path_factory: pytest.TempPathFactory) -> CudaCode:
    return CudaCode(tmp_path_factory.mktemp("cuda"), (90,))


def launches_of(cuda: CudaCode, size: tuple[int, int] = (512, 512)) -> dict[str, CudaLaunch]:
    found = cuda.launches(2, size, 19, 8)
    launches = {op: next(x for x in found if f"{op}_kernel" in x.kernel) for op in REGISTERS}
    assert len(launches) == len(found)
    return launches


@needs_compilers
def test_no_cuda_kernel_spills(cuda: CudaCode) -> None:
    assert len(cuda.kernels[90]) >= 20
    for name, code in cuda.kernels[90].items():
        assert code.local == 0, name


@needs_compilers
def test_the_kernels_of_a_step_keep_their_registers_and_fill_a_gpu_at_two_images(cuda: CudaCode) -> None:
    for op, launch in launches_of(cuda).items():
        code = cuda.kernels[90][launch.kernel]
        assert code.registers <= REGISTERS[op], op
        resident = resident_blocks(launch.threads, code.registers, code.shared + launch.shared, 90)
        assert resident * launch.threads >= 1024, op  # half of the warps
        if op != "draw":  # 256 comparisons an image
            assert launch.blocks >= 0.9 * PROCESSORS, op


@needs_compilers
@pytest.mark.parametrize("op", ["classmix", "jitter"])
def test_images_are_read_in_words_and_written_in_vectors(cuda: CudaCode, op: str) -> None:
    launch = launches_of(cuda)[op]
    code = cuda.kernels[90][launch.kernel]
    # Single bytes: whether the image is jittered, and (classmix) whether a label value is selected.
    assert code.widths("LDG").get(8, 0) == (2 if op == "classmix" else 1)
    assert code.widths("STG").get(64, 0) == 3 and not {8, 16} & set(code.widths("STG"))
    # An image that is no whole number of words takes another kernel.
    assert launches_of(cuda, (7, 9))[op].kernel != launch.kernel


@needs_compilers
def test_labels_are_read_in_vectors(cuda: CudaCode) -> None:
    launch = launches_of(cuda)["presence"]
    assert cuda.kernels[90][launch.kernel].widths("LDG")[128] >= 1


# In a process of its own, where Triton is not set to interpret.
TRITON = """
import json, math, torch
from benchmarks.triton_launches import recorded
from iidm.kernels.batch_norm import fused_triton as batch_norm
from iidm.kernels.pseudo_label import fused_triton as pseudo_label

for groups in ([2] * 4, [2]):
    weight = torch.empty(64, device="meta")
    x = torch.empty(sum(groups), 64, 128, 128, dtype=torch.bfloat16, device="meta")
    logits = torch.empty(2, 19, 64, 64, dtype=torch.bfloat16, device="meta")
    with recorded() as launches:
        batch_norm.batch_norm(x, None, weight, weight, weight, weight, 0.1, 1e-5, groups, "relu")
        pseudo_label.pseudo_label(logits, (512, 512), 0.9, False, False, False, False)
    print(json.dumps({launch.kernel.__name__: [math.prod(launch.grid), launch.constants] for launch in launches}))
"""


@needs_triton
def test_triton_programs_fill_a_gpu_at_two_images() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("TRITON_INTERPRET", None)
    run = subprocess.run([sys.executable, "-c", TRITON], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    for branches, line in zip((4, 1), run.stdout.splitlines(), strict=True):
        launches = json.loads(line)
        for kernel in ("sums_kernel", "normalize_kernel", "pseudo_label_kernel"):
            assert launches[kernel][0] >= PROCESSORS, kernel
        assert launches["finish_forward_kernel"][1]["GROUPS"] == branches


def test_occupancy_follows_the_published_limits() -> None:
    assert resident_blocks(256, 32, 0, 90) == 8  # 64 warps
    assert resident_blocks(256, 33, 0, 90) == 6  # registers are given out by 8 a thread: 40
    assert resident_blocks(32, 32, 0, 80) == 32  # blocks
    assert resident_blocks(128, 32, 48 << 10, 80) == 3  # shared memory, and a kilobyte of the driver's
    assert resident_blocks(128, 32, 48 << 10, 90) == 4


def test_expected_time_is_start_waits_and_the_slower_of_memory_and_instructions() -> None:
    shape = Shape(blocks=1320, threads=256, resident=8, bytes=3_350_000, instructions=0.0, waits=2)
    assert shape.floor_s("H100") == pytest.approx(1e-6)
    assert shape.expected_s("H100") == pytest.approx(1e-6 + 2 * 0.6e-6 + 1e-6)
    assert shape.waves == 1.25
    slow = shape._replace(instructions=132 * 128 * 1.98e9 * 5e-6)
    assert slow.expected_s("H200") == pytest.approx(1e-6 + 2 * 0.6e-6 + 5e-6)
    assert slow._replace(blocks=66).instructions_s() == pytest.approx(10e-6)


def test_the_exact_quotient_by_255_in_two_instructions() -> None:
    text = (ROOT / "csrc" / "color.h").read_text()
    high, low = (np.float32(float.fromhex(re.search(rf"kUnit{n} = (\S+?)f[,;]", text)[1])) for n in ("High", "Low"))
    for x in range(256):
        # 80-bit numbers hold the product and the sum exactly, so this is a fused multiplication and addition.
        small = np.longdouble(np.float32(x) * low)
        fused = np.float32(np.longdouble(x) * np.longdouble(high) + small)
        assert fused == np.float32(x) / np.float32(255), x
