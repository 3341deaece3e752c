"""How benchmarks/long_run.py judges a run by what it saw of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.long_run import describe, draw, summary
from benchmarks.watching import Point, cpu_s, descendants, rss_mb, watch


def points(
    seconds_of: dict[int, float], memory: float = 0.0, wait_ms: float = 0.05, workers: float = 0.0
) -> list[Point]:
    """A log point every ten steps of a thousand; 0.1 s a step unless `seconds_of` says else for its tenth. Memory grows
    by so much a tenth."""
    found, now = [], 5.0
    for number in range(100):
        tenth = number // 10
        now += 10 * seconds_of.get(tenth, 0.1)
        held = 1000 + memory * tenth, 300 + workers * tenth
        found.append(Point(now, 10 * (number + 1), wait_ms, *held, 2 * now, 0.0))
    return found


def test_an_even_run_holds() -> None:
    result = summary(points({0: 3.0}), 1000)  # a slow start is none of it
    assert result["holds"] and describe(result).endswith("\nflat")
    assert result["tenths"]["step_ms"] == pytest.approx([3000, *[100] * 9])
    assert result["tenths"]["cpu_ms"][1:] == pytest.approx([200] * 9)
    assert result["tenths"]["workers_mb"] == [300] * 10
    assert result["wait_share"] == pytest.approx(0.0005)


@pytest.mark.parametrize(
    "run",
    [points({7: 0.11}), points({}, memory=3.0), points({}, workers=1.0), points({}, wait_ms=2.0)],
    ids=["pace", "memory", "workers", "waiting"],
)
def test_a_run_that_slows_down_grows_or_waits_does_not(run: list[Point]) -> None:
    result = summary(run, 1000)
    assert not result["holds"] and describe(result).endswith("\nNOT flat")


def test_evaluations_are_timed_and_are_no_steps() -> None:
    run = points({})
    later = [p._replace(seconds=p.seconds + 4.0 * ((p.step - 1) // 250)) for p in run]
    result = summary(later, 1000, eval_every=250)
    assert result["evaluation_s"] == pytest.approx([4.0, 4.0, 4.0])
    assert result["holds"] and result["spread"]["step_ms"] == pytest.approx(0)


def test_waiting_is_not_judged_where_reading_shares_the_core() -> None:
    assert summary(points({}, wait_ms=2.0), 1000, judge_waiting=False)["holds"]


def test_the_figure_is_drawn(tmp_path: Path) -> None:
    draw(points({}), 1000, tmp_path / "long-run.png")
    assert (tmp_path / "long-run.png").read_bytes()[:4] == b"\x89PNG"


def test_it_reads_what_a_run_prints(tmp_path: Path) -> None:
    code = "for i in (2, 4): print(f'step {i}/4  total 1.0 wait_ms 0.{i}  9.1 steps/s  0 s left', flush=True)"
    found = watch([sys.executable, "-c", f"{code}\nimport time; time.sleep(0.5)"], tmp_path / "log.txt")
    assert [(p.step, p.wait_ms) for p in found] == [(2, 0.2), (4, 0.4)]
    assert all(p.rss_mb > 1 for p in found)
    assert "step 4/4" in (tmp_path / "log.txt").read_text()
    with pytest.raises(RuntimeError, match="failed with status 3"):
        watch([sys.executable, "-c", "raise SystemExit(3)"], tmp_path / "log.txt")


def test_memory_and_processor_time_of_what_a_process_started_are_counted() -> None:
    code = (
        "import subprocess, sys\n"
        "with subprocess.Popen([sys.executable, '-c', \"print('up', flush=True); input()\"]) as other: other.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdin is not None
        assert child.stdout.readline() == b"up\n"
        inner = descendants(child.pid)
        assert len(inner) == 1 and set(inner) | {child.pid} <= set(descendants(os.getpid()))
        assert rss_mb(inner[0]) > 1 and cpu_s(child.pid) > 0
        child.stdin.close()
    assert rss_mb(child.pid) == 0 and cpu_s(child.pid) == 0
