"""What a user can get wrong: each mistake ends with one line that names it and says what to do, and exit status 2."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_runs
from PIL import Image
from small_runs import STEPS, TRAIN_IMAGES, Finished, metrics, one_line, options, refusal, start, train, weights

import iidm.engine.checkpoint
import iidm.train
from iidm.types import StepOutput, TrainBatch


@pytest.fixture
def own_data(data: Path, tmp_path: Path) -> Path:
    """A copy of the data that a test may damage."""
    return Path(shutil.copytree(data, tmp_path / "data"))


def cut(path: Path, share: float = 0.5) -> Path:
    """Cut a file off, as a full disk or a broken download does."""
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


def refused(data: Path, run_dir: Path, *more: str) -> str:
    """The message of a run that must not start: it leaves no folder behind."""
    message = refusal("train", options(data, run_dir, *more))
    assert not run_dir.exists()
    return message


# The data


def test_a_source_folder_that_is_not_there(data: Path, tmp_path: Path) -> None:
    message = refused(data, tmp_path / "run", "--source-root", str(tmp_path / "nowhere"))
    assert str(tmp_path / "nowhere") in message
    assert "does not exist" in message


def test_a_source_folder_that_is_not_given(data: Path, tmp_path: Path) -> None:
    message = refusal("train", options(data, tmp_path / "run", roots=["target"]))
    assert "--source-root" in message


def test_a_folder_without_images(own_data: Path, tmp_path: Path) -> None:
    folder = own_data / "source" / "images" / "train"
    for path in folder.iterdir():
        path.unlink()
    message = refused(own_data, tmp_path / "run")
    assert str(folder) in message
    assert "*.png" in message and "*.jpg" in message


def test_an_image_without_a_label(own_data: Path, tmp_path: Path) -> None:
    folder = own_data / "source" / "labels" / "train"
    (folder / "s4.png").unlink()
    message = refused(own_data, tmp_path / "run")
    assert f"1 of {TRAIN_IMAGES} images" in message
    assert str(folder) in message
    assert "s4" in message


def test_a_label_of_another_size_than_its_image(own_data: Path, tmp_path: Path) -> None:
    label = own_data / "source" / "labels" / "train" / "s2.png"
    Image.fromarray(np.zeros((60, 96), np.uint8)).save(label)
    message = refused(own_data, tmp_path / "run")
    assert f"label {label} is 60x96 (HxW)" in message
    assert "s2.jpg is 64x96 (HxW)" in message


def test_a_label_with_ids_that_no_class_has(own_data: Path, tmp_path: Path) -> None:
    label = own_data / "target" / "labels" / "val" / "v1.png"
    ids = np.zeros((64, 96), np.uint8)
    ids[0, :2] = 7, 33
    Image.fromarray(ids).save(label)
    message = refused(own_data, tmp_path / "run")
    assert str(label) in message
    assert "7" in message and "33" in message
    assert "id map" in message


@pytest.mark.parametrize(
    "file", ["source/images/train/s3.jpg", "target/images/train/t3.png", "target/labels/val/v0.png"]
)
def test_a_file_that_is_cut_off_is_found_before_the_first_step(file: str, own_data: Path, tmp_path: Path) -> None:
    damaged = cut(own_data / file)
    message = refused(own_data, tmp_path / "run")
    assert str(damaged) in message
    assert "cut off" in message
    assert "again" in message  # copy or download it again


def test_a_label_that_is_a_photograph(own_data: Path, tmp_path: Path) -> None:
    label = own_data / "source" / "labels" / "train" / "s0.png"
    Image.fromarray(small_runs.draw(0)[0]).save(label)
    assert str(label) in refused(own_data, tmp_path / "run")


def test_more_labeled_images_than_there_are(data: Path, tmp_path: Path) -> None:
    message = refused(data, tmp_path / "run", "--data.labeled-count", "100")
    assert "--data.labeled-count is 100" in message
    assert f"there are {TRAIN_IMAGES}" in message


def test_a_split_file_with_a_name_that_no_image_has(data: Path, tmp_path: Path) -> None:
    split = tmp_path / "labeled.txt"
    split.write_text("t1\nt11\n")
    message = refused(data, tmp_path / "run", "--data.labeled-list", str(split))
    assert f"{split}, line 2" in message
    assert "'t11'" in message and "nearest is 't1'" in message


def test_source_and_target_of_other_classes(data: Path, tmp_path: Path) -> None:
    message = refused(data, tmp_path / "run", "--data.source.class-names", "ground", "wall", "water")
    assert "water" in message and "sky" in message


def test_weights_that_are_not_there(data: Path, tmp_path: Path) -> None:
    message = refused(data, tmp_path / "run", "--model.weights", str(tmp_path / "weights.pth"))
    assert str(tmp_path / "weights.pth") in message


# The command line


@pytest.mark.parametrize(
    ("words", "wrong", "nearest"),
    [
        (["--preset", "scene"], "'scene'", "'scenes'"),
        (["--method", "source-only"], "'source-only'", "'source_only'"),
        (["--recipe", "dafromer"], "'dafromer'", "'daformer'"),
        (["--model.backbone", "resnet19"], "'resnet19'", "resnet18"),
        (["--data.source.spec", "citscapes"], "'citscapes'", "'cityscapes'"),
    ],
)
def test_a_name_that_does_not_exist(words: list[str], wrong: str, nearest: str, data: Path, tmp_path: Path) -> None:
    given = options(data, tmp_path / "run", *words)
    if words[0] == "--data.source.spec":  # class names belong to folder data sets
        place = given.index("--data.source.class-names")
        given = given[:place] + given[place + 4 :]
    message = refusal("train", given)
    assert wrong in message
    assert nearest in message


def test_an_option_that_does_not_exist_is_answered_with_the_nearest(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        iidm.train.main(options(data, tmp_path / "run", "--data.crop-sise", "64", "64"))
    assert end.value.code not in (0, None)
    said = capsys.readouterr().err
    assert "--data.crop-sise" in said
    assert "--data.crop-size" in said


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--max-steps", "0"),
        ("--data.crop-size", "8 8"),
        ("--loss.inter-weight", "-1"),
        ("--optim.lr", "0"),
        ("--teacher.ema-decay", "1.5"),
        ("--log.every", "0"),
    ],
)
def test_a_value_out_of_range_names_its_option(option: str, value: str, data: Path, tmp_path: Path) -> None:
    assert option in refused(data, tmp_path / "run", option, *value.split())


def test_a_config_file_with_an_unknown_field(finished: Finished, tmp_path: Path) -> None:
    values = json.loads((finished.run_dir / "config.json").read_text())
    values["data"]["crop_sise"] = values["data"].pop("crop_size")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values))
    message = refusal("train", ["--config", path, "--run-dir", tmp_path / "run"])
    assert str(path) in message
    assert "crop_sise" in message and "crop_size" in message


def test_a_mistake_is_one_line_for_a_process_too(data: Path, tmp_path: Path) -> None:
    process = start("train", options(data, tmp_path / "run", "--source-root", str(tmp_path / "nowhere")))
    out, err = process.communicate(timeout=600)
    assert process.returncode == 2
    assert out == ""
    assert str(tmp_path / "nowhere") in one_line(err)


# Folders of runs


def test_a_folder_that_holds_a_run_already_is_left_alone(finished: Finished, data: Path) -> None:
    before = metrics(finished.run_dir)
    message = refusal("train", options(data, finished.run_dir))
    assert f"{finished.run_dir} holds a run already" in message
    assert f"--resume {finished.run_dir}" in message
    assert metrics(finished.run_dir) == before


def test_resuming_what_is_no_run(tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere") in refusal("train", ["--resume", tmp_path / "nowhere"])
    assert str(tmp_path) in refusal("train", ["--resume", tmp_path])


def test_evaluating_and_predicting_before_the_first_checkpoint(finished: Finished, data: Path, tmp_path: Path) -> None:
    shutil.copy(finished.run_dir / "config.json", tmp_path)
    for program, more in (("evaluate", []), ("predict", [data / "target" / "images" / "val", "--out", tmp_path / "o"])):
        message = refusal(program, [tmp_path, *more])
        assert f"{tmp_path} has no checkpoint" in message
        assert "--resume" in message


def test_weights_of_another_architecture_say_what_they_are(finished: Finished, data: Path, tmp_path: Path) -> None:
    run_dir = Path(shutil.copytree(finished.run_dir, tmp_path / "run"))
    config = run_dir / "config.json"
    config.write_text(config.read_text().replace(f'"{small_runs.BACKBONE}"', '"resnet50"'))
    calls = (
        ("train", ["--resume", run_dir, "--quiet"]),
        ("evaluate", [run_dir]),
        ("predict", [run_dir, data / "target" / "images" / "val", "--out", tmp_path / "out"]),
    )
    for program, words in calls:
        message = refusal(program, words)
        assert str(run_dir / "checkpoints" / f"step-{STEPS:08d}") in message
        assert small_runs.BACKBONE in message
    assert metrics(run_dir) == metrics(finished.run_dir)


# In the middle of training


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
