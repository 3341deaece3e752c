"""A folder for each sample with fixed names inside is found and read, and nothing in it is taken for what it is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from inspected_folders import KEYS, box_mask, counts, described, mask, opened, photo, write

from iidm.config import DatasetConfig
from iidm.data.datasets.dataset import open_dataset
from iidm.data.inspection.describe import tell
from iidm.data.inspection.report import Report, inspect_folders

ROAD, CRACK = (30, 48, 0, 64), (2, 9, 3, 9)


def samples(root: Path, image: str = "image.jpg", label: str = "label.png", count: int = 4) -> Path:
    for i in range(count):
        photo(root / f"{i:04d}" / image, i)
        mask(root / f"{i:04d}" / label, (0, 1, 2))
    return root


def has(lines: list[str], *texts: str) -> bool:
    return any(all(text in line for text in texts) for line in lines)


def is_unread(report: Report) -> bool:
    return report.labels == [] and report.layout.label_root is None


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("image.jpg", "label.png"),
        ("img.png", "mask.png"),
        ("rgb_image.png", "gt.tif"),
        ("0.jpg", "segmentation.png"),
        ("camera.PNG", "label_ids.png"),
    ],
)
def test_the_folder_is_the_sample(image: str, label: str, tmp_path: Path) -> None:
    samples(tmp_path / "data", image, label)
    photo(tmp_path / "data" / "0009" / image)
    report = inspect_folders([tmp_path])
    assert report.count("train") == (5, 4) and report.doubts == []
    path, table = described(report, tmp_path)
    assert {k: table[k] for k in KEYS if k in table} == {
        "images": "data",
        "labels": "data",
        "image_suffix": f"/{image[:-4]}",
        "label_suffix": f"/{label[:-4]}",
    }
    dataset = opened(path)
    assert [sample.name for sample in dataset.samples] == ["0000", "0001", "0002", "0003", "0009"]
    assert counts(dataset) == (5, 4) and dataset.notes == ()
    assert set(np.unique(dataset.load_label(dataset.samples[0]))) == {0, 1, 2}


def test_splits_and_folders_above_the_samples_are_found(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("val", 1)):
        samples(tmp_path / split / "day", count=count)
    path, table = described(inspect_folders([tmp_path]), tmp_path)
    assert (table["images"], table["labels"], table["label_suffix"]) == ("{split}/day", "{split}/day", "/label")
    assert counts(opened(path)) == (3, 3) and counts(opened(path, "val")) == (1, 1)


def test_images_and_labels_may_lie_in_folders_of_their_own(tmp_path: Path) -> None:
    for i in range(3):
        photo(tmp_path / "photos" / f"{i}a" / "image.jpg", i)
        mask(tmp_path / "export" / f"{i}a" / "label.png", (0, 1, 2))
    report = inspect_folders([tmp_path / "photos", tmp_path / "export"])
    assert report.count("train") == (3, 3)
    assert counts(opened(described(report, tmp_path)[0])) == (3, 3)


def labelme(root: Path, *lists: str) -> None:
    for i, text in enumerate(lists):
        folder = root / f"img_{i}_json"
        photo(folder / "img.png", i)
        photo(folder / "label_viz.png", 9 + i)
        mask(folder / "label.png", (0, 1, 2) if text.count("\n") > 2 else (0, 1))
        write(folder / "label_names.txt", text)


def test_what_labelme_writes_is_read_without_its_visualisations(tmp_path: Path) -> None:
    labelme(tmp_path, "_background_\ncar\n", "_background_\ncar\nroad\n")
    report = inspect_folders([tmp_path])
    assert report.count("train") == (2, 2) and report.doubts == []
    assert [entry.name for entry in report.naming.classes] == ["_background_", "car", "road"]
    assert has(report.notes, "2 pictures of other kinds", "*/label_viz")
    path, table = described(report, tmp_path)
    assert (table["images"], table["image_suffix"], table["label_suffix"]) == (".", "/img", "/label")
    assert counts(opened(path)) == (2, 2) and has(list(opened(path).notes), "2 .png without '/img'")


def test_ids_that_each_image_counts_anew_are_not_read(tmp_path: Path) -> None:
    labelme(tmp_path, "_background_\ncar\n", "_background_\nroad\n")
    report = inspect_folders([tmp_path])
    assert is_unread(report)
    (line,) = report.doubts
    assert "id 1 is 'car' in" in line and "'road' in" in line and "LabelMe's .json files" in line


@pytest.mark.parametrize("end", ["", "_mask"])
def test_masks_beside_the_image_are_classes(end: str, tmp_path: Path) -> None:
    for i in range(60):
        photo(tmp_path / "data" / f"{i:04d}" / "image.jpg", i)
        box_mask(tmp_path / "data" / f"{i:04d}" / f"road{end}.png", ROAD)
        if i % 2:
            box_mask(tmp_path / "data" / f"{i:04d}" / f"crack{end}.png", CRACK)
    box_mask(tmp_path / "data" / "0007" / f"rare{end}.png", (12, 20, 3, 9))
    photo(tmp_path / "data" / "0003" / "overlay.png")
    report = inspect_folders([tmp_path])
    assert report.count("train") == (60, 60) and report.doubts == []
    assert has(tell(report), "3 names of 91 masks") and has(report.notes, "1 picture", "data/*/overlay")
    path, table = described(report, tmp_path)
    assert table["label_kind"] == "masks" and table.get("label_suffix", "") == end
    dataset = opened(path)
    label, names = dataset.load_label(dataset.samples[7]), dataset.classes.names
    assert dataset.samples[7].name == "0007"
    assert [(label == names.index(name)).sum() for name in ("road", "crack", "rare")] == [18 * 64, 42, 48]


def test_a_picture_beside_masks_that_is_called_as_no_class_is_told(tmp_path: Path) -> None:
    for i in range(3):
        photo(tmp_path / "data" / f"{i}a" / "image.png", i)
        for name, box in (("road", ROAD), ("crack", CRACK)):
            box_mask(tmp_path / "data" / f"{i}a" / f"{name}.png", box)
    path, _ = described(inspect_folders([tmp_path]), tmp_path)
    assert opened(path).notes == ()
    box_mask(tmp_path / "data" / "1a" / "pothole.png", CRACK)
    assert has(list(opened(path).notes), "1 pothole.png of no class left aside")
    assert counts(opened(path)) == (3, 3)


def test_masks_of_single_things_beside_the_image_are_not_read(tmp_path: Path) -> None:
    for i in range(3):
        photo(tmp_path / "data" / f"{i}a" / "image.png", i)
        for k in range(2):
            box_mask(tmp_path / "data" / f"{i}a" / f"thing{7 * i + k:04d}.png", CRACK)
    report = inspect_folders([tmp_path])
    assert is_unread(report) and has(report.doubts, "(0a, 1a, 2a)", "6 names", "masks of single things cannot be read")


@pytest.mark.parametrize("image", ["images/{}.png", "image.png"])
def test_folders_of_masks_of_single_things_are_named(image: str, tmp_path: Path) -> None:
    for i in range(3):
        folder = tmp_path / "stage1_train" / f"{i:03d}a"
        photo(folder / image.format(f"{i:03d}a"), i)
        for k in range(3):
            box_mask(folder / "masks" / f"{10 * i + k:08x}.png", (10 * k, 10 * k + 8, 3, 30))
    report = inspect_folders([tmp_path])
    assert is_unread(report)
    (line,) = report.doubts
    assert "(000a, 001a, 002a) with several masks in masks/" in line and "(9 pictures)" in line


def test_several_images_in_a_folder_are_a_doubt_unless_one_is_called_so(tmp_path: Path) -> None:
    samples(tmp_path / "data", "left.jpg")
    samples(tmp_path / "data", "right.jpg")
    report = inspect_folders([tmp_path])
    assert is_unread(report) and has(report.doubts, "several images in it (left, right)", "cannot be told")
    samples(tmp_path / "data", "image.jpg")
    report = inspect_folders([tmp_path])
    assert report.count("train") == (4, 4) and report.layout.image_suffix == "/image"
    assert has(report.notes, "8 pictures of other kinds", "data/*/left, data/*/right")


def test_what_does_not_pair_or_is_not_read_is_told(tmp_path: Path) -> None:
    samples(tmp_path / "data")
    samples(tmp_path / "data", label="extra.png")
    mask(tmp_path / "data" / "0009" / "label.png")
    report = inspect_folders([tmp_path])
    assert has(report.doubts, "1 label has no image and is not read: 0009")
    assert has(report.notes, "also there: 4 labels as", "/*/extra.png")
    path, _ = described(report, tmp_path)
    photo(tmp_path / "data" / "0001" / "IMAGE.jpg")
    assert has(list(opened(path).notes), "1 .jpg without '/image'")


@pytest.mark.parametrize("labeled", [4, 1])
def test_outlines_beside_them_are_told_and_read_where_they_label_more(labeled: int, tmp_path: Path) -> None:
    samples(tmp_path / "data")
    for i in range(4):
        outline = '{"label": "car", "points": [[1, 1], [9, 1], [9, 9]], "shape_type": "polygon"}'
        text = f'{{"shapes": [{outline}], "imagePath": "image.jpg", "imageHeight": 48, "imageWidth": 64}}'
        write(tmp_path / "data" / f"{i:04d}" / "image.json", text)
        if i >= labeled:
            (tmp_path / "data" / f"{i:04d}" / "label.png").unlink()
    report = inspect_folders([tmp_path])
    assert report.count("train") == (4, 4) and (report.annotations is not None) == (labeled == 1)
    other = "image.json" if labeled == 4 else "label.png"
    assert has(report.notes, f"also there: {4 if labeled == 4 else 1} labels as", f"/*/{other}")
    assert counts(opened(described(report, tmp_path)[0])) == (4, 4)


def test_labels_as_jpeg_are_named(tmp_path: Path) -> None:
    samples(tmp_path / "data", label="label.jpg")
    report = inspect_folders([tmp_path])
    assert report.labels == [] and has(report.doubts, "are JPEG or WebP")


@pytest.mark.parametrize(
    ("image", "label", "image_suffix", "label_suffix"),
    [
        ("{}/image.jpg", "{}/image.png", "", ""),
        ("{}/image.jpg", "{}/image_mask.png", "", "_mask"),
        ("{}/scan_rgb.png", "{}/scan_ids.png", "_rgb", "_ids"),
        ("images/{}/image.jpg", "labels/{}/image.png", "", ""),
    ],
)
def test_names_that_pair_without_their_folder_are_read_as_ever(
    image: str, label: str, image_suffix: str, label_suffix: str, tmp_path: Path
) -> None:
    for i in range(3):
        photo(tmp_path / image.format(f"{i}a"), i)
        mask(tmp_path / label.format(f"{i}a"), (0, 1, 2))
    report = inspect_folders([tmp_path])
    assert (report.layout.image_suffix, report.layout.label_suffix) == (image_suffix, label_suffix)
    assert report.count("train") == (3, 3) and counts(opened(described(report, tmp_path)[0])) == (3, 3)


def test_parallel_folders_of_files_called_image_are_no_samples(tmp_path: Path) -> None:
    for name in ("image", "mask", "street"):
        photo(tmp_path / "camera" / f"{name}.png")
        mask(tmp_path / "drawn" / f"{name}.png", (0, 1, 2))
    report = inspect_folders([tmp_path])
    assert (report.layout.images, report.layout.labels) == (("camera",), ("drawn",))
    assert report.count("train") == (3, 3)


def test_a_suffix_with_a_folder_is_no_name_of_a_file_outside_of_folders(tmp_path: Path) -> None:
    samples(tmp_path / "d")
    photo(tmp_path / "d" / "image.jpg")
    write(
        tmp_path / "d.toml",
        'images = "d"\nlabels = "d"\nimage_suffix = "/image"\nlabel_suffix = "/label"\n'
        '[[classes]]\nname = "a"\n[[classes]]\nname = "b"\n[[classes]]\nname = "c"\n',
    )
    dataset = open_dataset(DatasetConfig(spec=str(tmp_path / "d.toml")), None, "train", labels="all")
    assert counts(dataset) == (4, 4) and has(list(dataset.notes), "1 .jpg without '/image'")
