"""A small training, killed, resumed, and compared with one that was not."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

from .cases import Case, Kind, Outcome, Trouble, draw_kills, draw_trouble
from .compare import Rule, contents, differences, nothing, without
from .data import options, write_data
from .inside import Wrapped
from .life import Life, Moment, Start, live, outputs_of, refusal_of
from .references import once, usual_of
from .trouble import cut_the_power, damage, free_space, may_mount, read_only, small_disk

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
DISK_BYTES = 95_000_000
"""More than a run needs, three checkpoints at a time; a full disk has a random share of it."""


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


def whole_of(variant: Sequence[str]) -> tuple[str, ...]:
    """The variant that computes the same in one process."""
    words = list(variant)
    if "--data.workers" in words:
        at = words.index("--data.workers")
        del words[at : at + 2]
    return tuple(words)


def reference(shared: Path, variant: Sequence[str]) -> Path:
    """The uninterrupted run of a variant."""
    place = shared / ("runs-" + "-".join(word.strip("-") for word in variant))
    start = start_of(place, fresh=False)
    return once(place, start, first_words(shared, start.folder, variant))


def start_of(own: Path, fresh: bool) -> Start:
    """How a run in a folder is started."""
    return Start("train", own / "run", own, PHASES, functions, fresh, place_of)


def functions() -> Sequence[Wrapped]:
    """What is which phase."""
    import iidm.train as entry
    import iidm.training as loop

    return (
        Wrapped(entry.TrainLoader, "__init__", "loader starts"),
        Wrapped(entry.TrainLoader, "__enter__", "loader starts"),
        Wrapped(entry, "train", "step"),
        Wrapped(loop, "save_state", "checkpoint"),
        Wrapped(loop, "save_previews", "picture"),
        Wrapped(loop, "evaluate_networks", "evaluation"),
        Wrapped(entry, "evaluate_networks", "evaluation"),
        Wrapped(entry, "save_curves", "end"),
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


def first_words(shared: Path, run_dir: Path, variant: Sequence[str]) -> list[str]:
    """Words that begin a run."""
    words = [*options(shared / "data"), "--run-dir", str(run_dir), "--max-steps", str(STEPS)]
    words += "--log.every 1 --log.no-tensorboard --log.preview-every 0 --log.eval-every 3".split()
    return [*words, *variant]


def run(shared: Path, own: Path, case: Case) -> Outcome:
    """Do a case: kill, make trouble, go on to the end, compare."""
    outcome, rng = Outcome(), Random(case.seed)
    with ExitStack() as stack:
        start = start_of(own, case.fresh)
        if case.trouble == "full disk":
            start = limited(start, own, rng, stack, outcome)
        go_on = partial(one_life, start, case, shared, outcome)
        if case.trouble == "full disk":
            fill(go_on, start, outcome)
            start.file_limit = 0
        for moment in case.kills:
            began = time.time_ns()
            life = go_on(moment)
            if case.trouble == "power cut" and life.killed:
                outcome.told.append(f"the power cut took {cut_the_power(start.folder, began, start.syncs)}")
        if case.trouble == "damaged checkpoint":
            break_checkpoint(start, rng, outcome, go_on)
        if case.trouble == "read-only folder":
            refuse_to_write(start, outcome, go_on)
        finish(go_on, outcome)
        compare(start.folder, reference(shared, whole_of(case.variant)) / "run", outcome)
    return outcome


def one_life(start: Start, case: Case, shared: Path, outcome: Outcome, moment: Moment | None = None) -> Life:
    """Begin the run, or go on with it, as a user does who looks whether it has begun."""
    begun = (start.folder / "config.json").exists()
    words = ["--resume", str(start.folder)] if begun else first_words(shared, start.folder, case.variant)
    usual = usual_of(reference(shared, whole_of(case.variant)))
    life = live(start, words, moment, usual)
    note(outcome, life, moment, words[0])
    return life


def note(outcome: Outcome, life: Life, moment: Moment | None, what: str) -> None:
    """Write a life down, and what is wrong with any: that it hung, left processes, or ended by itself."""
    outcome.lives.append(life)
    outcome.told.append(f"{what} {moment}: status {life.status} in {life.hit}; {outputs_of(life)[-1:]}")
    if life.hung:
        outcome.loss(f"life {len(outcome.lives)} hung in {life.hit}")
    if life.left:
        outcome.loss(f"left running: {life.left}")
    if moment is not None and life.status not in (0, -signal.SIGKILL) and not life.hung:
        outcome.loss(f"life {len(outcome.lives)} ended with {life.status} by itself: {outputs_of(life)[-3:]}")


def finish(go_on: Callable[..., Life], outcome: Outcome) -> None:
    """The last life, which must reach the end, if none has yet."""
    if outcome.lives and outcome.lives[-1].status == 0:
        return
    life = go_on()
    if life.status != 0:
        outcome.loss(f"the last life ended with {life.status}: {outputs_of(life)[-3:]}")


def compare(folder: Path, wanted: Path, outcome: Outcome) -> None:
    """With the uninterrupted run."""
    from iidm.engine.checksums import find_damage

    outcome.losses += differences(contents(folder, RULES), contents(wanted, RULES))
    for checkpoint in (folder / "checkpoints").glob("step-*"):
        try:
            what = find_damage(checkpoint)
        except FileNotFoundError:
            what = "it has no checksums"
        if what:
            outcome.loss(f"{checkpoint.name}: {what}")


def limited(start: Start, own: Path, rng: Random, stack: ExitStack, outcome: Outcome) -> Start:
    """The same on a disk that is too small, or with files that may not grow beyond a size."""
    share = rng.random()
    if may_mount():
        stack.enter_context(small_disk(own / "disk", max(4096, int(share * DISK_BYTES))))
        return replace(start, folder=own / "disk" / "run")
    outcome.told.append("a limit on the size of files stands for a full disk")
    return replace(start, file_limit=200_000 + int(share * 15_000_000))


def fill(go_on: Callable[..., Life], start: Start, outcome: Outcome) -> None:
    """Until the disk is full: one line says so, and the run goes on once there is room."""
    life = go_on()
    if life.status != 0 and (problem := refusal_of(life)):
        outcome.loss(f"on a full disk {problem}")
    elif life.status == 2 and not any(word in life.said for word in ("space", "too large", "are free")):
        outcome.loss(f"on a full disk it says {outputs_of(life)[-1:]}")
    if start.folder.parent.name == "disk":
        free_space(start.folder.parent)


def break_checkpoint(start: Start, rng: Random, outcome: Outcome, go_on: Callable[..., Life]) -> None:
    """Damage the newest checkpoint: the one before it must be used, and that be said."""
    checkpoints = sorted((start.folder / "checkpoints").glob("step-*"))
    if not checkpoints:
        outcome.left_out = "there was no checkpoint yet"
        return
    newest = checkpoints[-1]
    outcome.told.append(damage(rng.choice(sorted(newest.iterdir())), rng))
    if len(checkpoints) == 1:
        life = go_on()
        problem = refusal_of(life) or ("" if newest.name in life.said else "it does not name the checkpoint")
        if problem:
            outcome.loss(f"its only checkpoint is damaged, and {problem}")
        shutil.rmtree(start.folder / "checkpoints")  # as it advises
        return
    life = go_on()
    said = [line for line in outputs_of(life) if newest.name in line and checkpoints[-2].name in line]
    if life.status != 0 or not any("damaged" in line for line in said):
        outcome.loss(f"the newest checkpoint is damaged, and it says {outputs_of(life)[-3:]}")


def refuse_to_write(
    start: Start,
    outcome: Outcome,
    go_on: Callable[..., Life],
    first: str = "config.json",
    nothing_to_do: Callable[[Path], bool] = lambda folder: False,
) -> None:
    """In a folder that is read only, once its `first` file is there: one line, and nothing is changed."""
    mounts = may_mount()
    if not mounts and os.geteuid() == 0:
        outcome.left_out = "root without the right to mount writes everywhere"
        return
    if not (start.folder / first).exists():
        outcome.left_out = "there was no folder yet"
        return
    before = contents(start.folder, {})
    with read_only(start.folder, mounts):
        life = go_on()
    if not (life.status == 0 and nothing_to_do(start.folder)) and (problem := refusal_of(life)):
        outcome.loss(f"in a folder that is read only {problem}")
    outcome.losses += [f"read only: {line}" for line in differences(contents(start.folder, {}), before)]


SHORT = ("--method", "target_only", "--log.checkpoint-every", "2")
KIND = Kind(draw, prepare, run, 1000, SHORT, 6)
