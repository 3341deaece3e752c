"""Colours, sheets and curves, judged by their pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iidm.engine.curves import save_curves
from iidm.engine.log import RunLog
from iidm.engine.preview import PANEL_WIDTH, Panel, colorize, overlay, save_sheet
from iidm.types import ClassSet

CLASSES = ClassSet(("road", "car", "sky"), ((128, 64, 128), (0, 0, 142), (70, 130, 180)))
LABEL = np.array([[0, 1], [2, 255]], np.uint8)


def test_a_label_is_shown_in_its_classes_colours_and_ignored_pixels_are_black() -> None:
    assert colorize(LABEL, CLASSES).tolist() == [[[128, 64, 128], [0, 0, 142]], [[70, 130, 180], [0, 0, 0]]]


def test_an_overlay_mixes_image_and_colours() -> None:
    image = np.full((2, 2, 3), 100, np.uint8)
    assert overlay(image, LABEL, CLASSES, 0.0).tolist() == image.tolist()
    assert overlay(image, LABEL, CLASSES, 1.0).tolist() == colorize(LABEL, CLASSES).tolist()
    assert overlay(image, LABEL, CLASSES, 0.25)[0, 0].tolist() == [107, 91, 107]  # 75 + a quarter of the colour


def colors(path: Path) -> set[tuple[int, ...]]:
    with Image.open(path) as image:
        found = image.getcolors(maxcolors=image.width * image.height)
    assert found is not None
    return {color for _, color in found if isinstance(color, tuple)}


def test_a_sheet_enlarges_small_crops_and_has_a_legend_of_every_class(tmp_path: Path) -> None:
    path = tmp_path / "previews" / "sheet.png"
    flat = np.full((32, 64, 3), (1, 250, 3), np.uint8)
    save_sheet(path, [[Panel("image", flat), Panel("other", flat)], [Panel("alone", flat)]], CLASSES, "after 5 steps")
    with Image.open(path) as image:
        pixels = np.asarray(image)
    assert (pixels == (1, 250, 3)).all(-1).sum() == 3 * PANEL_WIDTH * PANEL_WIDTH // 2
    assert {*CLASSES.palette, (0, 0, 0), (255, 255, 255)} <= colors(path)
    assert [p.name for p in path.parent.iterdir()] == ["sheet.png"]


def test_the_legend_takes_as_many_lines_as_it_needs(tmp_path: Path) -> None:
    many = ClassSet(tuple(f"class number {i}" for i in range(40)), tuple((i, 255 - i, 77) for i in range(40)))
    save_sheet(tmp_path / "a.png", [[Panel("a", np.zeros((8, 8, 3), np.uint8))]], many, "t")
    assert set(many.palette) <= colors(tmp_path / "a.png")


def test_a_labels_colours_do_not_blend_when_it_shrinks(tmp_path: Path) -> None:
    label = np.random.default_rng(0).integers(0, 3, (500, 500), dtype=np.uint8)
    drawn = []
    for name, array in (("two", np.stack([label] * 3, -1)), ("none", np.zeros((500, 500, 3), np.uint8))):
        array = colorize(array[..., 0], CLASSES) if name == "two" else array
        save_sheet(tmp_path / f"{name}.png", [[Panel("label", array)]], CLASSES, "t")
        drawn.append(colors(tmp_path / f"{name}.png"))
    assert drawn[0] == drawn[1]  # both sheets hold the legend's colours and the text's greys, no new ones


def test_a_long_caption_stays_in_its_column(tmp_path: Path) -> None:
    white = np.full((8, 8, 3), 255, np.uint8)
    rows = [[Panel("W" * 500, white), Panel("", white)]]
    save_sheet(tmp_path / "a.png", rows, CLASSES, "")
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.asarray(image)
    assert (pixels[:60, : PANEL_WIDTH + 10] < 128).any()
    assert (pixels[:60, PANEL_WIDTH + 16 :] == 255).all()


def log_run(run_dir: Path, values: list[dict[str, float]]) -> None:
    with RunLog(run_dir, total_steps=len(values), start_step=0, quiet=True, tensorboard=False) as log:
        for step, line in enumerate(values):
            log.log(step, line)


def width(path: Path | None) -> int:
    assert path is not None
    with Image.open(path) as image:
        return image.width


def test_curves_show_a_panel_for_each_thing_that_was_logged(tmp_path: Path) -> None:
    lines: list[dict[str, float]] = [{"loss_total": 1 / (s + 1), "loss_intra": 0.0, "lr": 1e-5} for s in range(40)]
    log_run(tmp_path, lines)
    two = width(save_curves(tmp_path))
    lines[10] |= {"miou": 0.4, "quality": float("nan")}
    log_run(tmp_path, lines)
    three = width(save_curves(tmp_path))  # a quality that is always null has no curve
    assert three == pytest.approx(two * 3 / 2, abs=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["curves.png", "metrics.jsonl", "notes.txt"]


def test_a_run_that_logged_nothing_has_no_curves(tmp_path: Path) -> None:
    assert save_curves(tmp_path) is None
    log_run(tmp_path, [{"loss_total": float("nan")}])
    assert save_curves(tmp_path) is None
    assert not (tmp_path / "curves.png").exists()
