"""Runs what is missing, several at once, wherever that is; each result is kept as soon as it is there."""

from __future__ import annotations

import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol

import iidm
from iidm.cli import config_as_dict
from iidm.engine.interrupt import InterruptFlag
from iidm.types import UserError

from .folder import Record, StudyFolder
from .local import POLL_S, Ended, run_log
from .named_files import sums, with_kept_descriptions
from .plan import Run
from .predictions import list_labels


class Place(Protocol):
    """Where runs are computed: `local.LocalProcesses`, or the machines of `on_ray.RayCluster`."""

    def room(self) -> int:
        """How many runs may be started now."""

    def start(self, run: Run) -> None:
        """Begin a run, or go on with it; called only where there is room."""

    def ended(self) -> Sequence[tuple[Run, Ended]]:
        """The runs that are over since the last look."""

    def stop(self) -> None:
        """Ask every run to save and to end; each is among `ended` when it has. Called once, and then no `start`."""

    def close(self) -> None:
        """End what is still at work, as it is."""


@dataclass(frozen=True)
class Failure:
    """A run that ended without results."""

    run: Run
    line: str
    """The last thing that it said."""
    log: Path


@dataclass(frozen=True)
class Listener:
    """Who hears of the runs of `run_missing`."""

    on_done: Callable[[Run, Record], None]
    on_failure: Callable[[Failure], None]
    on_retry: Callable[[Run, str], None]
    """Of a run that was killed and will be tried again, and how that came."""


def run_missing(
    runs: Sequence[Run], folder: StudyFolder, place: Place, retries: int, listener: Listener
) -> list[Failure]:
    """Run all, as many at once as there is room; each record is in runs.jsonl before `on_done` hears of it.

    Args:
        retries: how often a run that was killed goes on. One that ended with an error of its own would do so again.

    Returns: those that failed; the others go on regardless.
    Raises: UserError after Ctrl-C or SIGTERM, when every run at work has saved a checkpoint and ended.
    """
    waiting, failures, tries = deque(runs), list[Failure](), Counter[str]()
    working, unfinished, told = 0, 0, False
    with InterruptFlag() as stop:
        try:
            while waiting or working:
                if stop.set and not told:  # once: a second word would not let a run save
                    told = True
                    unfinished = len(waiting)
                    waiting.clear()
                    place.stop()
                while waiting and place.room() > 0:
                    place.start(waiting.popleft())
                    working += 1
                for run, end in place.ended():
                    working -= 1
                    if end.results is not None:
                        record = make_record(run, end, folder)
                        folder.append(record)
                        listener.on_done(run, record)
                    elif told:
                        unfinished += 1
                    elif end.was_killed and tries[run.key] < retries:
                        tries[run.key] += 1
                        waiting.appendleft(run)
                        listener.on_retry(run, end.line)
                    else:
                        failures.append(Failure(run, end.line, run_log(run, folder)))
                        listener.on_failure(failures[-1])
                time.sleep(POLL_S)
        finally:  # after a second Ctrl-C, or an error of our own
            place.close()
    if told and unfinished:
        runs_left = "1 run is" if unfinished == 1 else f"{unfinished} runs are"
        raise UserError(f"Stopped; {runs_left} not finished, and keep what they saved. Go on with the same command.")
    return failures


def remove_checkpoints(run: Run, folder: StudyFolder) -> None:
    """Give the disk back what a finished run no longer needs: its predictions are kept."""
    if list_labels(folder.predictions / run.key):
        shutil.rmtree(folder.runs / run.name / "checkpoints", ignore_errors=True)


def make_record(run: Run, end: Ended, folder: StudyFolder) -> Record:
    """What runs.jsonl keeps of a run that has results."""
    assert end.results is not None
    return {
        "key": run.key,
        "method": run.config.method,
        "preset": run.config.preset,
        "labeled": run.labeled,
        "seed": run.config.seed,
        **end.results,
        "commit": end.commit,
        "iidm": iidm.__version__,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": run.command,
        "files": sums(with_kept_descriptions(run.config, folder.runs / run.name)),
        "config": config_as_dict(run.config),
    }
