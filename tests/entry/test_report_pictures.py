"""The pictures of a report, and the whole of it in a real browser."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import Page, find_browser
from html_reports import copied
from PIL import Image
from small_runs import CLASSES, Finished

from iidm.reports.pictures import IGNORED, WRONG, Album, difference, preview_strips


def test_a_difference_marks_what_is_wrong_and_what_has_no_label() -> None:
    truth, predicted = np.array([[0, 1, 255]], np.uint8), np.array([[0, 0, 0]], np.uint8)
    found = difference(np.full((1, 3, 3), 80, np.uint8), truth, predicted)
    assert found.tolist() == [[[140] * 3, list(WRONG), list(IGNORED)]]


def test_an_album_takes_no_more_than_its_size() -> None:
    album = Album(100)
    assert album.add(("png", b"x" * 30)) is not None
    assert album.add(("png", b"x" * 60)) is None and album.left_out == 1
    assert album.add(("png", b"x" * 3)) is not None and album.left_out == 1


def test_strips_are_the_rows_of_the_sheets_and_a_sheet_of_an_older_version_is_whole(
    finished: Finished, tmp_path: Path
) -> None:
    copy = copied(finished.run_dir, tmp_path)
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
def test_a_browser_shows_it_without_a_complaint(reported: Path, browser: Page, width: int, dark: bool) -> None:
    browser.open(reported / "report.html", width=width, dark=dark)
    assert browser.evaluate("document.images.length") > 10
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    paper = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(21, 24, 27)" if dark else "rgb(255, 255, 255)")
    assert browser.complaints == []
    assert all(address.startswith(("file:", "data:")) for address in browser.loaded)
    assert [a for a in browser.loaded if a.startswith("file:")] == [(reported / "report.html").resolve().as_uri()]


def test_a_click_on_a_head_sorts_the_table(reported: Path, browser: Page) -> None:
    browser.open(reported / "report.html")
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
