"""What the tests of the ops share: the bodies that they run against, and an oracle from the definition."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from iidm import kernels

sys.path.insert(0, str(Path(__file__).parent))  # so that the tests can `import bodies`
sys.path.insert(0, str(Path(__file__).parents[1] / "cuda_on_cpu"))

import emulated  # noqa: E402
import on_cpu  # noqa: E402

if not torch.cuda.is_available():
    # Read when Triton decorates a kernel, so before any test imports one.
    os.environ["TRITON_INTERPRET"] = "1"

Upsample = Callable[[torch.Tensor, int, int, bool], np.ndarray]


@pytest.fixture(scope="session")
def emulated_extension() -> emulated.Emulated:
    """The CUDA kernels on the CPU, compiled by g++."""
    if reason := on_cpu.why_not():
        pytest.skip(reason)
    return emulated.load(on_cpu.Build().extension())


@pytest.fixture(scope="module")
def body(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs a module's tests against one body of the ops; tensors are made where it runs.

    `reference`: plain PyTorch on the CPU; `fused`: C++ on the CPU; `interpreted`: the Triton kernels, interpreted
    on the CPU; `emulated`: the CUDA kernels, compiled for the CPU; `gpu`: the fused kernels on a CUDA device. Modules
    name theirs with `bodies.run_with`.
    """
    name: str = request.param
    with pytest.MonkeyPatch.context() as patch:
        if name == "gpu":
            if not torch.cuda.is_available():
                pytest.skip("needs a CUDA device")
            kernels.set_implementation("fused", "cuda")
            torch.set_default_device("cuda")
        elif name == "interpreted":
            if torch.cuda.is_available() or importlib.util.find_spec("triton") is None:
                pytest.skip("Triton is not installed, or compiles for the GPU at hand")
            kernels.set_implementation("auto", "cpu")
            for op in ("cross_entropy", "pseudo_label"):
                fused = importlib.import_module(f"iidm.kernels.{op}.fused_triton")
                patch.setattr(f"iidm.kernels.{op}._on_cpu", getattr(fused, op))
            fused = importlib.import_module("iidm.kernels.batch_norm.fused_triton")
            patch.setattr("iidm.kernels.batch_norm.fused_cpu", fused)
        elif name == "emulated":
            if not kernels.build_info()["extension"]:
                pytest.skip("the extension is not built")
            kernels.set_implementation("auto", "cpu")
            for op in emulated.OPS:
                patch.setattr(f"iidm.kernels.{op}.extension", request.getfixturevalue("emulated_extension"))
        else:
            if name == "fused" and not kernels.build_info()["extension"]:
                pytest.skip("the extension is not built")
            kernels.set_implementation("fused" if name == "fused" else "reference", "cpu")
        yield name
        torch.set_default_device("cpu")
        kernels.set_implementation("auto", "cpu")


def _interpolation_matrix(out_size: int, in_size: int, align_corners: bool) -> np.ndarray:
    """float64 [out,in]: row i holds the weights with which the cells make output i."""
    matrix = np.zeros((out_size, in_size))
    for i in range(out_size):
        if align_corners:
            position = i * (in_size - 1) / (out_size - 1) if out_size > 1 else 0.0
        else:
            position = max((i + 0.5) * in_size / out_size - 0.5, 0.0)
        first = min(int(position), in_size - 1)
        second = min(first + 1, in_size - 1)
        matrix[i, first] += 1 - (position - first)
        matrix[i, second] += position - first
    return matrix


@pytest.fixture(scope="session")
def upsample64() -> Upsample:
    """logits [B,K,h,w] -> float64 [B,K,H,W], bilinear by definition."""

    def upsample(logits: torch.Tensor, height: int, width: int, align_corners: bool) -> np.ndarray:
        values = logits.detach().double().cpu().numpy()
        rows = _interpolation_matrix(height, values.shape[2], align_corners)
        columns = _interpolation_matrix(width, values.shape[3], align_corners)
        return np.einsum("yi,bkij,xj->bkyx", rows, values, columns)

    return upsample


@pytest.fixture
def implementation() -> Iterator[Callable[..., str]]:
    """kernels.set_implementation, undone after the test."""
    yield kernels.set_implementation
    kernels.set_implementation("auto", "cpu")
