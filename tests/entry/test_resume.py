"""python -m iidm.train --resume: a run that was killed, or stopped with Ctrl-C, ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small_runs
from small_runs import (
    STEPS,
    Finished,
    half_done,
    is_running,
    kill_group,
    metrics,
    one_line,
    options,
    refusal,
    train,
    weights,
)
from watching import children

import iidm.train
from iidm.cli import read_config
from iidm.engine.optim import learning_rate_factor
from iidm.types import UserError

LONG = 12
"""Steps of the runs that are cut short."""
WORDS = ("--amp", "--max-steps", str(LONG), "--log.checkpoint-every", "3")


@pytest.fixture(scope="module")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that every resumed one is compared with."""
    run_dir = tmp_path_factory.mktemp("uninterrupted") / "run"
    train(options(data, run_dir, *WORDS, "--quiet"))
    assert metrics(run_dir).count("\n") == LONG
    return run_dir


def assert_same_run(run_dir: Path, uninterrupted: Path) -> None:
    """Equal losses of every step, final weights and scores, bit for bit."""
    assert metrics(run_dir) == metrics(uninterrupted)
    assert weights(run_dir, LONG) == weights(uninterrupted, LONG)
    ours, theirs = (json.loads((d / "results.json").read_text()) for d in (run_dir, uninterrupted))
    for network in ("student", "teacher"):
        assert ours[network] == theirs[network]


