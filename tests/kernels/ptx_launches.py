"""Runs the ops' Triton kernels as the PTX that Triton makes of them for sm_90, and with faults planted into it.

Prints a JSON line for each case and each fault. Run by test_triton_ptx.py in a process of its own, where Triton is not
set to interpret: python ptx_launches.py
"""

from __future__ import annotations

import ctypes
import importlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from ptx_block import Block, Program
from ptx_memory import WARP, Buffer, Fault
from ptx_operations import UnknownPtx
from torch import Tensor
from triton.backends.nvidia.compiler import CUDABackend
from triton.runtime.jit import JITFunction
from triton_launches import channels_last

from benchmarks.triton_launches import launch_of

ARCH = 90
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TOLERANCE = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
"""Of test_gpu.py, times 1 + the largest number that is expected; what is float32 in every case has that of float32."""


EVERY = tuple(DTYPES)


class Upsampling(NamedTuple):
    dtypes: tuple[str, ...]
    batch: int
    classes: int
    low: tuple[int, int]
    size: tuple[int, int]
    align_corners: bool


class Normalization(NamedTuple):
    dtypes: tuple[str, ...]
    channels: int
    groups: list[int]
    pixels: tuple[int, int]
    activation: str
    residual: bool
    programs: int = 0
    """Among which the sums of a layer are split; 0: as on a GPU."""


UPSAMPLINGS = [
    Upsampling(EVERY, 1, 3, (2, 3), (16, 24), False),  # whole cells
    Upsampling(("float32",), 2, 2, (2, 2), (13, 10), True),  # odd ones
    Upsampling(EVERY, 1, 2, (1, 2), (40, 70), False),  # cells that several programs of 8 warps share
    Upsampling(("float16",), 1, 1, (1, 1), (1, 1), False),
    Upsampling(("bfloat16",), 2, 3, (5, 4), (4, 5), True),  # fewer pixels than logits
]
NORMALIZATIONS = [
    Normalization(EVERY, 5, [2, 1, 1], (3, 5), "relu", True),
    Normalization(EVERY, 32, [1, 2], (9, 17), "relu6", True),  # whole vectors; rows that two programs share
    Normalization(("bfloat16",), 70, [2], (4, 4), "none", False),  # two tiles of channels
    Normalization(("float32",), 1, [1], (1, 2), "relu", True),
    Normalization(EVERY, 48, [1, 2], (17, 23), "relu", True, 4),  # each program adds up 3 to 13 tiles
]


class Compared(NamedTuple):
    """A result of an op beside that of plain PyTorch."""

    name: str
    got: Tensor
    want: Tensor
    limit: float

    def off(self) -> float:
        """How far apart they are, as a part of what is allowed; above 1, or NaN: wrong."""
        if not self.want.numel():
            return 0.0
        got, want = self.got.double(), self.want.double()
        return float((got - want).abs().max() / (self.limit * (1 + want.abs().max())))


def modules(op: str) -> tuple[Any, ...]:
    """The op's Triton body and plain PyTorch."""
    return tuple(importlib.import_module(f"iidm.kernels.{op}.{name}") for name in ("fused_triton", "reference"))


def cross_entropy(case: Upsampling, dtype: torch.dtype) -> Iterator[Compared]:
    logits = (channels_last(case.batch, case.classes, *case.low) * 3).to(dtype)
    label = torch.randint(0, case.classes, (case.batch, *case.size), dtype=torch.uint8)
    label = label.masked_fill(torch.rand(label.shape) < 0.2, 255)
    given: tuple[Any, ...] = (
        logits,
        label,
        torch.rand(label.shape),
        torch.rand(case.classes),
        "valid",
        case.align_corners,
        True,
    )
    if dtype is torch.bfloat16:
        given = (logits.contiguous(), label, torch.rand(case.batch), None, "pixels", case.align_corners, True)
    results = [body.cross_entropy(*given) for body in modules("cross_entropy")]
    yield from itertools.starmap(Compared, zip(("loss", "grad"), *results, [1e-5] * 2, strict=True))


