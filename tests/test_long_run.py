"""How benchmarks/long_run.py judges a run by what it saw of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.long_run import Point, summary, watch


def points(seconds_of: dict[int, float], memory: float = 0.0, wait_ms: float = 0.05) -> list[Point]:
    """A log point every ten steps of a hundred; 0.1 s a step unless `seconds_of` says else for its tenth."""
    found, now = [], 5.0
    for tenth in range(10):
        now += 10 * seconds_of.get(tenth, 0.1)
        found.append(Point(now, 10 * (tenth + 1), wait_ms, 1000 + memory * tenth, 0.0))
    return found


def test_an_even_run_holds() -> None:
    result = summary(points({0: 3.0}), 100)  # a slow start is none of it
    assert result["holds"]
    assert result["steps_per_s"] == pytest.approx(10)
    assert result["paces"] == pytest.approx([10] * 9)
    assert result["wait_share"] == pytest.approx(0.0005)


@pytest.mark.parametrize(
    "run", [points({7: 0.11}), points({}, memory=10.0), points({}, wait_ms=2.0)], ids=["pace", "memory", "waiting"]
)
def test_a_run_that_slows_down_grows_or_waits_does_not(run: list[Point]) -> None:
    assert not summary(run, 100)["holds"]


def test_it_reads_what_a_run_prints(tmp_path: Path) -> None:
    code = "for i in (2, 4): print(f'step {i}/4  total 1.0 wait_ms 0.{i}  9.1 steps/s  0 s left', flush=True)"
    found = watch([sys.executable, "-c", code], tmp_path / "log.txt")
    assert [(p.step, p.wait_ms) for p in found] == [(2, 0.2), (4, 0.4)]
    assert all(p.rss_mb > 1 for p in found)
    assert "step 4/4" in (tmp_path / "log.txt").read_text()
    with pytest.raises(RuntimeError, match="failed with status 3"):
        watch([sys.executable, "-c", "raise SystemExit(3)"], tmp_path / "log.txt")
