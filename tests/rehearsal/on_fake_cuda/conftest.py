"""These tests need a process of their own, in which torch finds the fake device: tests/rehearsal/test_rehearsal.py runs
them, or by hand

    IIDM_REHEARSAL=1 python -m pytest tests/rehearsal/on_fake_cuda       what `make test` runs
    IIDM_REHEARSAL=all python -m pytest tests/rehearsal/on_fake_cuda     every method in every way
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]
if not os.environ.get("IIDM_REHEARSAL"):
    collect_ignore_glob = ["test_*.py"]
else:
    sys.path[:0] = [str(TESTS / "rehearsal"), str(TESTS / "method"), str(TESTS / "kernels"), str(TESTS / "entry")]
    import fake_device

    fake_device.load()
    import stand_ins

    stand_ins.install()


@pytest.fixture(autouse=True)
def on_fake_cuda() -> Iterator[None]:
    """Every tensor of a test is fake."""
    with stand_ins.fake_cuda():
        yield
