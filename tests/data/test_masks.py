"""One mask a class is found, described and read as label maps; what masks of two classes claim is ignored and told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from inspected_folders import SIZE, box_mask, counts, described, mask, opened, photo, write

from iidm.data.datasets.dataset import Dataset
from iidm.data.inspection.describe import tell
from iidm.data.inspection.report import inspect_folders
from iidm.types import UserError

BOXES = {"road": (30, 48, 0, 64), "car": (10, 30, 8, 20), "traffic_light": (2, 9, 3, 9)}
"""Class -> rows and columns; none lies over another."""
FORMS = {
    "folders": ("images/{image}.jpg", "masks/{name}/{image}.png"),
    "folders beside that of the images": ("images/{image}.jpg", "{name}/{image}.png"),
    "folders with the class in the name": ("images/{image}.jpg", "masks/{name}/{image}_{name}.png"),
    "folders of images": ("images/{image}.jpg", "masks/{image}/{name}.png"),
    "folders of images with a suffix": ("images/{image}.jpg", "masks/{image}/{name}_mask.png"),
    "folders of images with their name": ("images/{image}.jpg", "masks/{image}/{image}_{name}.png"),
    "folders of images below folders": ("images/day/{image}.jpg", "masks/day/{image}/{name}.png"),
    "folders that hold the image too": ("{image}/{image}.jpg", "{image}/{name}.png"),
    "folders beside their image": ("{image}.png", "{image}/{name}.png"),
    "images with a suffix": ("images/{image}_rgb.jpg", "masks/{image}/{name}.png"),
    "names": ("images/{image}.jpg", "masks/{image}_{name}.png"),
    "names beside the images": ("{image}.jpg", "{image}_{name}.png"),
    "names with a suffix": ("images/{image}.jpg", "masks/{image}_{name}_mask.png"),
}


def written(root: Path, form: str, inside: int = 255) -> None:
    """Five images, the third without a car and the last without any mask."""
    image, label = FORMS[form]
    for i in range(5):
        photo(root / image.format(image=f"x_{i}"), i)
        for name, box in BOXES.items():
            if i < 4 and (name, i) != ("car", 2):
                box_mask(root / label.format(image=f"x_{i}", name=name), box, inside)


def toml(root: Path, more: str = "", classes: tuple[str, ...] = ("background", *BOXES)) -> Path:
    names = "".join(f'[[classes]]\nname = "{name}"\n' for name in classes)
    write(root / "d.toml", f'images = "images"\nlabels = "masks"\nlabel_kind = "masks"\n{more}\n{names}')
    return root / "d.toml"


def label_of(dataset: Dataset, name: str) -> np.ndarray:
    found = dataset.load_label(next(sample for sample in dataset.samples if sample.name == name))
    return np.array(("ignored", *dataset.classes.names))[np.where(found == 255, 0, found.astype(int) + 1)]


def expected(*names: str) -> np.ndarray:
    label = np.full(SIZE, "background", dtype="<U16")
    for name in names:
        top, bottom, left, right = BOXES[name]
        label[top:bottom, left:right] = name
    return label


@pytest.mark.parametrize("inside", [1, 255])
@pytest.mark.parametrize("form", FORMS)
def test_masks_are_found_and_what_is_written_of_them_is_read(form: str, inside: int, tmp_path: Path) -> None:
    written(tmp_path, form, inside)
    report = inspect_folders([tmp_path])
    assert report.count("train") == (5, 4) and report.doubts == []
    lines = tell(report)
    assert any("4 of 5 images have one: one mask a class" in line for line in lines)
    assert any("3 names of 11 masks" in line for line in lines)
    path, table = described(report, tmp_path)
    assert table["label_kind"] == "masks" and table["unlabeled"] == "background"
    dataset = opened(path)
    assert counts(dataset) == (5, 4)
    first, _, third, *_ = (sample.name for sample in dataset.samples)
    np.testing.assert_array_equal(label_of(dataset, first), expected(*BOXES))
    np.testing.assert_array_equal(label_of(dataset, third), expected("road", "traffic_light"))


@pytest.mark.parametrize("form", ["{name}/{image}.png", "{image}/{name}.png"])
def test_masks_in_splits_are_found(form: str, tmp_path: Path) -> None:
    for split in ("train", "val"):
        for i in range(3):
            photo(tmp_path / "images" / split / f"{split}{i}.jpg", i)
            for name, box in BOXES.items():
                box_mask(tmp_path / "masks" / split / form.format(name=name, image=f"{split}{i}"), box)
    path, table = described(inspect_folders([tmp_path]), tmp_path)
    assert (table["images"], table["labels"]) == ("images/{split}", "masks/{split}")
    np.testing.assert_array_equal(label_of(opened(path, "val"), "val1"), expected(*BOXES))


def test_a_folder_an_image_may_hold_masks_of_one_class(tmp_path: Path) -> None:
    for i in range(3):
        photo(tmp_path / "images" / f"x_{i}.jpg", i)
        box_mask(tmp_path / "masks" / f"x_{i}" / "road.png", BOXES["road"])
    report = inspect_folders([tmp_path])
    assert report.doubts == [] and any("1 name of 3 masks" in line for line in tell(report))
    np.testing.assert_array_equal(label_of(opened(described(report, tmp_path)[0]), "x_1"), expected("road"))


def test_folders_of_images_that_hold_label_maps_are_no_masks(tmp_path: Path) -> None:
    for i in range(3):
        photo(tmp_path / "images" / f"x_{i}.jpg", i)
        mask(tmp_path / "labels" / f"x_{i}" / "fine.png", (0, 1, 2))
        mask(tmp_path / "labels" / f"x_{i}" / "label.png", (0, 1))
    report = inspect_folders([tmp_path])
    assert report.labels == [] and any("have the name of no image: fine.png" in line for line in report.notes)


def test_a_reading_that_explains_all_files_holds(tmp_path: Path) -> None:
    for name in ("1", "2", "3", "road"):
        photo(tmp_path / "images" / f"{name}.jpg")
    for image in ("1", "2", "3"):
        for of in ("1", "2"):
            box_mask(tmp_path / "masks" / image / f"{of}.png", BOXES["road" if of == "1" else "car"])
    dataset = opened(toml(tmp_path, classes=("background", "1", "2")))
    assert (label_of(dataset, "3")[30:48] == "1").all() and (label_of(dataset, "1")[10:30, 8:20] == "2").all()
    box_mask(tmp_path / "masks" / "2" / "road.png", BOXES["road"])  # of the class 2, as it says
    with pytest.raises(UserError, match=r"2\.png may be of class"):
        opened(toml(tmp_path, classes=("background", "1", "2")))


def test_pixels_in_masks_of_two_classes_are_ignored_and_told(tmp_path: Path) -> None:
    written(tmp_path, "folders")
    box_mask(tmp_path / "masks" / "car" / "x_1.png", (28, 34, 8, 20))  # four rows of them on the road
    report = inspect_folders([tmp_path])
    (doubt,) = report.doubts
    assert "1 of 4 images that were looked at have pixels in masks of two classes, up to 1.6% (x_1.png)" in doubt
    dataset = opened(described(report, tmp_path)[0])
    (note,) = [line for line in dataset.notes if "two classes" in line]
    assert "1 image with pixels in masks of two classes, up to 1.6% (x_1): those pixels are ignored" in note
    label = label_of(dataset, "x_1")
    assert (label[30:34, 8:20] == "ignored").all() and (label == "ignored").sum() == 48
    assert (label[28:30, 8:20] == "car").all()


def test_masks_of_names_that_are_one_class_do_not_clash(tmp_path: Path) -> None:
    written(tmp_path, "folders")
    box_mask(tmp_path / "masks" / "car" / "x_1.png", (28, 34, 8, 20))
    path = toml(tmp_path)
    text = path.read_text().replace('name = "road"', 'name = "all"\nnames = ["road", "car"]')
    path.write_text(text.replace('[[classes]]\nname = "car"\n', ""))
    dataset = opened(path)
    assert (label_of(dataset, "x_1")[28:48, 8:20] == "all").all() and dataset.notes == ()


def test_without_a_background_what_no_mask_holds_is_ignored(tmp_path: Path) -> None:
    written(tmp_path, "names")
    label = label_of(opened(toml(tmp_path, classes=tuple(BOXES))), "x_0")
    assert (label == "ignored").sum() == (expected(*BOXES) == "background").sum() > 0


def test_a_name_that_two_images_may_have_is_the_longer_ones(tmp_path: Path) -> None:
    for image in ("x", "x_road"):
        photo(tmp_path / "images" / f"{image}.jpg")
    box_mask(tmp_path / "masks" / "x_road_car.png", BOXES["car"])
    box_mask(tmp_path / "masks" / "x_car.png", (0, 4, 0, 4))
    dataset = opened(toml(tmp_path))
    np.testing.assert_array_equal(label_of(dataset, "x_road"), expected("car"))
    assert (label_of(dataset, "x") == "car").sum() == 16


def test_masks_that_cannot_be_told_are_refused_or_named(tmp_path: Path) -> None:
    written(tmp_path, "folders")
    path = toml(tmp_path)
    box_mask(tmp_path / "masks" / "car" / "other.png", BOXES["car"])
    assert any("1 mask of no image: car/other" in note for note in opened(path).notes)
    with pytest.raises(UserError, match=r"class 'traffic_light'.*`ignore_names`"):
        opened(toml(tmp_path, classes=("background", "road", "car")))
    toml(tmp_path)
    box_mask(tmp_path / "masks" / "car" / "x_1.png", BOXES["car"], size=(48, 65))
    with pytest.raises(UserError, match=r"Masks of one image must have one size: .*48x65"):
        opened(path)
    mask(tmp_path / "masks" / "car" / "x_1.png", (0, 100, 255))
    with pytest.raises(UserError, match=r"car/x_1\.png holds more than two values; needed are 0 outside"):
        opened(path)


def test_masks_that_are_not_called_so_are_recognised_in_the_error(tmp_path: Path) -> None:
    written(tmp_path, "names")
    path = toml(tmp_path)
    path.write_text(path.read_text().replace('label_kind = "masks"', ""))
    with pytest.raises(UserError, match='look like one mask a class, which label_kind = "masks" reads'):
        opened(path)


def test_folders_of_label_maps_are_no_masks(tmp_path: Path) -> None:
    for i in range(6):
        photo(tmp_path / "images" / f"{i}.jpg", i)
        mask(tmp_path / "labels" / ("day" if i < 3 else "night") / f"{i}.png", (0, 1))  # each image has one
        mask(tmp_path / "ids" / "first" / f"{i}.png", (0, 1, 2))
        mask(tmp_path / "ids" / "second" / f"{i}.png", (0, 2, 1))
    report = inspect_folders([tmp_path])
    assert report.annotations is None and report.layout.classes == ()
