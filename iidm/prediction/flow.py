"""Several images at work at once, in bounded memory, with results in the order of the images.

A thread takes an image from its file to its results. So one image is decoded while the network sees another and the
pictures of a third are compressed; all of it happens in C and C++, which let go of Python's lock meanwhile.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 2
"""Items for each thread that are begun, waiting, or done and not handed out yet."""


class Cancelled(BaseException):
    """Raised in a thread whose result nobody waits for any more."""


class Stop:
    """Tells the threads that their work is over."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """From now on `check` raises."""
        self._event.set()

    def check(self) -> None:
        """Raise Cancelled where the work is over; called wherever a large image takes long."""
        if self._event.is_set():
            raise Cancelled


def in_order(items: Iterable[T], work: Callable[[T], R], jobs: int, stop: Stop) -> Generator[R, None, None]:
    """`work(item)` of each item, by `jobs` threads, in the order of the items; to be closed (contextlib.closing).

    An item is asked for when there is room for it, in the thread of the caller. When the iteration is over all threads
    have ended; where an error, Ctrl-C or closing cut it short, `stop` is set.
    """
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(jobs, "iidm-predict")
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            while waiting and (len(waiting) >= AHEAD * jobs or waiting[0].done()):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BaseException:
        stop.set()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def threads_shared_by(jobs: int) -> Iterator[None]:
    """Meanwhile torch's operations take an equal share of its threads each, as `jobs` of them run at once."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // jobs))
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Budget:
    """Memory that images at work share: a large one waits until there is room, and then is alone."""

    def __init__(self) -> None:
        self._free = 1.0
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, share: float) -> Iterator[None]:
        """Wait for `share` of all that there is, at most all, and have it meanwhile."""
        share = min(share, 1.0)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= share - _ROUNDING)
            self._free -= share
        try:
            yield
        finally:
            with self._changed:
                self._free += share
                self._changed.notify_all()


_ROUNDING = 1e-6
