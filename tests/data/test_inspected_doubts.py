"""What is doubtful in a folder is told."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from inspected_folders import SIZE, mask, parallel, photo, write
from PIL import Image

from iidm.data.inspection.report import inspect_folders


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


def _other_case(root: Path) -> None:
    for i in range(4):
        (root / "images" / f"{i}.jpg").rename(root / "images" / f"drive {i}.jpg")
        (root / "labels" / f"{i}.png").rename(root / "labels" / f"{'Drive' if i else 'drive'} {i}.png")


def _all_in_another_case(root: Path) -> None:
    _other_case(root)
    (root / "labels" / "drive 0.png").rename(root / "labels" / "DRIVE 0.png")


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
    _other_case: r"3 labels have their images' names but for upper and lower case: Drive 1\.png and .* Rename",
    _all_in_another_case: r"4 labels have their images' names but for upper and lower case: DRIVE 0\.png and drive 0",
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