def pseudo_label(case: Upsampling, dtype: torch.dtype) -> Iterator[Compared]:
    logits = (channels_last(case.batch, case.classes, *case.low) * 3).to(dtype)
    fused, reference = modules("pseudo_label")
    given = (logits, case.size, 0.6, case.align_corners, dtype is torch.float16, False)
    results = fused.pseudo_label(*given, True), reference.pseudo_label(*given)
    yield from itertools.starmap(Compared, zip(("label", "quality", "confidence"), *results, [1e-5] * 3, strict=True))


def batch_norm(case: Normalization, dtype: torch.dtype) -> Iterator[Compared]:
    shape = (sum(case.groups), case.channels, *case.pixels)
    x, residual, grad = ((channels_last(*shape) * 2 + 1).to(dtype) for _ in range(3))
    weight, bias = torch.rand(case.channels) + 0.5, torch.randn(case.channels)
    running = [torch.stack([torch.zeros(case.channels), torch.ones(case.channels)]) for _ in range(2)]
    added = residual if case.residual else None
    both = modules("batch_norm")
    split = mock.patch.object(both[0], "PROGRAMS", case.programs or both[0].PROGRAMS)
    results = []
    for body, (mean, var) in zip(both, running, strict=True):
        with split:
            given = (x, added, weight, bias, mean, var, 0.1, 1e-5, case.groups, case.activation)
            results.append([*body.batch_norm(*given), mean, var])
    names: tuple[str, ...] = ("y", "mean", "rstd", "running_mean", "running_var")
    limits = [TOLERANCE[dtype]] + [TOLERANCE[torch.float32]] * 4
    yield from itertools.starmap(Compared, zip(names, *results, limits, strict=True))
    y, *statistics = results[0][:3]
    back = (grad, x, y, *statistics, weight, case.groups, case.activation, case.residual)
    names = ("grad_x", "grad_residual", "grad_weight", "grad_bias")
    with split:
        results = [body.batch_norm_backward(*back) for body in both]
    yield from itertools.starmap(Compared, zip(names, *results, [TOLERANCE[dtype]] * 4, strict=True))


OPS: dict[str, tuple[Callable[[Any, torch.dtype], Iterator[Compared]], list[Any]]] = {
    "cross_entropy": (cross_entropy, UPSAMPLINGS),
    "pseudo_label": (pseudo_label, UPSAMPLINGS),
    "batch_norm": (batch_norm, NORMALIZATIONS),
}


def bits_of(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.data_ptr()
    return int(np.float32(value).view(np.uint32)) if isinstance(value, float) else int(value)


def buffer_of(tensor: Tensor) -> Buffer:
    """The tensor's numbers and nothing around them."""
    numbers = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True)) if tensor.numel() else 0
    bytes_ = (ctypes.c_uint8 * (numbers * tensor.element_size())).from_address(tensor.data_ptr())
    return Buffer(tensor.data_ptr(), np.ctypeslib.as_array(bytes_))


class Launches:
    """Runs launches instead of Triton's launcher."""

    def __init__(self) -> None:
        self.blocks: Counter[str] = Counter()
        self._planted: tuple[str, str, str] | None = None
        self._compiled: dict[Any, Any] = {}

    def run(self, kernel: JITFunction, *given: Any, grid: tuple[int, ...], warmup: bool, **named: Any) -> None:
        warps = named.pop("num_warps", 4)
        launch = launch_of(kernel, tuple(grid), dict(zip(kernel.arg_names, given, strict=False)) | named, warps)
        key = (kernel.__name__, str(launch.signature), str(launch.constants), launch.aligned, warps)
        if key not in self._compiled:
            self._compiled[key] = launch.compiled(ARCH)
        compiled = self._compiled[key]
        text = compiled.asm["ptx"]
        if self._planted and self._planted[0] == kernel.__name__:
            text, count = re.subn(*self._planted[1:], text, count=1)
            assert count, f"{kernel.__name__} has no {self._planted[1]}"
        program = Program(text)
        assert program.threads == WARP * warps
        values = [launch.arguments[name] for name, kind in launch.signature.items() if kind != "constexpr"]
        # Triton adds pointers to scratch memory, which these kernels do not have.
        arguments = [bits_of(value) for value in values] + [0, 0]
        buffers = [buffer_of(value) for value in values if isinstance(value, Tensor)]
        blocks = (*grid, 1, 1)[:3]
        for place in itertools.product(*map(range, blocks)):
            Block(program, arguments, buffers, place, blocks, compiled.metadata.shared).run()
            self.blocks[kernel.__name__] += 1

    @contextmanager
    def planted(self, kernel: str, pattern: str, new: str) -> Iterator[None]:
        """Within it the first text that `pattern` finds in the kernel's PTX is `new`."""
        self._planted = kernel, pattern, new
        yield
        self._planted = None


