"""Ctrl-C, SIGTERM and SIGHUP: a wish that the loop reads between two steps, or an exception elsewhere, so that nothing
is cut in the middle and no process stays behind. SIGUSR1: a wish for a checkpoint."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOPS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""What ends a run: Ctrl-C; `kill`, a batch system or a container; a terminal that is closed."""


def heeded() -> list[int]:
    """Those of STOPS that this process does not ignore: nohup has it ignore SIGHUP, a script's `&` Ctrl-C."""
    return [number for number in STOPS if signal.getsignal(number) != signal.SIG_IGN]


class Stopped(KeyboardInterrupt):
    """SIGTERM or SIGHUP came; whatever mends things after Ctrl-C does so after them."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def stops_raise() -> Iterator[None]:
    """Meanwhile SIGTERM and SIGHUP raise `Stopped`, as Ctrl-C raises KeyboardInterrupt. In the main thread only."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in heeded() if number != signal.SIGINT}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


SAVE = getattr(signal, "SIGUSR1", None)


class InterruptFlag:
    """While it is open, the first SIGINT, SIGTERM or SIGHUP sets `set`; a second one interrupts at once as usual.
    SIGUSR1 sets `save`, which the loop clears when it has saved."""

    def __init__(self) -> None:
        self.set = self.save = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> InterruptFlag:
        for number in heeded():
            self._before[number] = signal.signal(number, self._on_signal)
        if SAVE is not None:
            self._before[SAVE] = signal.signal(SAVE, self._on_save)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.set = True
        signal.signal(number, self._before[number])

    def _on_save(self, number: int, frame: FrameType | None) -> None:
        self.save = True
