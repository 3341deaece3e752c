"""`iidm prepare`, killed, run again, and compared byte for byte with what one run writes."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

from . import runs
from .cases import Case, Kind, Outcome, Trouble, draw_kills, draw_trouble
from .compare import contents, differences, nothing
from .data import SETS, write_data
from .inside import Wrapped
from .life import Life, Moment, Start, live, outputs_of
from .references import once, usual_of
from .trouble import cut_the_power, damage

PHASES = ("start", "images", "finish")
AIMED = {"images": 0.2, "finish": 0.03}
TROUBLES: dict[Trouble, float] = {
    "full disk": 0.1,
    "read-only folder": 0.08,
    "damaged file": 0.12,
    "power cut": 0.1,
}
RULES = {".lock": nothing}
COPIES = 4
"""Of the few images, in folders of their own: more to be killed at."""
IMAGES = COPIES * sum(count for where, (_, count, _) in SETS.items() if where.startswith("target"))
STARTING = Moment("phase", 0.0, "images", 1, 1.5)
DISK_BYTES = 900_000
"""More than the raw images need."""


def draw(number: int) -> Case:
    """The case of that number."""
    rng = Random(f"prepare-{number}")
    words = ["--format", rng.choice(["raw", "jpeg", "png"])]
    words += ["--data.resize", "32", "48"] if rng.random() < 0.5 else []
    words += ["--jobs", "2" if rng.random() < 0.08 else "1"]  # each process of a pool starts anew, in seconds
    words += ["--shard"] if rng.random() < 0.15 else []
    fresh = rng.random() < 0.1
    trouble = draw_trouble(rng, TROUBLES)
    if trouble == "power cut" or "2" in words:
        fresh = False
    kills = draw_kills(rng, AIMED, fresh)
    if "2" in words:  # the work is done by others: kills go by what is done, or meet those others while they start
        kills = tuple(one._replace(kind="lines") if rng.random() < 0.6 else STARTING for one in kills)
    return Case("prepare", number, tuple(words), fresh, kills, trouble, rng.randrange(2**32))


def prepare(shared: Path) -> None:
    """The data."""
    for copy in range(COPIES):
        write_data(shared / "originals" / f"part{copy}")
    for domain in ("images", "labels"):
        for split in ("train", "val"):
            for copy in range(COPIES):
                for file in (shared / "originals" / f"part{copy}" / "target" / domain / split).iterdir():
                    place = shared / "camera" / domain / split / f"{copy}{file.name}"
                    place.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, place)
    shutil.copyfile(shared / "originals" / "part0" / "target.toml", shared / "camera.toml")


def whole_of(variant: Sequence[str]) -> tuple[str, ...]:
    """The variant of one process on one machine, which writes the same."""
    words = [word for word in variant if word != "--shard"]
    words[words.index("--jobs") + 1] = "1"
    return tuple(words)


def reference(shared: Path, variant: Sequence[str]) -> Path:
    """The uninterrupted folder of a variant."""
    place = shared / ("prepare-" + "-".join(word.strip("-") for word in variant))
    start = start_of(place, fresh=False)
    return once(place, start, words_of(shared, start.folder, variant))


def start_of(own: Path, fresh: bool) -> Start:
    """How it is started."""
    return Start("prepare", own / "out", own, PHASES, functions, fresh, place_of, lines_of=lines_of)


def lines_of(out: Path) -> float:
    """The share of the images that is done."""
    try:
        return (out / "index.part.jsonl").read_bytes().count(b"\n") / IMAGES
    except FileNotFoundError:
        return 0.0


def functions() -> Sequence[Wrapped]:
    """What is which phase."""
    from iidm.data.preparation import plan, shards

    return (
        Wrapped(plan, "run_tasks", "images"),
        Wrapped(plan, "finish", "finish"),
        Wrapped(shards, "merge", "finish"),
    )


def place_of(out: Path) -> str:
    """Where a fresh one was when it ended."""
    if not (out / "prepared.json").exists():
        return "start"
    return "finish" if (out / "index.npz").exists() else "images"


def words_of(shared: Path, out: Path, variant: Sequence[str], shard: str = "") -> list[str]:
    """The words of the command; they are the same however often it is run."""
    words = [str(shared / "camera.toml"), "--root", str(shared / "camera"), "--out", str(out)]
    words += [word for word in variant if word != "--shard"]
    return [*words, "--shard", shard] if shard else words


def run(shared: Path, own: Path, case: Case) -> Outcome:
    """Do a case."""
    outcome, rng = Outcome(), Random(case.seed)
    shards = ["1/2", "2/2"] if "--shard" in case.variant else [""]
    with ExitStack() as stack:
        start = start_of(own, case.fresh)
        if case.trouble == "full disk":
            start = small(start, own, rng, stack, outcome)
        go_on = partial(one_life, start, case, shared, outcome)
        if case.trouble == "full disk":
            runs.fill(partial(go_on, shards[0]), start, outcome)
            start.file_limit = 0
        for moment in case.kills:
            began = time.time_ns()
            life = go_on(rng.choice(shards), moment)
            if case.trouble == "power cut" and life.killed:
                cut = cut_the_power(start.folder, began, start.syncs) if start.folder.exists() else []
                outcome.told.append(f"the power cut took {cut}")
        if case.trouble == "read-only folder":
            runs.refuse_to_write(start, outcome, partial(go_on, shards[0]), "prepared.json", is_complete)
        to_the_end(go_on, shards, outcome)
        if case.trouble == "damaged file":
            break_file(start, rng, outcome, go_on, shards, own)
        wanted = contents(reference(shared, whole_of(case.variant)) / "out", RULES)
        found = contents(start.folder, RULES)
        for content in (wanted, found):
            content.pop(".lock", None)  # shards have no common one
        outcome.losses += differences(found, wanted)
    return outcome


def one_life(
    start: Start, case: Case, shared: Path, outcome: Outcome, shard: str, moment: Moment | None = None
) -> Life:
    """The command, once."""
    usual = usual_of(reference(shared, whole_of(case.variant)))
    life = live(start, words_of(shared, start.folder, case.variant, shard), moment, usual)
    runs.note(outcome, life, moment, f"shard {shard}" if shard else "prepare")
    return life


def is_complete(out: Path) -> bool:
    """Whether nothing is left to be done."""
    return bool(json.loads((out / "prepared.json").read_text())["complete"])


def to_the_end(go_on: Callable[..., Life], shards: Sequence[str], outcome: Outcome) -> None:
    """Every shard, or all of it, without a kill."""
    for shard in shards:
        life = go_on(shard)
        if life.status != 0:
            outcome.loss(f"the last life ended with {life.status}: {outputs_of(life)[-3:]}")


def small(start: Start, own: Path, rng: Random, stack: ExitStack, outcome: Outcome) -> Start:
    """The same on a disk that is too small, or with files that may not grow beyond a size."""
    share = rng.random()
    if runs.may_mount() and rng.random() < 0.7:
        stack.enter_context(runs.small_disk(own / "disk", max(4096, int(share * DISK_BYTES))))
        return replace(start, folder=own / "disk" / "out")
    outcome.told.append("a limit on the size of files stands for a full disk")
    return replace(start, file_limit=500 + int(share * 10_000))


def break_file(
    start: Start, rng: Random, outcome: Outcome, go_on: Callable[..., Life], shards: Sequence[str], own: Path
) -> None:
    """Damage an image or a label of the finished folder: --check names it, and without it the command mends that."""
    files = sorted(p for kind in ("images", "labels") for p in (start.folder / kind).rglob("*") if p.is_file())
    broken = rng.choice(files)
    outcome.told.append(damage(broken, rng))
    check = Start("prepare", own / "nothing", own, PHASES, functions)
    life = live(check, ["--check", str(start.folder), "--jobs", "1"])
    outcome.lives.append(life)
    if life.status != 2 or str(broken) not in life.said:
        outcome.loss(f"--check does not name {broken.name}: {outputs_of(life)[-3:]}")
    broken.unlink()
    to_the_end(go_on, shards, outcome)


KIND = Kind(draw, prepare, run, 300, ("--format", "jpeg", "--jobs", "1"), 5)
