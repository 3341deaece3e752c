"""A study of two small runs: it, or one of its runs, is killed; it is gone on with, and its tables are compared."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import Random

from .cases import Case, Trouble, draw_kills, draw_trouble
from .compare import contents, differences, nothing, without
from .data import options, write_data
from .forked_runs import fork_runs
from .inside import Wrapped
from .life import Life, Moment, Start, Usual, outputs_of
from .processes import cpu_of, cpu_with_children, descendants
from .runs import RULES
from .trial import Disk, Kind, Trial
from .trouble import damage

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


def run_of(pid: int) -> int | None:
    """A process of the study that trains, and not its git."""
    for one in descendants(pid):
        with suppress(OSError):
            if b"python" in Path(f"/proc/{one}/cmdline").read_bytes().split(bytes(1))[0]:
                return one
    return None


class StudyTrial(Trial):
    """Of a study, in which it is killed or one of its runs."""

    disk = Disk(120_000_000, (200_000, 15_200_000))
    first_file = ".gitignore"

    @property
    def victim(self) -> str:
        """Which process is killed: that of the study, or of a run."""
        return self.case.variant[-1]

    def start_of(self, own: Path, fresh: bool) -> Start:
        """How a study is started; a forked one forks its runs too."""
        start = Start("study", own / "out", own, PHASES, functions, fresh, place_of, tick_s=0.02, has_runs=True)
        start.in_child = fork_runs
        if self.victim == "run":
            start.victim, start.clock = run_of, cpu_of
        else:
            start.clock = cpu_with_children
        return start

    def words_of(self, folder: Path, variant: Sequence[str]) -> list[str]:
        """Words of the study; the same however often it is run."""
        words = [str(self.shared / "grid.toml"), "--out", str(folder), "--seeds", "1", "--steps", str(STEPS)]
        given = iter(options(self.shared / "data"))
        own = {"--preset", "--data.labeled-count"}  # the study gives these
        kept: list[str] = []
        for word in given:
            if word in own:
                next(given)
            else:
                kept.append(word)
        kept += "--log.every 1 --log.no-tensorboard --log.preview-every 0 --log.checkpoint-every 1".split()
        return [*words, *variant, "--keep-checkpoints", "--", *kept]

    def whole(self) -> tuple[str, ...]:
        """One run after the other; all studies write the same."""
        return ("--jobs", "1")

    def usual(self) -> Usual:
        """Of the study; a run is one of three parts of it, its two runs and itself."""
        usual = super().usual()
        return usual._replace(cpu_s=usual.cpu_s / 3) if self.victim == "run" else usual

    def go_on(self, moment: Moment | None = None) -> Life:
        """The command, once."""
        words = self.words_of(self.start.folder, self.case.variant[:-1])
        return self.live(words, moment, f"study, victim {self.victim}")

    def problem_on_a_full_disk(self, life: Life) -> str:
        """Runs that fail are told with their reason, and the study ends with 1, or with 2 where it cannot write
        itself."""
        if life.status not in (0, 1, 2) or "Traceback" in life.said:
            return f"it ended with {life.status}: {outputs_of(life)[-3:]}"
        if life.status != 0 and "space" not in life.said and "too large" not in life.said:
            return f"it says {outputs_of(life)[-3:]}"
        return ""

    def damage(self) -> None:
        """Of the newest checkpoint of a run that is not finished, where it has another before it."""
        for folder in sorted((self.start.folder / "runs").glob("*/checkpoints")):
            checkpoints = sorted(folder.glob("step-*"))
            if len(checkpoints) > 1 and not (folder.parent / "results.json").exists():
                self.outcome.told.append(damage(self.rng.choice(sorted(checkpoints[-1].iterdir())), self.rng))
                return
        self.outcome.left_out = "no run was between its second checkpoint and its end"

    def compare(self, wanted: Path) -> None:
        """Every run once, the same tables but for times."""
        names = times_by_key(self.start.folder / "runs.jsonl")
        if names != times_by_key(wanted / "runs.jsonl"):
            self.outcome.loss(f"runs.jsonl holds {names}")
        self.outcome.losses += differences(_compared(self.start.folder), _compared(wanted))


def times_by_key(path: Path) -> dict[str, int]:
    """How often each run is recorded."""
    keys = [json.loads(line)["key"] for line in path.read_text().splitlines()] if path.exists() else []
    return {key: keys.count(key) for key in sorted(keys)}


def _compared(folder: Path) -> dict[str, object]:
    rules = {
        **RULES,
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


KIND = Kind(draw, prepare, StudyTrial, 200, ("--jobs", "1", "study"), 1)
