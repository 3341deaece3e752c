"""The rehearsal of a GPU: on_fake_cuda/ in a process of its own, where torch finds a CUDA device that is fake."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


def _fake_device_is_missing() -> str:
    spec = importlib.util.spec_from_file_location("fake_device", FOLDER / "fake_device.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.why_not() or ""


@pytest.mark.slow
@pytest.mark.skipif(bool(_fake_device_is_missing()), reason=_fake_device_is_missing())
def test_the_product_runs_on_fake_cuda_tensors(tmp_path: Path) -> None:
    environment = {"IIDM_REHEARSAL": "1", **os.environ, "TRITON_CACHE_DIR": str(tmp_path / "triton")}
    environment.pop("TRITON_INTERPRET", None)  # set by the tests of the ops
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'tests'}"]
    command += [str(FOLDER / "on_fake_cuda"), "--durations=5"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=FOLDER.parents[1])
    print(run.stdout)
    assert run.returncode == 0, f"{' '.join(command)}\n{run.stdout[-20000:]}\n{run.stderr[-5000:]}"
