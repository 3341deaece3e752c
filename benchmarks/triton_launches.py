"""Which Triton kernels a call would launch on a GPU, and what they compile to; without a GPU.

The fused bodies run on tensors of the device `meta`, which have shapes and strides and no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from iidm.kernels._dispatch import TRITON_OPTIONS

POINTERS = {
    "float32": "*fp32",
    "float64": "*fp64",
    "bfloat16": "*bf16",
    "float16": "*fp16",
    "uint8": "*u8",
    "int32": "*i32",
    "int64": "*i64",
    "bool": "*i1",
}
ALIGNED = [["tt.divisibility", 16]]
"""What Triton is told of pointers and numbers that are multiples of 16."""


class TritonLaunch(NamedTuple):
    """One launch, specialised as Triton would do it at run time."""

    kernel: JITFunction
    grid: tuple[int, ...]
    warps: int
    signature: dict[str, str]
    constants: dict[str, Any]
    arguments: dict[str, Any]
    aligned: tuple[str, ...]
    """Arguments that are multiples of 16."""

    def compiled(self, arch: int, **options: Any) -> Any:
        """Triton's CompiledKernel for this compute capability times ten, with further options of Triton's."""
        places = {name: i for i, name in enumerate(self.kernel.arg_names)}
        attributes = {(places[name],): ALIGNED for name in self.aligned}
        source = ASTSource(self.kernel, self.signature, self.constants, attributes)
        options = {"num_warps": self.warps, **TRITON_OPTIONS, **options}
        return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)


def launch_of(kernel: JITFunction, grid: tuple[int, ...], arguments: dict[str, Any], warps: int) -> TritonLaunch:
    """Sort the arguments as Triton's launcher does: integers that are 1 are constants, multiples of 16 are told."""
    constants: dict[str, Any] = {}
    signature, aligned = {}, []
    for parameter in kernel.params:
        name, value = parameter.name, arguments[parameter.name]
        if parameter.is_constexpr or (type(value) is int and value == 1):
            constants[name], signature[name] = value, "constexpr"
        elif isinstance(value, Tensor):
            signature[name] = POINTERS[str(value.dtype).removeprefix("torch.")]
            if value.storage_offset() * value.element_size() % 16 == 0:
                aligned.append(name)
        elif isinstance(value, int):
            signature[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            if value % 16 == 0:
                aligned.append(name)
        else:
            signature[name] = "fp32"
    return TritonLaunch(kernel, grid, warps, signature, constants, arguments, tuple(aligned))


@contextmanager
def recorded() -> Iterator[list[TritonLaunch]]:
    """Within it Triton's launches are noted instead of made."""
    launches: list[TritonLaunch] = []

    def run(self: JITFunction, *args: Any, grid: tuple[int, ...], warmup: bool, **named: Any) -> None:
        warps = named.pop("num_warps", 4)
        assert TRITON_OPTIONS.items() <= named.items(), f"{self.__name__} is launched without TRITON_OPTIONS"
        launches.append(launch_of(self, tuple(grid), dict(zip(self.arg_names, args, strict=False)) | named, warps))

    launcher: Callable[..., Any] = JITFunction.run
    JITFunction.run = run
    try:
        yield launches
    finally:
        JITFunction.run = launcher
