"""What the fused bodies of the ops would launch on a GPU: Triton compiles each launch as it would be launched, with
what it makes of the arguments' values, and launches none."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import torch
from compile_triton import resources
from extension_calls import Extension, extension_calls
from stand_ins import CUDAGraph
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from iidm import kernels
from iidm.kernels._dispatch import TRITON_OPTIONS

ARCHES = (80, 90) if os.environ.get("IIDM_REHEARSAL") == "all" else (90,)
"""Compute capabilities that each launch is compiled for; tests/kernels/test_triton_builds.py has more of them."""


class Kernel(NamedTuple):
    """A kernel as one launch had it compiled."""

    name: str
    arch: int
    hash: str
    """Of its code, the types of its arguments and what Triton makes of their values: 1, or divisible by 16."""


class Launches:
    """What was launched in a stretch of code.

    `compiled` holds each kernel once; `in_capture` those that were new while a graph was captured, when a GPU can load
    none; `grids` counts launches.
    """

    def __init__(self, extension: Extension) -> None:
        self.extension = extension
        self.compiled: dict[Kernel, Any] = {}
        self.in_capture: Counter[str] = Counter()
        self.grids: Counter[tuple[str, tuple[int, ...]]] = Counter()

    def used(self) -> dict[Kernel, dict[str, int]]:
        """Registers, stack and local memory of each kernel, and the shared memory of a block, in bytes."""
        return {
            kernel: {**resources(compiled.asm["cubin"]), "shared": compiled.metadata.shared}
            for kernel, compiled in self.compiled.items()
        }


class _Driver:
    """A GPU of the compute capability `arch`; its number is the same, as Triton keeps kernels by device."""

    arch = ARCHES[0]

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.arch, 32)

    def get_current_device(self) -> int:
        return self.arch

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cuda:0")


@contextmanager
def launches(arches: tuple[int, ...] = ARCHES) -> Iterator[Launches]:
    """Inside, the ops' fused bodies are chosen on the fake device, and what they launch is compiled and kept."""
    compile_or_launch, gpu = JITFunction.run, _Driver()

    def run(kernel: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        assert all(tensor.is_cuda for tensor in tensors), f"{kernel.__name__} is given a tensor on the CPU"
        assert all(0 < size < limit for size, limit in zip(grid, (2**31, 2**16, 2**16), strict=False)), grid
        assert TRITON_OPTIONS.items() <= kwargs.items(), f"{kernel.__name__} is launched without TRITON_OPTIONS"
        found.grids[kernel.__name__, tuple(grid)] += 1
        for gpu.arch in arches:
            compiled = compile_or_launch(kernel, *args, grid=grid, warmup=True, **kwargs)
            key = Kernel(kernel.__name__, gpu.arch, compiled.hash)
            if key not in found.compiled and CUDAGraph.capturing:
                found.in_capture[kernel.__name__] += 1
            found.compiled[key] = compiled

    with pytest.MonkeyPatch.context() as patch, extension_calls() as extension:
        found = Launches(extension)
        patch.setattr(JITFunction, "run", run)
        driver.set_active(gpu)  # type: ignore[arg-type]
        kernels.set_implementation("fused", "cuda")
        try:
            yield found
        finally:
            kernels.set_implementation("auto", "cpu")
            driver._active = None
