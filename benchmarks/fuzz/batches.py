"""Inputs in forked processes, many one after the other in each; what fails runs once more in one of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from .kinds import Kind
from .kinds.networks import CANARY
from .kinds.runs import VALID
from .watch import Outcome, Watch, canary, limit, run

BATCH = 100
"""Inputs of a process. A fresh one starts in a few hundredths of a second, as everything is imported before."""

ONLY_AFTER_OTHERS = "only after others"
"""The end of an input that failed and, alone, did not: what came before it left something, or it fails at times."""


class Found(NamedTuple):
    """How an input ended."""

    kind: str
    number: int
    outcome: Outcome


def write_valid(kind: Kind, base: Path) -> Path:
    """The folder of a kind's valid files, written where they are not there yet."""
    valid = base / "valid" / kind.name
    os.environ[CANARY], os.environ[VALID] = str(canary(base)), str(valid)
    os.environ["IIDM_CACHE"] = str(base / "cache")
    if not valid.exists():
        valid.mkdir(parents=True)
        if kind.is_written_apart:
            _write_apart(kind, valid)
        else:
            kind.write(valid)
    return valid


def _write_apart(kind: Kind, valid: Path) -> None:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            kind.write(valid)
            status = 0
        finally:
            os._exit(status)
    if os.waitpid(child, 0)[1] != 0:
        raise RuntimeError(f"the valid files of {kind.name} could not be written")


def run_inputs(kind: Kind, numbers: Sequence[int], seed: int, base: Path) -> Iterator[Found]:
    """The inputs of these numbers, in their order."""
    valid = write_valid(kind, base)
    todo = list(numbers)
    while todo:
        done = 0
        for number, outcome in _forked(kind, valid, todo[:BATCH], seed, base):
            if is_fault(outcome) and len(todo) > 1:
                ((_, alone),) = _forked(kind, valid, [number], seed, base)
                before = Outcome(ONLY_AFTER_OTHERS, f"{outcome.end}: {outcome.said}")
                outcome = alone if is_fault(alone) else before
            done += 1
            yield Found(kind.name, number, outcome)
        todo = todo[done:]


def is_fault(outcome: Outcome) -> bool:
    """Whether an input did not pass."""
    return outcome.end not in ("read", "refused")


def _forked(kind: Kind, valid: Path, numbers: Sequence[int], seed: int, base: Path) -> list[tuple[int, Outcome]]:
    """What a process says of inputs, up to one that ends it."""
    work = base / f"work-{os.getpid()}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    log, noise = base / "log", base / "noise"
    reader, writer = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            _work(kind, valid, numbers, seed, work, (log, noise), writer)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        found = [(int(number), Outcome(*outcome)) for number, *outcome in map(json.loads, pipe)]
    _, status = os.waitpid(child, 0)
    if status != 0:
        found.append((numbers[len(found)], _end(status, log, noise)))
    shutil.rmtree(work, ignore_errors=True)
    return found


def _work(
    kind: Kind, valid: Path, numbers: Sequence[int], seed: int, work: Path, files: tuple[Path, Path], pipe: int
) -> None:
    """In the forked process."""
    noise = os.open(files[1], os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(noise, 2)
    limit(files[0])
    watch = Watch(work)
    for number in numbers:
        outcome = run(kind, valid, number, seed, watch)
        said = outcome.said.encode("utf-8", "backslashreplace").decode()
        os.write(pipe, (json.dumps([number, outcome.end, said[:600]]) + "\n").encode())
        if is_fault(outcome):  # the process may not be what it was
            os._exit(0)


def _end(status: int, log: Path, noise: Path) -> Outcome:
    """Of a process that an input ended."""
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if "File " in line]
    ours = [line for line in lines if "/iidm/" in line] or lines
    said = f"{' < '.join(ours[:3])} {noise.read_text(errors='replace')[-200:]}"
    if number in (signal.SIGPROF, signal.SIGALRM):
        return Outcome("hang", said)
    return Outcome(f"signal {signal.Signals(number).name}" if number else f"exit {os.WEXITSTATUS(status)}", said)
