"""Palette labels whose colours stand at other ids than in most are named in a note."""

from __future__ import annotations

from pathlib import Path

import make_datasets as make
import numpy as np
from PIL import Image

from iidm.config import DatasetConfig
from iidm.data.datasets.dataset import Dataset, open_dataset
from iidm.data.datasets.palettes_differ import palettes_note

COLORS = ((128, 64, 128), (0, 0, 142), (70, 130, 180))


def _labels(root: Path, palettes: list[tuple[tuple[int, int, int], ...]]) -> Dataset:
    for i, palette in enumerate(palettes):
        make.save_image(root / "images" / f"{i}.png", make.SIZE, i)
        label = Image.fromarray(make.random_ids(range(3), make.SIZE, i)).convert("P")
        label.putpalette(np.array(palette, np.uint8).tobytes())
        (root / "labels").mkdir(exist_ok=True)
        label.save(root / "labels" / f"{i}.png")
    config = DatasetConfig(images="images", labels="labels", class_names=("a", "b", "c"))
    return open_dataset(config, root, "train")


def test_one_label_with_swapped_colours_is_named(tmp_path: Path) -> None:
    dataset = _labels(tmp_path, [COLORS, COLORS, (COLORS[1], COLORS[0], COLORS[2]), COLORS])
    note = palettes_note(dataset)
    assert note is not None and "1 of 4 palette labels" in note and "id 0, 1" in note
    assert str(tmp_path / "labels" / "2.png") in note and "\n" not in note


def test_equal_palettes_and_colours_of_unused_ids_are_not_told(tmp_path: Path) -> None:
    black = (0, 0, 0)
    dataset = _labels(tmp_path, [COLORS, (COLORS[0], black, black), (*COLORS, black), (COLORS[0], COLORS[1], black)])
    assert palettes_note(dataset) is None


def test_gray_labels_have_no_palettes(tmp_path: Path) -> None:
    dataset = _labels(tmp_path, [COLORS])
    make.save_gray(tmp_path / "labels" / "0.png", np.zeros(make.SIZE, np.uint8))
    assert palettes_note(dataset) is None
