"""python -m iidm.study: grids of tiny runs that are shared, killed, stopped and gone on with."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import small_runs
from small_runs import STEPS, TRAIN_IMAGES, Finished, Said, kill_group, one_line
from small_studies import GRID, SEEDS, data_options, records, study, study_words, wait_for_steps, wait_for_training

import iidm.study
from iidm.cli import read_config, run_main
from iidm.engine.checkpoint import find_checkpoint
from iidm.studies.grid import parse_study
from iidm.studies.local import subprocess as local_subprocess
from iidm.studies.plan import Wishes, make_plan
from iidm.studies.predictions import save_predictions
from iidm.studies.preflight import check_data
from iidm.types import UserError

BROKEN = """
title = "A run that breaks"
preset = "folder"
budgets = [2]

[[row]]
name = "broken"
method = "target_only"
options = ["--optim.lr", "1e30"]

[[row]]
name = "IIDM"
method = "iidm"

[[row]]
name = "L_t"
method = "target_only"
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums are split among threads: equal numbers need equal threads. And they would wait for each other here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture
def copy(done: tuple[Path, Said], tmp_path: Path) -> Path:
    return Path(shutil.copytree(done[0], tmp_path / "study"))


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever starts a run fails."""

    def popen(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a run was started")

    monkeypatch.setattr(local_subprocess, "Popen", popen)


def test_every_run_is_done_once_and_twins_share_theirs(done: tuple[Path, Said]) -> None:
    root, said = done
    found = records(root)
    assert sorted((r["method"], r["seed"]) for r in found.values()) == [
        ("iidm", 0),
        ("iidm", 1),
        ("source_target", 0),
        ("source_target", 1),
    ]
    for key, record in found.items():
        run_dir = root / "out" / "runs" / f"{record['method']}-2-s{record['seed']}-{key}"
        results = json.loads((run_dir / "results.json").read_text())
        for field in ("student", "teacher", "images", "seconds", "steps", "machine"):
            assert record[field] == results[field]
        assert (record["labeled"], record["preset"], record["steps"]) == (2, "folder", STEPS)
        assert (run_dir.parent / f"{run_dir.name}.log").read_text().count("mIoU") == 1
        assert not (run_dir / "checkpoints").exists()
        assert sorted(p.name for p in (root / "out" / "predictions" / key).iterdir()) == ["v0.png", "v1.png", "v2.png"]
    lines = [line for line in said.err.splitlines() if line.startswith("[")]
    assert [line.split("]")[0] for line in lines] == ["[1/4", "[2/4", "[3/4", "[4/4"]
    assert all(" · 2 labels · seed " in line and " · mIoU " in line for line in lines)
    assert "about" in lines[0] and "about" not in lines[3]


def test_the_report_has_the_numbers_of_runs_jsonl(done: tuple[Path, Said]) -> None:
    root, said = done
    found = records(root).values()
    text = (root / "out" / "grid.md").read_text()
    for name, method in (("L_s + L_t", "source_target"), ("IIDM", "iidm"), ("twin", "iidm")):
        cells = []
        for network in ("student", "teacher"):
            a, b = (100 * r[network]["miou"] for r in found if r["method"] == method)
            cells.append(f"{(a + b) / 2:.1f} ± {abs(a - b) / math.sqrt(2):.1f}")
        line = f"| {name} | {cells[0]} ({cells[1]}) |"
        assert line in text.replace("**", "")
        assert line in said.out.replace("**", "")
    for picture in ("grid-classes.png", "grid-strips-2.png"):
        assert (root / "out" / picture).is_file()
        assert f"]({picture})" in text
    assert not (root / "out" / "grid-curves.png").exists()  # one budget is no curve
    assert "Missing" not in text


@pytest.mark.usefixtures("no_process")
def test_what_is_done_is_not_done_again_even_where_its_folder_is_gone(data: Path, copy: Path) -> None:
    before = (copy / "out" / "runs.jsonl").read_bytes()
    shutil.rmtree(copy / "out" / "runs")
    for path in copy.glob("out/grid*"):
        path.unlink()
    said = study(study_words(data, copy))
    assert "4 runs, 4 are done" in said.err
    assert (copy / "out" / "runs.jsonl").read_bytes() == before
    assert (copy / "out" / "grid-strips-2.png").is_file()
    with pytest.raises(AssertionError, match="a run was started"):
        study(study_words(data, copy, seeds=SEEDS + 1))


@pytest.mark.usefixtures("no_process")
def test_dry_runs_and_reports_run_nothing(data: Path, copy: Path) -> None:
    listed = study(study_words(data, copy, "--dry-run", seeds=SEEDS + 1)).out
    assert listed.count("\ndone ") + listed.startswith("done ") == 4
    assert "-    iidm · 2 labels · seed 2 · IIDM = twin\n" in listed
    assert "6 runs of 6 steps, 4 are done" in listed
    said = study(study_words(data / "nowhere", copy, "--report-only", seeds=SEEDS + 1))
    assert ", 2 of 3 seeds |" in said.out
    page = (copy / "out" / "grid.md").read_text()
    assert "**Missing: 2 of 6 runs.** The same command runs them." in page
    assert "    python -m iidm.study " in page and "--report-only" not in page


def test_a_failing_run_is_reported_and_the_others_go_on(
    data: Path, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        iidm.study.main(study_words(data, copy, grid=BROKEN, seeds=1))
    said = capsys.readouterr().err
    assert end.value.code == 1
    assert "3 runs, 1 are done" in said
    (line,) = [line for line in said.splitlines() if "failed: " in line]
    assert "target_only · 2 labels · seed 0 · failed: Training broke at step" in line
    log = Path(line.partition("all that it said: ")[2].partition(")")[0])
    assert "Training broke" in log.read_text()
    assert "iidm: 1 run failed" in said.splitlines()[-1]
    text = (copy / "out" / "grid.md").read_text()
    assert "**Missing: 1 of 3 runs.**" in text
    assert "- target_only · 2 labels · seed 0: Training broke at step" in text
    assert "| broken | missing |" in text
    assert [r["method"] for r in records(copy).values()].count("target_only") == 1
    assert "-    target_only" in study(study_words(data, copy, "--dry-run", grid=BROKEN, seeds=1)).out


def test_whose_run_is_killed_and_stopped_it_ends_like_one_that_was_not(
    done: tuple[Path, Said], data: Path, tmp_path: Path
) -> None:
    words = study_words(
        data, tmp_path, grid=GRID.replace('"source_target"', '"iidm"'), seeds=1
    )  # one run: all are twins
    process = small_runs.start("study", words)
    try:
        wait_for_steps(process, tmp_path, 2)
        os.kill(wait_for_training(process, tmp_path), signal.SIGKILL)  # the run alone: the study goes on with it
        wait_for_steps(process, tmp_path, 4)
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=600)
    finally:
        kill_group(process)
    assert "killed by SIGKILL (was memory short?); it goes on from its last checkpoint" in err
    if process.returncode:  # else the run was faster than the signal
        assert process.returncode == 2, err
        assert "iidm: Stopped; " in err.splitlines()[-1] and "Go on with the same command." in err
        assert list(tmp_path.glob("out/runs/*/checkpoints/step-*"))
        assert not any("failed" in line for line in err.splitlines())
    study(words)
    ((key, record),) = records(tmp_path).items()
    for network in ("student", "teacher"):
        assert record[network] == records(done[0])[key][network]
    for name in ("v0", "v1", "v2"):
        paths = [root / "out" / "predictions" / key / f"{name}.png" for root in (tmp_path, done[0])]
        assert paths[0].read_bytes() == paths[1].read_bytes()


def test_pictures_that_a_kill_left_out_are_made_by_the_next_try(finished: Finished, tmp_path: Path) -> None:
    """Without names too, where the first one could be taken for all."""
    checkpoint = find_checkpoint(finished.run_dir)
    assert checkpoint is not None
    config, labels = read_config(finished.run_dir / "config.json"), tmp_path / "labels"
    save_predictions(config, checkpoint, labels, tmp_path / "images", ())
    whole = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in labels.iterdir()}
    assert sorted(path.stem for path in whole) == ["v0", "v1", "v2"]
    (labels / "v1.png").unlink()
    save_predictions(config, checkpoint, labels, tmp_path / "images", ())
    assert {path: path.read_bytes() for path in labels.iterdir()} == {path: body for path, (body, _) in whole.items()}
    assert all((path.stat().st_mtime_ns == when) == (path.stem != "v1") for path, (_, when) in whole.items())


# The data


def checked(data: Path, text: str, *options: str, strips: tuple[str, ...] = ()) -> list[tuple[str, int]]:
    """The cells that are left after a look at the data."""
    plan = make_plan(parse_study(text, "grid", "grid.toml"), Wishes(options=(*data_options(data), *options)))
    return [(cell.row.name, cell.labeled) for cell in check_data(plan, {}, strips).cells]


def test_a_method_that_needs_unlabeled_images_has_no_cell_where_all_are_labeled(data: Path) -> None:
    text = GRID.replace("[2]", f"[2, {TRAIN_IMAGES}]")
    assert checked(data, text) == [
        ("L_s + L_t", 2),
        ("L_s + L_t", TRAIN_IMAGES),
        ("IIDM", 2),
        ("twin", 2),
    ]
    with pytest.raises(UserError, match="No row can be run. broken has no cell at 6 labels"):
        checked(data, BROKEN.replace("[2]", f"[{TRAIN_IMAGES}]").replace("target_only", "iidm"))


def test_data_that_a_run_could_not_use_is_refused_before_the_first_one(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="L_s . L_t, 2 labels: .*does not exist: .*nowhere"):
        checked(data, GRID, "--source-root", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="L_s . L_t is to learn from 7 labeled images, but there are 6. .*--budgets"):
        checked(data, GRID.replace("[2]", "[7]"))
    assert checked(data, GRID, strips=("v1",))
    with pytest.raises(UserError, match="no validation image 'w1'; did you mean 'v1'"):
        checked(data, GRID, strips=("w1",))


# Words


def refused(words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("sys.argv", ["study", *words])
    with pytest.raises(SystemExit) as end:
        run_main(iidm.study.main)
    assert end.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    return one_line(said.err)


def test_mistakes_are_told_in_one_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    for words, expected in (
        ([], "Give the study and its folder"),
        (["table4"], "--out DIR"),
        (["tabel4", "--out", str(tmp_path / "x")], "Did you mean 'table4'?"),
        (["table4", "--out", str(tmp_path / "x"), "--seeds", "0"], "--seeds must be at least 1"),
        (["table4", "--out", str(tmp_path / "x"), "--steps", "0"], "--steps must be at least 1"),
        (["table4", "--out", str(tmp_path / "x"), "--jobs", "0"], "--jobs must be at least 1, not 0"),
        (["table4", "--out", str(tmp_path / "x"), "--runs-per-gpu", "0"], "--runs-per-gpu must be at least 1"),
        (["table4", "--out", str(tmp_path / "x"), "--retries", "-1"], "--retries must be at least 0"),
        (["table4", "--out", str(tmp_path / "x"), "--", "--seed", "1"], "After the -- cannot set --seed"),
        (["table4", "--out", str(tmp_path / "x"), "--report-only"], "There is no finished run in"),
        (["table4", "--out", str(tmp_path / "x")], "L_s, 0 labels: cityscapes (val) needs the folder"),
        ([*study_words(data, tmp_path)[:2], str(tmp_path / "file"), *study_words(data, tmp_path)[3:]], "--out"),
    ):
        message = refused(words, capsys, monkeypatch)
        assert expected in message, message
    assert not (tmp_path / "x").exists()


def test_the_studies_are_listed() -> None:
    said = study(["--list"]).out
    assert [line.split()[0] for line in said.splitlines()] == [*(f"table{n}" for n in range(1, 8)), "budget"]
