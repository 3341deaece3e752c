"""The processes that prepare images."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ...processes import started_for_this_process
from ...types import UserError
from ..datasets.dataset import Dataset
from ..datasets.places import Split
from ..prepared.entries import Entry, ImageFormat
from ..prepared.folder import write_text
from .worker import Task, Worker, prepare_in_process, start_process


class Folder(NamedTuple):
    """Where images are prepared to."""

    out: Path
    image_format: ImageFormat
    datasets: Mapping[Split, Dataset]


def run_tasks(
    folder: Folder,
    tasks: Sequence[Task],
    done: Sequence[Entry],
    journal: Path,
    jobs: int | None,
    report: Callable[[int], None],
) -> tuple[list[Entry], list[str]]:
    """Prepare every task, and keep a journal of what is done.

    Args:
        done: entries of images that are there.
        journal: file of the lines of both.
        jobs: processes; None: one a core.
        report: called with how many tasks are done.

    Returns: all entries by split and name, and what is wrong with the other images.
    """
    entries, problems = list(done), list[str]()
    try:
        write_text(journal, "".join(entry.line() for entry in done))
        with journal.open("a", encoding="utf-8") as file:
            for count, result in enumerate(_results(folder, tasks, jobs or cores()), start=1):
                if isinstance(result, Entry):
                    file.write(result.line())
                    file.flush()
                    entries.append(result)
                else:
                    problems.append(result)
                report(count)
    except OSError as error:
        place = error.filename or folder.out
        raise UserError(f"{place} cannot be written ({error.strerror}). Run the same command again.") from None
    return sorted(entries, key=lambda e: (e.split, e.name)), sorted(problems)


def _results(folder: Folder, tasks: Sequence[Task], jobs: int) -> Iterator[Entry | str]:
    """Entries, or what is wrong, in the order in which they are done."""
    jobs = min(jobs, max(1, len(tasks)))
    small = {split: replace(dataset, samples=()) for split, dataset in folder.datasets.items()}
    arguments = (folder.out, folder.image_format, small)
    if jobs == 1:
        worker = Worker(*arguments)
        yield from map(worker.prepare, tasks)
        return
    # Spawned, as a fork would copy the threads of torch and DALI.
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), start_process, arguments)
    try:
        waiting: set[Future[Entry | str]] = set()
        for task in tasks:
            with started_for_this_process():  # the pool starts its processes as tasks come
                waiting.add(pool.submit(prepare_in_process, task))
            if len(waiting) >= 4 * jobs:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    except KeyboardInterrupt:
        for process in multiprocessing.active_children():  # they may still import for seconds; no file is left half
            process.kill()
        raise
    except BrokenProcessPool:
        raise UserError(
            "A process that prepares images was ended from outside, perhaps for want of memory. Run the same command"
            f" again, it goes on where it stopped; --jobs {max(1, jobs // 2)} needs half of the memory."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
