"""What a run writes while it trains: the same lines after a resume, JSON that any reader takes, silence when quiet."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iidm.engine.log import METRICS, NOTES, Progress, RunLog, check_finite, read_metrics
from iidm.types import UserError


def run_log(run_dir: Path, start_step: int = 0, *, quiet: bool = True, tensorboard: bool = False) -> RunLog:
    return RunLog(run_dir, total_steps=10, start_step=start_step, quiet=quiet, tensorboard=tensorboard)


def write(run_dir: Path, steps: range, start_step: int = 0) -> None:
    with run_log(run_dir, start_step) as log:
        for step in steps:
            log.log(step, {"loss_total": 1 / (step + 3), "quality": 0.1 * step})


def test_a_resumed_run_leaves_the_file_of_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
    write(whole, range(10))
    write(cut, range(7))  # the checkpoint is at step 4, the run died after step 6
    write(cut, range(4, 10), start_step=4)
    assert (cut / METRICS).read_bytes() == (whole / METRICS).read_bytes()
    assert [line["step"] for line in read_metrics(cut)] == list(range(10))


def test_lines_are_on_the_disk_as_soon_as_they_are_logged(tmp_path: Path) -> None:
    with run_log(tmp_path) as log:
        log.log(0, {"lr": 0.5})
        assert (tmp_path / METRICS).read_text() == '{"step": 0, "lr": 0.5}\n'


def test_what_is_logged_can_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_log(tmp_path) as log:
        log.log(0, {"lr": 0.5})
        synced: list[int] = []
        monkeypatch.setattr("iidm.engine.log.os.fsync", lambda handle: synced.append(os.fstat(handle).st_ino))
        log.sync()
    assert synced == [(tmp_path / METRICS).stat().st_ino]


def test_opening_the_log_keeps_the_lines_when_it_is_killed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, range(5))
    before = (tmp_path / METRICS).read_bytes()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("iidm.engine.log.os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        run_log(tmp_path, 5)
    assert (tmp_path / METRICS).read_bytes() == before


@pytest.mark.parametrize("kept", (1, 10, -2))
def test_a_last_line_that_was_cut_off_is_dropped(kept: int, tmp_path: Path) -> None:
    write(tmp_path, range(3))
    lines = (tmp_path / METRICS).read_text().splitlines()
    (tmp_path / METRICS).write_text("\n".join([*lines[:2], lines[2][:kept]]))
    assert [line["step"] for line in read_metrics(tmp_path)] == [0, 1]
    write(tmp_path, range(2, 4), start_step=3)
    assert [line["step"] for line in read_metrics(tmp_path)] == [0, 1, 2, 3]


def test_without_a_file_there_are_no_lines(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []


def test_values_that_json_does_not_have_become_null(tmp_path: Path) -> None:
    with run_log(tmp_path) as log:
        log.log(4, {"miou": math.nan, "loss_total": math.inf, "lr": 1.0})

    def refuse(name: str) -> None:
        pytest.fail(f"{name} is no JSON")

    line = json.loads((tmp_path / METRICS).read_text(), parse_constant=refuse)
    assert line == {"step": 4, "miou": None, "loss_total": None, "lr": 1.0}


@pytest.mark.parametrize("value", (math.nan, math.inf, -math.inf))
def test_a_broken_loss_names_itself_the_step_and_the_folder(value: float, tmp_path: Path) -> None:
    check_finite({"loss_total": 1.0, "quality": 0.0}, 7, tmp_path)
    with pytest.raises(UserError) as caught:
        check_finite({"loss_total": value, "loss_source": 1.0}, 1234, tmp_path)
    message = str(caught.value)
    for part in (f"loss_total = {value}", "step 1234", str(tmp_path / "checkpoints"), "--optim.lr"):
        assert part in message
    assert "loss_source" not in message and "\n" not in message


def test_quiet_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with run_log(tmp_path) as log, Progress("Counting classes", quiet=True) as progress:
        log.note("a note")
        progress(1, 2)
        log.log(0, {"loss_total": 1.0})
    assert capfd.readouterr() == ("", "")


def test_without_a_terminal_each_log_point_is_a_plain_line_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with run_log(tmp_path, 4, quiet=False) as log:
        log.note("starting")
        log.log(5, {"loss_total": 0.25, "loss_inter": 0.0, "quality": 0.5, "lr": 1e-5})  # a method without that term
    out, err = capsys.readouterr()
    assert out == ""
    first, second = err.splitlines()
    assert first == "starting"
    assert second.startswith("step 6/10  total 0.250 quality 0.500  ") and "steps/s" in second
    assert "\r" not in err and "lr" not in second


def test_on_a_terminal_a_bar_shows_the_step_and_the_losses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with run_log(tmp_path, 4, quiet=False) as log:
        log.log(9, {"loss_total": 0.25})
        log.note("almost there")
    out, err = capsys.readouterr()
    assert out == "" and "almost there\n" in err
    last = err.rstrip().rpartition("\r")[2]
    assert "10/10" in last and "total=0.250" in last


def test_a_progress_bar_appears_with_its_first_call(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress("Counting classes", quiet=False):
        pass
    assert capsys.readouterr().err == ""
    with Progress("Counting classes", quiet=False) as progress:
        progress(1, 2)
        progress(2, 2)
    out, err = capsys.readouterr()
    assert out == "" and "Counting classes: 100%" in err and "2/2" in err


def test_without_a_terminal_progress_is_a_plain_line_a_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bar is rewritten in place, which a log file keeps; without a word a long piece of work seems to stand."""
    now = [100.0]
    monkeypatch.setattr("iidm.engine.log.time.monotonic", lambda: now[0])
    with Progress("Counting classes", quiet=False) as progress:
        for done in range(1, 11):
            progress(done, 10)
            now[0] += 15
    assert capsys.readouterr() == ("", "Counting classes: 5 of 10\nCounting classes: 9 of 10\n")
    with Progress("Counting classes", quiet=False) as progress:
        progress(1, 2)
        progress(2, 2)
    assert capsys.readouterr() == ("", "")


def test_tensorboard_gets_every_value_and_picture_at_its_step(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

    Image.fromarray(np.full((4, 6, 3), 200, np.uint8)).save(tmp_path / "sheet.png")
    with run_log(tmp_path, tensorboard=True) as log:
        log.log(2, {"loss_total": 0.5, "quality": 0.25})
        log.picture("train", tmp_path / "sheet.png", 3)
    assert capfd.readouterr() == ("", "")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert sorted(tags["scalars"]) == ["loss/total", "quality"] and tags["images"] == ["train"]
    assert [(e.step, e.value) for e in events.Scalars("loss/total")] == [(3, 0.5)]
    picture = events.Images("train")[0]
    assert (picture.step, picture.height, picture.width) == (3, 4, 6)


def test_without_tensorboard_no_such_folder_is_made(tmp_path: Path) -> None:
    with run_log(tmp_path) as log:
        log.log(0, {"lr": 1.0})
        log.picture("train", tmp_path / "absent.png", 1)
    assert {path.name for path in tmp_path.iterdir()} == {METRICS, NOTES}


def test_a_name_that_is_no_unicode_can_be_noted(tmp_path: Path) -> None:
    with run_log(tmp_path) as log:
        log.note("left aside: \udcff1.jpg")
    assert (tmp_path / "notes.txt").read_text() == "left aside: \\udcff1.jpg\n"
