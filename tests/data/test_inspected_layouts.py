"""Which pictures are images and which their labels, in folders as people have them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import make_datasets as make
import numpy as np
import pytest
from inspected_folders import KEYS, counts, described, mask, opened, parallel, photo, write

from iidm.config import DatasetConfig
from iidm.data.datasets.dataset import open_dataset
from iidm.data.inspection.files import abstract, find_files, tails
from iidm.data.inspection.report import group_folders, inspect_folders
from iidm.data.labels.palettes import PALETTES
from iidm.types import UserError


def split_first(root: Path) -> None:
    for split, count in (("training", 4), ("validation", 2)):
        for i in range(count):
            photo(root / split / "img" / f"{i}.jpg", i)
            mask(root / split / "masks" / f"{i}.png", (0, 1, 2))


def fused(root: Path) -> None:
    for split, count in (("train", 4), ("val", 2)):
        for i in range(count):
            photo(root / split / f"{i}.png", i)
            mask(root / f"{split}annot" / f"{i}.png", (0, 1, 2))


def words_with_split(root: Path) -> None:
    for split, count in (("train", 4), ("test", 2)):
        for i in range(count):
            photo(root / f"{split}_images" / f"{i}.jpg", i)
            mask(root / f"{split}_masks" / f"{i}_label.png", (0, 1, 2))


def years(root: Path) -> None:
    for split, count in (("train", 4), ("val", 2)):
        for i in range(count):
            photo(root / f"{split}2017" / f"{i}.jpg", i)
            mask(root / "annotations" / f"{split}2017" / f"{i}.png", (0, 1, 2))


def beside(root: Path) -> None:
    for split, count in (("train", 4), ("val", 2)):
        for i in range(count):
            photo(root / split / f"p{i}.jpg", i)
            mask(root / split / f"p{i}_mask.png", (0, 1, 2))


def suffixes(root: Path) -> None:
    for split, count in (("train", 4), ("val", 2)):
        for i in range(count):
            photo(root / "camera" / split / f"drive_{i:03d}_rgb.png", i)
            mask(root / "truth" / split / f"drive_{i:03d}_ids.png", (0, 1, 2))


LAYOUTS: dict[Callable[[Path], None], dict[str, str]] = {
    parallel: {"images": "images/{split}", "labels": "labels/{split}"},
    split_first: {
        "images": "training/img",
        "val_images": "validation/img",
        "labels": "training/masks",
        "val_labels": "validation/masks",
    },
    fused: {"images": "{split}", "labels": "{split}annot"},
    words_with_split: {
        "images": "train_images",
        "val_images": "test_images",
        "labels": "train_masks",
        "val_labels": "test_masks",
        "label_suffix": "_label",
    },
    years: {"images": "{split}2017", "labels": "annotations/{split}2017"},
    beside: {"images": "{split}", "labels": "{split}", "label_suffix": "_mask"},
    suffixes: {
        "images": "camera/{split}",
        "labels": "truth/{split}",
        "image_suffix": "_rgb",
        "label_suffix": "_ids",
    },
}


@pytest.mark.parametrize("make_layout", LAYOUTS, ids=lambda f: f.__name__)
def test_a_layout_is_found_and_training_opens_the_same_pairs(
    make_layout: Callable[[Path], None], tmp_path: Path
) -> None:
    make_layout(tmp_path)
    report = inspect_folders([tmp_path])
    path, table = described(report, tmp_path)
    assert {k: table[k] for k in KEYS if k in table} == LAYOUTS[make_layout]
    assert report.count(report.train) == (4, 4) and report.val and report.count(report.val) == (2, 2)
    assert report.doubts == []
    assert counts(opened(path)) == (4, 4) and counts(opened(path, "val")) == (2, 2)
    sample = opened(path).samples[0]
    assert sample.label and set(np.unique(opened(path).load_label(sample))) == {0, 1, 2}


def test_names_are_those_that_training_gives(tmp_path: Path) -> None:
    make.write_cityscapes(tmp_path)
    report = inspect_folders([tmp_path])
    path, table = described(report, tmp_path)
    assert (table["images"], table["labels"]) == ("leftImg8bit/{split}", "gtFine/{split}")
    assert (table["image_suffix"], table["label_suffix"]) == ("_leftImg8bit", "_gtFine_labelIds")
    for split in ("train", "val"):
        dataset = opened(path, split)
        assert (
            [s.name for s in dataset.samples] == list(report.splits[split].images) == list(report.splits[split].labels)
        )
    assert table["ignore"] == [i for i in (*range(34), 255) if i not in _city_ids()]
    assert {c["name"]: c["ids"] for c in table["classes"]} == {n: [i] for i, n in _city_ids().items()}
    assert any("instances" in note for note in report.notes)


def _city_ids() -> dict[int, str]:
    scored = {name for name, _ in PALETTES["Cityscapes trainIds"]}
    return {i: name for i, (name, _) in enumerate(PALETTES["Cityscapes labelIds"]) if name in scored}


def test_images_without_a_label_and_labels_without_an_image_are_counted(tmp_path: Path) -> None:
    for i in range(5):
        photo(tmp_path / "images" / f"{i}.jpg", i)
    for name in ("0", "1", "9"):
        mask(tmp_path / "labels" / f"{name}.png")
    report = inspect_folders([tmp_path])
    assert report.count("train") == (5, 2) and report.val is None
    assert any("1 label has no image and is not read: 9" in line for line in report.doubts)
    path, table = described(report, tmp_path)
    assert counts(opened(path)) == (5, 2)
    assert "--data.val-count" in path.read_text()


def test_training_images_may_lack_labels_altogether(tmp_path: Path) -> None:
    parallel(tmp_path)
    for path in (tmp_path / "labels" / "train").iterdir():
        path.unlink()
    (tmp_path / "labels" / "train").rmdir()
    path, table = described(inspect_folders([tmp_path]), tmp_path)
    assert "labels" not in table and (table["val_images"], table["val_labels"]) == ("images/val", "labels/val")
    dataset = open_dataset(DatasetConfig(spec=str(path)), None, "train", labels="optional")
    assert counts(dataset) == (4, 0) and counts(opened(path, "val")) == (2, 2)


def test_one_folder_of_labels_serves_all_splits(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("val", 2)):
        for i in range(count):
            photo(tmp_path / "images" / split / f"{split}{i}.jpg", i)
            mask(tmp_path / "labels" / f"{split}{i}.png")
    path, table = described(inspect_folders([tmp_path]), tmp_path)
    assert (table["labels"], table["val_labels"]) == ("labels", "labels")
    assert counts(opened(path)) == (3, 3) and counts(opened(path, "val")) == (2, 2)


def test_an_export_in_a_folder_of_its_own_belongs_to_the_camera(tmp_path: Path) -> None:
    for i in range(3):
        photo(tmp_path / "camera" / f"{i}.jpg", i)
        mask(tmp_path / "export" / "SegmentationClass" / f"{i}.png", (0, 1, 2))
    camera, export = tmp_path / "camera", tmp_path / "export"
    assert group_folders([camera, export]) == [[camera, export]] == group_folders([export, camera])
    path, table = described(inspect_folders([camera, export]), tmp_path)
    assert (table["images"], table["labels"]) == ("camera", "export/SegmentationClass")
    assert counts(opened(path)) == (3, 3)


def test_folders_that_each_have_images_are_two_data_sets(tmp_path: Path) -> None:
    for name in ("old", "new"):
        photo(tmp_path / name / "0.jpg")
    assert group_folders([tmp_path / "old", tmp_path / "new"]) == [[tmp_path / "old"], [tmp_path / "new"]]


def test_links_and_junk_are_read_once_or_not_at_all(tmp_path: Path) -> None:
    parallel(tmp_path / "d")
    (tmp_path / "d" / "loop").symlink_to(tmp_path / "d")
    photo(tmp_path / "d" / "images" / "train" / "@eaDir" / "train0.jpg")
    write(tmp_path / "d" / "images" / "train" / "._train0.jpg", "x")
    assert len(find_files([tmp_path / "d"]).pictures) == 12


def test_what_predict_wrote_is_neither_image_nor_label(tmp_path: Path) -> None:
    parallel(tmp_path)
    for kind in ("ids", "color", "overlay"):
        mask(tmp_path / "images" / "train" / f"train0.{kind}.png", (0, 1, 2))
    report = inspect_folders([tmp_path])
    assert described(report, tmp_path)[1]["labels"] == "labels/{split}" and report.count("train") == (4, 4)
    assert any("left aside: 3 results of iidm.predict" in note for note in report.notes)


def test_a_name_is_the_same_in_both_unicode_forms(tmp_path: Path) -> None:
    for i in range(2):
        photo(tmp_path / "images" / f"caf\u00e9{i}.jpg", i)
        mask(tmp_path / "labels" / f"cafe\u0301{i}.png", (0, 1, 2))
    assert inspect_folders([tmp_path]).count("train") == (2, 2)


def test_a_folder_without_images_is_refused_and_a_missing_one_too(tmp_path: Path) -> None:
    mask(tmp_path / "labels" / "0.png")
    with pytest.raises(UserError, match="There are no images"):
        group_folders([tmp_path])
    with pytest.raises(UserError, match="There is no folder"):
        group_folders([tmp_path / "nowhere"])


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("aachen_000000_000019_gtFine_labelIds", ["_gtFine_labelIds", "_labelIds", ""]),
        ("0001TP_006690", [""]),
        ("0001TP_006690_L", ["_L", ""]),
        ("mask", [""]),
    ],
)
def test_what_may_be_a_suffix_of_a_name(stem: str, expected: list[str]) -> None:
    assert tails(stem) == expected


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("images", "train", "aachen"), (("images", "{split}", "aachen"), "train", "train")),
        (("Validation",), (("{split}",), "val", "Validation")),
        (("trainannot",), (("{split}annot",), "train", "train")),
        (("val_masks",), (("{split}_masks",), "val", "val")),
        (("trains", "testimony"), (("trains", "testimony"), "", "")),
    ],
)
def test_which_split_a_folder_tells(parts: tuple[str, ...], expected: tuple[tuple[str, ...], str, str]) -> None:
    assert abstract(parts) == expected


REAL = Path(os.environ.get("IIDM_TEST_DATA", "nowhere"))
"""A folder with `camvid` in SegNet's form (images/{train,val}, labels/{train,val})."""


@pytest.mark.skipif(not (REAL / "camvid").is_dir(), reason="IIDM_TEST_DATA names no folder with CamVid")
def test_camvid_is_recognised(tmp_path: Path) -> None:
    report = inspect_folders([REAL / "camvid"])
    path, table = described(report, tmp_path)
    assert (report.count("train"), report.count("val")) == ((367, 367), (101, 101))
    assert report.naming.origin == "CamVid, 11 classes" and not report.doubts
    assert [c["ids"] for c in table["classes"]] == [[i] for i in range(11)] and table["ignore"] == [11, 255]
    assert counts(opened(path)) == (367, 367) and counts(opened(path, "val")) == (101, 101)
