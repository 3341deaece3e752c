"""python -m iidm.train: what a run leaves behind, says, and repeats."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import small_runs
from PIL import Image
from small_runs import BACKBONE, CLASSES, STEPS, TRAIN_IMAGES, VAL_IMAGES, Finished, metrics, options, train, weights

from iidm.cli import PARSERS
from iidm.data.scenes import draw_scene
from iidm.presets import preset_config
from iidm.train import what_next

LOSSES = ("loss_total", "loss_source", "loss_target", "loss_inter", "loss_intra")


def logged(run_dir: Path, key: str) -> list[float]:
    """One number of every log point that has it."""
    return [line[key] for line in map(json.loads, metrics(run_dir).splitlines()) if key in line]


def test_a_run_writes_its_config_splits_losses_pictures_results_and_weights(finished: Finished) -> None:
    run_dir = finished.run_dir
    splits = {path.stem: path.read_text().split() for path in (run_dir / "splits").iterdir()}
    assert splits["source"] == [f"s{i}" for i in range(TRAIN_IMAGES)]
    assert splits["val"] == [f"v{i}" for i in range(VAL_IMAGES)]
    assert len(splits["labeled"]) == 2
    assert sorted(splits["labeled"] + splits["unlabeled"]) == [f"t{i}" for i in range(TRAIN_IMAGES)]
    for key in (*LOSSES, "quality", "lr"):
        assert len(logged(run_dir, key)) == STEPS
    assert all(value > 0 for key in LOSSES[:3] for value in logged(run_dir, key))
    assert len(logged(run_dir, "miou")) == 1  # after step 3; the one at the end stands in results.json
    for done in (3, 6):
        for sheet in ("batch", "validation"):
            with Image.open(run_dir / "previews" / f"step-{done:06d}-{sheet}.png") as picture:
                assert np.asarray(picture).std() > 10  # something is drawn
    with Image.open(run_dir / "curves.png") as picture:
        assert np.asarray(picture).std() > 10
    assert [path.name for path in sorted((run_dir / "checkpoints").iterdir())] == ["step-00000003", "step-00000006"]
    assert weights(run_dir, STEPS)["student"] != weights(run_dir, STEPS)["teacher"]
    assert list((run_dir / "tensorboard").glob("events*"))
    assert json.loads((run_dir / "config.json").read_text())["max_steps"] == STEPS


def test_results_hold_the_scores_of_both_networks_and_where_they_came_from(finished: Finished) -> None:
    results = json.loads((finished.run_dir / "results.json").read_text())
    for network in ("student", "teacher"):
        assert list(results[network]["iou"]) == list(CLASSES)
        assert results[network]["miou"] == pytest.approx(np.mean(list(results[network]["iou"].values())))
        assert 0 < results[network]["pixel_accuracy"] <= 1
    assert results["images"] == VAL_IMAGES
    assert results["steps"] == STEPS
    assert results["seconds"] > 0
    assert {"cpu", "threads", "torch"} <= results["machine"].keys()


def test_the_end_shows_every_class_the_miou_the_time_and_the_folder(finished: Finished) -> None:
    results = json.loads((finished.run_dir / "results.json").read_text())
    rows = {line.split()[0]: line.split()[1:] for line in finished.said.out.splitlines() if line.split()[1:]}
    for name in CLASSES:
        assert rows[name] == [f"{100 * results[who]['iou'][name]:.1f}" for who in ("student", "teacher")]
    assert rows["mIoU"] == [f"{100 * results[who]['miou']:.1f}" for who in ("student", "teacher")]
    assert "time taken" in finished.said.out
    assert f"\neverything lies in: {finished.run_dir}\n" in finished.said.out
    assert (finished.run_dir / "results.txt").read_text().strip() in finished.said.out


def test_the_last_lines_tell_what_to_look_at_next(finished: Finished) -> None:
    end = finished.said.out.splitlines()
    first, *commands = (line.split("  ")[1] for line in end[end.index("to look at next:") + 1 :])
    assert Path(first).is_file() and Path(first).name == f"step-{STEPS:06d}-validation.png"
    assert Path(commands.pop(0)) == finished.run_dir / "curves.png" and (finished.run_dir / "curves.png").is_file()
    for line in commands:
        _, name, *words = shlex.split(line)
        assert words[0] == str(finished.run_dir) and PARSERS[name](words)
    assert [line.split()[1] for line in commands] == ["report", "predict"]


def test_a_run_on_the_built_in_scenes_tells_how_data_of_ones_own_begin(tmp_path: Path) -> None:
    said = what_next(tmp_path, preset_config("scenes")).splitlines()
    assert said[0] == "to look at next:" and "iidm inspect IMAGES LABELS" in said[-1]
    assert ".png" not in "".join(said)  # there are none


def test_a_run_says_what_it_trains_on_and_how_far_it_is(finished: Finished) -> None:
    err = finished.said.err
    for fact in (
        f"source: {TRAIN_IMAGES} images",
        "labeled target: 2",
        f"validation: {VAL_IMAGES}",
        "3 classes",
        BACKBONE,
    ):
        assert fact in err
    assert f"step {STEPS}/{STEPS}" in err


def test_quiet_prints_the_table_and_nothing_else(data: Path, tmp_path: Path) -> None:
    said = train(options(data, tmp_path / "run", "--quiet", "--max-steps", "1"))
    assert said.err == ""
    table = (tmp_path / "run" / "results.txt").read_text()
    assert said.out.startswith(table)
    head, next_ = said.out.removeprefix(table).split("to look at next:\n")
    assert len(head.splitlines()) == 2 and all(line.startswith("  ") for line in next_.splitlines())


def test_memory_is_returned_after_what_no_step_does(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once after an evaluation with its pictures, once after a checkpoint; not after steps."""
    found: list[list[float]] = []
    monkeypatch.setattr(
        "iidm.training.return_freed_memory", lambda: found.append(logged(tmp_path / "run", "loss_total"))
    )
    words = "--log.eval-every 2 --log.preview-every 2 --log.checkpoint-every 0 --max-steps 3 --quiet".split()
    train(options(data, tmp_path / "run", *words))
    assert [len(losses) for losses in found] == [2, 3]


