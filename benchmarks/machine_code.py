"""What nvcc and Triton make of the kernels: registers, shared memory, instructions; without a GPU."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

CSRC = Path(__file__).parents[1] / "csrc"
LAUNCHES = Path(__file__).with_name("launches.cpp")


class Code(NamedTuple):
    """One kernel for one architecture."""

    registers: int
    """Of a thread."""
    shared: int
    """Static bytes of a block."""
    local: int
    """Bytes of stack and spills of a thread; 0 is what is wanted."""
    opcodes: list[str]
    """Every instruction with its modifiers, as `LDG.E.128`; without NOP."""
    loops: list[tuple[int, int]]
    """Outermost loops: first and last instruction, in order."""

    def widths(self, kind: str) -> dict[int, int]:
        """Bits of an access -> how many instructions, of `LDG` (reads) or `STG` (writes)."""
        found = (re.search(r"\.[US]?(8|16|64|128)(?:\.|$)", op) for op in self.opcodes if op.split(".")[0] == kind)
        return dict(sorted(Counter(int(bits[1]) if bits else 32 for bits in found).items()))

    def executed(self, trips: tuple[float, ...]) -> float:
        """Instructions of a thread that goes `trips` times through each outermost loop and through all else once."""
        if len(trips) != len(self.loops):
            raise ValueError(f"The code has {len(self.loops)} loops ({self.loops}), {len(trips)} trips were given.")
        lengths = [last - first + 1 for first, last in self.loops]
        return len(self.opcodes) + sum((t - 1) * n for t, n in zip(trips, lengths, strict=True))


def tool(name: str) -> str | None:
    """cuobjdump or nvdisasm: of the CUDA toolkit, or the one that Triton brings."""
    if found := shutil.which(name):
        return found
    spec = importlib.util.find_spec("triton")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "backends" / "nvidia" / "bin" / name
    return str(path) if path.exists() else None


def missing() -> str | None:
    """What is not at hand of nvcc, g++ and the tools that read machine code, or None."""
    absent = [name for name in ("nvcc", "g++") if shutil.which(name) is None]
    absent += [name for name in ("cuobjdump", "nvdisasm") if tool(name) is None]
    return f"{', '.join(absent)} not found" if absent else None


def _run(*command: str | Path, folder: Path | None = None) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=folder)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def read(cubin: Path) -> dict[str, Code]:
    """Mangled name -> code, of every kernel in a file of one architecture."""
    nvdisasm, cuobjdump = tool("nvdisasm"), tool("cuobjdump")
    assert nvdisasm and cuobjdump
    usage = _run(cuobjdump, "--dump-resource-usage", cubin)
    pattern = r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)"
    # From compute capability 9.0 on the tools count the kilobyte that the driver takes in blocks with shared memory.
    reserved = 0 if re.search(r"sm_[78]\d\b", _run(cuobjdump, "--list-elf", cubin)) else 1024
    listing = re.split(r"^\.text\.(\S+):$", _run(nvdisasm, "-c", cubin), flags=re.MULTILINE)
    bodies = dict(zip(listing[1::2], listing[2::2], strict=True))
    return {
        name: Code(int(registers), max(int(shared) - reserved, 0), int(stack) + int(local), *_parsed(bodies[name]))
        for name, registers, stack, shared, local in re.findall(pattern, usage)
    }


def _parsed(body: str) -> tuple[list[str], list[tuple[int, int]]]:
    """The opcodes and the outermost loops of a disassembled kernel."""
    opcodes: list[str] = []
    labels: dict[str, int] = {}
    loops: list[tuple[int, int]] = []
    for line in body.splitlines():
        if label := re.match(r"(\.L_x_\d+):", line):
            labels[label[1]] = len(opcodes)
        code = re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)(.*)", line)
        if not code or code[1] == "NOP":
            continue
        target = re.search(r"`\((\.L_x_\d+)\)", code[2]) if code[1] == "BRA" else None
        # The last instruction of a kernel jumps to itself; it is no loop.
        if target and labels.get(target[1], len(opcodes)) < len(opcodes):
            begin = labels[target[1]]
            loops = [loop for loop in loops if loop[0] < begin] + [(begin, len(opcodes))]
        opcodes.append(code[1])
    return opcodes, loops


class CudaLaunch(NamedTuple):
    """A launch of the extension."""

    op: str
    kernel: str
    """Mangled."""
    blocks: int
    threads: int
    shared: int
    """Bytes of dynamic shared memory of a block."""


class CudaCode:
    """The CUDA part of the extension, compiled into `folder` for `archs` (compute capabilities times ten)."""

    def __init__(self, folder: Path, archs: tuple[int, ...]) -> None:
        targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]

        def compile_one(source: Path) -> Path:
            target = folder / f"{source.stem}.o"
            _run("nvcc", "-std=c++17", "-O3", "-c", *targets, "-o", target, source)
            return target

        with ThreadPoolExecutor() as pool:
            objects = list(pool.map(compile_one, sorted(CSRC.glob("*_cuda.cu"))))
        cuobjdump = tool("cuobjdump")
        assert cuobjdump
        for file in objects:
            _run(cuobjdump, "--extract-elf", "all", file, folder=folder)
        self.kernels: dict[int, dict[str, Code]] = {}
        """Architecture -> mangled name -> code."""
        for arch in archs:
            cubins = [read(cubin) for cubin in sorted(folder.glob(f"*.sm_{arch}.cubin"))]
            self.kernels[arch] = {name: code for file in cubins for name, code in file.items()}
        self._program = folder / "launches"
        _run("g++", "-std=c++17", f"-I{CSRC}", LAUNCHES, *objects, "-o", self._program)

    def launches(self, batch: int, size: tuple[int, int], classes: int, stride: int) -> list[CudaLaunch]:
        """What the extension launches for images of `size` and logits smaller by `stride`, in bfloat16."""
        launches = []
        for line in _run(self._program, *map(str, (batch, *size, classes, stride))).splitlines():
            op, kernel, x, y, z, threads, shared = line.split()
            launches.append(CudaLaunch(op, kernel, int(x) * int(y) * int(z), int(threads), int(shared)))
        return launches


def read_bytes(cubin: bytes) -> Code:
    """The code of the one kernel of a cubin, as Triton gives it."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return next(iter(read(Path(file.name)).values()))
