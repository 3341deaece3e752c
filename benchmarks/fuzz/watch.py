"""One input through a reader, and what is seen of it meanwhile."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from iidm.cli.running import run_main

from .kinds import Kind
from .mutations import mutated

UNCHANGED = -1
"""The seed with which files stay as they are: they must be read, or all that follows would try refusals alone."""
MOST_CPU_S = 10
MOST_WALL_S = 90
"""A machine may be busy; what hangs without computing ends here."""
MOST_BYTES = 2**30
"""Of resident memory beyond what there was before."""
_LIMIT_BYTES = 6 * 2**30
"""Of address space: beyond that an allocation fails, so that no input can take the machine's memory."""
_RUNS_CODE = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "subprocess.Popen",
    "pickle.find_class",
    "pty.spawn",
)
_REACHES_OUT = ("socket.connect", "socket.getaddrinfo")
_WRITES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")


class Outcome(NamedTuple):
    """How an input ended."""

    end: str
    """`read`, `refused`, or the name of a fault."""
    said: str = ""
    """The line of a refusal; of a fault what is known of it."""


def _paths(arguments: tuple[Any, ...]) -> Iterator[Any]:
    """The paths of an audited call, those that are relative to an open folder (shutil.rmtree) in full."""
    folders = [a for a in arguments if isinstance(a, int) and not isinstance(a, bool)]
    for path in arguments[:2]:
        if isinstance(path, (str, bytes, os.PathLike)):
            with contextlib.suppress(OSError):
                below = os.readlink(f"/proc/self/fd/{folders[-1]}") if folders and folders[-1] >= 0 else ""
                yield os.path.join(below, os.fsdecode(path))


