"""One process at a time in a folder: a lock of the system, which opens when its process ends, however it ends."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .types import UserError

if sys.platform != "win32":
    import fcntl


@contextmanager
def locked(place: Path, refusal: str = "", remedy: str = "Wait for it, or stop it.") -> Iterator[bool]:
    """Keep other processes out of a place for a while.

    A folder is locked itself: nothing is written, it may be read only, and no file is left. Where there is no folder
    yet, or one on a network file system is to be locked for other machines too (Linux tells them of files alone), the
    place is a file. It is made where it is missing, says which process has it, and stays: one that waits has opened it,
    and would not meet those that come after its removal.

    Programs that are started meanwhile do not keep the lock, forked processes do; one of these that leaves the block
    does not open it for the others.

    Not filelock, which torch brings: it needs a file in any case, asks again and again where it waits, fails where a
    file system has no locks (ENOLCK, EOPNOTSUPP), and for ENOSYS takes a file that a killed process leaves closed.

    Args:
        refusal, remedy: what is said where another process has the lock; without a refusal it is waited for.

    Yields: whether it is locked. Some file systems have no locks, nor has Windows: then nobody is kept out.

    Raises:
        UserError: another process has it.
        OSError: the place cannot be opened.
    """
    if sys.platform == "win32":
        yield False
        return
    is_file = not place.is_dir()
    handle = os.open(place, os.O_RDWR | os.O_CREAT if is_file else os.O_RDONLY, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (fcntl.LOCK_NB if refusal else 0))
            is_locked = True
        except OSError as error:
            if refusal and error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                owner = os.pread(handle, 20, 0).decode(errors="replace").strip() if is_file else ""
                raise UserError(f"{refusal}{owner and f' (process {owner})'}. {remedy}") from None
            is_locked = False
        if is_locked and is_file:
            os.ftruncate(handle, os.pwrite(handle, f"{os.getpid()}\n".encode(), 0))
        yield is_locked
    finally:
        os.close(handle)
