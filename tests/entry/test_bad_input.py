"""What a user can get wrong: each mistake ends with one line that names it and says what to do, and exit status 2."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import small_runs
from PIL import Image
from small_runs import STEPS, TRAIN_IMAGES, Finished, cut, metrics, one_line, options, refusal, start

import iidm.engine.checkpoint
import iidm.train


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
