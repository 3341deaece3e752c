"""Published limits of the GPUs, and what follows from them for a kernel: occupancy, waves, floor, expected time.

Everything here is calculated. Sources: "Technical Specifications per Compute Capability" of the CUDA C++ Programming
Guide (warps, blocks, registers, shared memory of a processor), the tuning guides of Ampere and Hopper (the driver takes
1 KB of shared memory in every block), NVIDIA's data sheets of H100 SXM and H200 SXM (bandwidth; 67 TFLOP/s in float32
are 132 processors x 128 lanes x 2 x 1.98 GHz).
"""

from __future__ import annotations

from typing import NamedTuple

SHARED_PER_PROCESSOR = {80: 164 << 10, 90: 228 << 10}
REGISTERS, WARPS, BLOCKS = 65536, 64, 32
"""Of a processor, at 8.0 and 9.0 alike."""
PROCESSORS = 132
LANES = 128
CLOCK_HZ = 1.98e9
BANDWIDTH = {"H100": 3.35e12, "H200": 4.8e12}
"""Bytes a second; both have the same processors."""
L2_BYTES_PER_CLOCK = 64
"""What one processor reads or writes a clock at most."""
START_S = 1.0e-6
"""Assumed: from one kernel of a CUDA graph to the next."""
WAIT_S = 0.6e-6
"""Assumed: one read from memory that the next instruction needs."""


def resident_blocks(threads: int, registers: int, shared: int, arch: int) -> int:
    """Blocks that are at home in a processor at once."""
    warps = -(-threads // 32)
    of_warp = -(-registers * 32 // 256) * 256  # registers are given out by 256
    by_registers = REGISTERS // of_warp // 4 * 4 // warps  # a quarter of the warps on each of four schedulers
    by_shared = SHARED_PER_PROCESSOR[arch] // (-(-(shared + 1024) // 128) * 128)
    return min(BLOCKS, WARPS // warps, by_registers, by_shared)


class Shape(NamedTuple):
    """One launch on paper."""

    blocks: int
    threads: int
    resident: int
    """Blocks that are at home in a processor."""
    bytes: int
    """Read and written, each once."""
    instructions: float
    """Of all threads together."""
    waits: int
    """Reads from memory one after the other that a thread has to wait for."""

    @property
    def occupancy(self) -> float:
        """Share of a processor's warps."""
        return self.resident * -(-self.threads // 32) / WARPS

    @property
    def waves(self) -> float:
        """How often the blocks fill the GPU."""
        return self.blocks / (PROCESSORS * self.resident)

    def floor_s(self, gpu: str) -> float:
        """Bytes at the published bandwidth."""
        return self.bytes / BANDWIDTH[gpu]

    def instructions_s(self) -> float:
        """One instruction a lane and clock, on the processors that have a block."""
        busy = min(self.blocks / PROCESSORS, 1.0)
        return self.instructions / (PROCESSORS * LANES * CLOCK_HZ * busy)

    def expected_s(self, gpu: str) -> float:
        """The slower of memory and instructions, behind the start and the waits."""
        busy = min(self.blocks, PROCESSORS)
        memory = max(self.floor_s(gpu), self.bytes / (busy * L2_BYTES_PER_CLOCK * CLOCK_HZ))
        return START_S + self.waits * WAIT_S + max(memory, self.instructions_s())
