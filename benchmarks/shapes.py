"""The GPU kernels on paper: what nvcc and Triton make of them, and how long they should take. Runs without a GPU.

    python -m benchmarks.shapes [--out benchmarks/results/gpu-shapes.md]

For every kernel of a training step and of evaluation, at the sizes of the presets: blocks, threads, registers and warps
a processor (sm_80 and sm_90), how often the blocks fill an H100, bytes, instructions (machine code of sm_90, loops
counted), widths of reads and writes in machine code, and time on an H100 and H200 beside the floor. Calculated, not
measured.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from . import machine_code
from .gpu_models import BANDWIDTH, PROCESSORS, Shape, resident_blocks
from .machine_code import Code, CudaCode
from .triton_launches import TritonLaunch, recorded

ARCHS = (80, 90)
CLASSES = 19
PRESENT = 20
"""Label values in an image."""


class Size(NamedTuple):
    """One column of cases."""

    name: str
    batch: int
    side: int
    """Of a square crop."""
    stride: int
    """Output stride of the logits."""

    @property
    def pixels(self) -> int:
        """Of the whole batch."""
        return self.batch * self.side**2

    @property
    def logits(self) -> int:
        """Numbers of the whole batch."""
        return CLASSES * self.pixels // self.stride**2


SIZES = [
    Size("gta5-cityscapes-100, 2 images", 2, 512, 8),
    Size("gta5-cityscapes-100, 32 images", 32, 512, 8),
    Size("HRDA, 2 images", 2, 1024, 4),
]


class Work(NamedTuple):
    """What a launch has to do."""

    bytes: int
    waits: int
    executed: Callable[[Code], float]
    """Instructions of a thread."""


class Row(NamedTuple):
    """One line of the table."""

    size: str
    kernel: str
    shape: Shape
    shared: int
    """Bytes of a block."""
    codes: dict[int, Code]
    """By architecture."""
    resident: dict[int, int]


def by_loops(*trips: float) -> Callable[[Code], float]:
    """Each outermost loop so often, all else once."""
    return lambda code: code.executed(trips)


def cuda_work(kernel: str, size: Size, blocks: int) -> Work:
    """Bytes are those of kernels/README.md, kernel by kernel; bfloat16."""
    pixels = size.pixels
    if "presence" in kernel:
        return Work(pixels, 1, by_loops(0, pixels / 16 / (blocks * 256)))
    if "draw" in kernel:
        # Counted by hand: 16 instructions for each label value that is there, 200 around them.
        return Work(size.batch * 256 * 5, 1, lambda code: 200 + 16 * PRESENT)
    if "classmix" in kernel:
        # The loop over the four jitter steps goes through one branch each time: through all of its code once.
        return Work(pixels * (2 + 3 + 6 + 1 + 4), 2, by_loops(1))
    if "jitter" in kernel:
        return Work(pixels * (3 + 6), 1, by_loops(1))
    if "blur" in kernel:
        # By hand: a thread makes 4 runs of 8 sums down (215 each), 3 along (192), copies its words out (200).
        return Work(pixels * 12, 2, lambda code: 100 + 4 * 215 + 3 * 192 + 200)
    # confusion_matrix, by hand: 24 for each class of a pixel, 150 for its place and its count.
    per_thread = pixels / (blocks * 256) * (24 * CLASSES + 150) + 100
    return Work(4 * size.logits + pixels, 2, lambda code: per_thread)


def triton_work(launch: TritonLaunch, size: Size, numbers: int) -> Work:
    """`numbers`: of the layer that BatchNorm sees."""
    name = launch.kernel.__name__
    programs = math.prod(launch.grid)
    planes = 4 * CLASSES * size.batch * (size.side // size.stride + 1) ** 2 * 4
    backward = bool(launch.constants.get("BACKWARD"))
    if name == "cross_entropy_kernel":
        moved = 2 * size.logits + size.pixels + planes
        return Work(moved, 3, by_loops(CLASSES - 1, CLASSES, CLASSES))
    if name == "pseudo_label_kernel":
        return Work(2 * size.logits + size.pixels, 3, by_loops(CLASSES - 1, CLASSES))
    if name == "finish_kernel":
        losses = launch.arguments["programs"]
        turns = -(-losses // launch.constants["BLOCK"])
        return Work(8 * losses, turns, by_loops(turns))
    if name == "add_planes_kernel":
        return Work(planes + 4 * size.logits, 1, by_loops())
    if name == "sums_kernel":
        tile = launch.constants["ROWS"] * launch.constants["CHANNELS"]
        return Work((6 if backward else 2) * numbers, 2, by_loops(numbers / (programs * tile)))
    if name.startswith("finish"):
        sums = launch.constants["GROUPS"] * launch.constants["SPLITS"] * launch.constants["CHANNELS"] * launch.grid[0]
        return Work(8 * sums, 2, by_loops(1) if "forward" in name else by_loops())
    # Input, residual and output; the gradient reads gradient, input and result and writes two.
    return Work((6 if name == "normalize_kernel" else 10) * numbers, 2, by_loops())


def triton_launches(size: Size) -> tuple[list[TritonLaunch], int]:
    """The kernels of a loss, of pseudo-labels, and of BatchNorm over four branches in one pass; the layer's numbers."""
    from iidm.kernels.batch_norm import fused_triton as batch_norm
    from iidm.kernels.cross_entropy import fused_triton as cross_entropy
    from iidm.kernels.pseudo_label import fused_triton as pseudo_label

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        tensor = torch.empty(shape, dtype=dtype, device="meta")
        return tensor.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else tensor

    low, half = size.side // size.stride, torch.bfloat16
    groups = [size.batch] * 4
    with recorded() as launches:
        logits = empty(size.batch, CLASSES, low, low, dtype=half)
        label = empty(size.batch, size.side, size.side, dtype=torch.uint8)
        cross_entropy.cross_entropy(logits, label, empty(size.batch), None, "pixels", False, True)
        pseudo_label.pseudo_label(logits, (size.side, size.side), 0.968, False, False, False, False)
        x, weight = empty(sum(groups), 256, size.side // 8, size.side // 8, dtype=half), empty(256)
        y, mean, rstd = batch_norm.batch_norm(x, x, weight, weight, weight, weight, 0.1, 1e-5, groups, "relu")
        batch_norm.batch_norm_backward(x, x, y, mean, rstd, weight, groups, "relu", True)
    return launches, x.numel()


def rows_of(size: Size, cuda: CudaCode) -> list[Row]:
    """Every kernel of one size."""
    rows = []

    def add(name: str, blocks: int, threads: int, dynamic: int, codes: dict[int, Code], work: Work) -> None:
        resident = {
            arch: resident_blocks(threads, code.registers, code.shared + dynamic, arch) for arch, code in codes.items()
        }
        instructions = blocks * threads * work.executed(codes[90])
        shape = Shape(blocks, threads, resident[90], work.bytes, instructions, work.waits)
        rows.append(Row(size.name, name, shape, codes[90].shared + dynamic, codes, resident))

    for launch in cuda.launches(size.batch, (size.side, size.side), CLASSES, size.stride):
        codes = {arch: cuda.kernels[arch][launch.kernel] for arch in ARCHS}
        names = ("presence_kernel", "draw_kernel", "classmix_kernel", "jitter_kernel", "blur_kernel")
        name = next((n for n in names if n in launch.kernel), "confusion_matrix_kernel")
        add(name, launch.blocks, launch.threads, launch.shared, codes, cuda_work(name, size, launch.blocks))
    launches, numbers = triton_launches(size)
    for triton_launch in launches:
        compiled = {arch: triton_launch.compiled(arch) for arch in ARCHS}
        codes = {arch: machine_code.read_bytes(found.asm["cubin"]) for arch, found in compiled.items()}
        name = triton_launch.kernel.__name__
        if name == "sums_kernel" and triton_launch.constants["BACKWARD"]:
            name += ", backward"
        blocks = math.prod(triton_launch.grid)
        work = triton_work(triton_launch, size, numbers)
        dynamic = compiled[90].metadata.shared
        add(name, blocks, 32 * triton_launch.warps, dynamic, codes, work)
    return rows


def _widths(found: dict[int, int]) -> str:
    return " ".join(f"{count}x{bits}" for bits, count in found.items()) or "-"


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:.1f}"


