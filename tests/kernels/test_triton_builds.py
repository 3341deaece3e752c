from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


@pytest.mark.parametrize("arch", [80, 90])
def test_every_triton_kernel_compiles_without_spilling(arch: int, tmp_path: Path) -> None:
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    script = Path(__file__).parent / "compile_triton.py"
    run = subprocess.run([sys.executable, script, str(arch)], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    kernels = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(kernels) >= 8
    for kernel in kernels:
        assert kernel["stack"] == 0 and kernel["local"] == 0, kernel
        # 65,536 registers of a processor: at 128 a thread 512 threads are at home in it.
        assert kernel["registers"] <= 128, kernel
