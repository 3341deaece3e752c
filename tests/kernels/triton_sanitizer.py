"""A sanitizer around Triton's interpreter, for tensors on the CPU.

It finds what the interpreter lets pass: accesses outside of the tensors of a launch, a place that two programs of a
launch touch where one of them writes it (they run one after the other here, in any order on a GPU), and lanes of one
store that write different values to one place. Atomics may meet atomics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch
from triton.runtime import interpreter

READ, WRITE, ATOMIC = "read", "written", "changed atomically"
BUILDER = interpreter.interpreter_builder
Builder = type(BUILDER)


class Findings:
    """What was found, as (kernel, what) -> places; and how many launches were watched."""

    def __init__(self) -> None:
        self.found: Counter[tuple[str, str]] = Counter()
        self.launches: Counter[str] = Counter()
        self._kernel = ""
        self._ranges: list[tuple[int, int]] = []
        self._touched: dict[str, list[np.ndarray]] = {}

    def begin(self, kernel: str, tensors: list[torch.Tensor]) -> None:
        """A launch begins; it may touch these tensors' numbers and nothing else."""
        self._kernel = kernel
        self.launches[kernel] += 1
        self._touched = {READ: [], WRITE: [], ATOMIC: []}
        self._ranges = []
        for t in tensors:
            numbers = 1 + sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True)) if t.numel() else 0
            self._ranges.append((t.data_ptr(), t.data_ptr() + numbers * t.element_size()))

    def access(self, kind: str, pointers: Any, mask: Any, values: Any = None) -> Any:
        """One access of one program. Returns the mask without what is out of bounds, which would harm this process."""
        places = np.asarray(pointers.data).astype(np.int64)
        size = interpreter._get_np_dtype(pointers.get_element_ty()).itemsize
        inside = np.zeros(places.shape, bool)
        for begin, end in self._ranges:
            inside |= (places >= begin) & (places + size <= end)
        wanted = np.broadcast_to(np.asarray(mask.data, bool), places.shape)
        taken = wanted & inside
        self._note(f"{kind} out of bounds", int((wanted & ~inside).sum()))
        at = places[taken]
        own = np.unique(at)
        if kind == WRITE and own.size < at.size:
            pairs = np.unique(np.stack([at, np.broadcast_to(np.asarray(values.data), places.shape)[taken]], 1), axis=0)
            self._note("written with different values by lanes of one program", len(pairs) - own.size)
        (x, y, z), (columns, rows, _) = (
            interpreter.interpreter_builder.grid_idx,
            interpreter.interpreter_builder.grid_dim,
        )
        program = (z * rows + y) * columns + x
        self._touched[kind].append(np.stack([own, np.full_like(own, program)], 1))
        return interpreter.TensorHandle(taken, mask.dtype)

    def end(self) -> None:
        """The launch is over: which places did two programs touch?"""
        touched = {
            kind: np.unique(np.concatenate(parts), axis=0) if parts else np.zeros((0, 2), np.int64)
            for kind, parts in self._touched.items()
        }
        written, count = np.unique(touched[WRITE][:, 0], return_counts=True)
        self._note("written by two programs", int((count > 1).sum()))
        for kind in (READ, ATOMIC):
            self._note(f"{kind} by one program, written by another", self._met(touched[kind], touched[WRITE]))
        self._note("read by one program, changed atomically by another", self._met(touched[READ], touched[ATOMIC]))

    def _met(self, ours: np.ndarray, theirs: np.ndarray) -> int:
        """Places of `ours` that another program has in `theirs`; rows are (place, program)."""
        places = np.intersect1d(ours[:, 0], theirs[:, 0])
        together = np.concatenate([a[np.isin(a[:, 0], places)] for a in (ours, theirs)])
        _, programs = np.unique(np.unique(together, axis=0)[:, 0], return_counts=True)
        return int((programs > 1).sum())

    def _note(self, what: str, count: int) -> None:
        if count:
            self.found[self._kernel, what] += count


@contextmanager
def sanitized() -> Iterator[Findings]:
    """Watches every launch of an interpreted kernel inside of the block."""
    findings = Findings()
    load, store = Builder.create_masked_load, Builder.create_masked_store
    change, call = Builder.create_atomic_rmw, interpreter.GridExecutor.__call__

    def watched_load(self: Any, pointers: Any, mask: Any, *rest: Any) -> Any:
        return load(self, pointers, findings.access(READ, pointers, mask), *rest)

    def watched_store(self: Any, pointers: Any, values: Any, mask: Any, *rest: Any) -> Any:
        return store(self, pointers, values, findings.access(WRITE, pointers, mask, values), *rest)

    def watched_change(self: Any, operation: Any, pointers: Any, values: Any, mask: Any, *rest: Any) -> Any:
        return change(self, operation, pointers, values, findings.access(ATOMIC, pointers, mask), *rest)

    def not_watched(*_: Any) -> Any:
        raise NotImplementedError("tl.atomic_cas is not watched: no kernel uses it")

    def watched_call(self: Any, *arguments: Any, **named: Any) -> Any:
        given = [*arguments, *named.values()]
        findings.begin(self.fn.__name__, [a for a in given if isinstance(a, torch.Tensor)])
        result = call(self, *arguments, **named)
        findings.end()
        return result

    with (
        mock.patch.object(Builder, "create_masked_load", watched_load),
        mock.patch.object(Builder, "create_masked_store", watched_store),
        mock.patch.object(Builder, "create_atomic_rmw", watched_change),
        mock.patch.object(Builder, "create_atomic_cas", not_watched),
        mock.patch.object(interpreter.GridExecutor, "__call__", watched_call),
    ):
        yield findings
