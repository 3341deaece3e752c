from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
PRODUCTS, RESOURCES = (80, 90, 100), (80, 90)
"""Compute capabilities times ten, all in one process: to import torch and Triton takes as long as to compile."""
FRAME = 8
"""Bytes of stack that are no spill: Triton 3.7.1 gives one build of cross_entropy_kernel as many, at 48 registers."""


def _printed(script: str, arches: Sequence[int], folder: Path) -> list[dict[str, Any]]:
    """What a script prints for architectures, of a process in which Triton compiles."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "TRITON_CACHE_DIR": str(folder), "PYTHONPATH": str(root)}
    environment.pop("TRITON_INTERPRET", None)
    words = [sys.executable, str(Path(__file__).parent / script), *map(str, arches)]
    run = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return _printed("count_products.py", PRODUCTS, tmp_path_factory.mktemp("products"))


@pytest.fixture(scope="module")
def resources(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return _printed("compile_triton.py", RESOURCES, tmp_path_factory.mktemp("resources"))


@pytest.mark.parametrize("arch", PRODUCTS)
def test_an_upsampled_logit_is_rounded_alike_wherever_it_is_computed(arch: int, products: list[dict[str, Any]]) -> None:
    """The compiler finds no product to fuse that is not fused already: it might choose another one in each loop."""
    lines = [line for line in products if line["arch"] == arch]
    assert len(lines) == 3
    for found in lines:
        assert found["may fuse"] == found["may not"] and "fma" in " ".join(found["may not"]), found


@pytest.mark.parametrize("arch", RESOURCES)
def test_every_triton_kernel_compiles_without_spilling(arch: int, resources: list[dict[str, Any]]) -> None:
    kernels = [line for line in resources if line["arch"] == arch]
    assert len(kernels) >= 8
    for kernel in kernels:
        assert kernel["stack"] <= FRAME and kernel["local"] == 0, kernel
        # 65,536 registers of a processor: at 128 a thread 512 threads are at home in it.
        assert kernel["registers"] <= 128, kernel