@contextmanager
def emulated() -> Iterator[Launches]:
    """Within it launches of Triton kernels on CPU tensors run as PTX; memory that nobody wrote is NaN."""
    launches = Launches()
    # ptxas, which makes machine code of the PTX, takes most of the time.
    with (
        mock.patch.object(CUDABackend, "make_cubin", lambda *_, **__: b""),
        mock.patch.object(JITFunction, "run", lambda kernel, *given, **named: launches.run(kernel, *given, **named)),
    ):
        torch.use_deterministic_algorithms(True, warn_only=True)
        yield launches


class Planted(NamedTuple):
    """A fault in a kernel's PTX: what `pattern` finds first becomes `new`."""

    name: str
    op: str
    case: int
    dtype: str
    kernel: str
    pattern: str
    new: str
    found: str
    """What is found of it, as a pattern."""


OFF, OUTSIDE, AWAITED = "off: .+", "outside of the call's tensors", "shared memory to which a copy is on its way"
PLANTED = [
    Planted("a barrier left out", "batch_norm", 1, "bfloat16", "sums_kernel",
            r"(st\.shared[^;]*;[^;@]*?)bar\.sync\s+0;", r"\1", "another warp touched since the last barrier"),
    Planted("a barrier for one warp", "batch_norm", 1, "bfloat16", "sums_kernel",
            r"bar\.sync\s+0;", "mov.u32 %r1, %tid.x; setp.lt.u32 %p1, %r1, 32; @%p1 bar.sync 0;", "32 of 256 threads"),
    Planted("a loop for one warp", "batch_norm", 1, "float16", "sums_kernel",
            r"@!?%p\d+ bra", "mov.u32 %r1, %tid.x; setp.lt.u32 %p1, %r1, 32; @%p1 bra", "32 of 256 threads"),
    Planted("another lane", "batch_norm", 0, "float32", "sums_kernel",
            r"(shfl\.sync\.bfly\.b32\s+%r\d+, %r\d+, )\d+,", r"\g<1>3,", f"{OFF}|different values"),
    Planted("another place in shared memory", "batch_norm", 1, "float32", "sums_kernel",
            r"(ld\.shared[^;]*\[ ?%r\d+)( \+ 0)?", r"\1+4096", OFF),
    Planted("a tile read too early", "batch_norm", 4, "float32", "sums_kernel",
            r"(ld\.shared[^;]*\[ ?%r\d+)( \+ 0)?", r"\1+8192", AWAITED),
    Planted("a tile overwritten too early", "batch_norm", 4, "float16", "sums_kernel",
            r"(mov\.b32\s+%r\d+, )1;(\s+mov\.b32\s+%r\d+, -1;)", r"\g<1>0;\2", AWAITED),
    Planted("a wait left out", "batch_norm", 4, "bfloat16", "sums_kernel",
            r"cp\.async\.wait_group\s+1;", "", AWAITED),
    Planted("a wait for a group too few", "batch_norm", 4, "float32", "sums_kernel",
            r"cp\.async\.wait_group\s+1;", "cp.async.wait_group 2;", AWAITED),
    Planted("the last wait left out", "batch_norm", 4, "float16", "sums_kernel",
            r"cp\.async\.wait_group\s+0;", "", AWAITED),
    Planted("a barrier left out behind the last wait", "batch_norm", 4, "float32", "sums_kernel",
            r"(wait_group\s+0;\s*)bar\.sync\s+0;", r"\1", "another thread copied since the last barrier"),
    Planted("a group that is not committed", "batch_norm", 4, "bfloat16", "sums_kernel",
            r"(bar\.sync[\s\S]*?)cp\.async\.commit_group;", r"\1", AWAITED),  # of the loop, behind its first barrier
    Planted("a copy without its mask", "batch_norm", 4, "float32", "sums_kernel",
            r"([\s\S]*cp\.async[^;]*, 0x10, )%r\d+;", r"\g<1>16;", OUTSIDE),  # the last one, which reads ahead farthest
    Planted("a copy of too few bytes", "batch_norm", 4, "float16", "sums_kernel",
            r"(selp\.b32\s+%r\d+, )16, 0,", r"\g<1>14, 0,", OFF),
    Planted("shared memory that is too far", "cross_entropy", 2, "float32", "finish_kernel",
            r"(st\.shared[^;]*\[ ?%r\d+)( \+ 0)?", r"\1+65536", "outside of the block's shared memory"),
    Planted("a load without its mask", "batch_norm", 0, "float16", "normalize_kernel",
            r"@%p\d+ ld\.global\.b16", "ld.global.b16", OUTSIDE),
    Planted("a store without its mask", "batch_norm", 0, "float16", "normalize_kernel", r"@%p\d+ st", "st", OUTSIDE),
    Planted("a mask turned round", "cross_entropy", 0, "float32", "add_planes_kernel",
            r"@(%p\d+ ld)", r"@!\1", f"{OUTSIDE}|{OFF}"),
    Planted("half a number further", "batch_norm", 0, "bfloat16", "gradient_kernel",
            r"(ld\.global\.b16 [^;]*) \+ 0", r"\1 + 1", "not aligned to 2 bytes"),
    Planted("masked lanes without a value", "batch_norm", 0, "bfloat16", "sums_kernel",
            r"mov\.u16\s+%rs\d+, \S+;(\s*@%p\d+ ld)", r"\1", "register that it never wrote"),
    Planted("a register that is never written", "pseudo_label", 0, "float32", "pseudo_label_kernel",
            r"mov\.u32\s+%r\d+, %ctaid\.z;", "", "was never written"),
    Planted("the other class", "pseudo_label", 0, "float32", "pseudo_label_kernel",
            r"setp\.gt\.f32", "setp.lt.f32", OFF),
    Planted("another function", "cross_entropy", 0, "float32", "cross_entropy_kernel",
            r"ex2\.approx", "rcp.approx", OFF),
    Planted("the last sum", "cross_entropy", 0, "bfloat16", "finish_kernel", r"add\.f64", "sub.f64", OFF),
    Planted("the end of the forward sums", "batch_norm", 0, "float32", "finish_forward_kernel",
            r"sqrt\.approx\.ftz\.f32", "mov.f32", OFF),
    Planted("the end of the backward sums", "batch_norm", 0, "float32", "finish_backward_kernel",
            r"neg\.f32", "mov.f32", OFF),
    Planted("another rounding", "batch_norm", 0, "bfloat16", "normalize_kernel",
            r"cvt\.rn\.bf16\.f32", "cvt.rz.bf16.f32", "cvt.rz.bf16.f32 is unknown"),
    Planted("saturation", "batch_norm", 0, "bfloat16", "normalize_kernel", r"fma\.rn\.f32", "fma.rn.sat.f32",
            "fma.rn.sat.f32 is unknown"),
]  # fmt: skip


def found_in(op: str, case: int, dtype: str) -> str:
    """What is found in a case: a fault, or the results that are off; an empty text: nothing."""
    torch.manual_seed(0)
    compute, cases = OPS[op]
    try:
        for each in compute(cases[case], DTYPES[dtype]):
            if not each.off() <= 1:
                return f"off: {each.name} ({each.off():.1e} of what is allowed)"
    except (Fault, UnknownPtx) as error:
        return str(error)
    return ""


def main() -> None:
    with emulated() as launches:
        for op, (_, cases) in OPS.items():
            for i, case in enumerate(cases):
                for dtype in case.dtypes:
                    launches.blocks.clear()
                    found = found_in(op, i, dtype)
                    print(json.dumps({"op": op, "case": i, "dtype": dtype, "found": found, "blocks": launches.blocks}))
        for fault in PLANTED:
            with launches.planted(fault.kernel, fault.pattern, fault.new):
                print(json.dumps({"fault": fault.name, "found": found_in(fault.op, fault.case, fault.dtype)}))


if __name__ == "__main__":
    main()
