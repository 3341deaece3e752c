"""COCO files become label pictures, pixel by pixel as pycocotools has it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotation_files import (
    EXPORTS,
    SIZE,
    SQUARE,
    box,
    coco,
    flat,
    label_of,
    opened,
    save_image,
    write_coco,
    write_cvat,
    write_labelme,
)
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from iidm.data.labels.shapes import decode_counts
from iidm.types import UserError

LABELED = 'empty_images = "labeled"'
"""An image without annotation is a label."""


def test_coco_polygons_cover_the_pixels_that_pycocotools_gives_them(tmp_path: Path) -> None:
    name = write_coco(tmp_path, coco({"category_id": 2, "segmentation": [flat(SQUARE)]}))
    np.testing.assert_array_equal(label_of(opened(tmp_path, name)), box(1, 4, 1, 4, 1))


@hypothesis_settings(max_examples=40)
@given(points=st.lists(st.floats(-3, 20), min_size=6, max_size=12).filter(lambda points: len(points) % 2 == 0))
def test_any_coco_polygon_is_that_of_pycocotools(points: list[float], tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("coco")
    name = write_coco(root, coco({"category_id": 2, "segmentation": [points]}))
    encoded = coco_mask.merge(coco_mask.frPyObjects([points], *SIZE))
    np.testing.assert_array_equal(label_of(opened(root, name)), np.where(coco_mask.decode(encoded), 1, 3))


@hypothesis_settings(max_examples=40)
@given(seed=st.integers(0, 10**6), share=st.floats(0, 1), compressed=st.booleans())
def test_any_coco_mask_is_read_exactly(
    seed: int, share: float, compressed: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("coco")
    mask = np.random.default_rng(seed).random(SIZE) < share
    segmentation = coco_mask.encode(np.asfortranarray(mask))
    counts = segmentation["counts"]
    segmentation["counts"] = counts.decode() if compressed else decode_counts(counts)
    name = write_coco(root, coco({"category_id": 2, "segmentation": segmentation, "iscrowd": 1}))
    np.testing.assert_array_equal(label_of(opened(root, name)), np.where(mask, 1, 3))


def test_later_coco_annotations_lie_over_earlier_ones_and_parts_belong_together(tmp_path: Path) -> None:
    parts = [[0, 0, 2, 0, 2, 2, 0, 2], [5, 5, 9, 5, 9, 9, 5, 9]]
    table = coco(
        {"category_id": 1, "segmentation": parts},
        {"category_id": 3, "segmentation": [[6, 6, 7, 6, 7, 7, 6, 7]]},
    )
    label = label_of(opened(tmp_path, write_coco(tmp_path, table)))
    expected = box(0, 2, 0, 2, 0)
    expected[5:9, 5:9] = 0
    expected[6, 6] = 2
    np.testing.assert_array_equal(label, expected)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [12, 16], "counts": [3, 4]}, r"run lengths cover 7 pixels, not 12 x 16"),
        ({"size": [12, 16], "counts": "0" * 9}, "run lengths cover"),
        ({"size": [12, 16], "counts": "é"}, "ordinal|ascii"),
        ({"size": [16, 12], "counts": [192]}, r"its mask is 16x12 \(HxW\), its image 12x16"),
        ([[1, 2, 3, 4, 5, 6, 7]], "a polygon has 7 numbers"),
        ([[1, 2, 3, 4, 5, "x"]], "'x' is no coordinate"),
        ([[1, 2, 3, 4, 5, 1e300]], "is no coordinate"),
        ("nonsense", "a polygon has 1 numbers"),
    ],
)
def test_a_bad_coco_annotation_is_named(segmentation: Any, message: str, tmp_path: Path) -> None:
    name = write_coco(tmp_path, coco({"category_id": 1, "segmentation": segmentation}))
    with pytest.raises(
        UserError, match=rf"a\.json, image 'a\.jpg', annotation 10 cannot be read: .*{message}|{message}"
    ):
        opened(tmp_path, name)


def test_not_a_number_is_no_coordinate(tmp_path: Path) -> None:
    name = write_coco(tmp_path, coco({"category_id": 1, "segmentation": [[1, 2, 3, 4, 5, float("nan")]]}))
    with pytest.raises(UserError, match="annotation 10 cannot be read: nan is no coordinate"):
        opened(tmp_path, name)


def test_boxes_without_area_are_counted_in_a_note(tmp_path: Path) -> None:
    table = coco({"category_id": 2, "segmentation": [flat(SQUARE)]}, {"category_id": 1, "segmentation": []})
    dataset = opened(tmp_path, write_coco(tmp_path, table))
    assert dataset.notes == ("Annotations without an area are left out: 1 boxes without polygon or mask.",)


@pytest.mark.parametrize(
    ("file_name", "image"),
    [
        ("a.png", "a.jpg"),
        ("a", "a.jpg"),
        ("/home/me/pictures/a.JPG", "a.jpg"),
        ("C:\\data\\drive\\a.jpg", "drive/a.jpg"),
        ("images/drive/a.jpg", "drive/a.jpg"),
        ("frame.0001", "frame.0001.jpg"),
        ("e\u0301.jpg", "\u00e9.jpg"),
    ],
)
def test_images_are_matched_by_the_end_of_their_path(file_name: str, image: str, tmp_path: Path) -> None:
    save_image(tmp_path / "images" / image)
    table = coco({"category_id": 2, "segmentation": [flat(SQUARE)]}, file_name=file_name)
    (tmp_path / "a.json").write_text(json.dumps(table))
    dataset = opened(tmp_path, "a.json")
    assert dataset.samples[0].label is not None and dataset.notes == ()


def test_a_name_that_fits_two_images_is_an_error_and_folders_tell_them_apart(tmp_path: Path) -> None:
    for image in ("one/a.jpg", "two/a.jpg"):
        save_image(tmp_path / "images" / image)
    table = coco({"category_id": 2, "segmentation": [flat(SQUARE)]})
    (tmp_path / "a.json").write_text(json.dumps(table))
    with pytest.raises(UserError, match=r"one entry 'a\.jpg', which fits two images: .*one.a\.jpg and .*two.a\.jpg"):
        opened(tmp_path, "a.json")
    table["images"] = [{**table["images"][0], "id": i, "file_name": f"{n}/a.jpg"} for i, n in ((7, "one"), (8, "two"))]
    (tmp_path / "a.json").write_text(json.dumps(table))
    dataset = opened(tmp_path, "a.json", LABELED)
    assert (label_of(dataset, "one/a") == 1).any() and (label_of(dataset, "two/a") == 3).all()


def test_annotated_images_that_are_not_there_and_images_without_entry_are_told(tmp_path: Path) -> None:
    table = coco({"category_id": 2, "segmentation": [flat(SQUARE)]})
    table["images"].append({"id": 8, "file_name": "gone.jpg", "height": 12, "width": 16})
    name = write_coco(tmp_path, table)
    save_image(tmp_path / "images" / "new.jpg")
    dataset = opened(tmp_path, name)
    assert "1 annotated images are not among the images: gone.jpg" in dataset.notes[0]
    assert "1 of 2 images are not in it: new" in dataset.notes[1]
    assert [sample.label is None for sample in dataset.samples] == [False, True]


def test_a_file_about_other_images_is_an_error(tmp_path: Path) -> None:
    name = write_coco(tmp_path, coco(file_name="other.jpg"))
    with pytest.raises(UserError, match=r"is about none of the 1 images: it names other\.jpg, the images are a"):
        opened(tmp_path, name)


@pytest.mark.parametrize("kind", ["coco", "labelme", "cvat"])
def test_an_annotated_size_that_is_not_the_images_names_both(kind: str, tmp_path: Path) -> None:
    if kind == "coco":
        name = write_coco(tmp_path, coco({"category_id": 1, "segmentation": [flat(SQUARE)]}, height=24))
    elif kind == "labelme":
        name = write_labelme(tmp_path, {"label": "car", "points": SQUARE}, imageHeight=24)
    else:
        name = write_cvat(tmp_path, image='name="a.jpg" width="16" height="24"')
    with pytest.raises(UserError, match=r"a\.(json|xml).* is 24x16 \(HxW\) there, but .*a\.jpg is 12x16 \(HxW\)"):
        opened(tmp_path, name)


def test_a_coco_export_of_datumaro_is_read(tmp_path: Path) -> None:
    table = json.loads((EXPORTS / "datumaro_coco.json").read_text())
    for name in ("a", "b"):
        save_image(tmp_path / "images" / "drive" / f"{name}.png")
    (tmp_path / "a.json").write_text(json.dumps(table))
    dataset = opened(tmp_path, "a.json", LABELED)
    expected = np.full(SIZE, 3, np.uint8)
    for annotation in table["annotations"]:
        parts = annotation["segmentation"]
        if parts:
            encoded = coco_mask.frPyObjects(parts, *SIZE)
            mask = coco_mask.decode(coco_mask.merge(encoded) if isinstance(parts, list) else encoded)
            expected[mask > 0] = annotation["category_id"] - 1
    np.testing.assert_array_equal(label_of(dataset, "drive/a"), expected)
    assert (label_of(dataset, "drive/b") == 3).all()
    assert dataset.notes == ("Annotations without an area are left out: 1 boxes without polygon or mask.",)


def test_coco_panoptic_is_told_what_to_export(tmp_path: Path) -> None:
    table = coco()
    table["annotations"] = [{"image_id": 7, "file_name": "a.png", "segments_info": []}]
    with pytest.raises(UserError, match=r"a\.json is COCO panoptic\. Export the data set as COCO instances"):
        opened(tmp_path, write_coco(tmp_path, table))


def test_images_of_one_name_and_two_endings_have_the_entry_with_their_own(tmp_path: Path) -> None:
    for image in ("a.bmp", "a.jpg", "a.tif"):
        save_image(tmp_path / "images" / image)
    table = coco({"category_id": 2, "segmentation": [flat(SQUARE)]}, file_name="x/a.jpg")
    (tmp_path / "a.json").write_text(json.dumps(table))
    dataset = opened(tmp_path, "a.json")
    assert [sample.label is not None for sample in dataset.samples] == [False, True, False]
    assert any("a.bmp" in note for note in dataset.notes)
    table["images"].append({**table["images"][0], "id": 8, "file_name": "x/a.bmp"})
    (tmp_path / "a.json").write_text(json.dumps(table))
    dataset = opened(tmp_path, "a.json", LABELED)
    assert (label_of(dataset, "a.jpg") == 1).any() and (label_of(dataset, "a.bmp") == 3).all()
    assert dataset.samples[2].label is None


def test_a_file_that_names_no_image_is_told_as_such(tmp_path: Path) -> None:
    save_image(tmp_path / "images" / "a.jpg")
    (tmp_path / "a.json").write_text(json.dumps({**coco(), "images": []}))
    with pytest.raises(UserError, match=r"a\.json names no image"):
        opened(tmp_path, "a.json")


def test_a_missing_pycocotools_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_image(tmp_path / "images" / "a.jpg")
    name = write_coco(tmp_path, coco({"category_id": 1, "segmentation": [flat(SQUARE)]}))
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(UserError, match="need pycocotools: pip install pycocotools"):
        opened(tmp_path, name)


def test_an_image_with_a_suffix_has_its_entry_by_file_or_by_name(tmp_path: Path) -> None:
    for image in ("day/a_rgb.jpg", "day/b_rgb.jpg"):
        save_image(tmp_path / "images" / image)
    table = coco({"category_id": 2, "segmentation": [flat(SQUARE)]}, file_name="day/a_rgb.jpg")
    shape = {**table["annotations"][0], "id": 2, "image_id": 8}
    table["images"].append({**table["images"][0], "id": 8, "file_name": "day/b.jpg"})
    table["annotations"].append(shape)
    dataset = opened(tmp_path, write_coco(tmp_path, table), 'image_suffix = "_rgb"')
    assert [(sample.name, sample.label is not None) for sample in dataset.samples] == [("day/a", True), ("day/b", True)]
