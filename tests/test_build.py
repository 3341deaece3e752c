"""The build: what it demands and what it says. That the C++ part alone is enough: test_packaging.py."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from iidm import kernels

ROOT = Path(__file__).resolve().parents[1]
pytest.importorskip("setuptools")
pytest.importorskip("pybind11")


def build(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """setup.py build_ext into `folder`, with `environment` on top of one that knows of no CUDA toolkit."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("CUDA", "IIDM", "CXX"))}
    command = [
        sys.executable,
        "setup.py",
        "build_ext",
        f"--build-temp={folder}/temp",
        f"--build-lib={folder}/lib",
    ]
    return subprocess.run(command, cwd=ROOT, env={**clean, **environment}, capture_output=True, text=True)


def test_cuda_that_was_demanded_and_is_missing_is_an_error(tmp_path: Path) -> None:
    run = build(tmp_path, IIDM_CUDA="1", PATH=str(tmp_path))
    assert run.returncode != 0
    assert "nvcc was found neither in CUDA_HOME nor on PATH" in run.stderr and "Traceback" not in run.stderr


def test_a_missing_compiler_is_named_with_the_remedy(tmp_path: Path) -> None:
    run = build(tmp_path, IIDM_CUDA="0", CXX="no-such-compiler")
    assert run.returncode != 0
    assert "'no-such-compiler' was not found" in run.stderr and "apt install g++" in run.stderr


def test_wrong_switches_are_named(tmp_path: Path) -> None:
    assert "IIDM_CUDA must be auto, 0 or 1, not 'yes'" in build(tmp_path, IIDM_CUDA="yes").stderr
    if shutil.which("nvcc"):
        assert "IIDM_CUDA_ARCHS must be numbers" in build(tmp_path, IIDM_CUDA_ARCHS="hopper").stderr


@pytest.mark.skipif(not kernels.build_info()["cuda"], reason="the extension was built without CUDA")
def test_the_extension_with_cuda_loads_without_a_driver() -> None:
    info = kernels.build_info()
    assert info["extension"] is True and info["cuda_arches"]
    code = "from iidm.kernels import build_info; print(build_info()['cuda'])"
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=hidden)
    assert run.stdout.strip() == "True"
