"""Worker processes of commands that are ended from outside: none is left, and nothing holds the pipes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_runs import is_running, kill_group, options
from watching import children


def workers(process: subprocess.Popen[str]) -> list[int]:
    """The worker processes of a command, from their first moment on."""
    lines = {pid: Path(f"/proc/{pid}/cmdline") for pid in children(process.pid)}
    return [pid for pid, line in lines.items() if line.exists() and b"spawn_main" in line.read_bytes()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "number"),
    [
        ("train", signal.SIGKILL),
        ("train", signal.SIGTERM),
        ("prepare", signal.SIGKILL),
        ("prepare", signal.SIGHUP),
    ],
)
def test_workers_that_still_import_do_not_outlive_a_command_that_is_ended(
    command: str, number: int, data: Path, tmp_path: Path
) -> None:
    words = options(data, tmp_path / "run", "--data.workers", "2", "--max-steps", "2000")
    if command == "prepare":
        words = ["folder", "--root", str(data / "target"), "--out", str(tmp_path / "out"), "--jobs", "2"]
        words += ["--data.images", "images/{split}", "--data.labels", "labels/{split}", "--data.class-names", *"abc"]
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "iidm", command, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL) if number != signal.SIGKILL else None,
    )
    try:
        end = time.monotonic() + 600
        while len(found := workers(process)) < 2:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.02)
        time.sleep(0.5)
        process.send_signal(number)
        said = process.communicate(timeout=600)  # the pipes are closed: no worker holds them
        assert process.returncode != 0
        if command == "prepare":  # a worker of DALI that still imports may say that its pipe is closed
            assert "Traceback" not in said[1]
        end = time.monotonic() + 600
        while any(map(is_running, found)) and time.monotonic() < end:
            time.sleep(0.05)
        assert [pid for pid in found if is_running(pid)] == []
        assert list(temporary.glob("__autograph*")) == []  # what DALI generates is kept in memory
    finally:
        kill_group(process)
