"""Processes that work for a main process: they leave signals to it, and never outlive it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

PR_SET_PDEATHSIG = 1
"""Of Linux's prctl.h."""
MAIN = "IIDM_MAIN_PROCESS"
"""Environment variable of a process that is started: the id of its main process. `iidm/__init__.py` looks for it,
seconds before a worker has imported what it needs."""


@contextmanager
def started_for_this_process() -> Iterator[None]:
    """Processes that are started meanwhile end when this one does, however it ends, and see no Ctrl-C, SIGTERM or
    SIGHUP while they still import what they need.

    A process inherits the signals that are blocked. One that comes here meanwhile waits until the end, so that no
    process is left with half of what it is to be told.
    """
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # its own start, with the first process, would unblock the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    os.environ[MAIN] = str(os.getpid())
    try:
        yield
    finally:
        del os.environ[MAIN]
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_signals_to_the_main_process() -> None:
    """In a worker: Ctrl-C and a closed terminal are the main process's to handle, which still needs us then."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # by which a pool ends its processes


def end_with_the_main_process() -> None:
    """End with the process that started this one with `started_for_this_process`; nothing in any other process."""
    if MAIN in os.environ:
        end_with(int(os.environ.pop(MAIN)))


def end_with(parent: int) -> None:
    """Have the system kill this process when its parent of that id ends: one that is killed cannot end its workers."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before that
        os._exit(1)
