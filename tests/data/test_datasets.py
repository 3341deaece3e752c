"""Data sets in their official layouts are listed as specified; every mistake is one clear error."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import make_datasets as make
import numpy as np
import pytest

from iidm.config import DatasetConfig
from iidm.data.datasets.dataset import Dataset, open_dataset, training_size
from iidm.data.specs.known import SPECS
from iidm.types import UserError

DUSK = [f"0001TP_{i:06d}" for i in range(0, 620, 10)]
DAY = ["0006R0_f00930", "0016E5_00390", "0016E5_00420"]


def _spec(name: str, **fields: Any) -> DatasetConfig:
    return DatasetConfig(spec=name, **fields)


def _names(dataset: Dataset | None) -> list[str]:
    assert dataset is not None
    return [sample.name for sample in dataset.samples]


def test_gta5_is_listed_with_its_palette_labels(tmp_path: Path) -> None:
    written = make.write_gta5(tmp_path, count=3)
    dataset = open_dataset(_spec("gta5"), tmp_path, "train")
    assert _names(dataset) == list(written) and dataset.resize == (720, 1280) and len(dataset.classes) == 19
    for sample in dataset.samples:
        label, ids = dataset.load_label(sample), written[sample.name]
        assert label.shape == ids.shape == make.SIZE
        assert (label[ids == 26] == 13).all() and (label[ids == 34] == 255).all()


def test_synthia_is_listed_with_its_16_bit_labels(tmp_path: Path) -> None:
    written = make.write_synthia(tmp_path, count=2)
    dataset = open_dataset(_spec("synthia"), tmp_path, "train")
    assert _names(dataset) == list(written) and dataset.resize is None
    assert dataset.classes.report[0][0] == "13 classes" and len(dataset.classes) == 19
    for sample in dataset.samples:
        label, ids = dataset.load_label(sample), written[sample.name]
        assert (label[ids == 8] == 13).all() and (label[ids == 1] == 10).all()
        assert not np.isin(label, (9, 14, 16)).any()


def test_cityscapes_names_hold_the_city_and_no_suffix(tmp_path: Path) -> None:
    written = make.write_cityscapes(tmp_path, train=4, val=2)
    for split in ("train", "val"):
        dataset = open_dataset(_spec("cityscapes"), tmp_path, split)  # type: ignore[arg-type]
        assert _names(dataset) == sorted(written[split]) and dataset.resize == (512, 1024)
        sample = dataset.samples[0]
        assert sample.label is not None and sample.label.name.endswith("_gtFine_labelIds.png")
        label, ids = dataset.load_label(sample), written[split][sample.name]
        assert (label[ids == 33] == 18).all() and (label[ids == 255] == 255).all() and (label[ids == 9] == 255).all()


def test_cityscapes_16_ignores_what_synthia_lacks(tmp_path: Path) -> None:
    written = make.write_cityscapes(tmp_path)
    dataset = open_dataset(_spec("cityscapes-16"), tmp_path, "val")
    label, ids = dataset.load_label(dataset.samples[0]), written["val"][dataset.samples[0].name]
    assert np.isin(ids, (22, 27, 31)).any() and (label[np.isin(ids, (22, 27, 31))] == 255).all()
    assert (label[ids == 33] == 18).all()


def test_scenes_labels_can_be_merged_into_camvids_classes(tmp_path: Path) -> None:
    written = make.write_scene_folders(tmp_path, "rendered", "train", 2)
    dataset = open_dataset(_spec("streetscenes-rendered-camvid"), tmp_path, "train")
    assert dataset.classes.names[8] == "car" and len(dataset.classes) == 11
    sample = dataset.samples[0]
    label, ids = dataset.load_label(sample), written[f"train/{sample.name}"]
    assert (label[np.isin(ids, (13, 14, 15, 16))] == 8).all() and (label[ids == 255] == 255).all()


def test_camvid_dusk_is_divided_by_time(tmp_path: Path) -> None:
    make.write_camvid(tmp_path, [*DAY, *DUSK])
    make.write_camvid(tmp_path, ["0016E5_07959"], split="val")
    assert _names(open_dataset(_spec("camvid-dusk"), tmp_path, "train")) == DUSK[:46]
    assert _names(open_dataset(_spec("camvid-dusk"), tmp_path, "val")) == DUSK[46:]
    assert _names(open_dataset(_spec("camvid-day"), tmp_path, "train")) == DAY
    assert _names(open_dataset(_spec("camvid"), tmp_path, "val")) == ["0016E5_07959"]


def test_the_real_camvid_has_the_published_counts(camvid_root: Path) -> None:
    counts = {
        (s, n): len(open_dataset(_spec(s), camvid_root, n).samples)  # type: ignore[arg-type]
        for s in ("camvid", "camvid-day", "camvid-dusk")
        for n in ("train", "val")
    }
    assert counts == {
        ("camvid", "train"): 367,
        ("camvid", "val"): 101,
        ("camvid-day", "train"): 305,
        ("camvid-day", "val"): 101,
        ("camvid-dusk", "train"): 46,
        ("camvid-dusk", "val"): 16,
    }


@pytest.mark.parametrize(
    ("spec", "on_disk", "expected"),
    [
        ("gta5", (1052, 1914), (704, 1280)),
        ("synthia", (760, 1280), (760, 1280)),
        ("cityscapes", (1024, 2048), (512, 1024)),
        ("camvid", (360, 480), (360, 480)),
    ],
)
def test_images_get_the_training_sizes_of_the_paper(
    spec: str, on_disk: tuple[int, int], expected: tuple[int, int]
) -> None:
    known = SPECS[spec]
    assert training_size(Dataset(spec, known.classes, (), known.encoding, known.resize), on_disk) == expected


def test_an_upright_image_fits_into_the_box_turned() -> None:
    known = SPECS["gta5"]
    dataset = Dataset("any", known.classes, (), known.encoding, (720, 1280))
    assert training_size(dataset, (1914, 1052)) == (1280, 704)
    assert training_size(dataset, (10, 10)) == (720, 720)


def test_the_users_resize_takes_the_specs_place(tmp_path: Path) -> None:
    make.write_gta5(tmp_path)
    assert open_dataset(_spec("gta5", resize=(64, 64)), tmp_path, "train").resize == (64, 64)


def test_an_unknown_spec_is_an_error_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no data set 'cityscape'.*'cityscapes'"):
        open_dataset(_spec("cityscape"), tmp_path, "train")


def test_missing_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs the folder"):
        open_dataset(_spec("gta5"), None, "train")
    with pytest.raises(UserError, match=r"folder of gta5 \(train\) does not exist: .*gone"):
        open_dataset(_spec("gta5"), tmp_path / "gone", "train")
    make.write_gta5(tmp_path)
    shutil.rmtree(tmp_path / "labels")
    with pytest.raises(UserError, match=r"no label folder .*labels"):
        open_dataset(_spec("gta5"), tmp_path, "train")


def test_the_error_of_a_missing_folder_says_what_is_there_instead(tmp_path: Path) -> None:
    config = DatasetConfig(images="images/{split}", labels="labels", class_names=("a", "b"))
    (tmp_path / "images" / "valid").mkdir(parents=True)
    (tmp_path / "labels").mkdir()
    (tmp_path / "images" / ".hidden").mkdir()
    with pytest.raises(UserError, match=r"no image folder .*images/val \(.*images holds valid\)"):
        open_dataset(replace(config, val_images="images/val", val_labels="labels"), tmp_path, "val")
    with pytest.raises(UserError, match=r"images\\train \(write / between folders"):
        open_dataset(replace(config, images="images\\train"), tmp_path, "train", labels="optional")


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / ".hidden.png").write_text("")
    (tmp_path / "labels").mkdir()
    with pytest.raises(UserError, match=r"no files \*\.png, \*\.jpg, .* in .*images; left aside: 1 hidden file"):
        open_dataset(_spec("gta5"), tmp_path, "train")


def test_images_without_a_label_are_counted_and_named(tmp_path: Path) -> None:
    make.write_gta5(tmp_path, count=9)
    for i in range(2, 9):
        (tmp_path / "labels" / f"{i:05d}.png").unlink()
    with pytest.raises(UserError, match=r"^7 of 9 images .* 00002, 00003, 00004, 00005, 00006 and 2 more"):
        open_dataset(_spec("gta5"), tmp_path, "train")
    with pytest.raises(UserError, match="^7 of 9"):  # a known data set is complete, whatever is asked for
        open_dataset(_spec("gta5"), tmp_path, "train", labels="some")


def test_labels_without_an_image_are_left_aside(tmp_path: Path) -> None:
    make.write_gta5(tmp_path, count=3)
    (tmp_path / "images" / "00002.png").unlink()
    assert _names(open_dataset(_spec("gta5"), tmp_path, "train")) == ["00001", "00003"]


def test_two_images_of_one_name_are_both_read_under_names_with_their_endings(tmp_path: Path) -> None:
    make.write_gta5(tmp_path)
    make.save_image(tmp_path / "images" / "00002.jpg", make.SIZE, 0)
    dataset = open_dataset(_spec("gta5"), tmp_path, "train")
    found = {sample.name: (sample.image.name, sample.label.name if sample.label else "") for sample in dataset.samples}
    assert found["00002.jpg"] == ("00002.jpg", "00002.png") and found["00002.png"] == ("00002.png", "00002.png")
    assert set(found) == {"00001", "00002.jpg", "00002.png", "00003"}
    assert any("2 images share their name" in note and "00002.jpg" in note for note in dataset.notes)


def test_two_labels_of_one_name_are_an_error(tmp_path: Path) -> None:
    make.write_gta5(tmp_path)
    (tmp_path / "labels" / "00002.tif").write_bytes(b"")
    with pytest.raises(UserError, match=r"Two labels of gta5 .* the name '00002'.*00002\.(png|tif).*00002\.(png|tif)"):
        open_dataset(_spec("gta5"), tmp_path, "train")


def test_a_source_has_no_validation_split(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gta5 has no val split: give --data.target.val-images"):
        open_dataset(_spec("gta5"), tmp_path, "val")


def test_loading_a_label_that_is_not_there_names_the_image(tmp_path: Path) -> None:
    make.write_gta5(tmp_path)
    (tmp_path / "labels" / "00001.png").unlink()
    dataset = open_dataset(_spec("gta5"), tmp_path, "train", labels="optional")
    with pytest.raises(UserError, match=r"00001\.png of gta5 has no label"):
        dataset.load_label(dataset.samples[0])
