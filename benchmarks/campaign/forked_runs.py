"""The runs of a forked study as forks of it: what it has imported is not imported again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from .processes import end_as_a_process, require_one_thread


class ForkedRun:
    """What stands for `subprocess.Popen` in a forked study: a run that is a fork of it, with what it has imported."""

    def __init__(self, words: Sequence[str], *, stdout: IO[bytes], env: dict[str, str], **others: Any) -> None:
        require_one_thread()
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:

            def body() -> None:
                from iidm.cli import run_main
                from iidm.studies import worker

                os.environ.update(env)
                run_main(worker.main, list(words[3:]))

            end_as_a_process(body, Path(stdout.name))

    def poll(self) -> int | None:
        """The exit status, once there is one."""
        if self.returncode is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if done else None
        return self.returncode

    def wait(self) -> int:
        """Until it ends."""
        while self.poll() is None:
            time.sleep(0.005)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """To a run that has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it as it is."""
        self.send_signal(signal.SIGKILL)


def fork_runs() -> None:
    """In a forked study."""
    from iidm.studies import local

    local.subprocess = _Subprocess()  # type: ignore[attr-defined]


class _Subprocess:
    """The module as `local` sees it."""

    Popen = ForkedRun

    def __getattr__(self, name: str) -> Any:
        import subprocess

        return getattr(subprocess, name)
