"""A thread that makes batches ahead of the one who needs them."""

from __future__ import annotations

import atexit
import queue
import threading
import weakref
from collections.abc import Generator, Iterator
from contextlib import closing, nullcontext
from typing import Any, Generic, NamedTuple, TypeVar

import torch

T = TypeVar("T")


class ReadAhead(Generic[T]):
    """Runs a generator of batches in a thread, `depth` batches ahead; its errors rise in the reader."""

    def __init__(self, batches: Generator[T], depth: int, device: torch.device) -> None:
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())  # a new thread begins with GPU 0
        self._device = device
        self._ready: queue.Queue[Any] = queue.Queue(depth)
        stop = threading.Event()
        # The thread holds no reference to this object: a loader that is dropped without close() ends it too.
        thread = threading.Thread(
            target=_fill, args=(batches, self._ready, stop, device), daemon=True, name="iidm-loader"
        )
        self.close = weakref.finalize(self, _stop, thread, self._ready, stop)
        # At exit the thread must end before DALI takes its pipelines down. What is registered last runs first, and DALI
        # registered when it was imported; weakref's own place in that order is unknown.
        self.close.atexit = False
        atexit.register(self.close)
        thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if not self.close.alive:
            raise StopIteration
        item = self._ready.get()
        if isinstance(item, _End):
            self.close()
            if item.error is not None:
                raise item.error
            raise StopIteration
        if self._device.type == "cuda":
            _lend(item, torch.cuda.current_stream(self._device))
        return item


class _End(NamedTuple):
    """The thread's last word."""

    error: BaseException | None


def _fill(batches: Generator[T], ready: queue.Queue[Any], stop: threading.Event, device: torch.device) -> None:
    """Body of the thread. On CUDA it has a stream of its own, so that its waiting holds up nobody."""
    error: BaseException | None = None
    # torch hands out 32 streams of a priority in turns, and this one must never be that on which a step is captured.
    stream = torch.cuda.Stream(device, priority=-1) if device.type == "cuda" else None
    try:
        with closing(batches), torch.cuda.stream(stream) if stream else nullcontext():
            for batch in batches:
                if stream:
                    stream.synchronize()
                _put(ready, stop, batch)
                if stop.is_set():
                    return
    except BaseException as caught:
        error = caught
    _put(ready, stop, _End(error))


def _put(ready: queue.Queue[Any], stop: threading.Event, item: Any) -> None:
    """Put `item` unless the reader has stopped."""
    while not stop.is_set():
        try:
            return ready.put(item, timeout=0.1)
        except queue.Full:
            continue


def _stop(thread: threading.Thread, ready: queue.Queue[Any], stop: threading.Event) -> None:
    stop.set()
    while not ready.empty():
        ready.get_nowait()
    if thread is not threading.current_thread():
        thread.join(timeout=30)


def _lend(item: Any, stream: torch.cuda.Stream) -> None:
    """Tell the allocator that `stream` reads the tensors of a batch, which were made on the loader's stream."""
    if isinstance(item, torch.Tensor):
        item.record_stream(stream)
    elif isinstance(item, tuple):
        for part in item:
            _lend(part, stream)