def kill_after(steps: int, words: list[str], run_dir: Path) -> list[int]:
    """Start a run and kill -9 it somewhere after `steps` logged steps; returns what of it still runs 5 s later."""
    process = small_runs.start("train", words)
    try:
        small_runs.wait_for_steps(process, run_dir, steps)
        time.sleep(random.uniform(0, 0.3))
        workers = children(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(30)
        assert process.returncode == -signal.SIGKILL
        end = time.monotonic() + 600
        while any(map(is_running, workers)) and time.monotonic() < end:
            time.sleep(0.1)
        left = [pid for pid in workers if is_running(pid)]
    finally:
        kill_group(process)
    assert not (run_dir / "results.json").exists()
    return left


@pytest.mark.long  # what is always run is the short form of the campaign of kills, tests/test_kills.py
def test_a_run_that_is_killed_three_times_ends_like_one_that_is_not(
    data: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    kill_after(1, options(data, run_dir, *WORDS), run_dir)  # mostly before the first checkpoint
    for steps in (4, 7):
        kill_after(steps, ["--resume", str(run_dir)], run_dir)
    train(["--resume", run_dir, "--quiet"])
    assert_same_run(run_dir, uninterrupted)


@pytest.fixture(scope="module")
def killed_with_workers(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """A run with two worker processes that was killed, and which of them outlived it."""
    run_dir = tmp_path_factory.mktemp("killed") / "run"
    return run_dir, kill_after(4, options(data, run_dir, *WORDS, "--data.workers", "2"), run_dir)


def test_a_killed_run_with_worker_processes_ends_like_one_without(
    killed_with_workers: tuple[Path, list[int]], uninterrupted: Path
) -> None:
    run_dir, _ = killed_with_workers
    train(["--resume", run_dir, "--quiet"])
    assert_same_run(run_dir, uninterrupted)


def test_worker_processes_do_not_outlive_a_run_that_is_killed(killed_with_workers: tuple[Path, list[int]]) -> None:
    assert killed_with_workers[1] == []


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_saves_says_how_to_go_on_and_the_run_ends_like_one_without(
    workers: int, data: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "a run"
    words = options(data, run_dir, *WORDS, "--quiet", "--log.checkpoint-every", "0", "--data.workers", str(workers))
    process = small_runs.start("train", words)
    try:
        small_runs.wait_for_steps(process, run_dir, 4)
        os.killpg(process.pid, signal.SIGINT)  # a terminal signals the whole group
        out, err = process.communicate(timeout=600)
    finally:
        kill_group(process)
    assert process.returncode == 2, err
    assert out == ""
    message = one_line(err)
    assert message.startswith("Stopped after step ")
    (checkpoint,) = (run_dir / "checkpoints").iterdir()
    done = int(checkpoint.name.removeprefix("step-"))
    assert f"step {done};" in message
    assert metrics(run_dir).count("\n") == done
    train([*shlex.split(message[message.index("--resume") :]), "--quiet"])
    assert_same_run(run_dir, uninterrupted)


def test_one_process_at_a_time_trains_in_a_folder(
    data: Path, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who resumes a run is refused, by one that began it and by one that resumed it."""
    new, old = tmp_path / "new", half_done(finished.run_dir, tmp_path / "old")

    def meanwhile(*words: Any) -> None:
        run_dir = words[3]
        raise UserError(f"{run_dir.name}: {refusal('train', ['--resume', run_dir])}")

    monkeypatch.setattr(iidm.train, "train", meanwhile)
    for words, run_dir in ((options(data, new, "--quiet"), new), (["--resume", old, "--quiet"], old)):
        message = f"{run_dir.name}: Another process trains in {run_dir}. Wait for it, or stop it."
        assert refusal("train", words) == message


def test_resuming_a_finished_run_evaluates_it_again_and_trains_no_step(finished: Finished, tmp_path: Path) -> None:
    run_dir = tmp_path / "copy"
    shutil.copytree(finished.run_dir, run_dir)
    results = json.loads((run_dir / "results.json").read_text())
    (run_dir / "results.json").unlink()  # as if the run had been killed in its last seconds
    said = train(["--resume", run_dir])
    again = json.loads((run_dir / "results.json").read_text())
    for key in ("student", "teacher", "images", "steps"):
        assert again[key] == results[key]
    assert metrics(run_dir) == metrics(finished.run_dir)
    assert weights(run_dir, STEPS) == weights(finished.run_dir, STEPS)
    assert again["seconds"] >= results["seconds"] / 2  # with those of the training
    assert f"all {STEPS} steps are done" in said.err
    assert (run_dir / "results.txt").read_text() in said.out


def test_a_run_says_its_class_weights_and_has_them_again_after_a_resume(data: Path, tmp_path: Path) -> None:
    words = ("--loss.class-weights", "auto", "--max-steps", "2", "--log.checkpoint-every", "1")
    said = train(options(data, tmp_path / "run", *words))
    line = next(line for line in said.err.splitlines() if line.startswith("class weights"))
    assert re.match(r"class weights in the loss, by how rare each is: ground [\d.]+, wall [\d.]+, sky [\d.]+", line)
    losses, ends = metrics(tmp_path / "run"), weights(tmp_path / "run", 2)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000002")
    assert line in train(["--resume", tmp_path / "run"]).err
    assert metrics(tmp_path / "run") == losses and weights(tmp_path / "run", 2) == ends


def test_a_class_weight_of_a_class_that_is_not_there_is_refused(data: Path, tmp_path: Path) -> None:
    message = refusal("train", options(data, tmp_path / "run", "--loss.class-weights", "wal=2"))
    assert "no class 'wal'. Did you mean 'wall'?" in message and not (tmp_path / "run").exists()


def test_a_finished_run_can_be_lengthened(finished: Finished, tmp_path: Path) -> None:
    run_dir, longer = tmp_path / "copy", STEPS + 2
    shutil.copytree(finished.run_dir, run_dir)
    words = ["--resume", run_dir, "--max-steps", str(longer), "--log.no-tensorboard", "--log.preview-every", "0"]
    said = train(words, painted=True)
    rates = [json.loads(line)["lr"] for line in metrics(run_dir).splitlines() if "lr" in json.loads(line)]
    config = read_config(run_dir / "config.json")
    assert config == replace(read_config(finished.run_dir / "config.json"), max_steps=longer)
    assert metrics(run_dir).startswith(metrics(finished.run_dir)), "what is done stays"
    expected = [config.optim.lr * learning_rate_factor(step, config.optim, longer) for step in (STEPS, STEPS + 1)]
    assert rates[STEPS:] == expected and expected[0] > rates[STEPS - 1], "the schedule is that of the new length"
    assert f"{longer} steps in place of {STEPS}: from step {STEPS} on" in said.err and "0.25 of --optim.lr" in said.err
    assert "starts at random" in finished.said.err and "starts at random" not in said.err
    results = json.loads((run_dir / "results.json").read_text())
    assert results["steps"] == longer and (run_dir / "results.txt").read_text() in said.out
    for ending in ("json", "txt"):
        kept = (run_dir / f"results-after-{STEPS}-steps.{ending}").read_bytes()
        assert kept == (finished.run_dir / f"results.{ending}").read_bytes()
    assert f"all {longer} steps are done" in train(["--resume", run_dir]).err, "it keeps its new length"


def test_a_lengthened_run_goes_on_with_the_images_and_draws_that_are_next(data: Path, tmp_path: Path) -> None:
    """At a learning rate that changes no weight the losses tell the images, crops and mixes apart, and nothing else."""
    still = ("--optim.lr", "1e-30", "--quiet", "--eval.statistics", "running")
    train(options(data, tmp_path / "whole", *still, "--max-steps", "2"))
    train(options(data, tmp_path / "run", *still, "--max-steps", "1"))
    train(["--resume", tmp_path / "run", "--max-steps", "2"])
    ours, theirs = (
        [{key: value for key, value in json.loads(line).items() if key != "lr"} for line in metrics(run).splitlines()]
        for run in (tmp_path / "run", tmp_path / "whole")
    )
    assert ours == theirs and len({line["loss_total"] for line in ours}) == 2


def test_fewer_steps_than_are_done_are_refused_and_the_run_stays_as_it_is(finished: Finished) -> None:
    before = (finished.run_dir / "config.json").read_bytes()
    message = refusal("train", ["--resume", finished.run_dir, "--max-steps", str(STEPS - 1), "--profile", "0"])
    assert f"has done {STEPS} steps" in message and f"--max-steps {STEPS - 1} is fewer" in message
    assert (finished.run_dir / "config.json").read_bytes() == before
    assert (finished.run_dir / "results.json").exists()


def test_a_resumed_run_refuses_what_would_make_it_another_run(finished: Finished) -> None:
    message = refusal("train", ["--resume", finished.run_dir, "--optim.lr", "0.5"])
    assert "--optim.lr" in message
    assert f"--config {finished.run_dir / 'config.json'}" in message


def test_a_run_can_be_resumed_from_where_it_was_moved_and_its_data_too(
    finished: Finished, data: Path, tmp_path: Path
) -> None:
    run_dir = half_done(finished.run_dir, tmp_path / "run")
    moved = shutil.copytree(data, tmp_path / "data")
    train(["--resume", run_dir, "--source-root", moved / "source", "--target-root", moved / "target", "--quiet"])
    assert metrics(run_dir) == metrics(finished.run_dir)
    assert weights(run_dir, STEPS) == weights(finished.run_dir, STEPS)
