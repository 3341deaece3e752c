"""What every benchmark shares: what a figure carries with it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from iidm.engine.runtime import machine_info

COPY_BYTES = 1 << 30


def commit() -> str:
    """The commit that was measured, with a + where the working tree differs from it; outside of git IIDM_COMMIT."""
    if os.environ.get("IIDM_COMMIT"):
        return os.environ["IIDM_COMMIT"]
    if shutil.which("git") is None:
        return ""
    folder = Path(__file__).parent
    words = ["git", "-C", str(folder), "describe", "--always", "--abbrev=10", "--dirty=+", "--exclude=*"]
    run = subprocess.run(words, capture_output=True, text=True)
    return run.stdout.strip()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


@pytest.fixture(scope="session")
def provenance() -> dict[str, Any]:
    """Machine, commit and versions, for `extra_info`."""
    versions = {
        name: _version(name)
        for name in ("torch", "triton", "nvidia-dali-cuda130", "numpy", "pillow", "pytest-benchmark")
    }
    return {"machine": machine_info(), "commit": commit(), "versions": versions}


@pytest.fixture(scope="session")
def copy_gb_per_s() -> float:
    """What a device-to-device copy of 1 GiB reaches here, read and write counted: the bandwidth there is to share."""
    if not torch.cuda.is_available():
        return 0.0
    source = torch.empty(COPY_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    target.copy_(source)
    start.record()
    for _ in range(20):
        target.copy_(source)
    end.record()
    torch.cuda.synchronize()
    return 20 * 2 * COPY_BYTES / (start.elapsed_time(end) * 1e-3) / 1e9
