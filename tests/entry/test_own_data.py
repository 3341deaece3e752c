"""A user's own data through the entry points: without validation, TOML files and images that change."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_runs import CLASSES, Finished, Said, evaluate, options, predict, refusal, train, write_pair

from iidm.cli import read_config
from iidm.runs import change_length

QUICK = ("--max-steps", "2", "--log.checkpoint-every", "1")


def quick(data: Path, run_dir: Path, *more: str) -> list[str]:
    return options(data, run_dir, *QUICK, *more)


def test_all_that_a_run_says_is_in_its_notes(finished: Finished) -> None:
    notes = (finished.run_dir / "notes.txt").read_text().splitlines()
    said = [line for line in finished.said.err.splitlines() if not line.startswith("step ")]
    assert notes == said
    assert notes[0].startswith("folder · iidm") and any(line.startswith("labeled target: 2 images") for line in notes)


def test_a_run_without_validation_images_trains_says_so_and_shows_unlabeled_ones(data: Path, tmp_path: Path) -> None:
    target = ["--data.target.images", "images/train", "--data.target.labels", "labels/train"]
    said = train(quick(data, tmp_path / "run", *target, "--log.preview-every", "2", "--log.eval-every", "1"))
    assert "no validation images: nothing is scored" in said.err and "not scored" in said.out
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["images"] == 0 and "student" not in results
    assert sorted(path.name for path in (tmp_path / "run" / "previews").iterdir()) == [
        "step-000002-batch.png",
        "step-000002-unlabeled.png",
    ]
    with Image.open(tmp_path / "run" / "previews" / "step-000002-unlabeled.png") as picture:
        assert np.asarray(picture).std() > 10
    message = refusal("evaluate", [tmp_path / "run"])
    assert "no validation images" in message and "--images and --labels" in message
    folders = ["--images", str(data / "target/images/val"), "--labels", str(data / "target/labels/val")]
    assert "mIoU" in evaluate([tmp_path / "run", *folders]).out


def toml_words(folder: Path, data: Path, run_dir: Path) -> list[str]:
    """Words for a run whose two data sets are described by files in `folder`, by paths relative to it."""
    classes = "".join(f'[[classes]]\nname = "{name}"\n' for name in CLASSES)
    for domain in ("source", "target"):
        shutil.copytree(data / domain, folder / domain)
        text = f'images = "{domain}/images/{{split}}"\nlabels = "{domain}/labels/{{split}}"\n{classes}'
        (folder / f"{domain}.toml").write_text(text)
    words = options(data, run_dir, *QUICK, roots=())
    plain = _without(words, ("images", "labels", "class-names"))
    return [*plain, "--data.source.spec", "source.toml", "--data.target.spec", "target.toml"]


def _without(words: Sequence[str], fields: tuple[str, ...]) -> list[str]:
    kept: list[str] = []
    dropping = False
    for word in words:
        if word.startswith("--"):
            dropping = word.startswith("--data.") and word.endswith(fields)
        if not dropping:
            kept.append(word)
    return kept


@pytest.fixture(scope="module")
def described(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """A folder with two TOML files, data and a run that was started there by relative paths."""
    folder = tmp_path_factory.mktemp("described")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        said = train(toml_words(folder, data, folder / "run"))
    return folder, said


def test_a_run_of_relative_toml_files_is_used_from_any_folder(described: tuple[Path, Said], tmp_path: Path) -> None:
    folder, _ = described
    shutil.copytree(folder / "run", tmp_path / "run")
    for use in (evaluate, lambda words: train(["--resume", *words])):
        assert "mIoU" in use([tmp_path / "run"]).out
    images = folder / "target/images/val"
    assert "3 images" in predict([tmp_path / "run", images, "--out", tmp_path / "out"]).out
    again = ["--config", str(folder / "run/config.json"), "--run-dir", str(tmp_path / "again"), "--quiet"]
    assert "mIoU" in train(again).out


def test_a_presets_own_number_of_labels_is_told_as_the_presets(
    described: tuple[Path, Said], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(described[0])
    words = ["--data.target.spec", "target.toml", "--method", "target_intra", "--run-dir", str(tmp_path / "run")]
    message = refusal("train", ["--preset", "scenes", *words])
    assert "The preset scenes takes 20 labeled target images, but there are 6 labeled" in message
    assert message.strip().endswith("leave --preset out, which takes all labels, or give --data.labeled-count 0 to 6.")
    for preset in (["--preset", "scenes"], []):
        message = refusal("train", [*preset, *words, "--data.labeled-count", "7"])
        assert "--data.labeled-count is 7, but there are 6" in message and "preset" not in message
    assert not (tmp_path / "run").exists()


def test_a_toml_file_that_was_changed_after_training_changes_nothing_and_is_told(
    described: tuple[Path, Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = described
    monkeypatch.chdir(folder)
    before = evaluate(["run"])
    text = (folder / "target.toml").read_text()
    (folder / "target.toml").write_text(text.replace("wall", "x").replace("sky", "wall").replace("x", "sky"))
    try:
        after = evaluate(["run"])
    finally:
        (folder / "target.toml").write_text(text)
    assert after.out == before.out
    assert before.err == "" and "target.toml was changed since this run began" in after.err


def test_a_lengthened_run_still_knows_the_file_that_it_copied(described: tuple[Path, Said], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(described[0] / "run", run)
    before = json.loads((run / "config.json").read_text())
    change_length(replace(read_config(run / "config.json"), max_steps=99), run)
    assert json.loads((run / "config.json").read_text()) == {**before, "max_steps": 99}


def test_resuming_on_other_images_stops_unless_that_is_meant(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    run_dir = tmp_path / "run"
    train(quick(tmp_path / "data", run_dir, "--quiet"))
    write_pair(tmp_path / "data" / "target", "train", "t99", 7)
    (tmp_path / "data/source/images/train/s0.jpg").unlink()
    message = refusal("train", ["--resume", run_dir])
    assert "source lacks s0" in message and "t99" in message and "--data.accept changed" in message
    said = train(["--resume", run_dir, "--data.accept", "changed"])
    assert "mIoU" in said.out and "t99" in (run_dir / "splits" / "unlabeled.txt").read_text()
    assert "mIoU" in train(["--resume", run_dir, "--quiet"]).out
