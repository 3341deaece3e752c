"""python -m iidm.select on a tiny run."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_runs
from PIL import Image
from small_runs import Finished, Said

import iidm.select
from iidm.cli import parse_config, read_config, write_config
from iidm.config import Config
from iidm.data.preparation.plan import make_plan, prepare
from iidm.selection.advice import next_round, where_labels_go
from iidm.types import UserError


def select(*words: str | Path) -> Said:
    """iidm.select in this process."""
    return small_runs.call(iidm.select.main, words)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def scores(out: Path) -> dict[str, dict[str, str]]:
    with (out / "scores.csv").open() as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def command(said: Said) -> list[str]:
    """The words of the training that it tells last."""
    words = shlex.split(said.out.splitlines()[-1])
    assert words[:2] == ["iidm", "train"]
    return words[2:]


@pytest.fixture
def own(finished: Finished, data: Path, tmp_path: Path) -> Path:
    """A copy of the run on a copy of the data, so that both can be changed."""
    shutil.copytree(data, tmp_path / "data")
    run = tmp_path / "run"
    shutil.copytree(finished.run_dir, run)
    config = read_config(run / "config.json")
    roots = {f"{name}_root": tmp_path / "data" / name for name in ("source", "target")}
    write_config(replace(config, **roots), run / "config.json")  # type: ignore[arg-type]
    return run


def change(run: Path, **data: object) -> Config:
    config = read_config(run / "config.json")
    config = replace(config, data=replace(config.data, **data))  # type: ignore[arg-type]
    write_config(config, run / "config.json")
    return config


def test_the_choice_is_whole_and_its_command_names_it(finished: Finished, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = select(finished.run_dir, "--count", "3", "--out", out)
    old, new, labeled = (
        lines(finished.run_dir / "splits" / "labeled.txt"),
        lines(out / "new.txt"),
        lines(out / "labeled.txt"),
    )
    assert len(set(new)) == 3 and not set(new) & set(old)
    assert labeled == sorted([*old, *new])
    found = scores(out)
    assert len(found) == small_runs.TRAIN_IMAGES
    assert [name for name in sorted(found, key=lambda n: found[n]["rank"] or "9") if found[name]["rank"]] == new
    assert {name for name, row in found.items() if row["labeled"] == "1"} == set(old)
    assert all(0 < float(row["uncertainty"]) < 1 and 0 <= float(row["disagreement"]) <= 1 for row in found.values())
    copies = sorted(path.name for path in (out / "images").iterdir())
    assert copies == sorted(f"{name}.png" for name in new)
    coco = json.loads((out / "annotations" / "annotations.json").read_text())
    assert sorted(image["file_name"] for image in coco["images"]) == copies
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.width > 4 * 384
    share = [int(value) for value in re.findall(r"(\d+)%", said.out)]
    assert len(share) == 2 and share[0] < share[1]
    config, _ = parse_config(command(said))  # tests/entry/test_docs.py trains with it
    assert config.data.labeled_list == out / "labeled.txt" and config.model.weights == str(finished.run_dir)


@pytest.mark.parametrize("name", ["background", "void"])
def test_what_pixels_without_an_outline_are_has_none(name: str, own: Path, tmp_path: Path) -> None:
    config = read_config(own / "config.json")
    change(own, target=replace(config.data.target, class_names=(name, *small_runs.CLASSES[1:])))
    said = select(own, "--count", "4", "--out", tmp_path / "out")
    coco = json.loads((tmp_path / "out" / "annotations" / "annotations.json").read_text())
    assert [category["name"] for category in coco["categories"]][0] == name
    by_image = [{a["category_id"] for a in coco["annotations"] if a["image_id"] == i["id"]} for i in coco["images"]]
    assert any(len(classes) > 1 for classes in by_image) and any(1 in classes for classes in by_image) == (
        name == "void"
    ), "training reads pixels without an outline as background, and as ignored where no class is called so"
    assert (f"no outline there is {name!r}, as training reads it" in said.out) == (name == "background")


def test_the_same_run_says_the_same_again(finished: Finished, tmp_path: Path) -> None:
    for name in "ab":
        select(finished.run_dir, "--count", "4", "--out", tmp_path / name, "--annotations", "none")
    for file in ("new.txt", "labeled.txt", "scores.csv", "sheet.png"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_strategies_without_networks_need_no_checkpoint(own: Path, tmp_path: Path) -> None:
    shutil.rmtree(own / "checkpoints")
    chosen = {}
    for name, more in (("even", ()), ("random", ()), ("other", ("--seed", "1"))):
        strategy = "random" if name == "other" else name
        select(own, "--count", "2", "--strategy", strategy, "--out", tmp_path / name, *more)
        chosen[name] = lines(tmp_path / name / "new.txt")
        assert (tmp_path / name / "sheet.png").is_file() and not (tmp_path / name / "annotations").exists()
    old = lines(own / "splits" / "labeled.txt")
    free = [f"t{i}" for i in range(small_runs.TRAIN_IMAGES) if f"t{i}" not in old]
    assert chosen["even"] == [free[1], free[3]]
    assert chosen["random"] != chosen["other"] and set(chosen["random"] + chosen["other"]) <= set(free)


def test_a_choice_that_is_broken_off_leaves_its_place_free(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "next"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    words = (own, "--count", "2", "--strategy", "even", "--out", out)

    def stopped(*_: object) -> None:
        assert {"labeled.txt", "scores.csv", "sheet.png", "images"} <= {path.name for path in out.iterdir()}
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("iidm.selection.files.write_new", stopped)
        with pytest.raises(KeyboardInterrupt):
            select(*words)
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    select(*words)
    assert len(lines(out / "new.txt")) == 2


def test_uncertainty_takes_the_highest_scores(finished: Finished, tmp_path: Path) -> None:
    out = tmp_path / "out"
    select(finished.run_dir, "--count", "2", "--strategy", "uncertainty", "--out", out)
    free = {name: float(row["score"]) for name, row in scores(out).items() if row["labeled"] == "0"}
    assert lines(out / "new.txt") == sorted(free, key=lambda name: -free[name])[:2]


def test_images_without_labels_are_told_where_theirs_go(own: Path, tmp_path: Path) -> None:
    labels = tmp_path / "data" / "target" / "labels" / "train"
    old = lines(own / "splits" / "labeled.txt")
    for file in labels.iterdir():
        if file.stem not in old:
            file.unlink()
    said = select(own, "--count", "2")  # in its own folder of the run
    assert "1. Label them" in said.out and f"Put them into {labels}" in said.out.replace("{split}", "train")
    assert "PNG of ids" in said.out
    assert (own / "label-next" / "new.txt").is_file()


def test_a_damaged_image_is_named_and_left_aside(own: Path, tmp_path: Path) -> None:
    names = [f"t{i}" for i in range(small_runs.TRAIN_IMAGES)]
    free = [name for name in names if name not in lines(own / "splits" / "labeled.txt")]
    (tmp_path / "data" / "target" / "images" / "train" / f"{free[1]}.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    said = select(own, "--count", "3", "--out", tmp_path / "out")
    assert f"{free[1]}.png" in said.err and "left aside: 1 damaged image" in said.out
    assert sorted(lines(tmp_path / "out" / "new.txt")) == [free[0], free[2], free[3]]
    assert scores(tmp_path / "out")[free[1]]["score"] == ""
    for number, strategy in enumerate(("select", "even")):
        with pytest.raises(UserError, match="only 3 of the images can be read"):
            select(own, "--count", "4", "--out", tmp_path / f"more{number}", "--strategy", strategy)
    # Which opens the chosen ones alone, of four the second and the last: others take the place of a damaged one.
    said = select(own, "--count", "2", "--out", tmp_path / "even", "--strategy", "even")
    assert f"{free[1]}.png" in said.err and "left aside: 1 damaged image" in said.out
    assert lines(tmp_path / "even" / "new.txt") == [free[0], free[3]]


def test_images_of_another_folder_can_be_chosen(own: Path, tmp_path: Path) -> None:
    for i in range(4):
        (tmp_path / "new" / "drive").mkdir(parents=True, exist_ok=True)
        Image.fromarray(small_runs.draw(300 + i)[0]).save(tmp_path / "new" / "drive" / f"n{i}.png")
    inside = tmp_path / "data" / "target" / "images" / "train"
    said = select(own, "--count", "5", "--images", tmp_path / "new", inside, "--out", tmp_path / "out")
    found = scores(tmp_path / "out")
    assert set(found) == {f"drive_n{i}" for i in range(4)} | {f"t{i}" for i in range(small_runs.TRAIN_IMAGES)}
    assert "2 images of those named are labeled already" in said.err
    outside = sum(name.startswith("drive") for name in lines(tmp_path / "out" / "new.txt"))
    assert f"{outside} image" in said.out and re.search("lies? outside .*: copy (it|them) there", said.out)
    validating = tmp_path / "data" / "target" / "images" / "val"
    said = select(own, "--count", "4", "--images", tmp_path / "new", validating, "--out", tmp_path / "held-out")
    assert f"{small_runs.VAL_IMAGES} images of those named validate the run, and are not chosen" in said.err
    assert all(name.startswith("drive_n") for name in lines(tmp_path / "held-out" / "new.txt"))
    Image.fromarray(small_runs.draw(400)[0]).save(tmp_path / "new" / "t0.png")
    with pytest.raises(UserError, match="Rename it"):
        select(own, "--count", "1", "--images", tmp_path / "new", "--out", tmp_path / "again")


def test_images_of_a_prepared_folder_have_no_copies_and_that_is_told(own: Path, data: Path, tmp_path: Path) -> None:
    plan = make_plan(read_config(own / "config.json").data.target, data / "target", tmp_path / "prepared")
    prepare(plan, jobs=1)
    said = select(own, "--count", "2", "--strategy", "even", "--target-root", tmp_path / "prepared")
    assert "no copies and no annotations: a prepared folder's images" in said.out
    assert not (own / "label-next" / "images").exists() and len(lines(own / "label-next" / "new.txt")) == 2


def test_a_choice_among_the_images_is_none_of_them(own: Path, tmp_path: Path) -> None:
    photos = tmp_path / "data" / "target" / "images" / "train"
    select(own, "--count", "2", "--out", photos / "next")
    said = select(own, "--count", "2", "--out", tmp_path / "again")
    assert len(scores(tmp_path / "again")) == small_runs.TRAIN_IMAGES
    assert "1 choice of iidm.select left aside" in said.err


def test_mistakes_are_one_line(own: Path, tmp_path: Path) -> None:
    for words, message in (
        ((own, "--count", "5"), "there are 4 images to choose from. Give at most 4"),
        ((own, "--count", "0"), "--count must be at least 1"),
        ((own, "--count", "1", "--strategy", "random", "--seed", "-1"), "--seed must be 0 or more"),
        ((tmp_path, "--count", "1"), "is no run"),
        ((tmp_path, "--count", "1", "--strategy", "even"), "is no run"),
        ((own, "--count", "1", "--images", tmp_path / "nowhere"), "There is no image"),
        ((own, "--count", "1", "--target-root", tmp_path / "nowhere"), "does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            select(*words)
    assert not (own / "label-next").exists()
    select(own, "--count", "1")
    with pytest.raises(UserError, match="holds a choice already"):
        select(own, "--count", "1")
    for name in ("images", "annotations", "labeled.txt"):  # of the user, or of a choice that was broken off
        out = tmp_path / f"holds {name}"
        out.mkdir()
        (own / "label-next" / name).rename(out / name)
        with pytest.raises(UserError, match=f"holds {name} and no whole choice"):
            select(own, "--count", "1", "--out", out)
        assert [path.name for path in out.iterdir()] == [name]
    change(own, labeled_count=None)
    with pytest.raises(UserError, match="All 6 training images of the target are labeled"):
        select(own, "--count", "1", "--out", tmp_path / "other")


# Advice


def test_the_next_round_validates_with_the_same_images(own: Path) -> None:
    words = next_round(change(own, val_count=2), own, Path("out/labeled.txt"))
    assert f"--data.val-list {own}/splits/val.txt" in words
    assert "--target-root /moved" in next_round(change(own), own, Path("out/labeled.txt"), Path("/moved"))
    assert "--data.val" not in next_round(change(own, val_count=None), own, Path("out/labeled.txt"))


def test_a_run_that_read_no_labels_is_told_a_method_that_does(own: Path) -> None:
    config = read_config(own / "config.json")
    without = replace(config, loss=replace(config.loss, target_weight=0.0, intra_weight=0.0))
    assert "--method iidm" in next_round(without, own, Path("labeled.txt"))
    assert "--method" not in next_round(config, own, Path("labeled.txt"))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("export/annotations.json", "Add them to /d/export/annotations.json as COCO"),
        ("export/job.xml", "Add them to /d/export/job.xml as CVAT"),
        ("labels/train", "Put them into /d/labels/train as one PNG of ids"),
        (None, "--data.target.labels PLACE"),
    ],
)
def test_where_labels_go(own: Path, labels: str | None, said: str) -> None:
    config = read_config(own / "config.json")
    config = change(own, target=replace(config.data.target, labels=labels))
    assert said in where_labels_go(config, Path("/d"), is_prepared=False)
    assert "iidm prepare" in where_labels_go(config, Path("/d"), is_prepared=True)


def test_what_networks_see_adds_up(finished: Finished) -> None:
    from iidm.cli.arguments import SelectArguments
    from iidm.data import open_training_target
    from iidm.select import load
    from iidm.selection.regions import see

    networks = load(SelectArguments(finished.run_dir, 1, device="cpu", precision="float32"))
    seen = see(networks, open_training_target(networks.config).without_labels(), 64 * 96, lambda done, total: None)
    regions = seen.regions
    area = np.bincount(regions.image, weights=regions.area)
    assert len(area) == small_runs.TRAIN_IMAGES and (area > 0.9).all() and (area < 1.001).all()
    assert (np.diff(regions.image) >= 0).all()
    assert regions.feature.shape == (len(regions.image), 128) and np.isfinite(regions.feature).all()
