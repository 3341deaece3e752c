"""What DALI's processes and graphs leave behind or lack: shared memory, temporary files."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from iidm.data.loading.loader import _Group
from iidm.data.loading.pipeline import ImageDecoder
from iidm.types import UserError


def test_a_graph_leaves_no_file_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    decoder = ImageDecoder(device=torch.device("cpu"), batch_size=1, threads=1)
    assert list(tmp_path.iterdir()) == []
    del decoder


class Broken:
    """A DALI pipeline of which a worker process has ended, as the kernel ends one when /dev/shm is full."""

    def run(self) -> Any:
        raise RuntimeError("Worker data receiving interrupted")


def test_a_worker_that_ended_names_shared_memory_and_the_way_without_it() -> None:
    group = _Group.__new__(_Group)
    group.source, group.workers, group._pipeline = SimpleNamespace(batch_size=0), 2, Broken()  # type: ignore[assignment]
    with pytest.raises(UserError) as error:
        group.read(0)
    for word in ("shared memory", "/dev/shm", "--data.workers 2", "--data.workers 0"):
        assert word in str(error.value)
