"""A small training, killed, resumed, and compared with one that was not."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from random import Random

from .cases import Case, Trouble, draw_kills, draw_trouble
from .compare import Rule, contents, differences, nothing, without
from .data import options, write_data
from .inside import Wrapped
from .life import Life, Moment, Start, outputs_of, refusal_of
from .trial import Disk, Kind, Trial
from .trouble import damage

STEPS = 6
PHASES = ("start", "loader starts", "step", "checkpoint", "evaluation", "picture", "end")
AIMED = {"loader starts": 1.5, "step": 1.0, "checkpoint": 0.15, "evaluation": 0.3, "end": 0.3}
"""Phases that kills aim at, and the seconds after their beginning."""
TROUBLES: dict[Trouble, float] = {
    "full disk": 0.08,
    "read-only folder": 0.06,
    "damaged checkpoint": 0.14,
    "power cut": 0.1,
}
VARIANTS = {
    ("iidm", "2"): 0.18,
    ("iidm", "3"): 0.14,
    ("iidm", "2", "--amp"): 0.13,
    ("iidm", "3", "--amp"): 0.1,
    ("target_only", "2"): 0.15,
    ("target_only", "3", "--amp"): 0.15,
    ("source_target", "3"): 0.09,
    ("iidm_mic", "2", "--amp"): 0.04,
    ("iidm_hrda", "3", "--data.crop-size", "64", "64", "--loss.auxiliary-weight", "0"): 0.02,
}
"""Method, steps between checkpoints, precision; how often each is drawn. Each has an uninterrupted run."""
RULES: dict[str, Rule] = {
    "results.json": without("seconds"),
    "metadata.json": without("seconds", "run_dir", "spec", "workers"),
    "config.json": without("run_dir", "workers"),
    "SHA256SUMS": nothing,  # of metadata.json too, which has the seconds; that they fit is looked at apart
    "notes.txt": nothing,
}


def draw(number: int) -> Case:
    """The case of that number."""
    rng = Random(f"runs-{number}")
    method, every, *more = rng.choices([*VARIANTS], [*VARIANTS.values()])[0]
    words = ["--method", method, "--log.checkpoint-every", every, *more]
    workers = ["--data.workers", "1"] if rng.random() < 0.2 else []
    fresh = rng.random() < 0.1
    trouble = draw_trouble(rng, TROUBLES)
    if trouble == "power cut":
        fresh = False  # a fresh process does not tell what it has synced
    kills = draw_kills(rng, AIMED, fresh)
    if trouble == "damaged checkpoint":  # late enough that there mostly are two
        second = Moment("phase", 0.0, "checkpoint", 2, rng.uniform(0.05, 0.8))
        kills = (Moment("cpu", rng.uniform(0.6, 0.95)) if fresh else second, *kills[1:])
    return Case("runs", number, (*words, *workers), fresh, kills, trouble, rng.randrange(2**32))


def prepare(shared: Path) -> None:
    """The data."""
    write_data(shared / "data")


def functions() -> Sequence[Wrapped]:
    """What is which phase."""
    import iidm.train as entry
    import iidm.training as loop
    from iidm.engine import curves

    return (
        Wrapped(entry.TrainLoader, "__init__", "loader starts"),
        Wrapped(entry.TrainLoader, "__enter__", "loader starts"),
        Wrapped(entry, "train", "step"),
        Wrapped(loop, "save_state", "checkpoint"),
        Wrapped(loop, "save_previews", "picture"),
        Wrapped(loop, "evaluate_networks", "evaluation"),
        Wrapped(entry, "evaluate_networks", "evaluation"),
        Wrapped(curves, "save_curves", "end"),
        Wrapped(entry, "write_results", "end"),
    )


def place_of(run_dir: Path) -> str:
    """Where a fresh run was when it ended, as far as its files tell."""
    checkpoints = run_dir / "checkpoints"
    if not (run_dir / "metrics.jsonl").exists():
        return "start"
    if list(checkpoints.glob(".step-*")):
        return "checkpoint"
    if (checkpoints / f"step-{STEPS:08d}").exists():
        return "end" if (run_dir / "curves.png").exists() else "evaluation"
    return "step"


class RunTrial(Trial):
    """Of a run."""

    disk = Disk(95_000_000, (200_000, 15_200_000))  # a run has three checkpoints at a time

    def start_of(self, own: Path, fresh: bool) -> Start:
        """How a run in a folder is started."""
        return Start("train", own / "run", own, PHASES, functions, fresh, place_of)

    def words_of(self, folder: Path, variant: Sequence[str]) -> list[str]:
        """Words that begin a run."""
        words = [*options(self.shared / "data"), "--run-dir", str(folder), "--max-steps", str(STEPS)]
        words += "--log.every 1 --log.no-tensorboard --log.preview-every 0 --log.eval-every 3".split()
        return [*words, *variant]

    def whole(self) -> tuple[str, ...]:
        """The variant that computes the same in one process."""
        words = list(self.case.variant)
        if "--data.workers" in words:
            at = words.index("--data.workers")
            del words[at : at + 2]
        return tuple(words)

    def go_on(self, moment: Moment | None = None) -> Life:
        """Begin the run, or go on with it, as a user does who looks whether it has begun."""
        folder = self.start.folder
        begun = (folder / "config.json").exists()
        words = ["--resume", str(folder)] if begun else self.words_of(folder, self.case.variant)
        return self.live(words, moment, words[0])

    def finish(self) -> None:
        """Only where none has reached the end yet."""
        if not self.outcome.lives or self.outcome.lives[-1].status != 0:
            super().finish()

    def damage(self) -> None:
        """Of the newest checkpoint: the one before it must be used, and that be said."""
        checkpoints = sorted((self.start.folder / "checkpoints").glob("step-*"))
        if not checkpoints:
            self.outcome.left_out = "there was no checkpoint yet"
            return
        newest = checkpoints[-1]
        self.outcome.told.append(damage(self.rng.choice(sorted(newest.iterdir())), self.rng))
        life = self.go_on()
        if len(checkpoints) == 1:
            problem = refusal_of(life) or ("" if newest.name in life.said else "it does not name the checkpoint")
            if problem:
                self.outcome.loss(f"its only checkpoint is damaged, and {problem}")
            shutil.rmtree(self.start.folder / "checkpoints")  # as it advises
            return
        said = [line for line in outputs_of(life) if newest.name in line and checkpoints[-2].name in line]
        if life.status != 0 or not any("damaged" in line for line in said):
            self.outcome.loss(f"the newest checkpoint is damaged, and it says {outputs_of(life)[-3:]}")

    def compare(self, wanted: Path) -> None:
        """Its files, and that the checksums of its checkpoints fit."""
        from iidm.engine.checksums import find_damage

        self.outcome.losses += differences(contents(self.start.folder, RULES), contents(wanted, RULES))
        for checkpoint in (self.start.folder / "checkpoints").glob("step-*"):
            try:
                what = find_damage(checkpoint)
            except FileNotFoundError:
                what = "it has no checksums"
            if what:
                self.outcome.loss(f"{checkpoint.name}: {what}")


SHORT = ("--method", "target_only", "--log.checkpoint-every", "2")
KIND = Kind(draw, prepare, RunTrial, 1000, SHORT, 6)
