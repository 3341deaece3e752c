"""One process from its start to its end, or to its kill; and what of it is still there afterwards."""

from __future__ import annotations

import atexit
import gc
import io
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from .inside import Board, Wrapped, tell_events, tell_phases
from .power import Recorder
from .processes import MARK, cpu_of, end_as_a_process, left_of, require_one_thread

LONGEST_S = 600
"""After which a process counts as one that hangs; a busy machine is slow."""


class Moment(NamedTuple):
    """When a process is killed."""

    kind: Literal["cpu", "event", "phase", "lines"]
    share: float
    """From 0 to 1: of the processor's time or of the file events that the uninterrupted process takes, or of the lines
    that it writes."""
    phase: str = ""
    """`phase`: that which is aimed at."""
    times: int = 1
    """How often it must have begun."""
    delay_s: float = 0.0
    """Seconds that then pass."""


class Usual(NamedTuple):
    """What an uninterrupted process takes."""

    cpu_s: float
    events: int


NOTHING_KNOWN = Usual(0.0, 0)


class Life(NamedTuple):
    """How a process ended."""

    status: int
    """Its exit status; the negative number of the signal that ended it."""
    hit: str
    """The phase in which it was when it ended; where a fresh one was, after its files."""
    said: str
    cpu_s: float
    events: int
    left: tuple[str, ...]
    """Processes of it that are still there."""
    hung: bool

    killed: bool
    """Whether the kill came before its end, or the end of the one of its processes that was to be killed."""


@dataclass
class Start:
    """How a process is started and watched."""

    command: str
    """The command of iidm: `train`."""
    folder: Path
    """What it writes; events are counted there."""
    work: Path
    """For what is noted of it."""
    phases: tuple[str, ...]
    """The first is that of the start."""
    functions: Callable[[], Sequence[Wrapped]]
    fresh: bool = False
    place_of: Callable[[Path], str] = lambda folder: "unknown"
    """Where a fresh process is, after its files."""
    file_limit: int = 0
    """Bytes that a file may have; 0: any number."""
    in_child: Callable[[], None] = lambda: None
    """What a forked child does before the command."""
    clock: Callable[[int], float] = cpu_of
    """Seconds of the processor, by which `cpu` moments go."""
    tick_s: float = 0.002
    """Between two looks at it."""
    lines_of: Callable[[Path], float] = lambda folder: 0.0
    """Of its folder: the share of its lines that is written."""
    has_runs: bool = False
    """Whether it starts processes that may be killed in its place."""
    victim: Callable[[int], int | None] = lambda pid: pid
    """Which process is killed, after the command's own: None where there is none yet."""

    recorder: Recorder | None = None
    """Of what a power cut takes back."""

    @property
    def shared(self) -> dict[str, Path]:
        """Environment variable -> the folder that it names, which other commands use too. A case has its own, so that
        what is left there is its."""
        return {"IIDM_CACHE": self.work / "cache", "TMPDIR": self.work / "tmp"}


def live(start: Start, words: Sequence[str], moment: Moment | None = None, usual: Usual = NOTHING_KNOWN) -> Life:
    """Run a command until it ends, or is killed at a moment."""
    for folder in start.shared.values():
        folder.mkdir(parents=True, exist_ok=True)
    board, mark = Board(start.phases), f"{os.getpid()}-{time.monotonic_ns()}"
    said = start.work / "said.txt"
    if start.recorder is not None:
        start.recorder.begin(start.folder)
    kill_at = 1 + int(moment.share * usual.events) if moment and moment.kind == "event" else 0
    pid = _begin(start, words, said, mark, board, kill_at)
    cpu_s = usual.cpu_s + (_imported.cpu_s if start.fresh else 0)
    status, hung, cpu_s, struck = _watch(pid, start, board, moment, cpu_s)
    of_a_part = status != -signal.SIGKILL and (struck or board.struck)  # a run of a study
    killed = of_a_part and start.has_runs or status == -signal.SIGKILL and not hung
    hit = "a run" if of_a_part else start.place_of(start.folder) if start.fresh else board.phase
    left = tuple(left_of(mark))
    return Life(status, hit, said.read_text(errors="replace"), cpu_s, board.events, left, hung, killed)


