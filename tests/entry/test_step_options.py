"""python -m iidm.train with the options of a step: accumulation, merged branches, recomputation, profile."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_runs import STEPS, Finished, half_done, metrics, options, refusal, train, weights


@pytest.fixture(scope="module")
def accumulated(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("accumulated") / "run"
    train(options(data, run_dir, "--amp", "--step.accumulate", "2", "--quiet"))
    return run_dir


def test_a_run_that_accumulates_goes_on_bit_by_bit(accumulated: Path, tmp_path: Path) -> None:
    run_dir = half_done(accumulated, tmp_path / "run")
    train(["--resume", run_dir, "--quiet"])
    assert metrics(run_dir) == metrics(accumulated)
    assert weights(run_dir, STEPS) == weights(accumulated, STEPS)
    message = refusal("train", ["--resume", run_dir, "--step.accumulate", "1"])
    assert "--step.accumulate" in message


def test_accumulation_reads_other_batches(accumulated: Path, finished: Finished) -> None:
    first = [json.loads(metrics(run).splitlines()[0]) for run in (accumulated, finished.run_dir)]
    assert first[0]["loss_source"] != first[1]["loss_source"]
    assert first[0]["loss_source"] == pytest.approx(first[1]["loss_source"], rel=0.5)


def test_how_a_step_is_run_can_change_on_resume_and_moves_rounding_alone(finished: Finished, tmp_path: Path) -> None:
    run_dir = half_done(finished.run_dir, tmp_path / "run")
    train(["--resume", run_dir, "--quiet", "--step.branches", "merged", "--step.recompute"])
    ours, theirs = (
        [json.loads(line)["loss_total"] for line in metrics(run).splitlines() if "loss_total" in line]
        for run in (run_dir, finished.run_dir)
    )
    assert ours[:3] == theirs[:3]
    assert ours[3:] == pytest.approx(theirs[3:], rel=0.05)


def test_a_profile_is_a_trace_and_a_table_of_parts_and_operations(data: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    said = train(options(data, run_dir, "--max-steps", "9", "--profile", "2"))
    table = (run_dir / "profile" / "table.txt").read_text()
    assert str(run_dir / "profile" / "table.txt") in said.err
    rows = {line[:60].strip(): line[60:].split() for line in table.splitlines() if line[60:].strip()}
    for part, calls in (("pseudo-labels", 1), ("mixing", 1), ("student forward", 4), ("loss", 4), ("backward", 4)):
        assert float(rows[part][0]) == calls
    assert {"optimizer", "EMA"} <= rows.keys()
    parts = [float(rows[p][2]) for p in ("pseudo-labels", "mixing", "student forward", "backward", "optimizer", "EMA")]
    assert 10 < sum(parts) <= 101  # a small step on a fast CPU is shorter than the profiler's own start
    assert "iidm::batch_norm" in table or "native_batch_norm" in table
    events = json.loads((run_dir / "profile" / "trace.json").read_text())["traceEvents"]
    assert sum(event.get("name") == "iidm: backward" for event in events) >= 8


def test_a_profile_of_more_steps_than_there_are_is_refused(data: Path, tmp_path: Path) -> None:
    message = refusal("train", options(data, tmp_path / "run", "--max-steps", "7", "--profile", "2"))
    assert "--profile must be 0 to 1" in message and not (tmp_path / "run").exists()


def test_a_graph_on_a_cpu_is_refused_before_a_run_begins(data: Path, tmp_path: Path) -> None:
    message = refusal("train", options(data, tmp_path / "run", "--device", "cpu", "--step.graph", "on"))
    assert "--step.graph on needs a GPU" in message
    assert not (tmp_path / "run").exists()
