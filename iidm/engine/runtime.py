"""The machine: device, precision, seeds."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..types import UserError


def pick_device(choice: str) -> torch.device:
    """`auto`: the GPU where there is one. Raises UserError for `cuda` without a GPU."""
    if choice == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "--device cuda needs a GPU that this torch can use, and there is none. Use --device cpu or auto."
        )
    if choice == "auto":
        choice = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(choice)


def pick_amp_dtype(device: torch.device, amp: bool) -> torch.dtype | None:
    """Precision of autocast: bfloat16 where the device computes in it, float16 on older GPUs, None for float32.

    On a CPU without bfloat16 instructions (AVX512-BF16 or AMX) autocast would be slower than float32, so it is None.
    """
    if not amp:
        return None
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return (
        torch.bfloat16
        if torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        else None
    )


def seed_everything(seed: int) -> None:
    """Seed torch's global generators (random start, dropout). Data and draws of the step have generators of their own.

    Bit-exact repetition on a CPU needs the same number of threads, as sums are split among them.
    """
    torch.manual_seed(seed)


def keep_freed_memory(device: torch.device) -> None:
    """Let the C library keep what torch frees, for the next tensor of that size; does nothing where it is not glibc.

    A step on a CPU allocates and frees the same hundreds of megabytes as the one before. As a rule they go back to the
    system each time, which then has to clear their pages again.

    Where `device` is the CPU all threads share one heap. As a rule they have one each, and those of each evaluation get
    another one: in time every heap keeps the most that any of them took, which fills for thousands of steps. Beside a
    GPU many threads decode images at once, and would wait for each other.
    """
    if mallopt := _of_c_library("mallopt"):
        trim_threshold, mmap_max, arena_max = -1, -4, -8  # M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX of malloc.h
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_max, 0)
        if device.type == "cpu":
            mallopt(arena_max, 1)


def return_freed_memory() -> None:
    """Give the system what `keep_freed_memory` has kept; does nothing where the C library is not glibc.

    After what no step does, an evaluation or a checkpoint: what that took in other sizes would stay for good, and
    scatter what the steps keep, a little further each time.
    """
    if malloc_trim := _of_c_library("malloc_trim"):
        malloc_trim(0)


def _of_c_library(name: str) -> Callable[..., int] | None:
    """A function of the C library; None where it has no such function."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError, TypeError):
        return None


def machine_info() -> dict[str, Any]:
    """What a figure should carry: processor, cores, GPU, versions."""
    info: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if torch.cuda.is_available():
        info["gpu"] = torch.cuda.get_device_name()
    return info


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )
