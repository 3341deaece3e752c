"""Compiles every Triton kernel for architectures without a GPU; prints a JSON line a kernel: registers, spills.

Run by test_triton_builds.py in a process of its own, where Triton is not set to interpret:

    python compile_triton.py 80 90
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from iidm.kernels._dispatch import TRITON_OPTIONS
from iidm.kernels.batch_norm.fused_triton import (
    FINISH_CHANNELS,
    MAX_CHANNELS,
    MAX_SPLITS,
    STAGES,
    SUMMED_BYTES,
    TILE,
    WARPS,
    finish_backward_kernel,
    finish_forward_kernel,
    gradient_kernel,
    normalize_kernel,
    sums_kernel,
)
from iidm.kernels.cross_entropy.fused_triton import (
    ADD_BLOCK,
    FINISH_BLOCK,
    FINISH_WARPS,
    add_planes_kernel,
    cross_entropy_kernel,
    finish_kernel,
)
from iidm.kernels.pseudo_label.fused_triton import pseudo_label_kernel

POINTERS = {
    "label": "*u8",
    "logits": "*bf16",
    "valid": "*i32",
    "confident": "*i32",
    "row_begin": "*i32",
    "column_begin": "*i32",
    "starts": "*i32",
    **dict.fromkeys(("x", "y", "residual", "grad_x", "grad_residual"), "*bf16"),
}
FLOATS = ("weight", "class_weight", "planes", "losses", "confidence", "loss", "scale", "grad")
FLOATS += (
    "row_fraction",
    "column_fraction",
    "bias",
    "running_mean",
    "running_var",
    "mean",
    "rstd",
    "partial",
    "factors",
)
FLOATS += ("grad_weight", "grad_bias")
SCALARS = ("threshold", "momentum", "eps")
CELLS_OF_8 = {"SPLITS_X": 1, "SPLITS": 1, "CELLS": 2, "SIDE_Y": 8, "SIDE_X": 8}
CELLS_OF_32 = {"SPLITS_X": 2, "SPLITS": 4, "CELLS": 1, "SIDE_Y": 32, "SIDE_X": 32}
CASES = [
    (cross_entropy_kernel, CELLS_OF_8 | {"WEIGHT_DIM": 1, "CLASS_WEIGHT": False, "WITH_GRAD": True}, 1),
    (cross_entropy_kernel, CELLS_OF_8 | {"WEIGHT_DIM": 3, "CLASS_WEIGHT": True, "WITH_GRAD": True}, 1),
    (cross_entropy_kernel, CELLS_OF_32 | {"WEIGHT_DIM": 3, "CLASS_WEIGHT": True, "WITH_GRAD": True}, 8),
    (cross_entropy_kernel, CELLS_OF_8 | {"WEIGHT_DIM": 0, "CLASS_WEIGHT": False, "WITH_GRAD": False}, 1),
    (pseudo_label_kernel, CELLS_OF_8 | {"INCLUSIVE": False, "WITH_CONFIDENCE": False}, 1),
    (pseudo_label_kernel, CELLS_OF_32 | {"INCLUSIVE": True, "WITH_CONFIDENCE": True}, 8),
    (finish_kernel, {"NORMALIZER": "valid", "BLOCK": FINISH_BLOCK}, FINISH_WARPS),
    (add_planes_kernel, {"SPLITS": 1, "BLOCK": ADD_BLOCK}, 4),
]
# The most sums that a program ends.
ENDS = {"GROUPS": 4, "SPLITS": MAX_SPLITS, "CHANNELS": FINISH_CHANNELS}
for channels in (16, MAX_CHANNELS):
    tile = {"ROWS": TILE // channels, "CHANNELS": channels}
    summed = {"ROWS": SUMMED_BYTES // (2 * channels), "CHANNELS": channels}
    CASES += [
        (sums_kernel, {"ACTIVATION": activation, "BACKWARD": activation != "none", **summed, "STAGES": stages}, WARPS)
        for activation in ("none", "relu6")
        for stages in (1, STAGES)
    ]
    CASES += [
        (normalize_kernel, {"ACTIVATION": "relu", "RESIDUAL": True, **tile}, WARPS),
        (gradient_kernel, {"ACTIVATION": "relu", "RESIDUAL": True, **tile}, WARPS),
    ]
CASES += [(finish_forward_kernel, {"RUNNING": True, **ENDS}, 16), (finish_backward_kernel, ENDS, 16)]
UPSAMPLING_CASES = CASES[:8]
# Triton makes arguments that are 1 constants: one class, one pixel, one image.
ONES = ("classes", "low_h", "low_w", "high_h", "high_w", "stride_k", "stride_y", "stride_x")
CASES += [
    (
        kernel,
        constants | dict.fromkeys([n for n in ONES + ("programs", "pixels") if n in kernel.arg_names], 1),
        warps,
    )
    for kernel, constants, warps in UPSAMPLING_CASES[1:2] + UPSAMPLING_CASES[4:5] + UPSAMPLING_CASES[6:]
]


def signature(kernel: triton.JITFunction, constants: dict[str, object]) -> dict[str, str]:
    """Argument -> type, as a launch on float32 weights and bfloat16 logits has them."""
    types = {}
    for name in kernel.arg_names:
        scalar = "fp32" if name in SCALARS else "i32"
        types[name] = "constexpr" if name in constants else POINTERS.get(name, "*fp32" if name in FLOATS else scalar)
    return types


def resources(cubin: bytes) -> dict[str, int]:
    """Registers of a thread, and the bytes of stack and local memory to which it spills."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True)
    found = re.search(r"REG:(\d+) STACK:(\d+) .*?LOCAL:(\d+)", text.stdout)
    assert found, text.stdout
    return dict(zip(("registers", "stack", "local"), map(int, found.groups()), strict=True))


def main() -> None:
    for arch, (kernel, constants, warps) in itertools.product(map(int, sys.argv[1:]), CASES):
        types = signature(kernel, constants)
        # Several stages are for aligned rows.
        aligned = [
            (i,) for i, kind in enumerate(types.values()) if kind != "constexpr" and constants.get("STAGES", 1) > 1
        ]
        attributes = {place: [["tt.divisibility", 16]] for place in aligned}
        source = ASTSource(kernel, types, {(list(types).index(k),): v for k, v in constants.items()}, attributes)
        compiled = triton.compile(
            source, target=GPUTarget("cuda", arch, 32), options={"num_warps": warps, **TRITON_OPTIONS}
        )
        line = {
            "arch": arch,
            "kernel": kernel.__name__,
            **constants,
            "warps": warps,
            **resources(compiled.asm["cubin"]),
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
