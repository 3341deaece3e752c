"""Which values labels have, what they are called, and that training reads them so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from inspected_folders import RGB, described, mask, opened, palette_mask, photo, write

from iidm.data.inspection.describe import tell
from iidm.data.inspection.lists import read_colors
from iidm.data.inspection.report import inspect_folders
from iidm.data.labels.palettes import PALETTES


def _colored(root: Path, colors: Sequence[RGB]) -> None:
    for i in range(3):
        photo(root / "images" / f"{i}.jpg", i)
        mask(root / "labels" / f"{i}.png", colors)


@pytest.mark.parametrize("name", [n for n in PALETTES if n not in ("Cityscapes trainIds", "Cityscapes labelIds")])
def test_colours_of_a_well_known_palette_are_named(name: str, tmp_path: Path) -> None:
    colors = list(dict.fromkeys(color for _, color in PALETTES[name]))[:24]
    _colored(tmp_path, colors)
    report = inspect_folders([tmp_path])
    assert report.naming.origin == name
    _, table = described(report, tmp_path)
    written = {c["color"]: c["name"] for c in table["classes"]}
    first = {f"#{r:02x}{g:02x}{b:02x}": n for n, (r, g, b) in reversed(PALETTES[name])}
    assert written and all(first[color] == text for color, text in written.items())
    assert report.values and report.values.kind == "colors"


def test_colours_of_cityscapes_are_its_scored_classes_and_the_others_are_ignored(tmp_path: Path) -> None:
    _colored(tmp_path, [(128, 64, 128), (153, 153, 153), (0, 0, 142), (111, 74, 0), (0, 0, 0)])
    _, table = described(inspect_folders([tmp_path]), tmp_path)
    names = [c["name"] for c in table["classes"]]
    assert sorted(names) == sorted(n for n, _ in PALETTES["Cityscapes trainIds"]), "pole's colour is polegroup's too"
    assert {"#000000", "#6f4a00"} <= set(table["ignore_colors"]) and "#999999" not in table["ignore_colors"]


def test_written_colours_are_read_by_training(tmp_path: Path) -> None:
    _colored(tmp_path, [(10, 200, 30), (250, 10, 10), (0, 0, 0)])
    write(
        tmp_path / "labelmap.txt",
        "# label:color_rgb:parts:actions\ngrass:10,200,30::\nbarn:250,10,10::\nvoid:0,0,0::\n",
    )
    path, table = described(inspect_folders([tmp_path]), tmp_path)
    dataset = opened(path)
    assert dataset.classes.names == ("grass", "barn") and table["ignore_colors"] == ["#000000"]
    label = dataset.load_label(dataset.samples[0])
    assert {int(v): int((label == v).sum()) for v in np.unique(label)}.keys() == {0, 1, 255}


def test_colours_of_no_palette_are_classes_with_made_up_names(tmp_path: Path) -> None:
    _colored(tmp_path, [(10, 200, 30), (0, 0, 0)])
    path, table = described(inspect_folders([tmp_path]), tmp_path)
    assert [(c["name"], c["color"]) for c in table["classes"]] == [
        ("background", "#000000"),
        ("color 0ac81e", "#0ac81e"),
    ]
    assert path.read_text().count("# guessed") == 2


@pytest.mark.parametrize("ids", [(0, 255), (0, 1)])
def test_a_mask_is_background_and_foreground_and_no_id_of_it_is_ignored(ids: tuple[int, int], tmp_path: Path) -> None:
    for i in range(2):
        photo(tmp_path / "images" / f"{i}.jpg", i)
        mask(tmp_path / "masks" / f"{i}.png", ids)
    path, table = described(inspect_folders([tmp_path]), tmp_path)
    assert [(c["name"], c["ids"]) for c in table["classes"]] == [("background", [ids[0]]), ("foreground", [ids[1]])]
    dataset = opened(path)
    assert set(np.unique(dataset.load_label(dataset.samples[0]))) == {0, 1}


def test_ids_in_the_red_channel_keep_their_numbers_and_are_told(tmp_path: Path) -> None:
    _colored(tmp_path, [(1, 0, 0), (7, 0, 0)])
    report = inspect_folders([tmp_path])
    _, table = described(report, tmp_path)
    assert [(c["name"], c["color"]) for c in table["classes"]] == [("class 1", "#010000"), ("class 7", "#070000")]
    assert any("red channel alone, as CARLA" in line for line in report.doubts)


def test_folders_that_one_description_cannot_hold_are_told(tmp_path: Path) -> None:
    for drive, count in (("a", 3), ("b", 2)):
        for i in range(count):
            photo(tmp_path / drive / "images" / f"{i}.jpg", i)
            mask(tmp_path / drive / "labels" / f"{i}.png")
    report = inspect_folders([tmp_path])
    assert report.count("train") == (3, 3)
    assert any("2 images elsewhere are left aside" in note and "b/images" in note for note in report.notes)


def test_255_beside_other_ids_is_ignored(tmp_path: Path) -> None:
    for i in range(2):
        photo(tmp_path / "images" / f"{i}.jpg", i)
        mask(tmp_path / "labels" / f"{i}.png", (3, 7, 255))
    report = inspect_folders([tmp_path])
    path, table = described(report, tmp_path)
    assert [c["ids"] for c in table["classes"]] == [[3], [7]] and table["ignore"] == [255]
    assert any("255" in line and "(ignored)" in line for line in tell(report))
    dataset = opened(path)
    assert set(np.unique(dataset.load_label(dataset.samples[0]))) == {0, 1, 255}


def test_palette_labels_are_named_by_their_palette(tmp_path: Path) -> None:
    colors = {i: color for i, (_, color) in enumerate(PALETTES["Pascal VOC"])} | {255: (224, 224, 192)}
    for i in range(2):
        photo(tmp_path / "JPEGImages" / f"{i}.jpg", i)
        palette_mask(tmp_path / "truth" / f"{i}.png", (0, 7, 15, 255), colors)
    report = inspect_folders([tmp_path])
    path, table = described(report, tmp_path)
    assert report.naming.origin == "Pascal VOC" and len(table["classes"]) == 21
    assert table["classes"][15] == {"name": "person", "color": "#c08080", "ids": [15]} and table["ignore"] == [255]
    dataset = opened(path)
    assert set(np.unique(dataset.load_label(dataset.samples[0]))) == {0, 7, 15, 255}


def test_a_list_of_names_beside_labels_in_the_colours_of_voc_is_what_they_are_called(tmp_path: Path) -> None:
    """As labelme2voc writes them, for classes of any names."""
    colors = {i: color for i, (_, color) in enumerate(PALETTES["Pascal VOC"])}
    for i in range(3):
        photo(tmp_path / "JPEGImages" / f"{i}.jpg", i)
        palette_mask(tmp_path / "SegmentationClass" / f"{i}.png", (0, 1, 2), colors)
    write(tmp_path / "class_names.txt", "__ignore__\n_background_\nsky\ncar\n")
    report = inspect_folders([tmp_path])
    assert [entry.name for entry in report.naming.classes] == ["_background_", "sky", "car"]
    assert report.naming.origin == str(tmp_path / "class_names.txt")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("labelmap.txt", "# label:color_rgb:parts:actions\nroad:1,2,3::\nsky line:4,5,6::\n"),
        ("label_colors.txt", "1 2 3\troad\n4 5 6\t\tsky line\n"),
        ("class_dict.csv", "name,r,g,b\nroad,1, 2,3\nsky line,4,5,6\n"),
    ],
)
def test_lists_of_colours_are_read(file: str, text: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(text)
    assert read_colors(tmp_path / file) == {"road": 0x010203, "sky line": 0x040506}


def test_a_list_of_names_names_ids(tmp_path: Path) -> None:
    for i in range(2):
        photo(tmp_path / "images" / f"{i}.jpg", i)
        mask(tmp_path / "labels" / f"{i}.png", (0, 1, 2))
    (tmp_path / "classes.txt").write_text("road\nsky\ntree\nnever seen\n")
    _, table = described(inspect_folders([tmp_path]), tmp_path)
    assert [(c["name"], c["ids"]) for c in table["classes"]] == [
        ("road", [0]),
        ("sky", [1]),
        ("tree", [2]),
        ("never seen", [3]),
    ]


def test_roboflows_list_names_ids_and_one_with_gaps_does_not(tmp_path: Path) -> None:
    for i in range(2):
        photo(tmp_path / "train" / f"{i}.jpg", i)
        mask(tmp_path / "train" / f"{i}_mask.png", (0, 1, 2))
    listed = tmp_path / "train" / "_classes.csv"
    listed.write_text("Pixel Value, Class\n0, background\n1, road\n2, sky\n")
    assert [c.name for c in inspect_folders([tmp_path]).naming.classes] == ["background", "road", "sky"]
    listed.write_text("Pixel Value, Class\n0, background\n2, road\n3, sky\n")
    assert "road" not in [c.name for c in inspect_folders([tmp_path]).naming.classes]


def test_pictures_that_look_like_labels_and_fit_no_image_are_told(tmp_path: Path) -> None:
    for i in range(3):
        photo(tmp_path / "images" / f"t{i}.jpg", i)
        mask(tmp_path / "masks" / f"task-{i}-annotation-{i}-by-1-tag-road-0.png", (0, 1))
    report = inspect_folders([tmp_path])
    assert not report.labels
    assert any("3 pictures look like labels, but have the name of no image: task-0" in line for line in report.notes)


def test_an_annotation_file_about_other_images_is_told(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "t0.jpg", 0)
    table = {
        "images": [{"id": 1, "file_name": "1a2b-x.jpg", "height": 9, "width": 9}],
        "categories": [],
        "annotations": [],
    }
    (tmp_path / "result.json").write_text(json.dumps(table))
    notes = inspect_folders([tmp_path]).notes
    assert any("1 annotation files name none of these images" in line and "result.json" in line for line in notes)
