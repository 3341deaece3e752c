"""A place is one process's until that ends, however it does."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from iidm import locks
from iidm.locks import locked
from iidm.types import UserError

HOLD = """
import os, subprocess, sys
from pathlib import Path
from iidm.locks import locked
with locked(Path(sys.argv[1])):
    if os.fork() == 0:
        sys.exit()  # which leaves the block
    os.wait()
    subprocess.Popen(["cat"], stdout=subprocess.DEVNULL, close_fds=False)  # until the end of our stdin
    print("mine", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["folder", "file"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path if request.param == "folder" else tmp_path / ".lock"


def left_in(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_place_is_one_process_s_until_that_is_killed(place: Path, tmp_path: Path) -> None:
    """A process that it forked does not open it, and a program that it started does not keep it."""
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, place], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None and other.stdout.readline() == "mine\n"
        owner = "" if place == tmp_path else rf" \(process {other.pid}\)"
        with pytest.raises(UserError, match=rf"^Taken{owner}\. Wait for it, or stop it\.$"), locked(place, "Taken"):
            pytest.fail("two have it")
        other.kill()
        other.wait()
        for _ in range(2):
            with locked(place, "Taken") as is_locked:
                assert is_locked
    finally:
        other.kill()
        other.communicate()
    assert left_in(tmp_path) == ({} if place == tmp_path else {".lock": f"{os.getpid()}\n"})


def test_without_a_refusal_it_is_waited_for(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, flock = threading.Event(), fcntl.flock
    events: list[object] = []

    def note(handle: int, how: int) -> None:
        asked.set()
        flock(handle, how)

    def second() -> None:
        with locked(place) as is_locked:
            events.append(is_locked)

    with locked(place):
        monkeypatch.setattr(locks.fcntl, "flock", note)
        waiting = threading.Thread(target=second)
        waiting.start()
        assert asked.wait(600)
        events.append("first leaves")
    waiting.join()
    assert events == ["first leaves", True]


def test_a_file_that_was_left_locks_nothing_and_a_longer_number_in_it_goes(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("12345678901234567\n")
    with locked(tmp_path / ".lock", "Taken") as is_locked:
        assert is_locked and left_in(tmp_path) == {".lock": f"{os.getpid()}\n"}


@pytest.mark.parametrize("error", ["ENOLCK", "ENOSYS", "EOPNOTSUPP", "EBADF"])
@pytest.mark.parametrize("refusal", ["Taken", ""])
def test_a_file_system_without_locks_keeps_nobody_out(
    refusal: str, error: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(handle: int, how: int) -> None:
        raise OSError(getattr(errno, error), "no locks")

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    with locked(place, refusal) as first, locked(place, refusal) as second:
        assert not first and not second


def test_some_file_systems_say_permission_denied_of_a_lock_that_is_taken(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(handle: int, how: int) -> None:
        raise PermissionError(errno.EACCES, "taken")

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    with pytest.raises(UserError, match=r"^Taken\. Wait"), locked(place, "Taken"):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_folder_that_cannot_be_written_is_locked_and_a_file_in_it_is_an_error() -> None:
    folder = Path("/proc/self")  # which root cannot write either
    with locked(folder, "Taken") as is_locked:
        assert is_locked
        with pytest.raises(UserError, match="^Taken"), locked(folder, "Taken"):
            pass
    with pytest.raises(OSError), locked(folder / ".lock", "Taken"):
        pass
