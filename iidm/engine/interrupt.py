"""Ctrl-C as a wish that the loop reads between two steps, so that nothing is cut in the middle."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any


class InterruptFlag:
    """While it is open, the first SIGINT or SIGTERM sets `set`; a second SIGINT interrupts at once as usual."""

    def __init__(self) -> None:
        self.set = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> InterruptFlag:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.set = True
        signal.signal(number, self._before[number])
