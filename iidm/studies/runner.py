"""Runs what is missing: a process a run, several at once, each result kept as soon as it is there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch

import iidm
from iidm.cli import config_as_dict, write_config
from iidm.config import Config
from iidm.engine.interrupt import InterruptFlag
from iidm.types import UserError

from .folder import Record, StudyFolder
from .plan import Run
from .predictions import list_labels
from .worker import read_results

POLL_S = 0.05
"""Seconds between two looks at the processes."""


@dataclass(frozen=True)
class Failure:
    """A run that ended without results."""

    run: Run
    line: str
    """The last thing that it said."""
    log: Path


@dataclass(frozen=True)
class Job:
    """A run at work."""

    run: Run
    process: subprocess.Popen[bytes]
    slot: Mapping[str, str]
    commit: str


def make_slots(jobs: int, config: Config, *, share_gpus: bool) -> list[dict[str, str]]:
    """The environment of each of so many processes at once: a GPU each, or an equal share of the cores.

    Raises: UserError for more jobs than GPUs, unless they are to be shared.
    """
    if jobs < 1:
        raise UserError(f"--jobs must be at least 1, not {jobs}.")
    slots: list[dict[str, str]] = [{} for _ in range(jobs)]
    if jobs > 1 and "OMP_NUM_THREADS" not in os.environ:
        threads = max(1, len(os.sched_getaffinity(0)) // jobs)
        slots = [{"OMP_NUM_THREADS": str(threads)} for _ in range(jobs)]
    gpus = [] if config.device == "cpu" else visible_gpus()
    if not gpus:
        return slots
    if jobs > len(gpus) and not share_gpus:
        raise UserError(
            f"--jobs {jobs} needs {jobs} GPUs, and there are {len(gpus)}. Give --jobs {len(gpus)}, or --share-gpus to"
            " put several runs onto one."
        )
    return [{**slot, "CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i, slot in enumerate(slots)]


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls each GPU that this process may use."""
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    count = torch.cuda.device_count()
    return named[:count] if named else [str(i) for i in range(count)]


def run_missing(
    runs: Sequence[Run],
    folder: StudyFolder,
    slots: Sequence[Mapping[str, str]],
    strips: Sequence[str],
    on_done: Callable[[Run, Record], None],
    on_failure: Callable[[Failure], None],
) -> list[Failure]:
    """Run all, as many at once as there are slots; each record is in runs.jsonl before `on_done` hears of it.

    Returns: those that failed; the others go on regardless.
    Raises: UserError after Ctrl-C or SIGTERM, when every run at work has saved a checkpoint and ended.
    """
    waiting, free, failures = deque(runs), list(slots), list[Failure]()
    working: list[Job] = []
    told, unfinished = False, 0
    with InterruptFlag() as stop:
        try:
            while waiting or working:
                if stop.set and not told:  # once: a second SIGINT would not let a run save
                    told = True
                    unfinished = len(waiting)
                    waiting.clear()
                    for job in working:
                        job.process.send_signal(signal.SIGINT)
                while waiting and free:
                    working.append(_start(waiting.popleft(), folder, free.pop(0), strips))
                for job in [job for job in working if job.process.poll() is not None]:
                    working.remove(job)
                    free.append(job.slot)
                    if record := _record(job, folder):
                        folder.append(record)
                        on_done(job.run, record)
                    elif told:
                        unfinished += 1
                    else:
                        failures.append(_failure(job, folder))
                        on_failure(failures[-1])
                time.sleep(POLL_S)
        finally:  # after a second Ctrl-C, or an error of our own
            for job in working:
                job.process.kill()
                job.process.wait()
    if told and unfinished:
        runs_left = "1 run is" if unfinished == 1 else f"{unfinished} runs are"
        raise UserError(f"Stopped; {runs_left} not finished, and keep what they saved. Go on with the same command.")
    return failures


def remove_checkpoints(run: Run, folder: StudyFolder) -> None:
    """Give the disk back what a finished run no longer needs: its predictions are kept."""
    if list_labels(folder.predictions / run.key):
        shutil.rmtree(folder.runs / run.name / "checkpoints", ignore_errors=True)


def source_commit() -> str:
    """The commit of iidm's own checkout, with a + where the working tree differs; outside of git $IIDM_COMMIT."""
    if os.environ.get("IIDM_COMMIT"):
        return os.environ["IIDM_COMMIT"]
    checkout = Path(iidm.__file__).resolve().parents[1]
    git = ["git", "--no-optional-locks", "-C", str(checkout)]
    try:
        top = subprocess.run([*git, "rev-parse", "--show-toplevel"], capture_output=True, text=True)
        if top.returncode or Path(top.stdout.strip()).resolve() != checkout:  # installed into someone's own repository
            return ""
        words = ["describe", "--always", "--abbrev=10", "--dirty=+", "--exclude=*"]
        return subprocess.run([*git, *words], capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def _start(run: Run, folder: StudyFolder, slot: Mapping[str, str], strips: Sequence[str]) -> Job:
    config = folder.runs / f"{run.name}.json"
    write_config(run.config, config)
    words = ["--config", config, "--run-dir", folder.runs / run.name, "--parent", os.getpid()]
    words += ["--labels", folder.predictions / run.key, "--pictures", folder.pictures_of(run.config)]
    words += ["--strips", *strips] if strips else []
    with _log(run, folder).open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "iidm.studies.worker", *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **slot},
            start_new_session=True,  # Ctrl-C is the study's: it tells the runs once each, and waits for them
        )
    return Job(run, process, slot, source_commit())


def _record(job: Job, folder: StudyFolder) -> Record | None:
    """What runs.jsonl keeps of a run; None where it has no results."""
    results = read_results(folder.runs / job.run.name) if job.process.returncode == 0 else None
    if results is None:
        return None
    config = job.run.config
    return {
        "key": job.run.key,
        "method": config.method,
        "preset": config.preset,
        "labeled": job.run.labeled,
        "seed": config.seed,
        **results,
        "commit": job.commit,
        "iidm": iidm.__version__,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": job.run.command,
        "config": config_as_dict(config),
    }


def _failure(job: Job, folder: StudyFolder) -> Failure:
    log, status = _log(job.run, folder), job.process.returncode
    if status < 0:
        name = signal.Signals(-status).name
        line = f"killed by {name}" + (" (was memory short?)" if name == "SIGKILL" else "")
    else:
        lines = [text.strip() for text in log.read_text(errors="replace").splitlines() if text.strip()]
        line = lines[-1].removeprefix("iidm: ") if lines else f"exit status {status}"
    return Failure(job.run, line, log)


def _log(run: Run, folder: StudyFolder) -> Path:
    return folder.runs / f"{run.name}.log"
