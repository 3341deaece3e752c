"""What processes that work for a main process do about signals."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker


@contextmanager
def started_without_interrupts() -> Iterator[None]:
    """Processes that are started meanwhile never see Ctrl-C, not even while they still import what they need.

    A process inherits the signals that are blocked. One that comes here meanwhile waits until the end.
    """
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # its own start, with the first process, would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def follow_the_main_process() -> None:
    """In a worker: Ctrl-C is the main process's to handle, which still needs us then; when it is killed, we end too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        # A main process that is killed cannot end its workers: the kernel does it (PR_SET_PDEATHSIG = 1).
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
