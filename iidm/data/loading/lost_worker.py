"""What to say when a process that reads ahead is gone."""

from __future__ import annotations

import shutil
from pathlib import Path

from ...types import UserError

WORKER_IS_GONE = "Worker data receiving interrupted"
"""What DALI says when one of its worker processes has ended."""
SHARED_MEMORY = Path("/dev/shm")


def lost_worker(workers: int) -> UserError:
    """The error for a worker process that ended in the middle of its work. Linux ends one without a word (SIGBUS) when
    shared memory is full, through which it hands its images over."""
    room = ""
    if SHARED_MEMORY.is_dir():
        room = f", of which {SHARED_MEMORY} has {shutil.disk_usage(SHARED_MEMORY).total / 2**20:.0f} MiB"
    return UserError(
        f"A process that reads images ahead has ended (--data.workers {workers}): shared memory{room}, or memory ran"
        " short, or it was killed. Give a container more (docker run --shm-size=2g), or read in the training process:"
        " --data.workers 0."
    )
