"""What a kill or a broken disk leaves: a damaged newest checkpoint, a folder without a configuration."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from small_runs import STEPS, Finished, evaluate, metrics, refusal, train, weights

from iidm.config import Config
from iidm.runs import keep_descriptions


@pytest.fixture
def damaged(finished: Finished, tmp_path: Path) -> Path:
    """A copy of the finished run, one bit of whose newest checkpoint is turned over."""
    run_dir = shutil.copytree(finished.run_dir, tmp_path / "run")
    file = run_dir / "checkpoints" / f"step-{STEPS:08d}" / "training.safetensors"
    body = bytearray(file.read_bytes())
    body[-1] ^= 1
    file.write_bytes(body)
    return run_dir


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(damaged: Path, finished: Finished) -> None:
    said = train(["--resume", damaged]).err
    assert f"step-{STEPS:08d} is damaged (training.safetensors is not what was written" in said
    assert "step-00000003 before it is used" in said and "at step 3" in said
    assert f"step-{STEPS:08d} is damaged" in (damaged / "notes.txt").read_text()
    assert metrics(damaged) == metrics(finished.run_dir)
    assert weights(damaged, STEPS) == weights(finished.run_dir, STEPS)
    ours, theirs = (json.loads((run / "results.json").read_text()) for run in (damaged, finished.run_dir))
    assert ours["student"] == theirs["student"]
    left = sorted(path.name for path in (damaged / "checkpoints").iterdir())
    assert left == ["step-00000003", f"step-{STEPS:08d}"]


def test_evaluate_says_that_it_takes_the_one_before(damaged: Path) -> None:
    said = evaluate([damaged])
    assert f"step-{STEPS:08d} is damaged" in said.err and "step-00000003" in said.out
    assert (damaged / "checkpoints" / f"step-{STEPS:08d}").exists(), "what only reads changes nothing"


def test_a_run_whose_only_checkpoint_is_damaged_says_what_to_do(damaged: Path, finished: Finished) -> None:
    shutil.rmtree(damaged / "checkpoints" / "step-00000003")
    for program, words in (("train", ["--resume", damaged]), ("evaluate", [damaged])):
        message = refusal(program, words)
        assert f"No checkpoint in {damaged / 'checkpoints'} is whole" in message and "--resume" in message
    shutil.rmtree(damaged / "checkpoints")
    train(["--resume", damaged, "--quiet"])
    assert weights(damaged, STEPS) == weights(finished.run_dir, STEPS)


def test_a_start_that_was_killed_leaves_a_folder_in_which_the_same_start_works(tmp_path: Path) -> None:
    description, run_dir = tmp_path / "camera.toml", tmp_path / "run"
    description.write_text('images = "images"\n')
    config = Config()
    target = replace(config.data.target, spec=str(description))
    config = replace(config, data=replace(config.data, target=target))
    run_dir.mkdir()
    keep_descriptions(config, run_dir)
    (run_dir / "target" / "camera.toml").write_text("imag")  # killed before config.json was there
    keep_descriptions(config, run_dir)
    assert (run_dir / "target" / "camera.toml").read_bytes() == description.read_bytes()
    assert [path.name for path in (run_dir / "target").iterdir()] == ["camera.toml"]
