"""`iidm report`: a page that stands alone, with the numbers of the evaluation, whatever a run still has."""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import Page, find_browser
from PIL import Image
from small_runs import CLASSES, VAL_IMAGES, Finished, Said, call, evaluate

import iidm.report
from iidm.cli import parse_config, read_config
from iidm.reports.folder import open_folders
from iidm.reports.pictures import IGNORED, WRONG, Album, difference, preview_strips
from iidm.reports.words import repeat_command
from iidm.types import UserError

VOID = {"meta", "link", "img", "br", "input", "hr"}


class Parsed(HTMLParser):
    """What a page holds; a tag that closes another than the last one opened fails."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.tables: list[list[list[str]]] = []
        self.feed(file.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    @property
    def text(self) -> str:
        """What a reader sees."""
        return " ".join(" ".join(data for tag, data in self.texts if tag not in ("script", "style")).split())

    @property
    def pictures(self) -> list[np.ndarray]:
        """All images, decoded."""
        found = []
        for tag, attributes in self.tags:
            if tag == "img":
                kind, _, body = (attributes["src"] or "").partition(";base64,")
                assert kind in ("data:image/png", "data:image/jpeg")
                found.append(np.asarray(Image.open(io.BytesIO(base64.b64decode(body))).convert("RGB")))
        return found

    def table(self, *first: str) -> list[list[str]]:
        """The first table whose head begins with these words."""
        return next(table for table in self.tables if tuple(cell.strip() for cell in table[0][: len(first)]) == first)


def report(*words: str | Path) -> Said:
    return call(iidm.report.main, words)


@pytest.fixture(scope="module")
def whole(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished run, with its report."""
    run_dir = copied(finished.run_dir, tmp_path_factory.mktemp("report"))
    report(run_dir)
    return run_dir


