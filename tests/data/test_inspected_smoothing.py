"""Colour labels that were smoothed, resized or JPEGs are called so, and their blends are no classes."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from inspected_folders import RGB, described, opened, photo
from PIL import Image, ImageDraw, ImageFilter

from iidm.data.inspection.describe import tell
from iidm.data.inspection.report import Report, inspect_folders
from iidm.data.labels.colors import packed
from iidm.types import UserError

OWN: tuple[RGB, ...] = ((0, 0, 0), (230, 25, 75), (60, 180, 75), (255, 225, 25), (0, 130, 200), (245, 130, 48))
VOC: tuple[RGB, ...] = ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128))
"""Many of whose blends are the colours of other classes."""
CITY: tuple[RGB, ...] = ((128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (0, 0, 142), (107, 142, 35))
"""Two of which are as alike as shades of JPEG."""


def drawn(seed: int, colors: tuple[RGB, ...], size: tuple[int, int] = (240, 320)) -> Image.Image:
    """Discs and triangles of each colour on the first one."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (size[1], size[0]), colors[0])
    draw = ImageDraw.Draw(image)
    for color in colors[1:] * 2:
        x, y = rng.integers(0, size[1]), rng.integers(0, size[0])
        r = int(rng.integers(size[0] // 10, size[0] // 3))
        if rng.random() < 0.5:
            draw.ellipse((x - r, y - r, x + r, y + r), fill=color)
        else:
            draw.polygon([tuple((np.array([x, y]) + rng.integers(-r, r, 2)).tolist()) for _ in range(3)], fill=color)
    return image


def scaled(image: Image.Image, by: float, how: Image.Resampling) -> Image.Image:
    return image.resize((round(image.width * by), round(image.height * by)), how)


def was_jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


BLENDS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "bilinear": lambda image: scaled(image, 0.5, Image.Resampling.BILINEAR),
    "box": lambda image: scaled(image, 0.5, Image.Resampling.BOX),
    "bicubic": lambda image: scaled(image, 0.7, Image.Resampling.BICUBIC),
    "enlarged": lambda image: scaled(image, 1.5, Image.Resampling.BILINEAR),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
}


def inspected(root: Path, change: Callable[[Image.Image], Image.Image], colors: tuple[RGB, ...]) -> Report:
    (root / "labels").mkdir()
    for i in range(6):
        label = change(drawn(i, colors))
        label.save(root / "labels" / f"{i}.png")
        photo(root / "images" / f"{i}.jpg", i, (label.height, label.width))
    return inspect_folders([root])


def seen_classes(report: Report) -> set[int | None]:
    assert report.values is not None
    there = report.values.pixels.keys() - report.naming.blurred
    return {entry.color for entry in report.naming.classes if entry.color in there}


@pytest.mark.parametrize("colors", [OWN[:2], OWN, VOC, CITY], ids=["two", "own", "voc", "city"])
@pytest.mark.parametrize("how", BLENDS)
def test_blends_are_doubted_and_the_true_colours_named(how: str, colors: tuple[RGB, ...], tmp_path: Path) -> None:
    report = inspected(tmp_path, BLENDS[how], colors)
    assert seen_classes(report) == {packed(color) for color in colors}
    (doubt,) = [line for line in report.doubts if "smoothed" in line]
    assert re.search(r"\d+ of \d+ colours \(\d+\.\d% of the pixels\) are blends at edges and no classes", doubt)
    assert all(f"#{packed(color):06x}" in doubt for color in colors)
    assert "nearest neighbour" in doubt and "never as JPEG" in doubt


@pytest.mark.parametrize("quality", [75, 95])
def test_labels_that_were_jpegs_have_about_the_true_colours_as_classes(quality: int, tmp_path: Path) -> None:
    report = inspected(tmp_path, lambda image: was_jpeg(image, quality), OWN)
    found = np.array([[c >> 16, c >> 8 & 255, c & 255] for c in seen_classes(report) if c is not None])
    assert len(found) <= 2 * len(OWN)
    assert all(np.abs(found - color).max(-1).min() <= 8 for color in OWN)
    assert any("smoothed, resized or JPEGs" in line for line in report.doubts)


def test_what_is_written_has_the_true_colours_and_training_refuses_the_blends(tmp_path: Path) -> None:
    report = inspected(tmp_path, BLENDS["bilinear"], VOC)
    path, table = described(report, tmp_path)
    assert {f"#{packed(color):06x}" for color in VOC} <= {entry["color"] for entry in table["classes"]}
    assert f"# {len(report.naming.blurred)} blends at edges are no classes" in path.read_text(encoding="utf-8")
    assert not any("400000" in line for line in tell(report)), "a blend that is another class's colour is none of it"
    dataset = opened(path)
    with pytest.raises(UserError, match="come from smoothing"):
        dataset.load_label(dataset.samples[1])


@pytest.mark.parametrize("colors", [OWN, VOC, CITY], ids=["own", "voc", "city"])
def test_sharp_labels_are_not_doubted_though_a_class_is_small_or_thin(colors: tuple[RGB, ...], tmp_path: Path) -> None:
    thin, small, between = (12, 34, 56), (200, 10, 150), tuple(np.mean(colors[:2], axis=0).astype(int).tolist())

    def change(image: Image.Image) -> Image.Image:
        draw = ImageDraw.Draw(image)
        draw.line((0, 100, image.width, 100), fill=thin)
        draw.rectangle((5, 5, 8, 8), fill=small)
        draw.line((30, 0, 30, image.height), fill=between, width=2)
        return image

    report = inspected(tmp_path, change, colors)
    assert seen_classes(report) == {packed(color) for color in (*colors, thin, small, between)}  # type: ignore[arg-type]
    assert report.naming.blurred == frozenset() and not any("smoothed" in line for line in report.doubts)