def test_the_config_of_a_run_runs_again_to_the_same_losses_and_weights(finished: Finished, tmp_path: Path) -> None:
    train(["--config", finished.run_dir / "config.json", "--run-dir", tmp_path / "again", "--quiet"])
    assert metrics(tmp_path / "again") == metrics(finished.run_dir)
    assert weights(tmp_path / "again", STEPS) == weights(finished.run_dir, STEPS)
    ours, theirs = ((d / "config.json").read_text() for d in (tmp_path / "again", finished.run_dir))
    assert json.loads(ours) == {**json.loads(theirs), "quiet": True}


def test_another_seed_gives_other_losses(finished: Finished, tmp_path: Path) -> None:
    config = finished.run_dir / "config.json"
    train(["--config", config, "--run-dir", tmp_path / "other", "--quiet", "--seed", "1", "--max-steps", "1"])
    assert logged(tmp_path / "other", "loss_total")[0] != logged(finished.run_dir, "loss_total")[0]


@pytest.mark.parametrize(
    ("words", "folders", "on"),
    [
        ("--method source_only", ("source", "val"), {"loss_source"}),
        ("--method target_only", ("labeled", "val"), {"loss_target"}),
        ("--method source_target", ("source", "labeled", "val"), {"loss_source", "loss_target"}),
        ("--loss.target-weight 0 --loss.intra-weight 0", ("source", "unlabeled", "val"), {"loss_source", "loss_inter"}),
        (
            "--loss.source-weight 0 --loss.inter-weight 0",
            ("labeled", "unlabeled", "val"),
            {"loss_target", "loss_intra"},
        ),
        ("--mixing.strategy two-xu-two-streams", ("source", "labeled", "unlabeled", "val"), set(LOSSES[1:])),
    ],
)
def test_a_loss_that_is_off_needs_no_images(words: str, folders: tuple[str, ...], on: set[str], tmp_path: Path) -> None:
    for i in range(2):
        if "source" in folders:
            small_runs.write_pair(tmp_path / "source", "train", f"s{i}", i)
        if "labeled" in folders:
            small_runs.write_pair(tmp_path / "target", "train", f"t{i}", 10 + i)
        small_runs.write_pair(tmp_path / "target", "val", f"v{i}", 30 + i)
    if "unlabeled" in folders:
        for i in range(2):
            path = tmp_path / "target" / "images" / "train" / f"u{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(small_runs.draw(20 + i)[0]).save(path)
    roots = [root for root in ("source", "target") if (tmp_path / root).is_dir()]
    run_dir = tmp_path / "run"
    train(options(tmp_path, run_dir, "--quiet", "--max-steps", "2", *words.split(), roots=roots))
    assert {path.stem for path in (run_dir / "splits").iterdir()} == set(folders)
    for key in LOSSES[1:]:
        assert any(logged(run_dir, key)) == (key in on or key == "loss_total"), key
    assert (run_dir / "results.json").exists()


def test_the_first_preset_trains_on_scenes_of_the_users_own_folder(tmp_path: Path) -> None:
    for domain, split, count in (("rendered", "train", 2), ("camera", "train", 3), ("camera", "val", 1)):
        for i in range(count):
            for kind, array in zip(("images", "labels"), draw_scene(domain, 3, i, (64, 128)), strict=True):
                path = tmp_path / domain / kind / split / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    words = ["--source-root", tmp_path, "--target-root", tmp_path, "--run-dir", tmp_path / "run", "--quiet"]
    words += "--data.labeled-count 1 --data.crop-size 64 128 --max-steps 2 --log.every 1".split()
    said = train(
        [
            *words,
            "--data.rare-class-min-px",
            "20",
            "--data.rare-class-min-crop-px",
            "10",
            "--data.accept",
            "missing-class",
        ]
    )
    assert len(logged(tmp_path / "run", "loss_total")) == 2
    assert "traffic light" in said.out


def test_a_run_without_a_name_gets_one_of_its_own(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = options(data, tmp_path / "unused", "--quiet", "--max-steps", "1")
    place = words.index("--run-dir")
    train([*words[:place], *words[place + 2 :]])
    (run_dir,) = (tmp_path / "runs").iterdir()
    assert run_dir.name.startswith("folder-iidm-")
    assert (run_dir / "results.json").exists()
