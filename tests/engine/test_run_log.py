"""metrics.jsonl, the plain lines, TensorBoard, and the stop at a loss that is no number."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iidm.engine.log import RunLog, check_finite, read_metrics
from iidm.types import UserError


def open_log(run_dir: Path, start_step: int = 0, quiet: bool = True, tensorboard: bool = False) -> RunLog:
    return RunLog(run_dir, total_steps=10, start_step=start_step, quiet=quiet, tensorboard=tensorboard)


def write(run_dir: Path, first: int, last: int) -> None:
    with open_log(run_dir, first) as log:
        for step in range(first, last):
            log.log(step, {"loss_total": 1 / (step + 3), "quality": step / 10})


def text(run_dir: Path) -> str:
    return (run_dir / "metrics.jsonl").read_text()


def test_a_resumed_run_has_the_lines_of_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for run_dir in (whole, cut):
        run_dir.mkdir()
    write(whole, 0, 10)
    write(cut, 0, 7)
    with (cut / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "loss_to')  # a kill in the middle of a line
    write(cut, 4, 10)  # the last checkpoint was of step 4
    assert text(cut) == text(whole)
    assert [json.loads(line)["step"] for line in text(cut).splitlines()] == list(range(10))


def test_a_new_run_starts_an_empty_file(tmp_path: Path) -> None:
    write(tmp_path, 0, 3)
    open_log(tmp_path).close()
    assert read_metrics(tmp_path) == []


def test_lines_are_on_the_disk_as_soon_as_they_are_logged(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        log.log(0, {"loss_total": 0.5})
        assert read_metrics(tmp_path) == [{"step": 0, "loss_total": 0.5}]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_every_line_is_valid_json(value: float, tmp_path: Path) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    with open_log(tmp_path) as log:
        log.log(0, {"miou": value, "lr": 1e-5})
    assert json.loads(text(tmp_path), parse_constant=refuse) == {"step": 0, "miou": None, "lr": 1e-5}


def test_without_a_terminal_plain_lines_tell_losses_speed_and_time_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_log(tmp_path, quiet=False) as log:
        log.note("a note")
        log.log(4, {"loss_total": 1.25, "quality": 0.5, "lr": 1e-5})
    said = capsys.readouterr()
    assert said.out == ""
    note, line = said.err.splitlines()
    assert note == "a note"
    assert line.startswith("step 5/10  total 1.250 quality 0.500  ")
    assert "steps/s" in line and line.endswith("s left")
    assert "\r" not in said.err


def test_on_a_terminal_a_bar_shows_the_losses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    with open_log(tmp_path, quiet=False, start_step=2) as log:
        log.log(4, {"loss_total": 1.25})
    err = capsys.readouterr().err
    assert "\r" in err and "5/10" in err and "total=1.250" in err


def test_quiet_says_nothing_but_writes_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_log(tmp_path) as log:
        log.note("a note")
        log.log(0, {"loss_total": 1.0})
    assert capsys.readouterr() == ("", "")
    assert len(read_metrics(tmp_path)) == 1


def test_tensorboard_holds_scalars_and_pictures_and_a_resumed_one_each_step_once(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    picture = np.full((4, 5, 3), 200, np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    for first, last in ((0, 6), (4, 8)):
        with open_log(tmp_path, first, tensorboard=True) as log:
            for step in range(first, last):
                log.log(step, {"loss_total": float(step), "quality": 0.5})
            log.picture("file", tmp_path / "a.png", last)
            log.picture("array", picture, last)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"loss/total", "quality"}
    assert [(e.step, e.value) for e in events.Scalars("loss/total")] == [(s + 1, float(s)) for s in range(8)]
    for tag in ("file", "array"):
        image = events.Images(tag)[-1]
        assert (image.step, image.height, image.width) == (8, 4, 5)


def test_a_missing_tensorboard_is_said_once_and_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with open_log(tmp_path, quiet=False, tensorboard=True) as log:
        log.log(0, {"loss_total": 1.0})
        log.picture("a", np.zeros((2, 2, 3), np.uint8), 1)
    assert capsys.readouterr().err.count("no TensorBoard files") == 1
    assert len(read_metrics(tmp_path)) == 1


def test_finite_losses_pass(tmp_path: Path) -> None:
    check_finite({"total": 0.0, "source": -1e30}, 0, tmp_path)


def test_a_loss_that_is_no_number_stops_the_run_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        check_finite({"total": math.nan, "source": 1.0, "inter": math.inf}, 41, tmp_path)
    message = str(error.value)
    assert "step 41" in message and "total = nan, inter = inf" in message and "source" not in message
    for word in (str(tmp_path / "checkpoints"), "--optim.lr", "--amp"):
        assert word in message
