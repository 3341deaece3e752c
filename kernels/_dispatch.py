"""Which implementation of each op runs: the fused kernel or plain PyTorch.

PyTorch's dispatcher picks the device; this module holds the user's choice between the two bodies that a
device may have.
"""

from __future__ import annotations

import importlib.util
from typing import Literal, get_args

import torch

from ._extension import extension, why_missing

Choice = Literal["auto", "fused", "reference"]

OPS = ("classmix", "jitter", "blur", "pseudo_label", "cross_entropy", "confusion_matrix", "batch_norm", "depthwise")
"""Every op of this package."""

ON_CPUS = ("depthwise",)
"""Ops that serve CPUs alone: a GPU's depthwise convolutions are PyTorch's."""

_choice: Choice = "auto"


TRITON_CAPABILITY = (8, 0)
"""Lowest compute capability that Triton compiles for."""
TRITON_OPTIONS = {"enable_fp_fusion": True}
"""Given at each launch: Triton 3.9 warns where nothing is said, and 3.10 is to compute a product and a sum apart."""


def _fused_kernels(device: torch.device) -> dict[str, str]:
    """Op -> the language of its fused kernel, for the ops that have one on this device and in this build."""
    if device.type == "cpu" and extension is not None:
        return dict.fromkeys(OPS, "C++")
    found = {}
    if device.type == "cuda" and importlib.util.find_spec("triton") is not None:
        if _capability(device) >= TRITON_CAPABILITY:
            found = dict.fromkeys(("pseudo_label", "cross_entropy", "batch_norm"), "Triton")
    if device.type == "cuda" and extension is not None and extension.build_info()["cuda"]:
        if _capability(device) >= _built_for():
            found |= dict.fromkeys(("classmix", "jitter", "blur", "confusion_matrix"), "CUDA")
    return found


def _capability(device: torch.device) -> tuple[int, int]:
    """Compute capability of a GPU; where there is none, as in a rehearsal, that of one which runs everything."""
    return torch.cuda.get_device_capability(device) if torch.cuda.is_available() else (99, 0)


def _built_for() -> tuple[int, int]:
    """The lowest compute capability that the extension's CUDA kernels run on; newer GPUs compile its PTX."""
    number = int(str(build_info()["cuda_arches"]).split(";")[0].rstrip("af"))
    return number // 10, number % 10


def _why_not_fused(device: torch.device) -> str:
    """What keeps fused kernels from running on a device; empty where nothing is known of it."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return why_missing
    have, reasons = _capability(device), [why_missing] if why_missing else []
    needs = {"Triton needs": TRITON_CAPABILITY}
    if extension is not None and extension.build_info()["cuda"]:
        needs["the extension is built for"] = _built_for()
    low = [f"{who} {need[0]}.{need[1]} or newer" for who, need in needs.items() if have < need]
    if low:
        reasons.append(f"the GPU has compute capability {have[0]}.{have[1]}; {', '.join(low)}")
    return "; ".join(reasons)


def use_fused(op: str, device: torch.device) -> bool:
    """Whether `op` runs its fused kernel for tensors on `device`.

    Raises:
        RuntimeError: `fused` was asked for and there is no such kernel for this device.
    """
    if _choice == "reference":
        return False
    available = op in _fused_kernels(device)
    if _choice == "fused" and not available:
        raise RuntimeError(_no_fused_kernel([op], device))
    return available


def _no_fused_kernel(ops: list[str], device: torch.device) -> str:
    why = f" ({reason})" if (reason := _why_not_fused(device)) else ""
    return (
        f"Fused kernels were asked for, but on {device.type} there is none for {', '.join(ops)}{why}."
        " Use --kernels auto to run these as plain PyTorch."
    )


def set_implementation(choice: Choice, device: torch.device | str | None = None) -> str:
    """Choose what the ops run as, for this process.

    Args:
        choice: `auto` the fused kernel where there is one, else plain PyTorch; `fused` fused kernels only;
            `reference` plain PyTorch only.
        device: where the ops will run. None: the GPU where there is one.

    Returns:
        One line that says what each op runs as.

    Raises:
        ValueError: a choice that does not exist.
        RuntimeError: `fused`, and an op has no fused kernel for the device; the message names them. The
            choice made before stays.
    """
    global _choice
    if choice not in get_args(Choice):
        raise ValueError(f"The implementation must be one of {', '.join(get_args(Choice))}, not {choice!r}.")
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(device)
    fused = {} if choice == "reference" else _fused_kernels(device)
    missing = [op for op in OPS if op not in fused and (device.type == "cpu" or op not in ON_CPUS)]
    if choice == "fused" and missing:
        raise RuntimeError(_no_fused_kernel(missing, device))
    _choice = choice
    return _describe(fused, missing, "" if choice == "reference" else _why_not_fused(device))


def _describe(fused: dict[str, str], missing: list[str], reason: str) -> str:
    why = f"; {reason}" if reason else ""
    if not fused:
        return f"kernels: all reference (PyTorch){why}"
    languages = dict.fromkeys(fused.values())
    if not missing and len(languages) == 1:
        return f"kernels: all fused ({next(iter(languages))})"
    parts = [f"{', '.join(op for op in OPS if fused.get(op) == name)} fused ({name})" for name in languages]
    if missing:
        parts.append(f"{', '.join(missing)} reference (PyTorch){why}")
    return f"kernels: {'; '.join(parts)}"


def build_info() -> dict[str, object]:
    """What the compiled extension is.

    Returns:
        `extension`: bool, whether it loads; `reason`: str, why it does not; and where it does: `cuda`: bool,
        whether CUDA kernels are in it; `cuda_arches`: str, their architectures; `compiler`: str; `openmp`:
        int, the OpenMP version date, 0 without it.
    """
    if extension is None:
        return {
            "extension": False,
            "reason": why_missing,
            "cuda": False,
            "cuda_arches": "",
            "compiler": "",
            "openmp": 0,
        }
    return {"extension": True, "reason": "", **extension.build_info()}
