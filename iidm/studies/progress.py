"""What a study says while it runs."""

from __future__ import annotations

import sys
import time

from .folder import Record
from .plan import Run
from .runner import Failure


def say(line: str) -> None:
    """A note, apart from what the command answers."""
    print(line, file=sys.stderr, flush=True)


class Progress:
    """A line for each run that ends, with the time that is left."""

    def __init__(self, total: int, done: int) -> None:
        self._total, self._over = total, done
        self._ended = 0
        self._started = time.monotonic()

    def done(self, run: Run, record: Record) -> None:
        """A run is finished."""
        miou = record["student"]["miou"]
        score = "no mIoU" if miou is None else f"mIoU {100 * miou:.1f}"
        self._end(f"{run.title} · {score} in {duration(record['seconds'])}")

    def failed(self, failure: Failure) -> None:
        """A run ended without results."""
        self._end(f"{failure.run.title} · failed: {failure.line} (all that it said: {failure.log})")

    def again(self, run: Run, line: str) -> None:
        """A run was killed, and will be tried again."""
        say(f"{run.title} · {line}; it goes on from its last checkpoint")

    def _end(self, line: str) -> None:
        self._ended += 1
        self._over += 1
        left = self._total - self._over
        rest = (time.monotonic() - self._started) / self._ended * left
        say(f"[{self._over}/{self._total}] {line}" + (f" · about {duration(rest)} left" if left else ""))


def counted(count: int, what: str) -> str:
    """So many of something, in words: 1 run, 2 runs."""
    return f"{count} {what}" + ("" if count == 1 else "s")


def duration(seconds: float) -> str:
    """Seconds in the unit that reads best."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
