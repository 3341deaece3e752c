"""A study of two small runs: it, or one of its runs, is killed; it is gone on with, and its tables are compared."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

from . import runs
from .cases import Case, Kind, Outcome, Trouble, draw_kills, draw_trouble
from .compare import contents, differences, nothing, without
from .data import options, write_data
from .forked_runs import fork_runs
from .inside import Wrapped
from .life import Life, Moment, Start, live, outputs_of
from .processes import cpu_of, cpu_with_children, descendants
from .references import once, usual_of
from .trouble import cut_the_power, damage

GRID = """
title = "Two rows"
preset = "folder"
budgets = [2]

[[row]]
name = "L_t"
method = "target_only"

[[row]]
name = "L_s + L_t"
method = "source_target"
"""
STEPS = 3
PHASES = ("start", "runs", "record", "table", "pictures", "end")
AIMED = {"runs": 6.0, "record": 0.02, "table": 0.05, "pictures": 0.5, "end": 0.2}
TROUBLES: dict[Trouble, float] = {
    "full disk": 0.08,
    "read-only folder": 0.06,
    "damaged checkpoint": 0.1,
    "power cut": 0.08,
}
DISK_BYTES = 120_000_000
TIMES = ("seconds", "date", "commit", "machine", "command")


def draw(number: int) -> Case:
    """The case of that number."""
    rng = Random(f"study-{number}")
    fresh = rng.random() < 0.1
    trouble = draw_trouble(rng, TROUBLES)
    if trouble == "power cut":
        fresh = False
    words = ["--jobs", rng.choice(["1", "2"])]
    victim = "run" if trouble != "power cut" and rng.random() < 0.35 else "study"
    kills = draw_kills(rng, AIMED, fresh, most=2)
    if victim == "run":
        kills = tuple(Moment("cpu", rng.random()) for _ in kills)
    return Case("study", number, (*words, victim), fresh, kills, trouble, rng.randrange(2**32))


def prepare(shared: Path) -> None:
    """The data and the grid."""
    write_data(shared / "data")
    (shared / "grid.toml").write_text(GRID)


def reference(shared: Path) -> Path:
    """The uninterrupted study."""
    place = shared / "study"
    start = start_of(place, fresh=False)
    return once(place, start, words_of(shared, start.folder, ("--jobs", "1")))


def start_of(own: Path, fresh: bool) -> Start:
    """How a study is started; a forked one forks its runs too."""
    return Start(
        "study",
        own / "out",
        own,
        PHASES,
        functions,
        fresh,
        place_of,
        clock=cpu_with_children,
        tick_s=0.02,
        has_runs=True,
        in_child=fork_runs,
    )


def functions() -> Sequence[Wrapped]:
    """What is which phase."""
    import iidm.study as entry
    from iidm.studies.folder import StudyFolder
    from iidm.studies.report import Report

    return (
        Wrapped(entry, "run_missing", "runs"),
        Wrapped(StudyFolder, "append", "record"),
        Wrapped(Report, "write", "table"),
        Wrapped(Report, "draw", "pictures"),
    )


def place_of(out: Path) -> str:
    """Where a fresh study was when it ended."""
    if not list(out.glob("runs/*/config.json")):
        return "start"
    count = (out / "runs.jsonl").read_bytes().count(b"\n") if (out / "runs.jsonl").exists() else 0
    return "runs" if count < 2 else "end"


def words_of(shared: Path, out: Path, variant: Sequence[str]) -> list[str]:
    """Words of the study; the same however often it is run."""
    words = [str(shared / "grid.toml"), "--out", str(out), "--seeds", "1", "--steps", str(STEPS)]
    given = iter(options(shared / "data"))
    own = {"--preset": 1, "--data.labeled-count": 1}  # the study gives these
    kept: list[str] = []
    for word in given:
        if word in own:
            next(given)
        else:
            kept.append(word)
    kept += "--log.every 1 --log.no-tensorboard --log.preview-every 0 --log.checkpoint-every 1".split()
    return [*words, *variant, "--keep-checkpoints", "--", *kept]


def run(shared: Path, own: Path, case: Case) -> Outcome:
    """Do a case."""
    outcome, rng = Outcome(), Random(case.seed)
    with ExitStack() as stack:
        start = start_of(own, case.fresh)
        if case.trouble == "full disk":
            start = small(start, own, rng, stack, outcome)
        go_on = partial(one_life, start, case, shared, outcome)
        if case.trouble == "full disk":
            fill(go_on, start, outcome)
            start.file_limit = 0
        for moment in case.kills:
            began = time.time_ns()
            life = go_on(moment)
            if case.trouble == "power cut" and life.killed and start.folder.exists():
                outcome.told.append(f"the power cut took {cut_the_power(start.folder, began, start.syncs)}")
        if case.trouble == "damaged checkpoint":
            break_checkpoint(start, rng, outcome)
        if case.trouble == "read-only folder":
            runs.refuse_to_write(start, outcome, go_on, ".gitignore")
        life = go_on()
        if life.status != 0:
            outcome.loss(f"the last life ended with {life.status}: {outputs_of(life)[-3:]}")
        compare(start.folder, reference(shared) / "out", outcome)
    return outcome


def one_life(start: Start, case: Case, shared: Path, outcome: Outcome, moment: Moment | None = None) -> Life:
    """The command, once; the victim is the study, or one of its runs."""
    usual = usual_of(reference(shared))
    *words, victim = case.variant
    if victim == "run" and moment is not None:
        start = replace(start, victim=run_of, clock=cpu_of)
        usual = usual._replace(cpu_s=usual.cpu_s / 3)  # of its two runs and itself
    life = live(start, words_of(shared, start.folder, words), moment, usual)
    runs.note(outcome, life, moment, f"study, victim {victim}")
    return life


def run_of(pid: int) -> int | None:
    """A process of the study that trains, and not its git."""
    for one in descendants(pid):
        with suppress(OSError):
            if b"python" in Path(f"/proc/{one}/cmdline").read_bytes().split(bytes(1))[0]:
                return one
    return None


def small(start: Start, own: Path, rng: Random, stack: ExitStack, outcome: Outcome) -> Start:
    """The same on a disk that is too small, or with files that may not grow beyond a size."""
    share = rng.random()
    if runs.may_mount():
        stack.enter_context(runs.small_disk(own / "disk", max(4096, int(share * DISK_BYTES))))
        return replace(start, folder=own / "disk" / "out")
    outcome.told.append("a limit on the size of files stands for a full disk")
    return replace(start, file_limit=200_000 + int(share * 15_000_000))


def fill(go_on: Callable[..., Life], start: Start, outcome: Outcome) -> None:
    """Until the disk is full: runs that fail are told with their reason, and the study ends with 1, or with 2 where it
    cannot write itself."""
    life = go_on()
    if life.status not in (0, 1, 2) or "Traceback" in life.said:
        outcome.loss(f"on a full disk it ended with {life.status}: {outputs_of(life)[-3:]}")
    elif life.status != 0 and "space" not in life.said and "too large" not in life.said:
        outcome.loss(f"on a full disk it says {outputs_of(life)[-3:]}")
    if start.folder.parent.name == "disk":
        runs.free_space(start.folder.parent)


def break_checkpoint(start: Start, rng: Random, outcome: Outcome) -> None:
    """Damage the newest checkpoint of a run that is not finished, where it has another before it."""
    for folder in sorted((start.folder / "runs").glob("*/checkpoints")):
        checkpoints = sorted(folder.glob("step-*"))
        if len(checkpoints) > 1 and not (folder.parent / "results.json").exists():
            outcome.told.append(damage(rng.choice(sorted(checkpoints[-1].iterdir())), rng))
            return
    outcome.left_out = "no run was between its second checkpoint and its end"


def compare(folder: Path, wanted: Path, outcome: Outcome) -> None:
    """With the uninterrupted study: every run once, the same tables but for times."""
    names = times_by_key(folder / "runs.jsonl")
    if names != times_by_key(wanted / "runs.jsonl"):
        outcome.loss(f"runs.jsonl holds {names}")
    outcome.losses += differences(_compared(folder), _compared(wanted))


def times_by_key(path: Path) -> dict[str, int]:
    """How often each run is recorded."""
    keys = [json.loads(line)["key"] for line in path.read_text().splitlines()] if path.exists() else []
    return {key: keys.count(key) for key in sorted(keys)}


def _compared(folder: Path) -> dict[str, object]:
    rules = {
        **runs.RULES,
        "runs.jsonl": _records,
        "grid.md": _page,
        "grid.json": without(*TIMES),
        "grid.csv": _rows,
        ".gitignore": bytes,
        ".lock": nothing,
    }
    found = contents(folder, rules)
    for name in (".lock", ".gitignore"):
        found.pop(name, None)
    return {name: None if name.endswith(".log") else value for name, value in found.items()}


def _records(body: bytes) -> object:
    lines = [json.loads(line) for line in body.splitlines()]
    return sorted(json.dumps({k: v for k, v in line.items() if k not in TIMES}, sort_keys=True) for line in lines)


def _rows(body: bytes) -> object:
    rows = csv.DictReader(io.StringIO(body.decode()))
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def _page(body: bytes) -> object:
    """Numbers of seconds, dates, commits and folders are of the moment."""
    return [line for line in body.decode().splitlines() if not re.search(r"python -m iidm|commit|\d+ s\b|min\b", line)]


KIND = Kind(draw, prepare, run, 200, ("--jobs", "1", "study"), 1)
