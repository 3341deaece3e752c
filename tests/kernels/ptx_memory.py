"""Memory as a block of threads sees it: the tensors of a call, and shared memory, where races of warps are told."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ptx_operations import Array

WARP, SHARED_BEGIN = 32, 16
"""Lanes of a warp; address of shared memory, no better aligned than declared."""
NOBODY, SEVERAL = -1, -2


class Fault(Exception):
    """What a kernel does and must not, with the line of its PTX."""


class Buffer(NamedTuple):
    """Bytes that a kernel may touch, at their address."""

    begin: int
    memory: Array


class Memory:
    """`load` and `store` are of one number for each of some threads, and raise Fault for what no kernel may do."""

    def __init__(self, buffers: list[Buffer], shared_bytes: int) -> None:
        self.buffers = buffers
        self.shared, self.filled = np.zeros(shared_bytes, np.uint8), np.zeros(shared_bytes, bool)
        # The warp that wrote, and read, each byte of shared memory since the last barrier.
        self.writer, self.reader = np.full((2, shared_bytes), NOBODY)

    def load(self, space: str, begin: Array, threads: Array, size: int) -> Array:
        found = np.zeros((len(begin), size), np.uint8)
        for chosen, memory, at in self.places(space, begin, threads, size, False):
            found[chosen] = memory[at]
            if space == "shared":
                self.note_load(at, threads // WARP)
        return found.view(f"u{size}")[:, 0]

    def store(self, space: str, begin: Array, threads: Array, bits: Array) -> None:
        parts = np.ascontiguousarray(bits).view(np.uint8).reshape(len(bits), bits.itemsize)
        for chosen, memory, at in self.places(space, begin, threads, bits.itemsize, True):
            before = memory[at]
            memory[at] = parts[chosen]
            if space == "shared":
                self.note_store(at, threads // WARP, before != parts, memory[at] != parts)

    def places(
        self, space: str, begin: Array, threads: Array, size: int, writes: bool
    ) -> list[tuple[Array, Array, Array]]:
        """(which threads, memory, its bytes [N,size]) for each buffer that they touch. Raises Fault outside of all."""
        left, found, each = np.ones(len(begin), bool), [], np.arange(size)
        buffers = self.buffers if space == "global" else [Buffer(SHARED_BEGIN, self.shared)]
        for buffer in buffers:
            offset = begin - buffer.begin
            inside = left & (offset >= 0) & (offset + size <= len(buffer.memory))
            if inside.any():
                found.append((inside, buffer.memory, offset[inside, None] + each))
            left &= ~inside
        if left.any():
            where = "the call's tensors" if space == "global" else "the block's shared memory"
            raise Fault(f"{left.sum()} threads {'store' if writes else 'load'} outside of {where}")
        return found

    def note_load(self, at: Array, warp: Array) -> None:
        """Bytes [N,size] of shared memory are read by warps [N]."""
        warp = np.broadcast_to(warp[:, None], at.shape)
        if not self.filled[at].all():
            raise Fault("shared memory is read that nobody wrote")
        self.apart(self.writer[at], warp)
        before = self.reader[at]
        new = np.where((before == NOBODY) | (before == warp), warp, SEVERAL)
        self.reader[at] = new
        self.reader[at[self.reader[at] != new]] = SEVERAL

    def note_store(self, at: Array, warp: Array, changed: Array, lost: Array) -> None:
        """They are written: which bytes changed, and which another thread wrote otherwise in the same instruction."""
        warp = np.broadcast_to(warp[:, None], at.shape)
        if lost.any():
            raise Fault("threads write different values to one place of shared memory")
        self.apart(self.writer[at][changed], warp[changed])
        self.apart(self.reader[at][changed], warp[changed])
        before = self.writer[at]
        new = np.where((before == NOBODY) | (before == warp), warp, SEVERAL)
        self.writer[at], self.filled[at] = new, True
        self.writer[at[self.writer[at] != new]] = SEVERAL

    def apart(self, others: Array, warp: Array) -> None:
        if ((others != NOBODY) & (others != warp)).any():
            raise Fault("shared memory that another warp touched since the last barrier")

    def barrier(self) -> None:
        """What was written and read before it is in order with what comes."""
        self.writer[:], self.reader[:] = NOBODY, NOBODY
