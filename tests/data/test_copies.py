"""Validation images that training has too, as copies."""

from __future__ import annotations

import shutil
from pathlib import Path

import make_datasets as make

from iidm.config import Config, DataConfig, DatasetConfig, LossConfig
from iidm.data.datasets.check import check_data
from iidm.data.datasets.domains import open_domains


def _notes(root: Path) -> str:
    spec = DatasetConfig(images="images/{split}", labels="labels/{split}", class_names=("a", "b", "c"))
    data = DataConfig(target=spec, labeled_count=None, crop_size=(16, 16))
    config = Config(target_root=root, data=data, loss=LossConfig(source_weight=0, inter_weight=0))
    return "\n".join(check_data(open_domains(config), data).notes)


def test_copies_of_training_images_among_those_that_validate_are_told(tmp_path: Path) -> None:
    size = (24, 32)
    for i, name in enumerate(("train/t0", "train/t1", "val/v0", "val/v1")):
        make.save_image(tmp_path / "images" / f"{name}.bmp", size, i)  # all of one size in bytes
        if name != "train/t1":
            make.save_gray(tmp_path / "labels" / f"{name}.png", make.random_ids((0, 1, 2), size, i))
    assert "training images" not in _notes(tmp_path)
    copied, copy = tmp_path / "images/train/t1.bmp", tmp_path / "images/val/v1.bmp"
    shutil.copy(copied, copy)
    told = f"validation: 1 image is a copy of training images, so scores will be too good: v1.bmp is {copied}"
    assert told in _notes(tmp_path)
