"""`iidm prepare`, killed, run again, and compared byte for byte with what one run writes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from random import Random

from .cases import Case, Trouble, draw_kills, draw_trouble
from .compare import contents, differences
from .data import SETS, write_data
from .inside import Wrapped
from .life import Life, Moment, Start, live, outputs_of
from .trial import Disk, Kind, Trial
from .trouble import damage

PHASES = ("start", "images", "finish")
AIMED = {"images": 0.2, "finish": 0.03}
TROUBLES: dict[Trouble, float] = {
    "full disk": 0.1,
    "read-only folder": 0.08,
    "damaged file": 0.12,
    "power cut": 0.1,
}
COPIES = 4
"""Of the few images, in folders of their own: more to be killed at."""
IMAGES = COPIES * sum(count for where, (_, count, _) in SETS.items() if where.startswith("target"))
STARTING = Moment("phase", 0.0, "images", 1, 1.5)


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


class PrepareTrial(Trial):
    """Of prepare, whole or in two shards."""

    disk = Disk(900_000, (500, 10_500), mounted=0.7)
    first_file = "prepared.json"

    @property
    def shards(self) -> tuple[str, ...]:
        """Those of which each process makes one; an empty word for the whole."""
        return ("1/2", "2/2") if "--shard" in self.case.variant else ("",)

    def start_of(self, own: Path, fresh: bool) -> Start:
        """How it is started."""
        return Start("prepare", own / "out", own, PHASES, functions, fresh, place_of, lines_of=lines_of)

    def words_of(self, folder: Path, variant: Sequence[str]) -> list[str]:
        """Words of the command but for its shard; they are the same however often it is run."""
        camera = self.shared / "camera"
        words = [str(camera.with_suffix(".toml")), "--root", str(camera), "--out", str(folder)]
        return [*words, *(word for word in variant if word != "--shard")]

    def whole(self) -> tuple[str, ...]:
        """The variant of one process on one machine, which writes the same."""
        words = [word for word in self.case.variant if word != "--shard"]
        words[words.index("--jobs") + 1] = "1"
        return tuple(words)

    def go_on(self, moment: Moment | None = None) -> Life:
        """The command, once; of the shards any may be killed."""
        return self.make(self.rng.choice(self.shards) if moment else self.shards[0], moment)

    def make(self, shard: str, moment: Moment | None = None) -> Life:
        """The command for a shard, once."""
        words = self.words_of(self.start.folder, self.case.variant)
        if shard:
            return self.live([*words, "--shard", shard], moment, f"shard {shard}")
        return self.live(words, moment, "prepare")

    def finish(self) -> None:
        """Every shard, or all of it, without a kill."""
        for shard in self.shards:
            self.must_end_well(self.make(shard))

    def has_nothing_to_write(self) -> bool:
        """Whether nothing is left to be done."""
        return bool(json.loads((self.start.folder / "prepared.json").read_text())["complete"])

    def damage(self) -> None:
        """Of an image or a label of the finished folder: --check names it, and without it the command mends that."""
        self.finish()
        folder = self.start.folder
        files = sorted(p for kind in ("images", "labels") for p in (folder / kind).rglob("*") if p.is_file())
        broken = self.rng.choice(files)
        self.outcome.told.append(damage(broken, self.rng))
        check = Start("prepare", self.own / "nothing", self.own, PHASES, functions)
        life = live(check, ["--check", str(folder), "--jobs", "1"])
        self.outcome.lives.append(life)
        if life.status != 2 or str(broken) not in life.said:
            self.outcome.loss(f"--check does not name {broken.name}: {outputs_of(life)[-3:]}")
        broken.unlink()

    def compare(self, wanted: Path) -> None:
        """Byte for byte."""
        found, whole = (contents(folder, {}) for folder in (self.start.folder, wanted))
        for content in (found, whole):
            content.pop(".lock", None)  # shards have no common one
        self.outcome.losses += differences(found, whole)


KIND = Kind(draw, prepare, PrepareTrial, 300, ("--format", "jpeg", "--jobs", "1"), 5)
