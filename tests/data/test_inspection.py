"""What is found in folders as people have them, and that the written description opens as what was found."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import make_datasets as make
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from iidm.config import DatasetConfig
from iidm.data.datasets.dataset import Dataset, open_dataset
from iidm.data.inspection.describe import describe, tell
from iidm.data.inspection.files import abstract, find_files, tails
from iidm.data.inspection.lists import read_colors
from iidm.data.inspection.report import Report, group_folders, inspect_folders
from iidm.data.labels.palettes import PALETTES
from iidm.types import UserError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SIZE = (48, 64)
RGB = tuple[int, int, int]


def bands(values: Sequence[Any], size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """Upright bands of equal width, one a value: [H,W] of ids or [H,W,3] of colours."""
    columns = np.arange(size[1]) * len(values) // size[1]
    return np.broadcast_to(np.asarray(values, np.uint8)[columns], (*size, *np.shape(values)[1:])).copy()


def photo(path: Path, seed: int = 0, size: tuple[int, int] = SIZE, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, **options)


def mask(path: Path, values: Sequence[Any] = (0, 1), size: tuple[int, int] = SIZE, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(bands(values, size)).save(path, **options)


def palette_mask(path: Path, ids: Sequence[int], colors: dict[int, RGB]) -> None:
    image = Image.fromarray(bands(ids)).convert("P")
    image.putdata(bands(ids).ravel().tolist())
    image.putpalette([v for i in range(256) for v in colors.get(i, (0, 0, 0))])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def write(root: Path, text: str) -> None:
    root.parent.mkdir(parents=True, exist_ok=True)
    root.write_text(text, encoding="utf-8")


def described(report: Report, folder: Path) -> tuple[Path, dict[str, Any]]:
    """The written TOML file and its content."""
    path = folder / "written.toml"
    path.write_text(describe(report, path), encoding="utf-8")
    return path, tomllib.loads(path.read_text(encoding="utf-8"))


def opened(path: Path, split: str = "train") -> Dataset:
    return open_dataset(DatasetConfig(spec=str(path)), None, split, labels="some")  # type: ignore[arg-type]


def counts(dataset: Dataset) -> tuple[int, int]:
    return len(dataset.samples), sum(sample.label is not None for sample in dataset.samples)


# --- layouts of pictures -------------------------------------------------------------------------------------------


def parallel(root: Path) -> None:
    for split, count in (("train", 4), ("val", 2)):
        for i in range(count):
            photo(root / "images" / split / f"{split}{i}.jpg", i)
            mask(root / "labels" / split / f"{split}{i}.png", (0, 1, 2))


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
KEYS = ("images", "labels", "val_images", "val_labels", "image_suffix", "label_suffix")


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


# --- values and their names ----------------------------------------------------------------------------------------


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


def test_smoothed_colours_are_doubted_and_are_no_classes(tmp_path: Path) -> None:
    large = Image.new("RGB", (900, 600))
    ImageDraw.Draw(large).ellipse((100, 100, 800, 500), fill=(255, 0, 0))
    (tmp_path / "labels").mkdir()
    for i in range(2):
        photo(tmp_path / "images" / f"{i}.jpg", i, (400, 600))
        large.resize((600, 400), Image.Resampling.BICUBIC).save(tmp_path / "labels" / f"{i}.png")
    report = inspect_folders([tmp_path])
    assert {c.color for c in report.naming.classes} == {0, 0xFF0000}
    assert any("blurred edges" in line for line in report.doubts)


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


# --- doubts --------------------------------------------------------------------------------------------------------


def _with_fault(root: Path, fault: Callable[[Path], None]) -> list[str]:
    for i in range(4):
        photo(root / "images" / f"{i}.jpg", i)
        mask(root / "labels" / f"{i}.png", (0, 1, 2))
    fault(root)
    return inspect_folders([root]).doubts


def _turned(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(root / "images" / "1.jpg", 1, exif=exif)


def _empty(root: Path) -> None:
    (root / "images" / "1.jpg").write_bytes(b"")


def _no_picture(root: Path) -> None:
    (root / "labels" / "1.png").write_text("no picture")


def _other_size(root: Path) -> None:
    mask(root / "labels" / "1.png", (0, 1, 2), (40, 64))


def _deep_image(root: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, SIZE).astype(np.uint16)
    (root / "images" / "1.jpg").unlink()
    Image.fromarray(deep).save(root / "images" / "1.png")


def _same_name(root: Path) -> None:
    photo(root / "images" / "1.png", 9)


def _jpeg_labels(root: Path) -> None:
    for i in range(4):
        (root / "labels" / f"{i}.png").unlink()
        mask(root / "labels" / f"{i}.jpg", (0, 100, 200), quality=95)


FAULTS: dict[Callable[[Path], None], str] = {
    _turned: r"label .*1\.png is 48x64 \(HxW\), but its image .* is 64x48 .*EXIF orientation 6.*labels lie on",
    _empty: r"image .*1\.jpg is empty",
    _no_picture: r"label .*1\.png cannot be read",
    _other_size: r"label .*1\.png is 40x64 \(HxW\), but its image .* is 48x64",
    _deep_image: r"image .*1\.png has 16 bits a channel",
    _same_name: r"1 names stand for several images.*: 1",
    _jpeg_labels: r"labels .* are JPEG or WebP \(4 \.jpg\)",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__.lstrip("_"))
def test_a_doubtful_file_is_told(fault: Callable[[Path], None], tmp_path: Path) -> None:
    lines = _with_fault(tmp_path, fault)
    assert any(re.search(FAULTS[fault], line) for line in lines), lines


def test_pictures_that_training_does_not_read_are_counted(tmp_path: Path) -> None:
    parallel(tmp_path)
    write(tmp_path / "images" / "train" / "9.HEIC", "as phones write them")
    assert any("left aside: 1 .heic" in note for note in inspect_folders([tmp_path]).notes)


def test_images_that_share_a_name_are_each_counted_with_their_label(tmp_path: Path) -> None:
    parallel(tmp_path)
    photo(tmp_path / "images" / "train" / "train0.webp", 9)
    report = inspect_folders([tmp_path])
    assert report.count("train") == (5, 5)
    assert {"train0.jpg", "train0.webp", "train1"} <= set(report.splits["train"].labels)


def test_sound_files_raise_no_doubt(tmp_path: Path) -> None:
    assert _with_fault(tmp_path, lambda root: None) == []


# --- annotations ---------------------------------------------------------------------------------------------------

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


# --- names ---------------------------------------------------------------------------------------------------------


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


# --- real data sets ------------------------------------------------------------------------------------------------

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
