"""`iidm inspect` as a user runs it: what it says, what it writes, and that its command trains."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import small_runs
from PIL import Image

import iidm.inspect
from iidm.config import DatasetConfig
from iidm.data.datasets.dataset import open_dataset
from iidm.types import UserError


def inspect(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    iidm.inspect.main([str(word) for word in words])
    return capsys.readouterr().out


def camera(root: Path, labeled: int = 4, unlabeled: int = 3, *, seed: int = 0) -> Path:
    """root/images and root/labels without splits, labels of the ids 0 to 2 and 255."""
    for i in range(labeled + unlabeled):
        small_runs.write_pair(root, ".", f"t{i}", seed + i)
        if i >= labeled:
            (root / "labels" / f"t{i}.png").unlink()
    return root


def test_it_tells_what_is_there_and_how_to_write_it_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = camera(tmp_path / "my camera")
    said = inspect(capsys, root)
    assert "7 (PNG), 64x96 (HxW)" in said and "4 of 7 images have one: 8-bit ids" in said
    assert re.search(r"\d+\.\d\d%      2  class 2", said) and re.search(r"\d\.\d\d%    255  id 255  \(ignored\)", said)
    assert f"iidm inspect '{root}' --write FILE.toml" in said
    assert not list(tmp_path.glob("*.toml")), "without --write nothing is written"


def test_it_writes_a_description_and_a_sheet_of_images_with_their_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = camera(tmp_path / "camera")
    said = inspect(capsys, root, "--write", tmp_path / "camera.toml")
    assert "training reads" not in said and "cannot read" not in said
    dataset = open_dataset(DatasetConfig(spec=str(tmp_path / "camera.toml")), None, "train", labels="some")
    assert len(dataset.samples) == 7 and sum(s.label is not None for s in dataset.samples) == 4
    with Image.open(tmp_path / "camera.png") as sheet:
        colors = {color for _, color in sheet.getcolors(1 << 20)}
    assert set(dataset.classes.palette) <= colors, "the sheet shows every class"


def test_of_labels_that_cannot_be_drawn_two_are_told_and_the_others_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = camera(tmp_path / "camera")
    for path in (root / "labels").iterdir():
        with Image.open(path) as label:
            colored = np.asarray(label)[..., None] * np.uint8([90, 60, 30]) + np.uint8(9)
        Image.fromarray(colored).resize((80, 60)).resize((96, 64)).save(path)  # smoothed
    said = inspect(capsys, root, "--write", tmp_path / "camera.toml")
    told = [line for line in said.splitlines() if line.startswith("  not drawn: ")]
    assert len(told) == 3 and told[-1] == "  not drawn: 2 more"


def test_existing_files_are_kept_unless_forced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = camera(tmp_path / "camera")
    for name in ("a.toml", "b.png"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(UserError, match=r"exists.*--force"):
            inspect(capsys, root, "--write", tmp_path / Path(name).with_suffix(".toml"))
        assert (tmp_path / name).read_text() == "mine"
    inspect(capsys, root, "--write", tmp_path / "a.toml", "--force")
    assert "[[classes]]" in (tmp_path / "a.toml").read_text()


def test_two_data_sets_are_source_and_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = camera(tmp_path / "old", 5, 0), camera(tmp_path / "new", 3, 4, seed=50)
    with pytest.raises(UserError, match="two data sets.*two files"):
        inspect(capsys, old, new, "--write", tmp_path / "one.toml")
    said = inspect(capsys, old, new, "--write", tmp_path / "old.toml", tmp_path / "new.toml")
    command = shlex.split(next(line for line in said.splitlines() if line.startswith("Train on it:")))
    assert command[command.index("--data.source.spec") + 1] == str(tmp_path / "old.toml")
    assert command[command.index("--data.target.spec") + 1] == str(tmp_path / "new.toml")
    assert command[command.index("--method") + 1] == "iidm"


def test_a_target_without_labels_takes_the_classes_of_the_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = camera(tmp_path / "old", 5, 0), camera(tmp_path / "new", 0, 4, seed=50)
    (new / "labels").rmdir()
    said = inspect(capsys, old, new, "--write", tmp_path / "old.toml", tmp_path / "new.toml")
    opened = [
        open_dataset(DatasetConfig(spec=str(tmp_path / name)), None, "train", labels="optional")
        for name in ("old.toml", "new.toml")
    ]
    assert opened[0].classes.names == opened[1].classes.names == ("class 0", "class 1", "class 2")
    assert " --method dacs " in said


def test_images_without_any_label_are_told_and_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = camera(tmp_path / "camera", 0, 3)
    (root / "labels").rmdir()
    said = inspect(capsys, root)
    assert "labels   none were found" in said and "--write" not in said
    assert "To train, labels are needed" in said and "COCO .json" in said
    with pytest.raises(UserError, match="without labels there are no classes"):
        inspect(capsys, root, "--write", tmp_path / "camera.toml")
    assert not (tmp_path / "camera.toml").exists()


def test_names_that_are_no_unicode_are_shown_with_escapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = camera(tmp_path / "camera", 2, 0)
    (root / "labels" / os.fsdecode(b"stray\xff.png")).write_bytes((root / "labels" / "t0.png").read_bytes())
    assert r"1 label has no image and is not read: stray\udcff" in inspect(capsys, root)


def test_labels_of_another_size_are_shown_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = camera(tmp_path / "camera", 2, 0)
    Image.fromarray(np.tile(np.arange(3, dtype=np.uint8), (50, 30))).save(root / "labels" / "t0.png")
    said = inspect(capsys, root, "--write", tmp_path / "camera.toml")
    assert (
        re.search(r"label .*t0\.png is 50x90 \(HxW\), but its image .* is 64x96", said)
        and (tmp_path / "camera.png").exists()
    )


def test_a_list_of_the_images_that_validate_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As VOC has them; a list of all labeled images, or of something else, is none."""
    root = camera(tmp_path / "camera")
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for name, lines in (("val", "t1\nt2\n"), ("trainval", "t0\nt1\nt2\nt3\n"), ("val_boxes", "t1 0 0 5 5\n")):
        (lists / f"{name}.txt").write_text(lines)
    said = inspect(capsys, root, "--write", tmp_path / "camera.toml")
    command = shlex.split(next(line for line in said.splitlines() if line.startswith("Train on it:")))
    at = command.index("--data.val-count")
    assert command[at : at + 4] == ["--data.val-count", "2", "--data.val-list", str(lists / "val.txt")]
    assert "--data.val-list names 2 of the 4 labeled images" in said and "left aside: 2 .txt" in said
    assert f"--data.val-count 2 --data.val-list {lists / 'val.txt'}" in (tmp_path / "camera.toml").read_text()


