"""What worker processes are sent: arrays lie in memory that all of them map, the rest is pickled.

A worker that is sent megabytes reads them only when it has imported what they are made of, and until then the main
process waits and starts no other. It would also hold a copy of its own.
"""

from __future__ import annotations

import mmap
import os
import pickle
from typing import Any

_ALIGNED_BYTES = 64


class SharedArrays:
    """A value whose pickle is small: unpickling it in another process gives the value. This one must live on there and
    here until that is done.

    Args:
        value: anything that can be pickled. Its arrays are copied into shared memory; what another process writes to
            its own is seen by nobody else.
    """

    def __init__(self, value: Any) -> None:
        buffers: list[pickle.PickleBuffer] = []
        self._rest = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        self._spans: list[tuple[int, int]] = []
        self._memory = os.fdopen(os.memfd_create("iidm-arrays"), "wb")
        end = 0
        for buffer in buffers:
            start = -(-end // _ALIGNED_BYTES) * _ALIGNED_BYTES
            end = start + buffer.raw().nbytes
            self._spans.append((start, end))
            self._memory.seek(start)
            self._memory.write(buffer.raw())
        self._memory.truncate(max(end, 1))
        self._memory.flush()

    def __reduce__(self) -> tuple[Any, ...]:
        return _value, (f"/proc/{os.getpid()}/fd/{self._memory.fileno()}", self._rest, self._spans)


def _value(path: str, rest: bytes, spans: list[tuple[int, int]]) -> Any:
    with open(path, "rb") as file:
        memory = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    return pickle.loads(rest, buffers=[memory[start:end] for start, end in spans])
