"""What breaks in the middle of training: losses, weights, the disk, an image. What was saved before stays whole."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_runs import STEPS, Finished, cut, metrics, options, refusal, train, weights

import iidm.engine.checkpoint
import iidm.train
from iidm.types import StepOutput, TrainBatch


def broken_at(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From step `number` on every loss is NaN, as after an overflow."""
    real = iidm.train.TrainStep.__call__

    def call(self: Any, batch: TrainBatch, step: int) -> StepOutput:
        out = real(self, batch, step)
        if step < number:
            return out
        return out._replace(losses=type(out.losses)(*(loss * float("nan") for loss in out.losses)))

    monkeypatch.setattr(iidm.train.TrainStep, "__call__", call)


@pytest.mark.parametrize("every", [1, 100])
def test_a_loss_that_is_nan_stops_the_run_and_spares_its_checkpoints(
    every: int, finished: Finished, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "run"
    words = options(data, run_dir, "--amp", "--quiet", "--log.every", str(every), "--log.keep-checkpoints", "1")
    with monkeypatch.context() as patch:
        broken_at(4, patch)
        message = refusal("train", words)
    assert "nan" in message
    assert f"step {4 if every == 1 else STEPS - 1}" in message
    assert str(run_dir / "checkpoints") in message
    assert "--optim.lr" in message
    assert weights(run_dir, 3) == weights(finished.run_dir, 3)
    assert "NaN" not in metrics(run_dir)
    train(["--resume", run_dir, "--quiet"])  # the cause is gone
    assert weights(run_dir, STEPS) == weights(finished.run_dir, STEPS)


def test_weights_that_the_last_update_broke_are_neither_saved_nor_scored(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The losses of a step are of the weights before its update."""
    update = iidm.train.TrainStep.update

    def breaks(step: iidm.train.TrainStep, decay: float) -> None:
        update(step, decay)
        next(step.student.parameters()).data.fill_(float("nan"))

    monkeypatch.setattr(iidm.train.TrainStep, "update", breaks)
    message = refusal("train", options(data, tmp_path / "run", "--max-steps", "1", "--quiet"))
    assert "the largest weight after its update = nan" in message
    assert not list(tmp_path.glob("run/checkpoints/*")) and not (tmp_path / "run" / "results.json").exists()


def test_a_learning_rate_that_is_far_too_high_is_a_message_too(data: Path, tmp_path: Path) -> None:
    message = refusal("train", options(data, tmp_path / "run", "--quiet", "--optim.lr", "1e30"))
    assert "Training broke at step" in message
    assert "--optim.lr" in message


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A disk on which only so many more weight files find room as the list's number says."""
    room = [0]
    real = iidm.engine.checkpoint.save_file

    def save_file(tensors: Any, path: Any) -> None:
        if room[0] == 0:
            Path(path).write_bytes(b"the first half of a")
            raise OSError(errno.ENOSPC, "No space left on device")
        room[0] -= 1
        real(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr(iidm.engine.checkpoint, "save_file", save_file)
        yield room


def test_a_full_disk_leaves_the_checkpoint_before_whole(
    finished: Finished, data: Path, tmp_path: Path, full_disk: list[int]
) -> None:
    run_dir = tmp_path / "run"
    full_disk[0] = 5  # four files of step 3, and one of step 6
    message = refusal("train", options(data, run_dir, "--amp", "--quiet"))
    assert "No space left on device" in message
    assert f"--resume {run_dir}" in message
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == ["step-00000003"]
    assert weights(run_dir, 3) == weights(finished.run_dir, 3)
    full_disk[0] = 4  # some space was freed
    train(["--resume", run_dir, "--quiet"])
    assert weights(run_dir, STEPS) == weights(finished.run_dir, STEPS)


def test_a_target_image_that_cannot_be_read_is_named_before_the_first_step(
    finished: Finished, own_data: Path, tmp_path: Path
) -> None:
    """The statistics of the target are taken of all of them: nothing is trained and lost."""
    path = own_data / "target" / "images" / "train" / "t5.png"
    whole = path.read_bytes()
    cut(path, 0.6)
    words = options(own_data, tmp_path / "run", "--amp", "--quiet", "--data.no-check")
    assert str(path) in refusal("train", words)
    assert not (tmp_path / "run").exists()
    path.write_bytes(whole)
    train(words)
    assert weights(tmp_path / "run", STEPS) == weights(finished.run_dir, STEPS)


def test_an_image_that_breaks_in_the_middle_is_named_after_a_checkpoint(
    finished: Finished, own_data: Path, tmp_path: Path
) -> None:
    path = own_data / "source" / "images" / "train" / "s1.jpg"
    whole = path.read_bytes()
    cut(path, 0.6)
    run_dir = tmp_path / "run"
    words = options(own_data, run_dir, "--amp", "--quiet", "--data.no-check", "--log.checkpoint-every", "0")
    message = refusal("train", words)
    assert str(path) in message
    assert f"--resume {run_dir}" in message
    (checkpoint,) = (run_dir / "checkpoints").iterdir()
    assert metrics(run_dir).count("\n") == int(checkpoint.name.removeprefix("step-"))
    path.write_bytes(whole)
    train(["--resume", run_dir, "--quiet"])
    assert weights(run_dir, STEPS) == weights(finished.run_dir, STEPS)