def test_what_is_in_doubt_comes_before_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = camera(tmp_path / "camera")
    assert "in doubt" not in inspect(capsys, root, "--write", tmp_path / "a.toml")
    (root / "images" / "broken.png").write_bytes(b"no picture")
    said = inspect(capsys, root, "--write", tmp_path / "b.toml")
    assert said.index("  doubt ") < said.index("First:          look at what is in doubt") < said.index("Train on it:")


@pytest.mark.parametrize("names", [("source", "target"), ("target",)], ids=" ".join)
def test_its_command_trains(names: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = small_runs.write_data(tmp_path / "data")
    files = [tmp_path / f"{name}.toml" for name in names]
    said = inspect(capsys, *(data / name for name in names), "--write", *files)
    command = shlex.split(next(line for line in said.splitlines() if line.startswith("Train on it:")))
    words = command[command.index("train") + 1 :]
    assert "--data.val-count" not in words, "the target has a split to validate"
    assert words[-3:] == ["--data.crop-size", *map(str, small_runs.SIZE)], "the usual crop would be padded"
    small = small_runs.options(tmp_path, tmp_path / "run", "--max-steps", "1", "--data.no-rare-class-sampling")
    kept = small[small.index("--data.labeled-count") + 2 :]  # sizes of a small run, without folders and labels
    small_runs.train([*words, "--run-dir", str(tmp_path / "run"), *kept, "--log.checkpoint-every", "0"])
    assert (tmp_path / "run" / "config.json").exists()


CRACKS = Path(os.environ.get("IIDM_TEST_DATA", "nowhere")) / "uav-crack"


@pytest.mark.skipif(not CRACKS.is_dir(), reason="IIDM_TEST_DATA names no folder with the drone images")
def test_the_drone_images_of_cracks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = inspect(capsys, CRACKS, "--write", tmp_path / "crack.toml")
    assert "train 189 (189 labeled), val 63 (63 labeled), test 63 (63 labeled)" in said
    assert "test: 63 images are left aside" in said and "cannot read" not in said and "training reads" not in said
    dataset = open_dataset(DatasetConfig(spec=str(tmp_path / "crack.toml")), None, "val")
    assert dataset.classes.names == ("background", "foreground") and len(dataset.samples) == 63
