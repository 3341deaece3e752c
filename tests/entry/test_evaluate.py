"""python -m iidm.evaluate: the scores of a run, on its own validation images and on others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import small_runs
import torch
from small_runs import CLASSES, VAL_IMAGES, Finished, evaluate, refusal

from iidm.engine.runtime import pick_amp_dtype


def scores(*words: str | Path) -> dict[str, Any]:
    """What --json prints."""
    found: dict[str, Any] = json.loads(evaluate([*words, "--json"]).out)
    return found


def test_the_scores_of_a_finished_run_are_those_it_ended_with(finished: Finished) -> None:
    found = scores(finished.run_dir)
    results = json.loads((finished.run_dir / "results.json").read_text())
    assert found == {key: results[key] for key in ("student", "teacher", "images")}
    for network in ("student", "teacher"):
        assert found[network].keys() == {"miou", "iou", "absent", "pixel_accuracy"}
        assert list(found[network]["iou"]) == list(CLASSES)


def test_precision_is_the_runs_own_unless_another_is_asked_for(finished: Finished) -> None:
    assert scores(finished.run_dir, "--precision", "amp") == scores(finished.run_dir), "the run was trained with --amp"
    half = pick_amp_dtype(torch.device("cpu"), amp=True) is not None  # else --amp is float32 too
    assert (scores(finished.run_dir, "--precision", "float32") != scores(finished.run_dir)) == half


def test_the_table_shows_the_json_in_percent(finished: Finished) -> None:
    found = scores(finished.run_dir)
    lines = evaluate([finished.run_dir]).out.splitlines()
    assert str(finished.run_dir) in lines[0]
    assert f"{VAL_IMAGES} images" in lines[0]
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.split()[1:]}
    for name in CLASSES:
        assert rows[name] == [f"{100 * found[who]['iou'][name]:.1f}" for who in ("student", "teacher")]
    assert rows["mIoU"] == [f"{100 * found[who]['miou']:.1f}" for who in ("student", "teacher")]


def test_one_network_alone_has_the_scores_it_has_beside_the_other(finished: Finished) -> None:
    both = scores(finished.run_dir)
    for network in ("student", "teacher"):
        alone = scores(finished.run_dir, "--network", network)
        assert alone == {network: both[network], "images": VAL_IMAGES}
    assert both["student"] != both["teacher"]


def test_any_labeled_folder_is_scored_matched_by_name(finished: Finished, data: Path, tmp_path: Path) -> None:
    images, labels = tmp_path / "photos", tmp_path / "truth"
    for i in range(VAL_IMAGES):
        small_runs.write_pair(tmp_path / "written", "", f"v{i}", 200 + i)  # as the validation images
    shutil.move(tmp_path / "written" / "images", images)
    shutil.move(tmp_path / "written" / "labels", labels)
    shutil.copy(labels / "v0.png", labels / "of no image.png")
    assert scores(finished.run_dir, "--images", images, "--labels", labels) == scores(finished.run_dir)
    (images / "v0.png").unlink()
    fewer = scores(finished.run_dir, "--images", images, "--labels", labels)
    assert fewer["images"] == VAL_IMAGES - 1
    assert fewer["teacher"] != scores(finished.run_dir)["teacher"]


def test_an_image_without_a_label_in_another_folder_is_named(finished: Finished, data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "target" / "labels" / "val", tmp_path / "labels")
    (tmp_path / "labels" / "v1.png").unlink()
    images = data / "target" / "images" / "val"
    message = refusal("evaluate", [finished.run_dir, "--images", images, "--labels", tmp_path / "labels"])
    assert "v1" in message
    assert str(tmp_path / "labels") in message


def test_images_and_labels_go_together(finished: Finished, data: Path) -> None:
    for folder in ("images", "labels"):
        message = refusal("evaluate", [finished.run_dir, f"--{folder}", data / "target" / folder / "val"])
        assert "--images and --labels go together" in message


def test_a_folder_that_is_not_there_is_named(finished: Finished, data: Path, tmp_path: Path) -> None:
    labels = data / "target" / "labels" / "val"
    message = refusal("evaluate", [finished.run_dir, "--images", tmp_path / "nowhere", "--labels", labels])
    assert str(tmp_path / "nowhere") in message


def test_the_data_may_have_moved_since_the_run(finished: Finished, data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "target", tmp_path / "moved")
    assert scores(finished.run_dir, "--target-root", tmp_path / "moved") == scores(finished.run_dir)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    message = refusal("evaluate", [tmp_path])
    assert f"{tmp_path} is no run" in message


def test_the_windows_are_those_of_the_configuration_unless_others_are_asked_for(
    finished: Finished, tmp_path: Path
) -> None:
    words = ["--mode", "slide", "--window", "32", "48", "--stride", "20", "30"]
    slide, whole = scores(finished.run_dir, *words), scores(finished.run_dir)
    assert slide != whole
    run = tmp_path / "run"
    shutil.copytree(finished.run_dir, run)
    config = json.loads((run / "config.json").read_text())
    config["eval"] |= {"mode": "slide", "window": [32, 48], "stride": [20, 30]}
    (run / "config.json").write_text(json.dumps(config))
    assert scores(run) == slide
    assert scores(run, "--mode", "whole") == whole
    assert "windows of 32x48 every 20x30 pixels" in evaluate([run]).out


def test_one_window_over_the_whole_image_scores_as_the_whole(finished: Finished) -> None:
    found, whole = (
        scores(finished.run_dir, "--network", "teacher", *words)["teacher"]
        for words in (["--mode", "slide", "--window", "500", "500"], ["--mode", "whole"])
    )
    assert found["iou"] == pytest.approx(whole["iou"], abs=1e-3)


def test_a_window_for_whole_images_is_refused(finished: Finished) -> None:
    assert "--mode slide" in refusal("evaluate", [finished.run_dir, "--stride", "8", "8"])


def test_junk_is_left_aside_as_in_training_and_told(finished: Finished, data: Path, tmp_path: Path) -> None:
    images, labels = tmp_path / "images", tmp_path / "labels"
    for folder in (images, labels):
        shutil.copytree(data / "target" / folder.name / "val", folder)
    before = scores(finished.run_dir, "--images", images, "--labels", labels)
    for junk in ("._v0.png", "@eaDir/v0.png", ".ipynb_checkpoints/v0.png", "v9.heic"):
        (images / junk).parent.mkdir(exist_ok=True)
        (images / junk).write_bytes(b"junk")
    (images / "loop").symlink_to(".")
    said = evaluate([finished.run_dir, "--images", images, "--labels", labels, "--json"])
    assert json.loads(said.out) == before
    assert f"{images}: 1 .heic, 1 folder @eaDir, 1 hidden file, 1 hidden folder, 1 link" in said.err
