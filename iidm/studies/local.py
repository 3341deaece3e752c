"""The runs of a study as processes: of this machine here, of another one's in `on_ray.py`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import iidm
from iidm.cli import write_config
from iidm.config import Config
from iidm.types import UserError

from .folder import StudyFolder
from .plan import Run
from .worker import read_results

POLL_S = 0.05
"""Seconds between two looks at the runs at work."""


@dataclass(frozen=True)
class Ended:
    """What is known of a run whose process is over."""

    results: dict[str, Any] | None
    """What it wrote to results.json; None where it came to none."""
    line: str = ""
    """The last thing that it said, where it has no results."""
    commit: str = ""
    """Of the iidm that computed it, as `source_commit` has it."""
    was_killed: bool = False
    """It, or its machine, was ended from outside: another try may go well."""


@dataclass(frozen=True)
class Job:
    """A run at work."""

    run: Run
    process: subprocess.Popen[bytes]
    slot: Mapping[str, str]
    commit: str


class LocalProcesses:
    """The `Place` of runs on this machine: a process a slot."""

    def __init__(self, folder: StudyFolder, slots: Sequence[Mapping[str, str]], strips: Sequence[str]) -> None:
        self._folder, self._free, self._strips = folder, list(slots), strips
        self._working: list[Job] = []

    def room(self) -> int:
        """How many runs may be started now."""
        return len(self._free)

    def start(self, run: Run) -> None:
        """Begin a run, or go on with it."""
        slot = self._free.pop(0)
        process = start_process(run, self._folder, self._strips, slot)
        self._working.append(Job(run, process, slot, source_commit()))

    def ended(self) -> list[tuple[Run, Ended]]:
        """The runs whose processes are over since the last look."""
        over = [job for job in self._working if job.process.poll() is not None]
        for job in over:
            self._working.remove(job)
            self._free.append(job.slot)
        return [(job.run, end_of(job.run, self._folder, job.process.returncode, job.commit)) for job in over]

    def stop(self) -> None:
        """Ask every run to save and to end."""
        for job in self._working:
            job.process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """End what is still at work, as it is."""
        for job in self._working:
            job.process.kill()
            job.process.wait()


def make_slots(jobs: int, config: Config, *, runs_per_gpu: int) -> list[dict[str, str]]:
    """The environment of each of so many processes at once: a share of a GPU each, or an equal share of the cores.

    Raises: UserError for more jobs than the GPUs take.
    """
    slots: list[dict[str, str]] = [{} for _ in range(jobs)]
    if jobs > 1 and "OMP_NUM_THREADS" not in os.environ:
        threads = max(1, len(os.sched_getaffinity(0)) // jobs)
        slots = [{"OMP_NUM_THREADS": str(threads)} for _ in range(jobs)]
    gpus = [] if config.device == "cpu" else visible_gpus()
    if not gpus:
        return slots
    if jobs > len(gpus) * runs_per_gpu:
        raise UserError(
            f"--jobs {jobs} needs {jobs} GPUs, and there are {len(gpus)}. Give --jobs {len(gpus) * runs_per_gpu}, or"
            f" --runs-per-gpu {-(-jobs // len(gpus))} to put several runs onto one."
        )
    return [{**slot, "CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i, slot in enumerate(slots)]


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls each GPU that this process may use."""
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    count = torch.cuda.device_count()
    return named[:count] if named else [str(i) for i in range(count)]


def start_process(
    run: Run, folder: StudyFolder, strips: Sequence[str], environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Begin a run, or go on with it, in a process that ends with this one and writes what it says to `run_log`."""
    config = folder.runs / f"{run.name}.json"
    write_config(run.config, config)
    words = ["--config", config, "--run-dir", folder.runs / run.name, "--parent", os.getpid()]
    words += ["--labels", folder.predictions / run.key, "--pictures", folder.pictures_of(run.config)]
    words += ["--strips", *strips] if strips else []
    with run_log(run, folder).open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "iidm.studies.worker", *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,  # Ctrl-C is the study's: it tells the runs once each, and waits for them
        )


def end_of(run: Run, folder: StudyFolder, status: int, commit: str) -> Ended:
    """What a run's process of that exit status (negative: the signal that killed it) has left."""
    results = read_results(folder.runs / run.name) if status == 0 else None
    if results is not None:
        return Ended(results, commit=commit)
    if status < 0:
        name = signal.Signals(-status).name
        return Ended(None, f"killed by {name}" + (" (was memory short?)" if name == "SIGKILL" else ""), commit, True)
    said = run_log(run, folder).read_text(errors="replace").splitlines()
    lines = [text.strip() for text in said if text.strip()]
    return Ended(None, lines[-1].removeprefix("iidm: ") if lines else f"exit status {status}", commit)


def run_log(run: Run, folder: StudyFolder) -> Path:
    """All that a run says."""
    return folder.runs / f"{run.name}.log"


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
