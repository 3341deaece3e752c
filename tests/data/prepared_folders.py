"""Tiny data sets in the layouts that are known, and prepared folders of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import make_datasets as make
import numpy as np

from iidm.config import DatasetConfig
from iidm.data.datasets.dataset import Dataset, open_dataset
from iidm.data.loading.decoding import read_image
from iidm.data.preparation.plan import make_plan, prepare
from iidm.data.prepared.arrays import map_rows
from iidm.data.prepared.entries import ImageFormat

BOX = (22, 38)
CAMVID_NAMES = ["0001TP_000", "0001TP_001", "0006R0_000", "0016E5_000"]


def write_camvid(root: Path) -> None:
    make.write_camvid(root, CAMVID_NAMES)
    make.write_camvid(root, ["0016E5_900", "0001TP_900"], "val")


def write_dusk(root: Path) -> None:
    make.write_camvid(root, [f"0001TP_{i:03d}" for i in range(20)])


WRITERS: dict[str, Callable[[Path], object]] = {
    "gta5": make.write_gta5,
    "synthia": make.write_synthia,
    "cityscapes": make.write_cityscapes,
    "cityscapes-16": make.write_cityscapes,
    "camvid": write_camvid,
}


def prepare_small(name: str, tmp_path: Path, image_format: ImageFormat = "raw", **options: object) -> tuple[Path, Path]:
    """Raw and prepared folder of a tiny data set; every image is shrunk to BOX."""
    raw, out = tmp_path / "downloaded", tmp_path / "prepared"
    WRITERS[name](raw)
    prepare(make_plan(DatasetConfig(spec=name, resize=BOX), raw, out, image_format=image_format), jobs=1)
    return raw, out


def open_small(name: str, root: Path, split: str = "train", box: tuple[int, int] | None = BOX) -> Dataset:
    return open_dataset(DatasetConfig(spec=name, resize=box), root, split)  # type: ignore[arg-type]


def image_of(dataset: Dataset, place: int) -> np.ndarray:
    sample = dataset.samples[place]
    if dataset.is_raw:
        return map_rows(sample.image, (*dataset.image_size(sample), 3))
    return read_image(sample.image)


def times(out: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in (out / "images").rglob("*.npy")}


def prepare_again(tmp_path: Path, name: str = "gta5") -> Path:
    config = DatasetConfig(spec=name, resize=BOX)
    prepare(make_plan(config, tmp_path / "downloaded", tmp_path / "prepared"), jobs=1)
    return tmp_path / "prepared"
