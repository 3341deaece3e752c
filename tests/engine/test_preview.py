"""Pictures: colours and overlays by hand, sheets that hold every panel, caption and class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image, ImageDraw

from iidm.data.specs.classes import CITYSCAPES
from iidm.engine.fonts import _system_font
from iidm.engine.preview import LINE, MARGIN, NUMBERED, PANEL_WIDTH, ROWS, Panel, colorize, overlay, save_sheet
from iidm.types import ClassSet

CLASSES = ClassSet(("road", "car"), ((128, 64, 128), (0, 0, 142)))


def panel(caption: str, color: tuple[int, int, int], size: tuple[int, int] = (48, 96)) -> Panel:
    return Panel(caption, np.full((*size, 3), color, np.uint8))


def sheet_of(path: Path, rows: list[list[Panel]], classes: ClassSet = CLASSES) -> np.ndarray:
    save_sheet(path, rows, classes, "train after 500 steps")
    return np.asarray(Image.open(path))


def count(sheet: np.ndarray, color: tuple[int, int, int]) -> int:
    return int((sheet == color).all(-1).sum())


def test_labels_get_their_classes_colours_and_ignored_pixels_are_black() -> None:
    label = np.array([[0, 1, 255], [1, 0, 2]], np.uint8)
    expected = [[(128, 64, 128), (0, 0, 142), (0, 0, 0)], [(0, 0, 142), (128, 64, 128), (0, 0, 0)]]
    found = colorize(label, CLASSES)
    assert found.dtype == np.uint8 and np.array_equal(found, expected)


def test_an_overlay_mixes_image_and_colours_by_alpha() -> None:
    image = np.array([[[100, 200, 30], [255, 255, 255]]], np.uint8)
    label = np.array([[0, 255]], np.uint8)
    assert overlay(image, label, CLASSES).tolist() == [[[114, 132, 79], [128, 128, 128]]]
    assert overlay(image, label, CLASSES, alpha=0.25).tolist() == [[[107, 166, 54], [191, 191, 191]]]
    assert np.array_equal(overlay(image, label, CLASSES, alpha=0.0), image)
    assert np.array_equal(overlay(image, label, CLASSES, alpha=1.0), colorize(label, CLASSES))


def test_a_sheet_holds_every_panel_enlarged_to_one_width(tmp_path: Path) -> None:
    colors = [(250, 10, 10), (10, 250, 10), (10, 10, 250), (250, 250, 10), (10, 250, 250)]
    panels = [panel(f"panel {i}", color) for i, color in enumerate(colors)]
    sheet = sheet_of(tmp_path / "sheet.png", [panels[:3], panels[3:]])
    assert sheet.shape[1] == 3 * (PANEL_WIDTH + MARGIN) + MARGIN
    for color in colors:
        assert count(sheet, color) == PANEL_WIDTH * PANEL_WIDTH // 2  # 48x96 pixels become 192x384


def test_panels_of_other_sizes_keep_their_aspect_ratio(tmp_path: Path) -> None:
    tall, wide = panel("tall", (250, 10, 10), (64, 32)), panel("wide", (10, 10, 250), (300, 1200))
    sheet = sheet_of(tmp_path / "sheet.png", [[tall, wide]])
    assert count(sheet, (250, 10, 10)) == PANEL_WIDTH * PANEL_WIDTH * 2
    assert count(sheet, (10, 10, 250)) == PANEL_WIDTH * PANEL_WIDTH // 4


def test_label_colours_never_blend(tmp_path: Path) -> None:
    label = np.indices((7, 9)).sum(0).astype(np.uint8) % 2
    sheet = sheet_of(tmp_path / "sheet.png", [[Panel("label", colorize(label, CLASSES))]])
    area = sheet[LINE + MARGIN + LINE - 2 :][: round(PANEL_WIDTH * 7 / 9), MARGIN : MARGIN + PANEL_WIDTH]
    assert {tuple(color) for color in area.reshape(-1, 3).tolist()} == set(CLASSES.palette)


def texts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[float, float]]]:
    """Every text that is drawn from now on, with its place."""
    drawn: list[tuple[str, tuple[float, float]]] = []
    real = ImageDraw.ImageDraw.text

    def text(self: ImageDraw.ImageDraw, xy: tuple[float, float], words: str, **options: object) -> None:
        drawn.append((words, xy))
        real(self, xy, words, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return drawn


def test_title_captions_and_every_class_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = texts(monkeypatch)
    rows = [[panel("source", (1, 2, 3)), panel("source: label", (4, 5, 6))], [panel("teacher", (7, 8, 9))]]
    sheet = sheet_of(tmp_path / "sheet.png", rows, CITYSCAPES)
    words = [text for text, _ in drawn]
    assert {"train after 500 steps", "source", "source: label", "teacher", "ignored"} <= set(words)
    assert all(words.count(name) == 1 for name in CITYSCAPES.names)
    # A patch of 21 x 15 pixels in the class's colour, its border grey.
    for color in CITYSCAPES.palette:
        assert count(sheet, color) >= 19 * 13, color


def test_the_legend_grows_by_lines_and_stays_inside_the_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heights = []
    for classes in (CLASSES, CITYSCAPES):
        drawn = texts(monkeypatch)
        sheet = sheet_of(tmp_path / "sheet.png", [[panel("image", (1, 2, 3))]], classes)
        heights.append(sheet.shape[0])
        assert all(0 <= x < sheet.shape[1] for _, (x, _) in drawn)
        # White to the last columns and lines: no name was cut.
        assert (sheet[:, -2:] == 255).all() and (sheet[-2:] == 255).all()
    lines = (heights[1] - heights[0]) / LINE
    assert lines >= 3 and lines == int(lines)


def test_a_sheet_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "previews" / "sheet.png"
    first = sheet_of(path, [[panel("image", (9, 9, 9))]])
    assert [p.name for p in path.parent.iterdir()] == ["sheet.png"]

    def full(self: Image.Image, target: Path, **_: object) -> None:
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left"):
        save_sheet(path, [[panel("image", (5, 5, 5))]], CLASSES, "second")
    monkeypatch.undo()
    assert np.array_equal(np.asarray(Image.open(path)), first)


def test_names_beyond_ascii_are_drawn_with_their_letters(tmp_path: Path) -> None:
    """Pillow's own font draws one box for each letter that it lacks, whichever it is."""
    drawn = []
    for name in ("Straße", "Straöe"):
        classes = ClassSet(("sky", name), ((0, 0, 0), (9, 9, 9)))
        save_sheet(tmp_path / "a.png", [[Panel("früh", np.zeros((8, 8, 3), np.uint8))]], classes, "title")
        drawn.append(np.asarray(Image.open(tmp_path / "a.png")))
    assert (drawn[0] != drawn[1]).any()


