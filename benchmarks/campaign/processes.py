"""Processes: forks that end like a process of their own, and finding what of one is left."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

MARK = "IIDM_CAMPAIGN"
"""Environment variable of every process of a case, by which what is left of it is found."""
GONE_S = 15
"""Within which what a killed process has started must be gone."""
_CHILD_SUBREAPER = 36
"""Of Linux's prctl.h."""
_CLOCK = os.sysconf("SC_CLK_TCK")


def require_one_thread() -> None:
    """A fork copies one thread alone: the locks of others would stay closed for ever."""
    threads = len(os.listdir("/proc/self/task"))
    assert threads == 1, f"{threads} threads before a fork"


def end_as_a_process(body: Callable[[], None], said: Path) -> NoReturn:
    """In a child: run `body` as a process of its own would, which writes to the file `said`, and end."""
    status = 1
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for place, handle in ((0, nothing), (1, out), (2, out)):
            os.dup2(handle, place)
        sys.stdout, sys.stderr = (open(place, "w", buffering=1, closefd=False) for place in (1, 2))  # noqa: SIM115
        gc.enable()
        body()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        # Not past this frame: what lies above belongs to the parent.
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)


def cpu_of(pid: int) -> float:
    """Seconds that the processor has worked for a process; 0 for one that is gone."""
    return _times_of(pid, 2)


def cpu_with_children(pid: int) -> float:
    """The same with the processes that it has started, those that have ended included."""
    return sum(_times_of(one, 4) for one in (pid, *descendants(pid)))


def _times_of(pid: int, count: int) -> float:
    """The first so many of: user, system, and both of children that were waited for."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, words[11 : 11 + count])) / _CLOCK


def adopt() -> None:
    """Become the parent of what a killed process leaves, so that it is found, and collected when it ends."""
    ctypes.CDLL(None).prctl(_CHILD_SUBREAPER, 1)


def left_of(mark: str) -> Iterator[str]:
    """What of a process that has ended is still there when all of it should be gone."""
    end = time.monotonic() + GONE_S
    while (found := _still_there(mark)) and time.monotonic() < end:
        time.sleep(0.02)
    for one in found:
        with suppress(OSError):
            yield f"{one}: {Path(f'/proc/{one}/cmdline').read_bytes().replace(bytes(1), b' ').decode(errors='replace')}"
        with suppress(OSError):
            os.kill(one, signal.SIGKILL)


def _still_there(mark: str) -> list[int]:
    """Processes below this one, and those with a mark in their environment."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    wanted, found = f"{MARK}={mark}".encode(), set(descendants(os.getpid()))
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(bytes(1)) and _parent_of(int(folder.name)) is not None:
                found.add(int(folder.name))
    return sorted(found)


def descendants(pid: int) -> list[int]:
    """Processes that one has started, and those that these have, nearest first."""
    below: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        if (parent := _parent_of(int(folder.name))) is not None:
            below.setdefault(parent, []).append(int(folder.name))
    found = [pid]
    for one in found:
        found += below.get(one, [])
    return found[1:]


def _parent_of(pid: int) -> int | None:
    """None for a process that is gone, or dead and not collected."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if words[0] in "ZX" else int(words[1])
