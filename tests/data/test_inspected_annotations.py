"""Annotation files are found and described, and training opens what was described."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from inspected_folders import KEYS, SIZE, counts, described, opened, photo, write

from iidm.data.inspection.report import inspect_folders
from iidm.types import UserError

SQUARE = [4.0, 4.0, 30.0, 4.0, 30.0, 30.0, 4.0, 30.0]


def coco(names: Sequence[str]) -> str:
    images = [{"id": i, "file_name": n, "height": SIZE[0], "width": SIZE[1]} for i, n in enumerate(names)]
    things = [
        {"id": i, "image_id": i, "category_id": 1 + i % 2, "segmentation": [SQUARE], "bbox": [4, 4, 26, 26]}
        for i in range(len(names))
    ]
    box = {"id": 99, "image_id": 0, "category_id": 2, "bbox": [0, 0, 5, 5]}
    categories = [{"id": 1, "name": "car"}, {"id": 2, "name": "bus"}, {"id": 3, "name": "tram"}]
    return json.dumps({"images": images, "annotations": [*things, box], "categories": categories})


def _coco_splits(root: Path) -> None:
    for split, count in (("train", 4), ("val", 2)):
        for i in range(count):
            photo(root / split / f"{split}{i}.jpg", i)
        write(root / "annotations" / f"instances_{split}.json", coco([f"{split}{i}.jpg" for i in range(count)]))


def _coco_roboflow(root: Path) -> None:
    for split, count in (("train", 4), ("valid", 2)):
        for i in range(count):
            photo(root / split / f"{split}{i}.jpg", i)
        write(root / split / "_annotations.coco.json", coco([f"{split}{i}.jpg" for i in range(count)]))


def _coco_alone(root: Path) -> None:
    for i in range(6):
        photo(root / "images" / f"{i}.jpg", i)
    write(root / "result.json", coco([f"images/{i}.jpg" for i in range(4)]))


def _coco_rounds(root: Path) -> None:
    for i in range(6):
        photo(root / "images" / f"{i}.jpg", i)
    write(root / "exports" / "first" / "annotations.json", coco(["0.jpg", "1.jpg"]))
    write(root / "exports" / "second" / "annotations.json", coco(["2.jpg", "5.jpg"]))


def _cvat(root: Path) -> None:
    for i in range(6):
        photo(root / "images" / f"{i}.jpg", i)
    points = ";".join(f"{x},{y}" for x, y in zip(SQUARE[::2], SQUARE[1::2], strict=True))
    images = "".join(
        f'<image id="{i}" name="{i}.jpg" width="{SIZE[1]}" height="{SIZE[0]}">'
        f'<polygon label="{"car" if i % 2 else "bus"}" points="{points}"/></image>'
        for i in range(4)
    )
    labels = "".join(f"<label><name>{n}</name></label>" for n in ("car", "bus", "tram"))
    write(
        root / "annotations.xml",
        f"<annotations><meta><task><labels>{labels}</labels></task></meta>{images}</annotations>",
    )


def _labelme(root: Path) -> None:
    for i in range(6):
        photo(root / f"{i}.jpg", i)
    for i in range(4):
        points = [[x, y] for x, y in zip(SQUARE[::2], SQUARE[1::2], strict=True)]
        shape = {"label": ("car", "bus", "tram")[i % 3], "points": points, "shape_type": "polygon"}
        table = {"version": "5.4", "shapes": [shape], "imagePath": f"{i}.jpg", "imageHeight": 48, "imageWidth": 64}
        write(root / f"{i}.json", json.dumps(table))


ANNOTATED: dict[Callable[[Path], None], tuple[dict[str, str], dict[str, tuple[int, int]]]] = {
    _coco_splits: (
        {"images": "{split}", "labels": "annotations/instances_{split}.json", "label_kind": "coco"},
        {"train": (4, 4), "val": (2, 2)},
    ),
    _coco_roboflow: (
        {
            "images": "train",
            "val_images": "valid",
            "labels": "train/_annotations.coco.json",
            "val_labels": "valid/_annotations.coco.json",
            "label_kind": "coco",
        },
        {"train": (4, 4), "val": (2, 2)},
    ),
    _coco_alone: ({"images": ".", "labels": "result.json", "label_kind": "coco"}, {"train": (6, 4)}),
    _coco_rounds: ({"images": "images", "labels": "exports", "label_kind": "coco"}, {"train": (6, 4)}),
    _cvat: ({"images": "images", "labels": "annotations.xml", "label_kind": "cvat"}, {"train": (6, 4)}),
    _labelme: ({"images": ".", "labels": ".", "label_kind": "labelme"}, {"train": (6, 4)}),
}


@pytest.mark.parametrize("make_layout", ANNOTATED, ids=lambda f: f.__name__.lstrip("_"))
def test_annotation_files_are_found_and_described(make_layout: Callable[[Path], None], tmp_path: Path) -> None:
    make_layout(tmp_path)
    report = inspect_folders([tmp_path])
    _, table = described(report, tmp_path)
    places, splits = ANNOTATED[make_layout]
    assert {k: table[k] for k in (*KEYS, "label_kind") if k in table} == places
    assert {split: report.count(split) for split in report.splits} == splits
    assert sorted(c["name"] for c in table["classes"]) == ["background", "bus", "car", "tram"]
    assert table["unlabeled"] == "background"
    assert not report.doubts or "coco" in make_layout.__name__, report.doubts


@pytest.mark.parametrize("make_layout", ANNOTATED, ids=lambda f: f.__name__.lstrip("_"))
def test_training_opens_described_annotations(make_layout: Callable[[Path], None], tmp_path: Path) -> None:
    make_layout(tmp_path)
    path, _ = described(inspect_folders([tmp_path]), tmp_path)
    for split, expected in ANNOTATED[make_layout][1].items():
        dataset = opened(path, split)
        assert counts(dataset) == expected
        label = dataset.load_label(next(s for s in dataset.samples if s.label))
        assert dataset.classes.names.index("background") in label and len(np.unique(label)) == 2


def test_files_that_annotate_an_image_twice_are_not_read_together(tmp_path: Path) -> None:
    _coco_rounds(tmp_path)
    write(tmp_path / "exports" / "third" / "annotations.json", coco([f"{i}.jpg" for i in range(1, 5)]))
    report = inspect_folders([tmp_path])
    _, table = described(report, tmp_path)
    assert table["labels"] == "exports/third/annotations.json" and report.count("train") == (6, 4)
    assert sum("also there" in note for note in report.notes) == 2


def test_boxes_without_an_outline_are_doubted(tmp_path: Path) -> None:
    _coco_alone(tmp_path)
    report = inspect_folders([tmp_path])
    assert any("1 boxes without polygon or mask" in line for line in report.doubts)
    assert report.annotations and report.annotations.names == {"car": 2, "bus": 2, "tram": 0}


def test_cityscapes_polygons_are_its_classes_and_the_others_are_ignored(tmp_path: Path) -> None:
    photo(tmp_path / "leftImg8bit" / "a_000_leftImg8bit.png")
    objects = [
        {"label": n, "polygon": [[0, 0], [9, 0], [9, 9]]} for n in ("road", "cargroup", "ego vehicle", "parking")
    ]
    table = {"imgHeight": SIZE[0], "imgWidth": SIZE[1], "objects": objects}
    write(tmp_path / "gtFine" / "a_000_gtFine_polygons.json", json.dumps(table))
    report = inspect_folders([tmp_path])
    _, written = described(report, tmp_path)
    assert written["label_kind"] == "cityscapes-polygons" and written["label_suffix"] == "_gtFine_polygons"
    assert len(written["classes"]) == 19 and written["ignore_names"] == ["ego vehicle", "parking"]
    assert report.count("train") == (1, 1)


@pytest.mark.parametrize(
    ("text", "is_told"),
    [
        ("{", True),
        ("[]", False),
        ('{"a": 1}', False),
        ('{"images": [{}], "categories": [{}], "annotations": []}', True),
    ],
)
def test_other_json_files_are_no_annotations_and_broken_ones_are_told(text: str, is_told: bool, tmp_path: Path) -> None:
    photo(tmp_path / "0.jpg")
    (tmp_path / "a.json").write_text(text)
    assert any("a.json" in line for line in inspect_folders([tmp_path]).doubts) == is_told


def test_an_annotation_that_training_could_not_read_is_told(tmp_path: Path) -> None:
    _coco_alone(tmp_path)
    text = (tmp_path / "result.json").read_text()
    (tmp_path / "result.json").write_text(text.replace(json.dumps(SQUARE), '[4, 4, 30, "x", 30, 30]', 1))
    report = inspect_folders([tmp_path])
    assert report.count("train") == (6, 4)
    assert any(
        re.search(r"image 'images/0\.jpg', annotation 0 cannot be read: 'x' is no coord", d) for d in report.doubts
    )


def test_one_name_in_two_folders_is_a_doubt_and_no_label(tmp_path: Path) -> None:
    """Which of them was meant cannot be told; the first one taken would have the labels of another image."""
    for day in ("day1", "day2"):
        for i in range(3):
            photo(tmp_path / "photos" / day / f"{i}.jpg", i)
    write(tmp_path / "ann.json", coco([f"{i}.jpg" for i in range(3)]))
    report = inspect_folders([tmp_path])
    assert report.count("train") == (6, 0)
    assert any("fits two images" in doubt for doubt in report.doubts)


@pytest.mark.parametrize("named", [["IMG_0.jpg", "img_1.jpg"], ["IMG_0.jpg", "IMG_1.jpg"]])
def test_annotated_images_in_another_case_are_told_and_refused(named: list[str], tmp_path: Path) -> None:
    for i in range(2):
        photo(tmp_path / "images" / f"img_{i}.jpg", i)
    write(tmp_path / "a.json", coco(named))
    report = inspect_folders([tmp_path])
    told = r"'IMG_0\.jpg' and img_0\.jpg.*Rename the images as the annotations name them"
    assert any(re.search(told, line) for line in (*report.doubts, *report.notes))
    names = "".join(f'[[classes]]\nname = "{name}"\n' for name in ("car", "bus", "tram"))
    write(tmp_path / "d.toml", f'images = "images"\nlabels = "a.json"\n{names}')
    with pytest.raises(UserError, match=told):
        opened(tmp_path / "d.toml")
