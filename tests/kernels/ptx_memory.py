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


class Copy(NamedTuple):
    """What a cp.async copies for some threads, with a line for each of them."""

    threads: Array
    groups: Array
    """How many groups the thread had committed before this one."""
    at: Array
    """The bytes of shared memory [N,width]."""
    source: Array
    sizes: Array
    """Bytes that are read from the address `source` on."""
    found: Array
    """What was read when the copy was begun [N,width]."""

    def of(self, some: Array) -> Copy:
        return Copy(*(each[some] for each in self))


class Memory:
    """`load`, `store` and `copy` serve some threads at once, and raise Fault for what no kernel may do."""

    def __init__(self, buffers: list[Buffer], shared_bytes: int, threads: int) -> None:
        self.buffers = buffers
        self.shared, self.filled = np.zeros(shared_bytes, np.uint8), np.zeros(shared_bytes, bool)
        # The warp that wrote, and read, each byte of shared memory since the last barrier.
        self.writer, self.reader = np.full((2, shared_bytes), NOBODY)
        # The thread whose copy is on its way there, or arrived since the last barrier: others may not see it yet.
        self.copier, self.awaited = np.full(shared_bytes, NOBODY), np.zeros(shared_bytes, bool)
        self.copies: list[Copy] = []
        self.groups = np.zeros(threads, int)

    def load(self, space: str, begin: Array, threads: Array, size: int) -> Array:
        found = np.zeros((len(begin), size), np.uint8)
        for chosen, memory, at in self.places(space, begin, threads, size, False):
            found[chosen] = memory[at]
            if space == "shared":
                self.arrived(at, threads)
                self.note_load(at, threads // WARP)
        return found.view(f"u{size}")[:, 0]

    def store(self, space: str, begin: Array, threads: Array, bits: Array) -> None:
        parts = np.ascontiguousarray(bits).view(np.uint8).reshape(len(bits), bits.itemsize)
        for chosen, memory, at in self.places(space, begin, threads, bits.itemsize, True):
            if space == "shared":
                self.arrived(at, threads)
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

    def arrived(self, at: Array, threads: Array) -> None:
        """Raises Fault if a copy is on its way to bytes [N,width] of threads [N], or came for another one of them."""
        if self.awaited[at].any():
            raise Fault("shared memory to which a copy is on its way")
        others = self.copier[at]
        if ((others != NOBODY) & (others != threads[:, None])).any():
            raise Fault("shared memory that another thread copied since the last barrier")

    def copy(self, begin: Array, source: Array, threads: Array, sizes: Array, width: int) -> None:
        """Begins to copy `width` bytes to shared memory for each of some threads: `sizes` from `source` on, then zeros.

        What it writes may be seen from now on, and is sure to be there only behind the wait for its group.
        """
        found = self.read(source, threads, sizes, width)
        for _, _, at in self.places("shared", begin, threads, width, True):
            warp = np.broadcast_to(threads[:, None] // WARP, at.shape)
            self.arrived(at, threads)
            self.apart(self.writer[at], warp)
            self.apart(self.reader[at], warp)
            self.copier[at], self.awaited[at] = threads[:, None], True
            if (self.copier[at] != threads[:, None]).any():
                raise Fault("threads copy to one place of shared memory")
            self.copies.append(Copy(threads, self.groups[threads], at, source, sizes, found))

    def read(self, source: Array, threads: Array, sizes: Array, width: int) -> Array:
        """Bytes [N,width] of global memory: `sizes` from `source` on, then zeros."""
        found = np.zeros((len(source), width), np.uint8)
        for size in np.unique(sizes[sizes > 0]):
            some = np.flatnonzero(sizes == size)
            for chosen, memory, at in self.places("global", source[some], threads[some], int(size), False):
                found[some[chosen], :size] = memory[at]
        return found

    def commit(self, on: Array) -> None:
        """What these threads began to copy until now is a group of each."""
        self.groups[on] += 1

    def wait(self, on: Array, left: int) -> None:
        """All groups of these threads but the last `left` arrive."""
        copies, self.copies = self.copies, []
        for copy in copies:
            done = on[copy.threads] & (copy.groups < self.groups[copy.threads] - left)
            threads, _, at, source, sizes, found = copy.of(done)
            if (self.read(source, threads, sizes, at.shape[1]) != found).any():
                raise Fault("global memory that changed while it was copied")
            self.shared[at], self.filled[at], self.awaited[at] = found, True, False
            self.writer[at] = threads[:, None] // WARP
            if not done.all():
                self.copies.append(copy.of(~done))

    def barrier(self) -> None:
        """What was written and read before it is in order with what comes. No copy arrives by it."""
        self.writer[:], self.reader[:] = NOBODY, NOBODY
        self.barrier_of_warp()

    def barrier_of_warp(self) -> None:
        """What a thread waited for is there for its warp."""
        self.copier[~self.awaited] = NOBODY
