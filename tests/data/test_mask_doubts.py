"""What masks do not tell for sure is told: annotators of one class, numbered things, two readings, a rest."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from inspected_folders import SIZE, box_mask, counts, described, opened, photo, write

from iidm.data.inspection import masks as inspected_masks
from iidm.data.inspection.describe import tell
from iidm.data.inspection.overlaps import Overlaps, groups, numbered
from iidm.data.inspection.report import Report, inspect_folders
from iidm.inspect import main as inspect
from iidm.types import UserError

Box = tuple[int, int, int, int]
CAR, SAME_CAR, ROAD, SKY = (10, 30, 8, 20), (11, 31, 8, 21), (30, 48, 0, 64), (0, 30, 0, 64)
FORMS = ("{image}_{name}.png", "{name}/{image}.png", "{image}/{name}.png")


def written(root: Path, boxes: dict[str, Box], form: str = FORMS[0], count: int = 4) -> Path:
    for i in range(count):
        photo(root / "images" / f"x_{i}.jpg", i)
        for name, box in boxes.items():
            box_mask(root / "masks" / form.format(image=f"x_{i}", name=name), box)
    return root


def numbers(root: Path, images: Iterable[int], pairs: Iterable[tuple[int, int]]) -> Path:
    """Folders and files that are called by numbers, as images are."""
    for i in images:
        photo(root / "images" / f"{i}.jpg", i)
    for folder, file in pairs:
        box_mask(root / "masks" / f"{folder}" / f"{file}.png", (8 * folder, 8 * folder + 8, 8 * file, 8 * file + 8))
    return root


def doubt(report: Report, word: str) -> str:
    (line,) = [line for line in report.doubts if word in line]
    return line


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("names", [("annotatorA", "annotatorB"), ("A", "B")])
def test_masks_of_two_annotators_are_a_doubt(names: tuple[str, str], form: str, tmp_path: Path) -> None:
    report = inspect_folders([written(tmp_path, dict(zip(names, (CAR, SAME_CAR), strict=True)), form)])
    (line,) = report.doubts
    both, either = 19 * 12, 2 * 20 * 13 - 20 - 19 * 12
    assert f"masks of {names[0]} and {names[1]} cover the same pixels: they share {both / either:.0%} of" in line
    assert "in 4 images of those looked at" in line
    assert f'give one class all of the names (names = ["{names[0]}", "{names[1]}"])' in line
    path, _ = described(report, tmp_path)
    assert f'"{names[0]}"  # doubt: its masks cover the pixels of {names[1]}: one class?' in path.read_text()
    (note,) = opened(path).notes
    assert "They are 84% of all pixels in masks: are these masks of several annotators of one class?" in note


def test_what_the_doubt_advises_is_one_class(tmp_path: Path) -> None:
    written(tmp_path, {"A": CAR, "B": SAME_CAR})
    classes = '[[classes]]\nname = "background"\n[[classes]]\nname = "car"\nnames = ["A", "B"]\n'
    write(tmp_path / "d.toml", f'images = "images"\nlabels = "masks"\nlabel_kind = "masks"\n{classes}')
    dataset = opened(tmp_path / "d.toml")
    assert dataset.notes == () and (dataset.load_label(dataset.samples[0]) == 1).sum() == 20 * 12 + 12 + 20
    for path in (tmp_path / "masks").glob("*_B.png"):
        path.unlink()
    report = inspect_folders([tmp_path])
    assert report.doubts == [] and report.count("train") == (4, 4)
    assert [entry.name for entry in report.naming.classes] == ["background", "foreground"]


def test_masks_that_share_an_edge_or_lie_in_others_are_no_annotators(tmp_path: Path) -> None:
    window = (12, 16, 9, 12)
    report = inspect_folders([written(tmp_path, {"building": CAR, "window": window, "road": (28, 48, 0, 64)})])
    (line,) = report.doubts
    assert "4 of 4 images that were looked at have pixels in masks of two classes" in line


def test_three_annotators_are_one_group_beside_classes_that_clash(tmp_path: Path) -> None:
    boxes = {"A": CAR, "B": SAME_CAR, "C": (11, 30, 7, 20), "road": (29, 48, 0, 64)}
    report = inspect_folders([written(tmp_path, boxes)])
    assert "masks of A, B and C cover the same pixels: two of them share" in doubt(report, "annotators")
    assert "road" not in doubt(report, "annotators") and "are ignored. Mend" in doubt(report, "masks of two classes")


def test_overlaps_count_images_that_have_both() -> None:
    overlaps, rows = Overlaps(), np.arange(300)[:, None] + np.zeros(400, int)
    first = rows < 200
    assert overlaps.add(["a", "b"], np.stack((first, (rows >= 50) & (rows < 250)))) == {("a", "b")}
    overlaps.add(["a"], first[None])
    overlaps.add(["a", "b"], np.stack((first, rows < 0)))
    assert overlaps.strong() == {("a", "b"): 150 / 250}
    assert overlaps.add(["b", "a"], np.stack((first, rows >= 200))) == set()
    assert overlaps.strong() == {} and overlaps.lines() == []  # 150 of 550 rows
    assert groups([("a", "b"), ("c", "d"), ("b", "e")]) == [["a", "b", "e"], ["c", "d"]]


def test_names_that_differ_by_a_number_are_a_doubt(tmp_path: Path) -> None:
    boxes = {"car_1": CAR, "car_2": (10, 30, 30, 40), "road": ROAD}
    line = doubt(inspect_folders([written(tmp_path, boxes, FORMS[2])]), "number")
    assert "masks car_1, car_2 differ by a number alone: classes, or things of one class?" in line
    assert 'names = ["car_1", "car_2"]' in line
    assert numbered(["class 1", "class 2", "road"], True) == [] and numbered(["1", "2"], False) == []


def test_numbers_alone_are_a_doubt_where_a_folder_is_an_image(tmp_path: Path) -> None:
    boxes = {"0": CAR, "1": ROAD}
    line = doubt(inspect_folders([written(tmp_path / "a", boxes, FORMS[2])]), "number")
    assert "masks 0, 1 are called by numbers alone" in line
    assert inspect_folders([written(tmp_path / "b", boxes, FORMS[1])]).doubts == []


def test_masks_of_single_things_are_told(tmp_path: Path) -> None:
    for i in range(4):
        photo(tmp_path / "images" / f"x_{i}.jpg", i)
        for k in range(3):
            box_mask(tmp_path / "masks" / f"x_{i}" / f"{i * 17 + k:04x}.png", CAR)
    report = inspect_folders([tmp_path])
    assert report.labels == []
    line = doubt(report, "single things")
    assert "folders called like images (x_0, x_1, x_2 and 1 more), but the 12 pictures in them have 12 names" in line
    assert "Needed is a file for each class, such as x_0/road.png" in line


def test_two_readings_are_told(tmp_path: Path) -> None:
    folders = numbers(tmp_path / "a", range(5), [(image, of) for image in range(5) for of in (1, 2)])
    report = inspect_folders([folders])
    assert "Read is a folder as an image and a file as a class." in doubt(report, "two readings")
    assert counts(opened(described(report, folders)[0])) == (5, 5)
    files = numbers(tmp_path / "b", range(5), [(of, image) for image in range(5) for of in (1, 2)])
    report = inspect_folders([files])
    assert "Read is a file as a label of its image." in doubt(report, "two readings")
    assert counts(opened(described(report, files)[0])) == (5, 5)
    one = inspect_folders([numbers(tmp_path / "c", range(5), [(3, 1), (3, 2)])])
    assert "folders in it (3) are called like images, and so are files in these (1.png)" in doubt(one, "two readings")


def test_masks_of_which_no_reading_is_better_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers(tmp_path, (1, 2, 3), [(folder, file) for folder in (1, 2, 3) for file in (1, 2, 3)])
    line = doubt(report := inspect_folders([tmp_path]), "may be")
    assert "1/2.png may be of class '1' of image '2' or of class '2' of image '1'; needed is one reading" in line
    assert "Rename it, the class or the image so that one is left" in line and report.doubts == [line]
    with pytest.raises(UserError, match="was not written: without labels"):
        inspect([str(tmp_path), "--write", str(tmp_path / "d.toml")])
    assert capsys.readouterr().out.count("may be of class") == 1
    classes = "".join(f'[[classes]]\nname = "{name}"\n' for name in (1, 2, 3))
    write(tmp_path / "d.toml", f'images = "images"\nlabels = "masks"\nlabel_kind = "masks"\n{classes}')
    with pytest.raises(UserError, match=r"1/2\.png may be of class"):
        opened(tmp_path / "d.toml")


def test_masks_that_cover_everything_leave_no_background(tmp_path: Path) -> None:
    report = inspect_folders([written(tmp_path, {"road": ROAD, "sky": SKY})])
    assert [entry.name for entry in report.naming.classes] == ["road", "sky"]
    assert any("note     masks cover every pixel: no class background is needed" in line for line in tell(report))
    path, table = described(report, tmp_path)
    assert table["unlabeled"] == "ignore" and "# every pixel is in a mask" in path.read_text()
    dataset = opened(path)
    assert dataset.classes.names == ("road", "sky") and dataset.notes == ()


def test_a_rest_in_images_that_were_not_looked_at_is_ignored_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, {"road": ROAD, "sky": SKY})
    box_mask(tmp_path / "masks" / "x_0_sky.png", (0, 24, 0, 64))
    assert "background" in [entry.name for entry in inspect_folders([tmp_path]).naming.classes]
    monkeypatch.setattr(inspected_masks, "SAMPLED", 2)  # the second and the fourth
    report = inspect_folders([tmp_path])
    (note,) = [line for line in report.notes if "every pixel" in line]
    assert "of the 2 of 4 images that were looked at: no class background is written" in note
    path, table = described(report, tmp_path)
    assert table["unlabeled"] == "ignore" and "# guessed: every pixel is in a mask in 2 of 4 images" in path.read_text()
    (line,) = opened(path).notes
    assert f"1 image with pixels in no mask, up to {6 / SIZE[0]:.1%} (x_0): those pixels are ignored" in line


def test_how_much_is_background_is_said(tmp_path: Path) -> None:
    report = inspect_folders([written(tmp_path, {"road": ROAD, "sky": (0, 24, 0, 64)})])
    text = described(report, tmp_path)[0].read_text()
    assert f'unlabeled = "background"  # guessed ({6 / SIZE[0]:.2%} of the pixels); "ignore" where' in text