class Watch:
    """Sees what this process does that no reader of files should. Python keeps the hook for good."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.canary = canary(folder.parent)
        self.seen: list[str] = []
        self.is_on = False
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.is_on:
            return
        if event in _RUNS_CODE:
            self.seen.append(f"runs code: {event} {arguments!r:.200}")
        elif event in _REACHES_OUT:
            self.seen.append(f"reaches out: {event} {arguments!r:.200}")
        elif event == "open":
            flags = arguments[2] if isinstance(arguments[2], int) else 0
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and not self._is_inside(arguments[0]):
                self.seen.append(f"writes outside: {arguments[0]!r:.200}")
        elif event in _WRITES and not all(map(self._is_inside, _paths(arguments))):
            self.seen.append(f"writes outside: {event} {arguments!r:.200}")

    def _is_inside(self, path: object) -> bool:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return True  # a file that is open already
        try:
            real = os.path.realpath(os.fsdecode(path))
        except ValueError:  # a zero byte, which no system opens
            return True
        return real.startswith((self.folder + os.sep, "/dev/", "/proc/self/"))

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """Meanwhile."""
        self.seen.clear()
        self.is_on = True
        try:
            yield
        finally:
            self.is_on = False


def canary(base: Path) -> Path:
    """The file that hostile inputs would make if their code ran."""
    return base / "canary"


def limit(log: Path) -> None:
    """Let this process end by itself where an input takes too long or too much; `log` gets where it was."""
    file = log.open("w")
    faulthandler.enable(file)
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
        faulthandler.register(number, file, all_threads=True, chain=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + _LIMIT_BYTES,) * 2)


def run(kind: Kind, valid: Path, number: int, seed: int, watch: Watch) -> Outcome:
    """Input `number` of a kind, out of the valid files in `valid`, in the folder that `watch` knows."""
    work = Path(watch.folder)
    folder, path = make(kind, valid, number, seed, work)
    before, noise = _reset_peak(), os.fstat(2).st_size
    signal.setitimer(signal.ITIMER_PROF, MOST_CPU_S)
    signal.setitimer(signal.ITIMER_REAL, MOST_WALL_S)
    with watch.on():
        found = _called(kind, folder, path)
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    peak = _status("VmHWM") - before
    if watch.canary.exists():
        watch.canary.unlink()
        return Outcome("code was run", found.said)
    strangers = [p.name for p in work.iterdir() if p.name not in ("in", "cache", "tmp")]
    if watch.seen or strangers:
        return Outcome(
            "leaves its folder" if strangers else watch.seen[0].partition(":")[0], str(watch.seen or strangers)
        )
    if peak > MOST_BYTES:
        return Outcome("memory", f"{peak / 1e9:.1f} GB; {found.said}")
    if os.fstat(2).st_size != noise and not kind.is_decoded:
        return Outcome("noise on standard error", os.pread(2, 300, noise).decode(errors="replace"))
    return found


def make(kind: Kind, valid: Path, number: int, seed: int, work: Path) -> tuple[Path, Path]:
    """The folder of an input with its one changed file."""
    draw = random.Random(f"{seed} {kind.name} {number}")
    for name in ("in", "cache", "tmp"):
        shutil.rmtree(work / name, ignore_errors=True)
    for left in work.iterdir():
        left.unlink() if not left.is_dir() else shutil.rmtree(left)
    folder = work / "in"
    shutil.copytree(valid, folder, symlinks=True, copy_function=_linked_where_large)
    (work / "tmp").mkdir()
    os.environ["IIDM_CACHE"] = str(folder / "cache" if (folder / "cache").is_dir() else work / "cache")
    tempfile.tempdir = str(work / "tmp")
    files = sorted(path for pattern in kind.files for path in folder.glob(pattern) if path.is_file())
    path = files[number % len(files)] if draw.random() < 0.5 or seed == UNCHANGED else draw.choice(files)
    body = path.read_bytes()
    path.unlink()
    is_hostile = path.name.startswith("hostile")
    is_kept = seed == UNCHANGED or (is_hostile and draw.random() < 0.5)
    path.write_bytes(body if is_kept else mutated(body, path, draw))
    return folder, path


def _linked_where_large(source: str, to: str) -> None:
    if os.path.getsize(source) > 2**20:  # weights, which no reader writes to
        with contextlib.suppress(OSError):  # a folder of --keep lies on another disk
            return os.link(source, to)
    shutil.copy(source, to)


def _called(kind: Kind, folder: Path, path: Path) -> Outcome:
    """Use the input as a command does, with its end in one line."""
    out, err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace"), io.StringIO()
    status: Any = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                run_main(lambda _: kind.use(folder, path), [])
            except SystemExit as end:
                status = end.code
    except BaseException as error:
        if type(error).__module__.startswith(kind.may_raise):
            return Outcome("refused", f"{type(error).__name__} of {kind.may_raise[0]}")
        place = traceback.extract_tb(error.__traceback__)
        ours = [
            f"{Path(f.filename).name}:{f.lineno}" for f in place if "/iidm/" in f.filename or "/kernels/" in f.filename
        ]
        return Outcome("traceback", f"{type(error).__name__}: {error!s:.200} at {' < '.join(ours[::-1][:3])}")
    if status == 0:
        return Outcome("read")
    lines = [line for line in err.getvalue().splitlines() if line.startswith("iidm: ")] or [err.getvalue()]
    said = lines[0].removeprefix("iidm: ")
    if status != 2 or len(err.getvalue().splitlines()) != 1:
        return Outcome("not one line", f"status {status}: {err.getvalue()[-300:]}")
    if "memory ran out" in said:
        return Outcome("memory", said)
    holds_options = path.name == "config.json"  # a message may name the option that it holds, and not the file
    if not holds_options and not any(name in said for name in (path.name, str(path.parent), str(folder))):
        return Outcome("names no file", said[:300])
    return Outcome("refused", said[:300])


def _reset_peak() -> int:
    """Bytes that are resident now; from here on the peak counts anew."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(key: str) -> int:
    """A line of /proc/self/status, bytes."""
    with open("/proc/self/status", encoding="ascii") as file:
        return 1024 * next(int(line.split()[1]) for line in file if line.startswith(key + ":"))
