from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


def _printed(script: str, arch: int, tmp_path: Path) -> list[dict[str, Any]]:
    """What a script prints for an architecture, of a process in which Triton compiles."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(root)}
    environment.pop("TRITON_INTERPRET", None)
    words = [sys.executable, str(Path(__file__).parent / script), str(arch)]
    run = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.mark.parametrize("arch", [80, 90, 100])
def test_an_upsampled_logit_is_rounded_alike_wherever_it_is_computed(arch: int, tmp_path: Path) -> None:
    """The compiler finds no product to fuse that is not fused already: it might choose another one in each loop."""
    for found in _printed("count_products.py", arch, tmp_path):
        assert found["may fuse"] == found["may not"] and "fma" in " ".join(found["may not"]), found


@pytest.mark.parametrize("arch", [80, 90])
def test_every_triton_kernel_compiles_without_spilling(arch: int, tmp_path: Path) -> None:
    kernels = _printed("compile_triton.py", arch, tmp_path)
    assert len(kernels) >= 8
    for kernel in kernels:
        assert kernel["stack"] == 0 and kernel["local"] == 0, kernel
        # 65,536 registers of a processor: at 128 a thread 512 threads are at home in it.
        assert kernel["registers"] <= 128, kernel
