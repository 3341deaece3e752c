"""Annotation files of any tool: names, pixels without annotation, what lies where, the cache, prepared folders."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotation_files import (
    CITYSCAPES_SUFFIX,
    SIZE,
    SQUARE,
    box,
    coco,
    flat,
    label_of,
    opened,
    save_image,
    write_cityscapes,
    write_coco,
    write_cvat,
    write_labelme,
    write_toml,
)
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from iidm.config import Config, DataConfig, DatasetConfig
from iidm.data.datasets.check import check_sample
from iidm.data.datasets.dataset import Dataset, open_dataset
from iidm.data.datasets.domains import open_folder
from iidm.data.preparation.plan import make_plan, prepare
from iidm.types import UserError


def test_unknown_categories_are_told_all_at_once_with_the_nearest(tmp_path: Path) -> None:
    shapes = [{"label": label, "points": SQUARE} for label in ("cars", "unsure", "road", "cars")]
    with pytest.raises(UserError) as error:
        opened(tmp_path, write_labelme(tmp_path, *shapes))
    message = str(error.value)
    assert "There is no class 'cars'. Did you mean 'car'?" in message and "It occurs 2 times" in message
    assert "'unsure' (1 times)" in message and "ignore_names" in message


def test_names_and_ignored_names_are_read_as_the_toml_file_says(tmp_path: Path) -> None:
    shapes = [{"label": "lorry", "points": SQUARE}, {"label": "unsure", "points": [[8, 1], [9, 1], [9, 2], [8, 2]]}]
    name = write_labelme(tmp_path, *shapes)
    config = write_toml(tmp_path, name, 'ignore_names = ["unsure"]')
    text = (tmp_path / "d.toml").read_text().replace('name = "car"', 'name = "car"\nnames = ["lorry", "van"]')
    (tmp_path / "d.toml").write_text(text)
    expected = box(1, 5, 1, 5, 1)
    expected[1:3, 8:10] = 255
    np.testing.assert_array_equal(label_of(open_dataset(config, None, "train")), expected)


@pytest.mark.parametrize(
    ("more", "background", "value"),
    [("", True, 3), ("", False, 255), ('unlabeled = "ignore"', True, 255), ('unlabeled = "road"', True, 0)],
)
def test_pixels_without_annotation_are_what_unlabeled_says(
    more: str, background: bool, value: int, tmp_path: Path
) -> None:
    name = write_coco(tmp_path, coco({"category_id": 2, "segmentation": [flat(SQUARE)]}))
    label = label_of(opened(tmp_path, name, more, background))
    np.testing.assert_array_equal(label, box(1, 4, 1, 4, 1, value))


def test_an_image_without_annotation_is_labeled_only_where_that_is_said_and_the_rest_is_a_class(tmp_path: Path) -> None:
    table = coco({"category_id": 2, "segmentation": [flat(SQUARE)]})
    table["images"].append({"id": 8, "file_name": "b.jpg", "height": 12, "width": 16})
    name = write_coco(tmp_path, table)
    save_image(tmp_path / "images" / "b.jpg")
    labeled = 'empty_images = "labeled"'
    assert (label_of(opened(tmp_path, name, labeled), "b") == 3).all()
    for more, remedy in (("", "labeled"), (f'unlabeled = "ignore"\n{labeled}', "`unlabeled = CLASS`")):
        dataset = opened(tmp_path, name, more)
        assert dataset.samples[0].label is not None and dataset.samples[1].label is None
        assert "1 image without any annotation: unlabeled (b)." in dataset.notes[0] and remedy in dataset.notes[0]
    with pytest.raises(UserError, match='empty_images must be "labeled" or "unlabeled"'):
        opened(tmp_path, name, 'empty_images = "no"')


def test_an_own_file_of_an_image_without_shapes_is_a_label(tmp_path: Path) -> None:
    assert (label_of(opened(tmp_path, write_labelme(tmp_path))) == 3).all()


@pytest.mark.parametrize(
    ("write", "more", "message"),
    [
        (lambda root: write_coco(root, coco()), 'label_kind = "labelme"', 'is none with label_kind = "labelme"'),
        (lambda root: write_cvat(root), 'label_kind = "coco"', 'label_kind = "coco" is no kind of .xml file'),
        (
            lambda root: write_labelme(root),
            'label_kind = "coco"',
            r"needs a \.json file of COCO, and .* holds none\. There is .*a\.json",
        ),
        (lambda root: write_labelme(root) + "/a.json", "", "is one file of labelme: name the folder"),
        (lambda root: write_coco(root, {}), "", "is no annotation file that is known"),
        (lambda root: write_labelme(root, shapes=1), "", "is no annotation file that is known"),
    ],
)
def test_a_place_of_another_kind_than_said_is_refused(
    write: Callable[[Path], str], more: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        opened(tmp_path, write(tmp_path), more)


def _round(root: Path, name: str, annotated: str, *others: str) -> None:
    """One export of a labeling tool: a car in one image; the others are listed without annotation."""
    for image in (annotated, *others):
        save_image(root / "images" / f"{image}.jpg")
    table = coco({"category_id": 2, "segmentation": [flat(SQUARE)]}, file_name=f"{annotated}.jpg")
    table["images"] += [
        {"id": 20 + i, "file_name": f"{other}.jpg", "height": 12, "width": 16} for i, other in enumerate(others)
    ]
    (root / "rounds" / name).parent.mkdir(parents=True, exist_ok=True)
    (root / "rounds" / name).write_text(json.dumps(table))


@pytest.mark.parametrize("more", ["", 'label_kind = "coco"'])
def test_coco_files_of_a_folder_are_read_together(more: str, tmp_path: Path) -> None:
    _round(tmp_path, "1.json", "a", "b", "c")
    _round(tmp_path, "second/export.json", "b", "a", "c")
    (tmp_path / "rounds" / "info.json").write_text('{"tool": "some"}')
    dataset = opened(tmp_path, "rounds", more)
    assert [sample.name for sample in dataset.samples if sample.label is not None] == ["a", "b"]
    for name in ("a", "b"):
        np.testing.assert_array_equal(label_of(dataset, name), box(1, 4, 1, 4, 1))
    told = " ".join(dataset.notes)
    assert "Labels are those of 2 annotation files" in told
    assert "not read, as they are no annotations of COCO" in told and "info.json" in told


def test_cvat_files_of_a_folder_are_read_together(tmp_path: Path) -> None:
    square = '<polygon label="car" points="1,1;4,1;4,4;1,4"/>'
    (tmp_path / "rounds").mkdir()
    for name in ("a", "b"):
        file = write_cvat(tmp_path, square, image=f'name="{name}.jpg" width="16" height="12"')
        os.rename(tmp_path / file, tmp_path / "rounds" / f"{name}.xml")
        save_image(tmp_path / "images" / f"{name}.jpg")
    dataset = opened(tmp_path, "rounds")
    for name in ("a", "b"):
        np.testing.assert_array_equal(label_of(dataset, name), box(1, 4, 1, 4, 1))


def test_an_image_that_two_files_annotate_is_refused(tmp_path: Path) -> None:
    _round(tmp_path, "1.json", "a", "b")
    _round(tmp_path, "2.json", "a")
    with pytest.raises(UserError, match=r"a\.jpg is annotated twice: .*1\.json.*2\.json.* Remove one"):
        opened(tmp_path, "rounds")


def test_labels_are_drawn_anew_when_a_file_comes_to_the_folder(tmp_path: Path) -> None:
    _round(tmp_path, "1.json", "a", "b")
    assert sum(s.label is not None for s in opened(tmp_path, "rounds").samples) == 1
    _round(tmp_path, "2.json", "b")
    assert sum(s.label is not None for s in opened(tmp_path, "rounds").samples) == 2


def test_xml_files_of_boxes_are_no_labels(tmp_path: Path) -> None:
    save_image(tmp_path / "images" / "a.jpg")
    (tmp_path / "voc").mkdir()
    (tmp_path / "voc" / "a.xml").write_text("<annotation><object/></annotation>")
    with pytest.raises(UserError, match=r"none of CVAT \(.*a\.xml\)\. Pascal VOC: boxes are no labels"):
        opened(tmp_path, "voc")


def test_a_folder_with_pictures_and_json_of_the_same_images_asks_which(tmp_path: Path) -> None:
    name = write_labelme(tmp_path, {"label": "car", "points": SQUARE})
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(tmp_path / name / "a.png")
    with pytest.raises(UserError, match=r"holds label pictures \(a\) and JSON files \(a\). Say which"):
        opened(tmp_path, name)
    assert (label_of(opened(tmp_path, name, 'label_kind = "ids"')) == 0).all()
    np.testing.assert_array_equal(label_of(opened(tmp_path, name, 'label_kind = "labelme"')), box(1, 5, 1, 5, 1))


def test_labels_as_jpeg_are_told_as_such(tmp_path: Path) -> None:
    save_image(tmp_path / "images" / "a.jpg")
    save_image(tmp_path / "labels" / "a.jpg")
    with pytest.raises(UserError, match=r"are JPEG or WebP \(1 \.jpg\), which change ids"):
        opened(tmp_path, "labels")


def test_labels_are_drawn_once_and_anew_when_file_or_classes_change(tmp_path: Path, own_cache: Path) -> None:
    name = write_coco(tmp_path, coco({"category_id": 2, "segmentation": [flat(SQUARE)]}))
    calls: list[tuple[int, int]] = []

    def draw(more: str = "") -> Dataset:
        calls.clear()
        config = write_toml(tmp_path, name, more)
        return open_dataset(config, None, "train", progress=lambda done, total: calls.append((done, total)))

    first = draw()
    path = first.samples[0].label
    assert calls == [(1, 1)] and path is not None and own_cache in path.parents
    with Image.open(path) as picture:
        assert picture.mode == "L"
    assert draw().samples == first.samples and calls == []
    assert draw('unlabeled = "road"').samples != first.samples and calls == [(1, 1)]
    path.unlink()
    draw()
    assert calls == [(1, 1)] and path.is_file()
    table = coco({"category_id": 1, "segmentation": [flat(SQUARE)]})
    (tmp_path / name).write_text(json.dumps(table) + " ")
    np.testing.assert_array_equal(label_of(draw()), box(1, 4, 1, 4, 0))
    assert not list(own_cache.glob(".labels-*"))


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = write_coco(tmp_path, coco({"category_id": 2, "segmentation": [flat(SQUARE)]}))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("IIDM_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="could not be written to .*file .*IIDM_CACHE"):
        opened(tmp_path, name)


def test_a_wrong_annotation_stops_preparing_in_place_of_images_without_labels(tmp_path: Path) -> None:
    name = write_coco(tmp_path, coco({"category_id": 2, "segmentation": [[1, 1, 2, "x", 3, 3]]}))
    with pytest.raises(UserError, match="annotation 10"):
        make_plan(write_toml(tmp_path, name), None, tmp_path / "out")


@pytest.mark.parametrize("kind", ["coco", "colors"])
def test_what_is_prepared_serves_the_classes_it_was_prepared_for_and_no_others(kind: str, tmp_path: Path) -> None:
    if kind == "coco":
        name = write_coco(tmp_path, coco({"category_id": 2, "segmentation": [flat(SQUARE)]}))
    else:
        name = "masks"
        save_image(tmp_path / "images" / "a.jpg")
        (tmp_path / name).mkdir()
        rgb = np.zeros((*SIZE, 3), np.uint8)
        rgb[1:4, 1:4] = (0, 0, 142)
        Image.fromarray(rgb).save(tmp_path / name / "a.png")
    config = write_toml(tmp_path, name)

    def color(text: str) -> None:
        toml = (tmp_path / "d.toml").read_text()
        for k, value in enumerate(("#804080", text, "#464646", "#000000")):
            line = f'name = "{("road", "car", "sign", "background")[k]}"'
            toml = toml.replace(line, f'{line}\ncolor = "{value}"')
        (tmp_path / "d.toml").write_text(toml)

    color("#00008e")
    raw = open_dataset(config, None, "train")
    np.testing.assert_array_equal(label_of(raw), box(1, 4, 1, 4, 1))
    prepare(make_plan(config, None, tmp_path / "out"), jobs=1)
    np.testing.assert_array_equal(label_of(open_dataset(config, tmp_path / "out", "train")), label_of(raw))
    write_toml(tmp_path, name)
    color("#00008f")
    if kind == "colors":  # the same names, but what was read as a car then is none now
        with pytest.raises(UserError, match="Prepare it again"):
            open_dataset(config, tmp_path / "out", "train")
    else:  # how a class is shown is no matter of its labels
        np.testing.assert_array_equal(label_of(open_dataset(config, tmp_path / "out", "train")), label_of(raw))


def test_a_run_on_pictures_is_scored_on_an_annotation_file_and_the_other_way_round(tmp_path: Path) -> None:
    name = write_coco(tmp_path, coco({"category_id": 2, "segmentation": [flat(SQUARE)]}))
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(tmp_path / "masks" / "a.png")
    for more in ("", 'label_kind = "coco"'):
        config = Config(data=DataConfig(target=write_toml(tmp_path, name, more)))
        found = open_folder(config, tmp_path / "images", tmp_path / name)
        np.testing.assert_array_equal(label_of(found), box(1, 4, 1, 4, 1))
        assert (label_of(open_folder(config, tmp_path / "images", tmp_path / "masks")) == 0).all()
    known = Config(data=DataConfig(target=DatasetConfig(spec="camvid")))  # has a class car, and no background
    found = open_folder(known, tmp_path / "images", tmp_path / name)
    np.testing.assert_array_equal(label_of(found), box(1, 4, 1, 4, 8, background=255))


JUNK = st.sampled_from([None, True, -1, 10**30, 1.5, float("nan"), "", "car", [], {}, [[]], [1, 2], {"counts": []}])


@hypothesis_settings(max_examples=60)
@given(data=st.data(), kind=st.sampled_from(["coco", "labelme", "cityscapes"]))
def test_any_value_in_a_json_file_is_read_or_refused_in_words(
    data: st.DataObject, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("junk")
    if kind == "coco":
        mask = {"size": list(SIZE), "counts": [100, 92]}
        table = coco({"category_id": 2, "segmentation": [flat(SQUARE)]}, {"category_id": 1, "segmentation": mask})
        place, path = write_coco(root, table), root / "a.json"
    elif kind == "labelme":
        place, path = write_labelme(root, {"label": "car", "points": SQUARE}), root / "json" / "a.json"
    else:
        place = write_cityscapes(root, {"label": "car", "polygon": SQUARE})
        path = root / place / "a_gtFine_polygons.json"
    table = json.loads(path.read_text())
    spot: Any = table
    for _ in range(data.draw(st.integers(0, 4))):
        keys = list(spot) if isinstance(spot, dict) else range(len(spot))
        key = data.draw(st.sampled_from(list(keys)))
        if not isinstance(spot[key], (dict, list)) or not spot[key]:
            break
        spot = spot[key]
    keys = list(spot) if isinstance(spot, dict) else range(len(spot))
    key = data.draw(st.sampled_from(list(keys)))
    if isinstance(spot, dict) and data.draw(st.booleans()):
        del spot[key]
    else:
        spot[key] = data.draw(JUNK)
    path.write_text(json.dumps(table))
    try:
        dataset = opened(root, place, CITYSCAPES_SUFFIX if kind == "cityscapes" else "")
        if dataset.samples[0].label is not None:
            assert label_of(dataset).shape == SIZE
    except UserError as error:
        assert len(str(error)) < 700 and "\n" not in str(error)


def test_an_image_whose_name_is_no_unicode_has_its_label(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff1")
    write_labelme(tmp_path, {"label": "car", "points": SQUARE})
    (tmp_path / "images" / "a.jpg").rename(tmp_path / "images" / f"{name}.jpg")
    (tmp_path / "json" / "a.json").rename(tmp_path / "json" / f"{name}.json")
    assert (label_of(opened(tmp_path, "json"), name) == 1).any()


def test_the_error_where_no_label_has_an_area_says_so(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_image(tmp_path / "images" / f"{name}.jpg")
    box_alone = {"category_id": 1, "segmentation": [], "bbox": [1, 1, 4, 4]}
    with pytest.raises(UserError, match=r"2 of 2 images .* not in it: b; .*Annotations without an area.*1 boxes"):
        opened(tmp_path, write_coco(tmp_path, coco(box_alone)), background=False)


def test_an_annotated_image_that_is_damaged_is_left_to_the_check(tmp_path: Path) -> None:
    name = write_coco(tmp_path, coco({"category_id": 2, "segmentation": [flat(SQUARE)]}))
    image = tmp_path / "images" / "a.jpg"
    image.write_bytes(image.read_bytes()[:40])
    drawn = opened(tmp_path, name)
    np.testing.assert_array_equal(label_of(drawn), box(1, 4, 1, 4, 1))
    assert check_sample(drawn.samples[0], drawn).problems
    table = coco({"category_id": 2, "segmentation": [flat(SQUARE)]}, height=None, width=None)
    (tmp_path / name).write_text(json.dumps(table))
    with pytest.raises(UserError, match=r"a\.jpg"):
        opened(tmp_path, name)