def copied(run_dir: Path, place: Path) -> Path:
    """A run of its own below `place`, but for the checkpoints, which are hundreds of megabytes."""
    shutil.copytree(run_dir, place / "run", ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
    (place / "run" / "checkpoints").symlink_to((run_dir / "checkpoints").resolve())
    return place / "run"


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A run that a test may damage; what the report has counted is not there."""
    run_dir = copied(whole, tmp_path)
    for name in ("report.html", "report.json"):
        (run_dir / name).unlink()
    return run_dir


def change_config(run_dir: Path, **changes: object) -> None:
    """Dotted names with two underscores for a dot."""
    path = run_dir / "config.json"
    config = json.loads(path.read_text())
    for name, value in changes.items():
        *groups, field = name.split("__")
        inner = config
        for group in groups:
            inner = inner[group]
        inner[field] = value
    path.write_text(json.dumps(config))


# What it tells


def test_the_numbers_are_those_of_the_evaluation(whole: Path, data: Path) -> None:
    page = Parsed(whole / "report.html")
    scores = json.loads(evaluate([whole, "--json"]).out)
    rows = {row[0].strip(): row[1:3] for row in page.table("class", "student")[1:]}
    for number, network in enumerate(("student", "teacher")):
        for name in CLASSES:
            assert rows[name][number] == f"{100 * scores[network]['iou'][name]:.1f}"
        assert rows["mIoU"][number] == f"{100 * scores[network]['miou']:.1f}"
        assert f"{100 * scores[network]['miou']:.1f}\u00a0%" in "".join(data for _, data in page.texts)
    kept = json.loads((whole / "report.json").read_text())["evaluation"]
    student = np.array(kept["confusion"]["student"])
    assert student.trace() / student.sum() == pytest.approx(scores["student"]["pixel_accuracy"])
    assert len(kept["names"]) == VAL_IMAGES
    truth = [np.asarray(Image.open(data / "target" / "labels" / "val" / f"v{i}.png")) for i in range(VAL_IMAGES)]
    assert student.sum(1).tolist() == np.bincount(np.stack(truth).ravel(), minlength=256)[: len(CLASSES)].tolist()
    accuracy = [image[1] for image in kept["images"]["student"]]
    assert np.mean(accuracy) == pytest.approx(scores["student"]["pixel_accuracy"])  # images of equal size


def test_the_worst_image_comes_first_with_the_picture_of_its_own_mistakes(whole: Path) -> None:
    page = Parsed(whole / "report.html")
    kept = json.loads((whole / "report.json").read_text())["evaluation"]
    miou = dict(zip(kept["names"], (score[0] for score in kept["images"]["student"]), strict=True))
    shown = [a["alt"] or "" for tag, a in page.tags if tag == "img" and (a["alt"] or "").startswith("image of")]
    order = [name.removeprefix("image of ") for name in shown]
    assert sorted(order) == sorted(miou) and order[:2] == sorted(miou, key=lambda name: miou[name])[:2]
    places = {a["alt"]: i for i, (_, a) in enumerate([t for t in page.tags if t[0] == "img"])}
    wrong = page.pictures[places[f"difference of {order[0]}"]].astype(int)
    red = (np.abs(wrong - WRONG).sum(-1) < 90).mean()
    accuracy = dict(zip(kept["names"], (score[1] for score in kept["images"]["student"]), strict=True))[order[0]]
    assert red == pytest.approx(1 - accuracy, abs=0.04)


def test_it_tells_what_was_trained_on_what_and_how_to_do_it_again(whole: Path) -> None:
    text = Parsed(whole / "report.html").text
    for words in ("resnet18", "6 of 6", "48x64 pixels", "2 labeled target", "6 source", "4 unlabeled target", "torch"):
        assert words in text, words
    assert " ".join((whole / "notes.txt").read_text().split()) in text
    assert "What is missing" not in text


def test_the_command_makes_the_same_configuration(whole: Path) -> None:
    command = repeat_command(open_folders([whole])[0])
    assert shlex.split(command)[:2] == ["iidm", "train"] and "--config" not in command
    assert parse_config(shlex.split(command)[2:])[0] == read_config(whole / "config.json")


def test_a_configuration_that_no_options_make_starts_from_its_file(copy: Path) -> None:
    change_config(copy, preset="gone-since")
    assert repeat_command(open_folders([copy])[0]) == shlex.join(["iidm", "train", "--config", f"{copy}/config.json"])


def test_it_loads_nothing_and_every_picture_is_in_it(whole: Path) -> None:
    page = Parsed(whole / "report.html")
    assert not re.search("https?://", (whole / "report.html").read_text())
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "data", "action"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
    assert len(page.pictures) == 4 * VAL_IMAGES + 2 + 2  # panels; pseudo-labels and a validation image, twice each
    assert all(picture.size for picture in page.pictures)
    assert (whole / "report.html").stat().st_size < 1e6


def test_a_second_report_evaluates_nothing_again(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Parsed(whole / "report.html")
    monkeypatch.setattr("iidm.reports.gather.evaluate_images", None)
    report(whole)
    assert Parsed(whole / "report.html").text == before.text


def test_another_checkpoint_or_other_labels_are_evaluated_anew(whole: Path, copy: Path, tmp_path: Path) -> None:
    kept = json.loads((whole / "report.json").read_text())
    kept["evaluation"]["key"] = "of another checkpoint"
    kept["evaluation"]["confusion"]["student"][0][0] += 1000
    (copy / "report.json").write_text(json.dumps(kept))
    report(copy)
    assert json.loads((copy / "report.json").read_text()) == json.loads((whole / "report.json").read_text())


def test_several_runs_stand_side_by_side(whole: Path, copy: Path, tmp_path: Path) -> None:
    other = copy.rename(copy.with_name("other"))
    change_config(other, seed=7)
    said = report(whole, other, "--out", tmp_path / "both.html")
    page = Parsed(tmp_path / "both.html")
    classes = page.table("class", whole.name)
    assert [row[0].strip() for row in page.table("run")] == ["run", whole.name, "other"]
    assert [cell.strip() for cell in classes[0]] == ["class", whole.name, "other"]
    assert [cell.strip() for cell in page.table("value")[1]] == ["seed", "0", "7"]
    assert "both.html" in said.out
    ids = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))


# Names that are no text of ours


def test_names_cannot_write_into_the_page(copy: Path, tmp_path: Path, data: Path) -> None:
    evil = "<script>alert(1)</script>"
    images = tmp_path / "target"
    shutil.copytree(data / "target", images)
    for kind in ("images", "labels"):
        (images / kind / "val" / "v0.png").rename(images / kind / "val" / "<img src=x onerror=y>.png")
    names = [evil, 'b" onclick="c', "$x^2$ & {{ 7*7 }}"]
    change_config(copy, data__target__class_names=names, data__source__class_names=names, target_root=str(images))
    (copy / "notes.txt").write_text("</pre><script>no()</script>")
    run_dir = copy.rename(tmp_path / "<b>run")
    report(run_dir, "--network", "teacher")
    page = Parsed(run_dir / "report.html")
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert "b" not in [tag for tag, _ in page.tags]
    for name in (*names, "<img src=x onerror=y>", "</pre><script>no()</script>", "<b>run"):
        assert name in page.text


# What is not there any more


def test_a_run_that_is_not_finished_is_evaluated_where_it_stands(copy: Path) -> None:
    (copy / "results.json").unlink()
    change_config(copy, max_steps=12)
    said = report(copy)
    text = Parsed(copy / "report.html").text
    assert "after 6 of 12 steps" in text and "6 of 12 steps are done" in text and f"--resume {copy}" in text
    assert "6 of 12 steps are done" in said.out
    assert "mean IoU of" in text


def test_without_its_data_the_scores_of_the_run_are_told(copy: Path, whole: Path) -> None:
    change_config(copy, target_root=str(copy / "gone"))
    report(copy)
    page = Parsed(copy / "report.html")
    results = json.loads((copy / "results.json").read_text())
    assert f"{100 * results['student']['miou']:.1f}" in page.text
    assert "No validation images" in page.text and str(copy / "gone") in page.text and "No class shares" in page.text
    assert len(page.pictures) == 4  # the previews are there
    shutil.copy(whole / "report.json", copy / "report.json")
    report(copy)
    page = Parsed(copy / "report.html")
    assert "earlier report" in page.text and "Class shares are those of an earlier report" in page.text
    assert page.table("truth")


def test_without_checkpoint_previews_metrics_and_notes_it_says_so(copy: Path) -> None:
    for name in ("previews", "splits"):
        shutil.rmtree(copy / name)
    for name in ("checkpoints", "metrics.jsonl", "notes.txt"):
        (copy / name).unlink()
    (copy / "results.json").write_text('{"student": ')
    report(copy)
    text = Parsed(copy / "report.html").text
    for words in (
        "No checkpoint",
        "No curves",
        "No notes",
        "No pseudo-labels",
        "results.json cannot be read",
        "splits/",
    ):
        assert words in text, words
    assert "has no scores" in text


def test_a_damaged_label_is_told_and_the_rest_is_there(copy: Path, tmp_path: Path, data: Path) -> None:
    shutil.copytree(data / "target", tmp_path / "target")
    (tmp_path / "target" / "labels" / "val" / "v1.png").write_bytes(b"no picture")
    report(copy, "--target-root", tmp_path / "target")
    text = Parsed(copy / "report.html").text
    assert "No confusion matrix" in text and "v1.png" in text and "mean IoU of" in text


def test_no_evaluate_needs_no_network(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iidm.reports.gather.load_network", None)
    report(copy, "--no-evaluate")
    assert "--no-evaluate" in Parsed(copy / "report.html").text


@pytest.mark.parametrize("case", ["no run", "twice", "a folder", "another file", "pictures"])
def test_mistakes_are_refused(case: str, whole: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.html").write_text("<p>mine")
    words, said = {
        "no run": ([tmp_path], "no run"),
        "twice": ([whole, whole / "."], "named twice"),
        "a folder": ([whole, "--out", tmp_path], "is a folder"),
        "another file": ([whole, "--out", tmp_path / "mine.html"], "no report of iidm"),
        "pictures": ([whole, "--pictures", "-1"], "--pictures"),
    }[case]
    with pytest.raises(UserError, match=re.escape(said)):
        report(*words)
    assert (tmp_path / "mine.html").read_text() == "<p>mine"


# Pictures


def test_a_difference_marks_what_is_wrong_and_what_has_no_label() -> None:
    truth, predicted = np.array([[0, 1, 255]], np.uint8), np.array([[0, 0, 0]], np.uint8)
    found = difference(np.full((1, 3, 3), 80, np.uint8), truth, predicted)
    assert found.tolist() == [[[140] * 3, list(WRONG), list(IGNORED)]]


def test_an_album_takes_no_more_than_its_size() -> None:
    album = Album(100)
    assert album.add(("png", b"x" * 30)) is not None
    assert album.add(("png", b"x" * 60)) is None and album.left_out == 1
    assert album.add(("png", b"x" * 3)) is not None and album.left_out == 1


def test_strips_are_the_rows_of_the_sheets_and_a_sheet_of_an_older_version_is_whole(copy: Path) -> None:
    (steps, first), (last, strip) = preview_strips(copy, "batch", "unlabeled")
    assert (steps, last) == (3, 6)
    sheet = Image.open(copy / "previews" / "step-000006-batch.png")
    cut = Image.open(io.BytesIO(strip[1]))
    assert cut.height * 3 < sheet.height * cut.width / sheet.width
    sheet.save(copy / "previews" / "step-000006-batch.png")  # without what tells its rows
    (_, again), (_, whole_sheet) = preview_strips(copy, "batch", "unlabeled")
    size = Image.open(io.BytesIO(whole_sheet[1])).size
    assert size[1] / size[0] == pytest.approx(sheet.height / sheet.width, rel=0.01) and again == first


# In a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    command = find_browser()
    if command is None:
        pytest.skip("no Chromium is installed (apt install chromium)")
    with Page(command, tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.mark.parametrize(("width", "dark"), [(1100, False), (390, True)])
def test_a_browser_shows_it_without_a_complaint(whole: Path, browser: Page, width: int, dark: bool) -> None:
    browser.open(whole / "report.html", width=width, dark=dark)
    assert browser.evaluate("document.images.length") > 10
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    paper = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(21, 24, 27)" if dark else "rgb(255, 255, 255)")
    assert browser.complaints == []
    assert all(address.startswith(("file:", "data:")) for address in browser.loaded)
    assert [a for a in browser.loaded if a.startswith("file:")] == [(whole / "report.html").resolve().as_uri()]


def test_a_click_on_a_head_sorts_the_table(whole: Path, browser: Page) -> None:
    browser.open(whole / "report.html")
    column = "[...document.querySelectorAll('#classes tbody tr')].map(r => +r.cells[1].dataset.value)"
    click = "document.querySelector('#classes th:nth-child({}) button').click()"
    values = browser.evaluate(column)
    browser.evaluate(click.format(2))
    assert browser.evaluate(column) == sorted(values)
    browser.evaluate(click.format(2))
    assert browser.evaluate(column) == sorted(values, reverse=True)
    assert browser.evaluate("document.querySelector('#classes th:nth-child(2)').ariaSort") == "descending"
    browser.evaluate(click.format(1))
    names = browser.evaluate(
        "[...document.querySelectorAll('#classes tbody tr')].map(r => r.cells[0].textContent.trim())"
    )
    assert names == sorted(CLASSES)
    assert browser.complaints == []
