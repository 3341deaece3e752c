"""What a forked process tells of itself while it runs: its phase, its file events, and what a power cut needs to know.

The product knows nothing of it: the functions that begin a phase are wrapped from outside, in the child alone.
"""

from __future__ import annotations

import mmap
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .power import Recorder

_FOLDER_EVENTS = {"os.rename": 2, "os.mkdir": 2, "os.rmdir": 1, "os.remove": 1}
"""Python's audit events, and which argument is the folder's handle where the path lies below one."""
_STRUCK = 1000
"""Which cell of the board; there are 1,024."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Board:
    """Memory that a child and its parent share."""

    def __init__(self, phases: Sequence[str]) -> None:
        self.phases = tuple(phases)
        self._cells = memoryview(mmap.mmap(-1, 4096)).cast("i")

    @property
    def phase(self) -> str:
        """The one that the child is in."""
        return self.phases[self._cells[0]]

    @phase.setter
    def phase(self, name: str) -> None:
        self._cells[0] = self.phases.index(name)

    @property
    def struck(self) -> bool:
        """Whether a process was killed at its event."""
        return bool(self._cells[_STRUCK])

    def strike(self) -> None:
        """A process is about to be killed."""
        self._cells[_STRUCK] = 1

    @property
    def events(self) -> int:
        """File events of the child so far."""
        return self._cells[1]

    def count(self) -> int:
        """One more event."""
        self._cells[1] += 1
        return self._cells[1]

    def entered(self, phase: str) -> int:
        """How often the child has entered a phase."""
        return self._cells[2 + self.phases.index(phase)]

    def enter(self, phase: str) -> None:
        """The child enters a phase."""
        self.phase = phase
        self._cells[2 + self.phases.index(phase)] += 1


class Wrapped(NamedTuple):
    """A function that is a phase."""

    owner: Any
    name: str
    phase: str


def tell_phases(board: Board, functions: Sequence[Wrapped]) -> None:
    """From here on each of these functions is seen on the board while it runs."""
    for owner, name, phase in functions:
        setattr(owner, name, _told(getattr(owner, name), phase, board))


def _told(real: Callable[..., Any], phase: str, board: Board) -> Callable[..., Any]:
    def told(*args: Any, **kwargs: Any) -> Any:
        before = board.phase
        board.enter(phase)
        try:
            return real(*args, **kwargs)
        finally:
            board.phase = before

    return told


def tell_events(board: Board, folder: Path, kill_at: int, recorder: Recorder | None) -> None:
    """Count what is done to files in `folder`, and be killed before the event of that number (0: at none).

    An event is a file opened for writing, renamed, removed or synced, a folder made or removed, a file of tensors
    begun or ended. The recorder notes them for a power cut.
    """
    start = os.fspath(folder)

    def event() -> None:
        if board.count() == kill_at:
            board.strike()
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(name: str, args: tuple[Any, ...]) -> None:
        if name == "open":
            named, _, flags = args
            if isinstance(named, str) and flags & _WRITES and (path := os.path.abspath(named)).startswith(start):
                event()
                if recorder is not None and flags & os.O_TRUNC:
                    recorder.cut_off(path)
        elif name in _FOLDER_EVENTS:
            handle = args[_FOLDER_EVENTS[name]]
            path = _below(handle, args[0])
            if path.startswith(start):
                event()
                if recorder is not None and name == "os.rename":
                    recorder.renamed(path, _below(args[3], args[1]))
                elif recorder is not None and name != "os.mkdir":
                    recorder.removed(path)

    real_sync = os.fsync

    def sync(handle: Any) -> None:
        event()
        real_sync(handle)
        if recorder is not None:
            recorder.synced(handle if isinstance(handle, int) else handle.fileno())

    os.fsync = sync
    _around_tensors(event)
    sys.addaudithook(audit)


def _below(handle: Any, path: Any) -> str:
    """A path in full, where it is one below an open folder."""
    if isinstance(handle, int) and handle >= 0:
        return os.path.join(os.readlink(f"/proc/self/fd/{handle}"), os.fsdecode(path))
    return os.path.abspath(os.fsdecode(path))


def _around_tensors(event: Callable[[], None]) -> None:
    """safetensors writes its files without Python."""
    from iidm.engine import checkpoint

    real = checkpoint.save_file

    def save_file(*args: Any, **kwargs: Any) -> None:
        event()
        real(*args, **kwargs)
        event()

    checkpoint.save_file = save_file