def table(rows: list[Row]) -> str:
    """Markdown, a table a size."""
    head = ["kernel", "blocks x threads", "registers 8.0, 9.0", "spills", "shared KB", "warps of 64", "waves of H100"]
    head += [
        "MB",
        "M instructions",
        "reads: count x bits",
        "writes",
        "floor H100, H200, us",
        "expected, us",
        "bound by",
    ]
    lines: list[str] = []
    for name in dict.fromkeys(row.size for row in rows):
        lines += [f"{name}:", "", "| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
        for row in rows:
            if row.size != name:
                continue
            shape, code = row.shape, row.codes[90]
            memory, work = shape.floor_s("H100"), shape.instructions_s()
            start = shape.expected_s("H100") - max(memory, work)
            bound = "start and waits" if start > max(memory, work) else "memory" if memory > work else "instructions"
            warps = [str(row.resident[arch] * shape.threads // 32) for arch in ARCHS]
            cells = [row.kernel, f"{shape.blocks} x {shape.threads}"]
            cells += [", ".join(str(row.codes[arch].registers) for arch in ARCHS)]
            cells += [", ".join(str(row.codes[arch].local) for arch in ARCHS), f"{row.shared / 1024:.1f}"]
            cells += [", ".join(warps), f"{shape.waves:.2f}", f"{shape.bytes / 1e6:.2f}"]
            cells += [f"{shape.instructions / 1e6:.1f}", _widths(code.widths("LDG")), _widths(code.widths("STG"))]
            cells += [", ".join(_us(shape.floor_s(gpu)) for gpu in BANDWIDTH)]
            cells += [", ".join(_us(shape.expected_s(gpu)) for gpu in BANDWIDTH), bound]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a file for the table")
    arguments = parser.parse_args()
    if why := machine_code.missing():
        raise SystemExit(f"The kernels cannot be compiled here: {why}.")
    with tempfile.TemporaryDirectory() as folder:
        cuda = CudaCode(Path(folder), ARCHS)
        rows = [row for size in SIZES for row in rows_of(size, cuda)]
    text = ABOUT + table(rows)
    if arguments.out:
        arguments.out.write_text(text)
    print(text)


ABOUT = f"""Calculated, not measured (`python -m benchmarks.shapes`): machine code of nvcc and Triton, published limits
(benchmarks/gpu_models.py), {PROCESSORS} processors. Instructions are those of all threads; of blur, drawing and
confusion_matrix they are counted by hand. The floor is the bytes, each once, at the bandwidth; expected is a start of
1 us, 0.6 us for each wait for memory (both assumed), and the slower of memory and one instruction a lane and clock.
BatchNorm: 256 channels at stride 8, four branches in one pass, residual, ReLU.

"""


if __name__ == "__main__":
    main()
