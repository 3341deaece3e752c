"""Labels are written as annotations of each tool, and come back as the same labels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree

import numpy as np
import pytest
from annotation_files import save_image
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO

from iidm.config import DatasetConfig
from iidm.data import PredictedLabel, write_annotations
from iidm.data.annotating.tracing import trace_regions
from iidm.data.annotating.writing import AnnotationFormat, Written
from iidm.data.datasets.dataset import open_dataset
from iidm.types import ClassSet, UserError

CLASSES = ClassSet(("road", "car", "sign & signal", "Bäume", "sky"), tuple((40 * k, 90, 255 - k) for k in range(5)))
FORMS = get_args(AnnotationFormat)
Label = NDArray[np.uint8]


def blobs(seed: int, size: tuple[int, int], coarse: int) -> Label:
    """Smooth random regions with long slanted borders, islands and places where three classes meet."""
    fields = np.random.default_rng(seed).random((5, size[0] // coarse + 2, size[1] // coarse + 2), np.float32)
    smooth = [Image.fromarray(field).resize(size[::-1], Image.Resampling.BICUBIC) for field in fields]
    label: Label = np.stack([np.asarray(field) for field in smooth]).argmax(0).astype(np.uint8)
    return label


def nested() -> Label:
    """Rings within rings, squares that touch at corners, a line of one pixel from edge to edge and a pole of one."""
    label = np.zeros((60, 80), np.uint8)
    for depth in range(4):
        label[4 + 4 * depth : 40 - 4 * depth, 4 + 4 * depth : 50 - 4 * depth] = depth + 1
    label[42:48, 10:16] = label[48:54, 16:22] = 2
    label[:, 60] = 3
    label[10:50, 70] = 4
    return label


def noise() -> Label:
    return np.random.default_rng(1).integers(0, 5, (23, 31)).astype(np.uint8)


def write(
    form: AnnotationFormat,
    root: Path,
    labels: dict[str, Label],
    tolerance: float,
    least: int,
    unlabeled: int | None = None,
) -> Written:
    for name, label in labels.items():
        save_image(root / "images" / name, label.shape)
    items = (PredictedLabel(name, root / "images" / name, label) for name, label in labels.items())
    made, wish = root / "made", {"tolerance_px": tolerance, "least_px": least}
    return write_annotations(form, made, items, CLASSES, unlabeled=unlabeled, **wish)  # type: ignore[arg-type]


def read(form: AnnotationFormat, root: Path, more: str = "") -> dict[str, Label]:
    """The labels as training reads them."""
    file = {"coco": "/annotations.json", "cvat": "/annotations.xml", "labelme": ""}[form]
    names = "".join(f"[[classes]]\nname = {json.dumps(name)}\n" for name in CLASSES.names)
    (root / "d.toml").write_text(f'images = "images"\nlabels = "made{file}"\n{more}\n{names}', encoding="utf-8")
    dataset = open_dataset(DatasetConfig(spec=str(root / "d.toml")), None, "train", labels="all")
    assert dataset.notes == ()
    return {sample.name: dataset.load_label(sample) for sample in dataset.samples}


def far_off(found: Label, label: Label, radius: int) -> Label:
    """Which pixels have a class that no pixel of `label` has up to `radius` rows and columns away."""
    padded = np.pad(label, radius, mode="edge")
    reach = range(2 * radius + 1)
    near = [padded[y : y + label.shape[0], x : x + label.shape[1]] == found for y in reach for x in reach]
    return ~np.any(near, axis=0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tolerance", [0, 1, 2.5])
def test_labels_come_back_within_the_tolerance(form: AnnotationFormat, tolerance: float, tmp_path: Path) -> None:
    labels = {"a/one.jpg": blobs(0, (90, 130), 30), "two.png": nested(), "a/three.jpg": noise()}
    written = write(form, tmp_path, labels, tolerance, 1)
    assert (written.images, written.dropped) == (3, 0)
    found = read(form, tmp_path)
    for name, label in labels.items():
        back = found[name[:-4]]
        if tolerance == 0 and form != "labelme":
            np.testing.assert_array_equal(back, label)
        # a pixel is wholly one class: its middle is up to half a pixel farther; LabelMe knows whole pixels only
        radius = int(tolerance + (1.5 if form == "labelme" else 0.75))
        gaps = back == 255
        assert gaps.mean() < 0.003 and (tolerance or not gaps.any())
        assert not (far_off(back, label, radius) & ~gaps).any()
        if name != "a/three.jpg":
            assert (back == label).mean() > 0.98 - 0.02 * tolerance


@pytest.mark.parametrize("form", FORMS)
def test_what_needs_no_outline_has_none_but_where_another_would_cover_it(
    form: AnnotationFormat, tmp_path: Path
) -> None:
    label = nested()
    label[18:26, 20:34] = 0  # within rings of other classes
    labels = {"one.png": label, "empty.png": np.zeros((20, 30), np.uint8)}
    written = write(form, tmp_path, labels, 0, 1, unlabeled=0)
    found = read(form, tmp_path, 'unlabeled = "road"')
    wrong = {name: (found[name[:-4]] != label).mean() for name, label in labels.items()}
    assert wrong["empty.png"] == 0 and wrong["one.png"] <= (0.002 if form == "labelme" else 0)
    count = sum(region.train_id != 0 for region in trace_regions(label, 0, 1).regions)
    in_hole = form != "coco"
    assert written.regions == count + in_hole + 1, "an image of nothing else keeps its one region"


def test_regions_are_those_of_the_pixels() -> None:
    regions = trace_regions(nested(), 0, 1).regions
    assert sum(region.area_px for region in regions) == nested().size
    assert sorted((region.train_id, region.area_px) for region in regions if region.train_id == 2) == [
        (2, 36.0),
        (2, 36.0),
        (2, 28.0 * 38 - 20 * 30),
    ]
    assert sorted(len(region.holes) for region in regions) == [0, 0, 0, 0, 0, 1, 1, 1, 1, 3]
    outer = [region.filled_px for region in regions]
    assert outer == sorted(outer, reverse=True)


def test_thin_things_do_not_vanish() -> None:
    regions = trace_regions(nested(), 5, 1).regions
    assert {region.train_id: region.area_px for region in regions if region.area_px == 40 or region.area_px == 60} == {
        3: 60.0,
        4: 40.0,
    }


def test_small_regions_at_a_border_do_not_keep_it_rough() -> None:
    label = np.zeros((60, 200), np.uint8)
    label[np.arange(60)[:, None] > 20 + np.arange(200) // 10] = 1
    smooth = trace_regions(label, 1.5, 8).regions
    for x in range(20, 190, 30):
        label[22 + x // 10, x] = 2  # a pixel below the border, and beside it
    rough = trace_regions(label, 1.5, 8).regions
    assert [len(region.outer) for region in smooth] == [len(region.outer) for region in rough] == [5, 5]


def test_neighbours_share_their_border() -> None:
    regions = trace_regions(blobs(3, (120, 160), 25), 2, 32).regions
    assert sum(region.area_px for region in regions) == pytest.approx(120 * 160, abs=4)
    corners = {(x, y) for region in regions for ring in (region.outer, *region.holes) for x, y in ring.tolist()}
    inside = [(x, y) for x, y in corners if 0 < x < 160 and 0 < y < 120]
    users = [sum((corner == ring).all(1).any() for r in regions for ring in (r.outer, *r.holes)) for corner in inside]
    assert min(users) >= 2


def test_small_regions_go_to_the_neighbour_of_the_longest_border() -> None:
    label = np.zeros((20, 30), np.uint8)
    label[:, 15:] = 1
    label[5:8, 14:17] = 2  # 3 edges to class 0 at its left, 3 + 4 of the others to class 1
    label[12:14, 2:4] = 3
    found = trace_regions(label, 0, 10)
    assert found.dropped == 2
    assert sorted((region.train_id, region.area_px) for region in found.regions) == [(0, 297.0), (1, 303.0)]
    assert trace_regions(label, 0, 4).dropped == 0


def test_an_image_of_small_regions_alone_has_one_left() -> None:
    found = trace_regions(noise()[:5, :5], 0, 32)
    assert [(region.area_px, region.holes) for region in found.regions] == [(25.0, ())]


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (2, 2)])
def test_tiny_images_have_regions(size: tuple[int, int]) -> None:
    assert sum(region.area_px for region in trace_regions(np.full(size, 3, np.uint8)).regions) == size[0] * size[1]


def test_pycocotools_reads_the_coco_file(tmp_path: Path) -> None:
    write("coco", tmp_path, {"a/one.jpg": nested(), "two.jpg": blobs(5, (60, 80), 20)}, 0, 1)
    coco = COCO(str(tmp_path / "made" / "annotations.json"))
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(CLASSES.names)
    kinds = set()
    for image, label in zip(coco.dataset["images"], (nested(), blobs(5, (60, 80), 20)), strict=True):
        back = np.full(label.shape, 255)
        for annotation in coco.loadAnns(coco.getAnnIds(image["id"])):
            mask = coco.annToMask(annotation) > 0
            assert (back[mask] == 255).all()
            back[mask] = annotation["category_id"] - 1
            assert annotation["area"] == mask.sum()
            rows, columns = np.nonzero(mask)
            left, top, width, height = annotation["bbox"]
            assert (left, top) == (columns.min(), rows.min())
            assert (left + width, top + height) == (columns.max() + 1, rows.max() + 1)
            kinds.add((type(annotation["segmentation"]), annotation["iscrowd"]))
        np.testing.assert_array_equal(back, label)
    assert kinds == {(list, 0), (dict, 1)}


def test_each_tool_finds_the_images_by_its_own_rule(tmp_path: Path) -> None:
    labels = {"a/one.jpg": nested(), "a/one.png": nested(), "two.jpg": nested()}
    for form in FORMS:
        write(form, tmp_path / form, labels, 1, 32)
    table = json.loads((tmp_path / "coco" / "made" / "annotations.json").read_text())
    assert [(image["file_name"], image["height"], image["width"]) for image in table["images"]] == [
        (name, 60, 80) for name in labels
    ]
    root = ElementTree.parse(tmp_path / "cvat" / "made" / "annotations.xml").getroot()
    assert [image.attrib["name"] for image in root.iter("image")] == list(labels)
    assert [name.text for name in root.iterfind("meta/task/labels/label/name")] == list(CLASSES.names)
    made = tmp_path / "labelme" / "made"
    assert {path.relative_to(made).as_posix() for path in made.rglob("*.json")} == {
        "a/one.json",
        "a/one.png.json",
        "two.json",
    }
    for path in made.rglob("*.json"):  # LabelMe looks for the image from where its file lies
        assert (path.parent / json.loads(path.read_text())["imagePath"]).resolve().is_relative_to(tmp_path / "labelme")
        assert (path.parent / json.loads(path.read_text())["imagePath"]).is_file()


@pytest.mark.parametrize("form", ["coco", "cvat"])
def test_an_error_leaves_the_file_that_was_there(form: AnnotationFormat, tmp_path: Path) -> None:
    before = write(form, tmp_path, {"two.jpg": nested()}, 1, 32)
    content = before.path.read_bytes()

    def labels() -> Iterator[PredictedLabel]:
        yield PredictedLabel("three.jpg", tmp_path / "three.jpg", nested())
        raise UserError("no more")

    with pytest.raises(UserError, match="no more"):
        write_annotations(form, tmp_path / "made", labels(), CLASSES)
    assert [path.read_bytes() for path in (tmp_path / "made").iterdir()] == [content]
