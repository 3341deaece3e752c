"""The recording of a run's steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.profiler import record_function

from iidm.config import PROFILE_WARMUP
from iidm.engine.profiler import profiled
from iidm.types import UserError


def test_it_records_so_many_steps_after_those_that_warm_up(tmp_path: Path) -> None:
    said: list[str] = []
    image = torch.zeros(64, 64)
    with profiled(3, tmp_path / "profile", said.append, steps_left=20) as step_is_done:
        for number in range(PROFILE_WARMUP + 5):
            with record_function("iidm: a part"):
                for _ in range(2 if number >= PROFILE_WARMUP else 50):
                    image.add_(1)
            step_is_done()
    table = (tmp_path / "profile" / "table.txt").read_text().splitlines()
    assert "a step takes" in table[0]
    calls = {line[:60].strip(): line[60:].split()[0] for line in table if len(line[60:].split()) == 3}
    assert calls["a part"] == "1.0"
    assert calls["aten::add_"] == "2.0", "of the recorded steps alone"
    assert len(said) == 1 and "3 steps" in said[0]


def test_a_run_that_ends_before_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--profile 1 needs 7 steps.* has 3 left"):
        with profiled(1, tmp_path, print, steps_left=3):
            pass


def test_nothing_is_recorded_unless_asked_for(tmp_path: Path) -> None:
    with profiled(0, tmp_path / "profile", print, steps_left=0) as step_is_done:
        step_is_done()
    assert not (tmp_path / "profile").exists()