ROAD, SKY = "\u9053\u8def", "\u7a7a"
"""Two names in Chinese."""


def font_file(path: Path, letters: str) -> str:
    """A font that has these letters: solid squares, of widths of their own."""
    names = {ord(letter): f"u{ord(letter):04X}" for letter in letters}
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap(names)
    pen = TTGlyphPen(None)
    for number, corner in enumerate(((0, 0), (0, 800), (800, 800), (800, 0))):
        (pen.lineTo if number else pen.moveTo)(corner)
    pen.closePath()
    glyph = pen.glyph()
    builder.setupGlyf({name: glyph for name in builder.font.getGlyphOrder()})
    builder.setupHorizontalMetrics({name: (1000, 0) for name in builder.font.getGlyphOrder()})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return str(path)


@pytest.mark.parametrize("is_there", [True, False])
def test_names_that_the_usual_font_lacks_take_one_of_the_system_or_their_number(
    is_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "damaged.ttf").write_bytes(b"no font")
    files = [str(tmp_path / "damaged.ttf"), font_file(tmp_path / "half-Regular.ttf", ROAD[:1])]
    files += [font_file(tmp_path / "LastResort.ttf", ROAD + SKY)]  # its letters are boxes
    if is_there:
        files.append(font_file(tmp_path / "whole.ttf", ROAD + SKY + "for, "))
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: files)
    _system_font.cache_clear()
    drawn = texts(monkeypatch)
    fonts: dict[str, str] = {}
    real = ImageDraw.ImageDraw.text

    def text(self: ImageDraw.ImageDraw, xy: object, words: str, **options: Any) -> None:
        fonts[words] = Path(str(options["font"].path)).name
        real(self, xy, words, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    classes = ClassSet((SKY, "car", ROAD), ((1, 2, 3), (4, 5, 6), (7, 8, 9)))
    rows = [[panel(f"for {ROAD}, {SKY}", (1, 2, 3)), panel("\uac74.jpg", (4, 5, 6))]]
    sheet_of(tmp_path / "sheet.png", rows, classes)
    _system_font.cache_clear()
    words = {word for word, _ in drawn}
    if is_there:
        assert {SKY, ROAD, "car", f"for {ROAD}, {SKY}", "?.jpg"} <= words and NUMBERED not in words
        assert (fonts[SKY], fonts["car"]) == ("whole.ttf", "DejaVuSans.ttf")
    else:
        assert {"class 0", "car", "class 2", "for class 2, class 0", "?.jpg", NUMBERED} <= words
    assert json.loads(Image.open(tmp_path / "sheet.png").info[ROWS])[0][0] == f"for {ROAD}, {SKY}"
