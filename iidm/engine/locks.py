"""One training at a time in a run's folder."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..types import UserError

if sys.platform != "win32":
    import fcntl


@contextmanager
def alone_in(run_dir: Path | None) -> Iterator[None]:
    """Keep other trainings of this machine out of a folder; the system opens the lock when the process ends.

    It is on the folder itself, so that no file is left. None, and a file system without locks: nothing is kept.

    Raises: UserError where another process trains in it.
    """
    if run_dir is None or not run_dir.is_dir() or sys.platform == "win32":
        yield
        return
    place = os.open(run_dir, os.O_RDONLY)
    try:
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno == errno.EWOULDBLOCK:
                raise UserError(f"Another process trains in {run_dir}. Wait until it ends, or stop it.") from None
        yield
    finally:
        os.close(place)
