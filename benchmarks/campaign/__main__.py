"""The campaign's command: the benchmarks.campaign package says what it is."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from .cases import Case, as_json, latest
from .life import import_all
from .processes import adopt
from .trial import Kind, few_of

RESULTS = Path(__file__).parents[1] / "results" / "campaign"
KINDS = ("runs", "prepare", "study")
FEW_BYTES = 3 << 30
"""Free memory from which on the work is done there: no wear of a disk, and kills do not ask what has reached it."""


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    arguments = parsed(argv)
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # equal numbers need equal threads
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C: the folder is to be removed
    work = Path(tempfile.mkdtemp(prefix="iidm-campaign-", dir=arguments.work or roomy_folder()))
    losses = 0
    try:
        for kind in arguments.kinds:
            losses += campaign(kind, work, arguments)
    finally:
        if not list(work.glob("*/lost-*")):
            shutil.rmtree(work, ignore_errors=True)
    if losses:
        left = f"; what they left lies in {work}" if work.exists() else ", in earlier calls"
        print(f"{losses} cases lost something{left}")
    sys.exit(1 if losses else 0)


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """What the command was told."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.campaign",
        description=sys.modules[__package__ or ""].__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--count", type=int, help="cases 0 to COUNT - 1 of each kind; default: all")
    parser.add_argument("--only", type=int, nargs="+", help="these cases, done again and told; nothing is written")
    parser.add_argument("--short", action="store_true", help="twelve cases, as the tests run them")
    parser.add_argument(
        "--strict",
        action="store_true",
        help="power cuts take names whose own folder was not synced (power.py); results in a folder of their own",
    )
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, help="folder for what is written; default: memory, or the temporary one")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no case of a kind after that time")
    arguments = parser.parse_args(argv)
    if arguments.strict:
        arguments.results = arguments.results / "strict"
    if arguments.jobs < 1:
        parser.error("--jobs must be at least 1")
    if arguments.only and len(arguments.kinds) > 1:
        parser.error("--only needs the kind of the cases, as in --kinds runs --only 137")
    return arguments


def roomy_folder() -> str:
    """Memory where there is much, else the temporary folder."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > FEW_BYTES else tempfile.gettempdir()


class Work(NamedTuple):
    """What each process of the campaign knows."""

    kind: Kind
    shared: Path
    file: Path
    """Of the results."""
    tell: bool
    """Cases are told instead of written."""
    strict: bool
    end: float
    """Of `time.monotonic`: no case begins later."""


def campaign(name: str, folder: Path, arguments: argparse.Namespace) -> int:
    """All cases of a kind that are missing or lost something; returns how many have now, whenever they were done."""
    kind: Kind = importlib.import_module(f".{name}", __package__).KIND
    file: Path = arguments.results / f"{name}.jsonl"
    records = latest(read(file))
    done = {number for number, record in records.items() if not record["losses"]}
    chosen = few_of(kind) if arguments.short else range(arguments.count or kind.count)
    numbers = arguments.only or [i for i in chosen if i not in done]
    if not numbers:
        print(f"{name}: all {len(done)} cases are done")
        return 0
    cases = [kind.draw(number) for number in numbers]
    import_all()
    adopt()
    shared = folder / name
    shared.mkdir()
    again = sum(number in records for number in numbers)
    print(f"{name}: {len(cases)} cases, {again} of them again; {len(done)} are done", flush=True)
    kind.prepare(shared)
    work = Work(kind, shared, file, bool(arguments.only), arguments.strict, time.monotonic() + 60 * arguments.minutes)
    here, workers = os.getpid(), []
    for part in range(arguments.jobs):
        pid = os.fork()
        if pid == 0:
            work_through(work, cases[part :: arguments.jobs], here)
        workers.append(pid)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in workers]
    if any(statuses):
        print(f"{name}: a process of the campaign itself failed ({statuses})")
        return 1
    if arguments.only:
        return len(list(shared.glob("lost-*")))
    from .report import write_report

    write_report(arguments.results)
    records = latest(read(file))
    return sum(bool(records[number]["losses"]) for number in chosen if number in records)


def work_through(work: Work, cases: Sequence[Case], parent: int) -> NoReturn:
    """Do cases one after the other, in a process of its own, and end it."""
    from iidm.processes import end_with

    status = 1
    try:
        end_with(parent)
        adopt()
        for case in cases:
            if time.monotonic() < work.end:
                do(work, case)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def do(work: Work, case: Case) -> None:
    """Do a case and write its line, or tell all of it."""
    from ..conftest import commit

    began, own = time.monotonic(), work.shared / f"case-{case.number}"
    own.mkdir()
    trial = work.kind.trial(work.shared, own, case)
    trial.strict = work.strict
    outcome = trial.run()
    line = {**as_json(case, outcome, time.monotonic() - began), "commit": commit()}
    lost = f", LOST: {'; '.join(outcome.losses)}" if outcome.losses else ""
    words = f"{case.kind} {case.number} {' '.join(case.variant)}{case.trouble and ', ' + case.trouble}"
    print(f"{words}: killed in {line['kills']}, {line['seconds']} s{lost}", flush=True)
    if work.tell:
        print(*outcome.told, sep="\n", flush=True)
    else:
        work.file.parent.mkdir(parents=True, exist_ok=True)
        with work.file.open("a") as lines:
            lines.write(json.dumps(line) + "\n")
    if outcome.losses:
        (work.shared / f"lost-{case.number}").touch()
    else:
        shutil.rmtree(own)


def read(file: Path) -> list[dict[str, Any]]:
    """The lines of a file of results."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


if __name__ == "__main__":
    main()
