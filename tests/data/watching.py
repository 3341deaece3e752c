"""Holding code to its time, to silence on the standard error, and to leaving no process behind."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def strict_text() -> io.TextIOWrapper:
    """A standard output that takes no more than UTF-8."""
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8")


@contextlib.contextmanager
def ends_in_time(most_s: float) -> Iterator[None]:
    """Fails where something takes longer."""

    def stop(*_: Any) -> None:
        raise AssertionError(f"it took more than {most_s} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, most_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def quiet_and_childless() -> Iterator[None]:
    """Fails where a library writes to the process's standard error, or a process is left behind."""
    before, processes = os.dup(2), set(children(os.getpid()))
    with tempfile.TemporaryFile() as caught:
        sys.stderr.flush()
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
        caught.seek(0)
        said = caught.read().decode(errors="replace")
    assert not said, f"on standard error: {said}"
    left = {pid for pid in set(children(os.getpid())) - processes if "resource_tracker" not in command(pid)}
    assert not left, f"left behind: {[command(pid) for pid in left]}"


def command(pid: int) -> str:
    """The words that started a process; Python's own resource tracker stays as long as its process."""
    return Path(f"/proc/{pid}/cmdline").read_text()


def children(pid: int) -> list[int]:
    """Processes whose parent is `pid`, after /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found
