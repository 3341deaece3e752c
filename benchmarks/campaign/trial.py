"""A case while it is done: a command is killed, goes on, has its trouble, and is compared at its end."""

from __future__ import annotations

import os
import shutil
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import NamedTuple

from .cases import Case, Outcome
from .compare import contents, differences, left_in
from .life import Life, Moment, Start, Usual, live, outputs_of, refusal_of
from .power import Recorder, cut_the_power
from .references import once, usual_of
from .trouble import free_space, may_mount, read_only, small_disk


class Disk(NamedTuple):
    """What a full disk is: a random share of what is given here."""

    size_bytes: int
    """Of the disk that is mounted: more than the command needs."""
    file_bytes: tuple[int, int]
    """The least and the most that a file may have where none is mounted."""
    mounted: float = 1.0
    """How often one is mounted where that is allowed."""


class Trial(ABC):
    """A case while it is done. Each kind says how its command is called, and what must come of it."""

    disk: Disk
    first_file = "config.json"
    """What the command writes first; before that there is no folder that could be read only."""
    strict = False
    """Whether a power cut takes all that POSIX lets it take (power.py)."""

    def __init__(self, shared: Path, own: Path, case: Case) -> None:
        """Args: shared: folder of the kind's data; own: folder of this case."""
        self.shared, self.own, self.case = shared, own, case
        self.start = self.start_of(own, case.fresh)
        self.rng, self.outcome = Random(case.seed), Outcome()

    @abstractmethod
    def start_of(self, own: Path, fresh: bool) -> Start:
        """How the command is started, which writes to a folder in `own`."""

    @abstractmethod
    def words_of(self, folder: Path, variant: Sequence[str]) -> list[str]:
        """Words of the command that writes a variant to that folder."""

    @abstractmethod
    def whole(self) -> tuple[str, ...]:
        """The variant that writes the same in one process."""

    @abstractmethod
    def go_on(self, moment: Moment | None = None) -> Life:
        """The command once more, with a kill at that moment."""

    @abstractmethod
    def damage(self) -> None:
        """Damage what it has written: it must say so, and be mended."""

    @abstractmethod
    def compare(self, wanted: Path) -> None:
        """What it has written at its end with a folder of the uninterrupted command."""

    def run(self) -> Outcome:
        """Do the case."""
        with ExitStack() as stack:
            if self.case.trouble == "full disk":
                self.fill_the_disk(stack)
            for moment in self.case.kills:
                self.kill(moment)
            if self.case.trouble in ("damaged checkpoint", "damaged file"):
                self.damage()
            if self.case.trouble == "read-only folder":
                self.refuse_to_write()
            self.finish()
            self.compare(self.reference() / self.start.folder.name)
            self.outcome.losses += left_in(self.start.shared["IIDM_CACHE"])
        return self.outcome

    def reference(self) -> Path:
        """Where the uninterrupted command has run, in a folder of the same name."""
        variant = self.whole()
        place = self.shared / "-".join([self.case.kind, *(word.strip("-") for word in variant)])
        start = self.start_of(place, fresh=False)
        return once(place, start, self.words_of(start.folder, variant))

    def usual(self) -> Usual:
        """What the process takes that may be killed."""
        return usual_of(self.reference())

    def live(self, words: Sequence[str], moment: Moment | None, what: str) -> Life:
        """One process; that it hung, left processes, or ended by itself before its kill is wrong with any. One that was
        not killed must also leave nothing in TMPDIR; what a kill leaves there nobody could know."""
        life = live(self.start, words, moment, self.usual())
        self.outcome.lives.append(life)
        number = len(self.outcome.lives)
        self.outcome.told.append(f"{what} {moment}: status {life.status} in {life.hit}; {outputs_of(life)[-1:]}")
        temporary = self.start.shared["TMPDIR"]
        (self.outcome.told if life.killed else self.outcome.losses).extend(left_in(temporary, all_is_temporary=True))
        shutil.rmtree(temporary)
        if life.hung:
            self.outcome.loss(f"life {number} hung in {life.hit}")
        if life.left:
            self.outcome.loss(f"left running: {life.left}")
        if moment is not None and life.status not in (0, -signal.SIGKILL) and not life.hung:
            self.outcome.loss(f"life {number} ended with {life.status} by itself: {outputs_of(life)[-3:]}")
        return life

    def kill(self, moment: Moment) -> None:
        """One that is killed; in a power cut what it did not sync is lost with it."""
        if self.case.trouble != "power cut":
            self.go_on(moment)
            return
        kept = self.own / "kept"
        self.start.recorder = Recorder(kept)
        life = self.go_on(moment)
        self.start.recorder = None
        if life.killed:
            lost = cut_the_power(self.start.folder, kept, strict=self.strict)
            self.outcome.told.append(f"the power cut took {lost}")
        shutil.rmtree(kept)

    def finish(self) -> None:
        """The last life, which must reach the end."""
        self.must_end_well(self.go_on())

    def must_end_well(self, life: Life) -> None:
        """A last life."""
        if life.status != 0:
            self.outcome.loss(f"the last life ended with {life.status}: {outputs_of(life)[-3:]}")

    def fill_the_disk(self, stack: ExitStack) -> None:
        """Once with too small a disk, or with files that may not grow beyond a size; then there is room."""
        share = self.rng.random()
        mounted = may_mount() and self.rng.random() < self.disk.mounted
        if mounted:
            disk = self.own / "disk"
            stack.enter_context(small_disk(disk, max(4096, int(share * self.disk.size_bytes))))
            self.start = replace(self.start, folder=disk / self.start.folder.name)
        else:
            self.outcome.told.append("a limit on the size of files stands for a full disk")
            least, most = self.disk.file_bytes
            self.start.file_limit = least + int(share * (most - least))
        if problem := self.problem_on_a_full_disk(self.go_on()):
            self.outcome.loss(f"on a full disk {problem}")
        self.start.file_limit = 0
        if mounted:
            free_space(self.start.folder.parent)

    def problem_on_a_full_disk(self, life: Life) -> str:
        """Empty where it needed no more, or one line says that the disk is full."""
        if life.status == 0:
            return ""
        told = any(word in life.said for word in ("space", "too large", "are free"))
        return refusal_of(life) or ("" if told else f"it says {outputs_of(life)[-1:]}")

    def refuse_to_write(self) -> None:
        """In a folder that is read only: one line, and nothing is changed."""
        mounts, folder = may_mount(), self.start.folder
        if not mounts and os.geteuid() == 0:
            self.outcome.left_out = "root without the right to mount writes everywhere"
            return
        if not (folder / self.first_file).exists():
            self.outcome.left_out = "there was no folder yet"
            return
        before = contents(folder, {})
        with read_only(folder, mounts):
            life = self.go_on()
        if not (life.status == 0 and self.has_nothing_to_write()) and (problem := refusal_of(life)):
            self.outcome.loss(f"in a folder that is read only {problem}")
        self.outcome.losses += [f"read only: {line}" for line in differences(contents(folder, {}), before)]

    def has_nothing_to_write(self) -> bool:
        """Whether all of it is done, so that it may succeed where it cannot write."""
        return False


class Kind(NamedTuple):
    """A kind of case."""

    draw: Callable[[int], Case]
    prepare: Callable[[Path], None]
    """Makes the data in a folder, once before the cases."""
    trial: type[Trial]
    count: int
    """How many a whole campaign has."""
    short: tuple[str, ...]
    """The variant of the short form, which has few uninterrupted ones to be compared with."""
    few: int
    """How many cases the short form has."""


def few_of(kind: Kind) -> list[int]:
    """Numbers of the short form: the first cases of its variant that fork, of each trouble one, the others plain."""
    found: dict[str, list[int]] = {}
    for number in range(kind.count):
        case = kind.draw(number)
        if case.variant == kind.short and not case.fresh:
            found.setdefault(case.trouble, []).append(number)
    plain = found.pop("", [])
    numbers = [*plain[:1], *(places[0] for places in found.values()), *plain[1:]]
    return sorted(numbers[: kind.few])
