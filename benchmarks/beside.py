"""Trainings that run beside a long one, begun anew again and again: what the machine alone does to a step at a time."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from .watching import Point, watched


class Pace(NamedTuple):
    """How long a step of a young training took at a time."""

    seconds: float
    """Of `time.perf_counter`."""
    step_ms: float


@contextmanager
def young_runs(words: Sequence[str], folder: Path, steps: int, begin_s: float = 1.0) -> Iterator[list[Pace]]:
    """A context in which one training after the other of so many steps is run on the CPU; none of them outlives it.

    Args:
        words: the command, without --max-steps and --run-dir; it must log several times in so many steps.
        folder: of the runs; a run of an earlier call in it is removed.
        begin_s: time from the end of one to the start of the next.

    Yields: what was seen so far, but for the first fifth of each training, in which its caches fill.
    Raises: RuntimeError at the end of the context if one of them failed.
    """
    run, done, seen, failed = folder / "young", threading.Event(), list[Pace](), list[RuntimeError]()
    whole = [*words, "--max-steps", str(steps), "--run-dir", str(run)]

    def go_on() -> None:
        try:
            while not done.is_set():
                shutil.rmtree(run, ignore_errors=True)
                with closing(watched(whole, folder / "young.txt")) as points:
                    for pace in paces(points, steps // 5):
                        seen.append(pace)
                        if done.is_set():
                            return
                done.wait(begin_s)
        except RuntimeError as error:
            failed.append(error)

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()
        shutil.rmtree(run, ignore_errors=True)
    if failed:
        raise failed[0]


def paces(points: Iterator[Point], warm: int) -> Iterator[Pace]:
    """The time of a step between each two log points after step `warm`."""
    before: Point | None = None
    for point in points:
        if before and before.step >= warm:
            seconds = point.seconds - before.seconds
            yield Pace(before.seconds + seconds / 2, 1e3 * seconds / (point.step - before.step))
        before = point


def in_each_part(seen: Sequence[Pace], points: Sequence[Point], steps: int, parts: int) -> list[float]:
    """The median step time of the young trainings while the long one was in each of so many equal parts of its steps;
    nan where none of them was stepping then."""
    medians = []
    for part in range(parts):
        first, last = part * steps / parts, (part + 1) * steps / parts
        times = [point.seconds for point in points if first <= point.step <= last]
        found = [pace.step_ms for pace in seen if times and times[0] <= pace.seconds <= times[-1]]
        medians.append(median(found) if found else float("nan"))
    return medians