def _watch(pid: int, start: Start, board: Board, moment: Moment | None, cpu_s: float) -> tuple[int, bool, float, bool]:
    """Wait for the end, or bring it: exit status, whether it hung, seconds of the processor, whether it was brought."""
    end, due, hung, struck = time.monotonic() + LONGEST_S, float("inf"), False, False
    while True:
        done, state, used = os.wait4(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(state), hung, used.ru_utime + used.ru_stime, struck
        now = time.monotonic()
        if moment is not None and due == float("inf"):
            one = start.victim(pid)
            if one is not None and _is_reached(one, start, board, moment, cpu_s):
                due = now + moment.delay_s
        if now >= min(due, end):
            hung = hung or now >= end
            one = pid if hung else start.victim(pid)
            if one is not None:
                with suppress(ProcessLookupError):  # a run of a study has ended meanwhile
                    os.kill(one, signal.SIGKILL)
                    struck = not hung
                moment, due = None, float("inf")
        time.sleep(start.tick_s)


def _is_reached(pid: int, start: Start, board: Board, moment: Moment, cpu_s: float) -> bool:
    if moment.kind == "cpu":
        return start.clock(pid) >= moment.share * cpu_s
    if moment.kind == "lines":
        return start.lines_of(start.folder) >= moment.share
    return moment.kind == "phase" and board.entered(moment.phase) >= moment.times


def _begin(start: Start, words: Sequence[str], said: Path, mark: str, board: Board, kill_at: int) -> int:
    require_one_thread()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid

    def body() -> None:
        from iidm.command import run_command
        from iidm.processes import end_with

        end_with(parent)
        os.environ |= {MARK: mark, **{name: str(folder) for name, folder in start.shared.items()}}
        tempfile.tempdir = None  # what it was before is remembered
        _limit_files(start.file_limit)
        if start.fresh:
            os.execv(sys.executable, [sys.executable, "-m", f"iidm.{start.command}", *words])
        tell_phases(board, start.functions())
        start.in_child()
        tell_events(board, start.folder, kill_at, start.recorder)
        run_command(start.command, list(words))

    end_as_a_process(body, said)


def _limit_files(size_bytes: int) -> None:
    if size_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


class _Imported:
    """What a fresh process takes before it does what a forked one does."""

    cpu_s = 0.0


_imported = _Imported()


def import_all() -> None:
    """What every command imports, and the fonts of its charts, before any fork; nothing of it starts a thread."""
    import torch._dynamo  # noqa: F401  AdamW imports it when it is made
    import torch.utils.tensorboard  # noqa: F401

    import iidm.engine.curves
    import iidm.evaluate
    import iidm.prepare
    import iidm.studies.worker
    import iidm.study
    import iidm.train  # noqa: F401

    figure = iidm.engine.curves.Figure(layout="constrained")
    figure.subplots().plot([0, 1], label="a line")
    figure.legend()
    figure.savefig(io.BytesIO())
    _imported.cpu_s = _imported.cpu_s or time.process_time()
    gc.collect()
    gc.freeze()  # a collection in a child would copy all of it
    atexit.register(gc.unfreeze)  # else nanobind's libraries count it as leaked


def outputs_of(life: Life) -> list[str]:
    """The lines that a process has said."""
    return [line for line in life.said.splitlines() if line.strip()]


def refusal_of(life: Life) -> str:
    """What is wrong with the end of a process that had to refuse: empty for one line and status 2."""
    lines = outputs_of(life)
    if life.status != 2:
        return f"it ended with status {life.status} where it had to refuse: {lines[-1:]}"
    if any("Traceback" in line for line in lines) or not any(line.startswith("iidm: ") for line in lines):
        return f"it said no line of its own: {lines[-3:]}"
    return ""
