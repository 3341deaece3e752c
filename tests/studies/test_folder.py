"""runs.jsonl after kills, edits and new versions; the lock; a folder that cannot be."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import made_up
import numpy as np
import pytest

from iidm.studies import predictions
from iidm.studies.folder import StudyFolder
from iidm.studies.plan import run_key
from iidm.text import put_in_place
from iidm.types import UserError


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    found = StudyFolder(tmp_path / "out")
    found.create()
    return found


@pytest.fixture(scope="module")
def lines() -> list[dict[str, object]]:
    plan = made_up.plan(seeds=1)
    return [json.loads(json.dumps(made_up.record(run, 40.0 + i, 41.0))) for i, run in enumerate(plan.runs)]


def test_what_is_appended_is_read_again(folder: StudyFolder, lines: list[dict[str, object]]) -> None:
    assert folder.records() == {}
    for line in lines:
        folder.append(line)
    assert folder.records() == {line["key"]: line for line in lines}
    assert folder.records_file.read_text().count("\n") == len(lines)


@pytest.mark.parametrize("cut", [1, 40, 500])
def test_a_line_that_a_kill_cut_off_is_left_out_and_replaced(
    cut: int, folder: StudyFolder, lines: list[dict[str, object]]
) -> None:
    folder.append(lines[0])
    with folder.records_file.open("a") as file:
        file.write(json.dumps(lines[1])[:cut])
    assert list(folder.records()) == [lines[0]["key"]]
    folder.append(lines[1])
    assert list(folder.records()) == [lines[0]["key"], lines[1]["key"]]
    assert folder.records_file.read_text() == "".join(json.dumps(line) + "\n" for line in lines[:2])


def test_a_last_line_without_its_end_is_kept(folder: StudyFolder, lines: list[dict[str, object]]) -> None:
    folder.records_file.write_text(json.dumps(lines[0]))
    assert list(folder.records()) == [lines[0]["key"]]
    folder.append(lines[1])
    assert list(folder.records()) == [lines[0]["key"], lines[1]["key"]]


@pytest.mark.parametrize("bad", ["<<<<<<< HEAD", "[]", "{}", '{"key": "a", "student": {}, "config": {}}'])
def test_a_line_that_is_no_record_is_named(bad: str, folder: StudyFolder, lines: list[dict[str, object]]) -> None:
    folder.records_file.write_text(f"{json.dumps(lines[0])}\n{bad}\n{json.dumps(lines[1])}\n")
    with pytest.raises(UserError, match="runs.jsonl, line 2 is no record of a run"):
        folder.records()


def test_a_run_stays_known_when_the_configuration_gains_a_field(
    folder: StudyFolder, lines: list[dict[str, object]]
) -> None:
    old = json.loads(json.dumps(lines[0]))
    del old["config"]["mixing"]["pasted_weight"]  # as if the field were younger than the run
    old["key"] = "0" * 12  # the hash of a configuration without it
    folder.append(old)
    ((key, record),) = folder.records().items()
    assert record["key"] == "0" * 12  # its pictures have that name
    (run,) = [run for run in made_up.plan(seeds=1).runs if run.key == lines[0]["key"]]
    mixing = replace(run.config.mixing, pasted_weight="quality")  # the default
    assert key == run_key(replace(run.config, mixing=mixing))


def test_a_run_of_a_configuration_that_is_no_longer_possible_keeps_its_own_key(
    folder: StudyFolder, lines: list[dict[str, object]]
) -> None:
    old = json.loads(json.dumps(lines[0]))
    old["config"]["gone"] = 1
    folder.append(old)
    assert list(folder.records()) == [lines[0]["key"]]


def test_keys_are_those_of_the_configuration(lines: list[dict[str, object]]) -> None:
    for run, line in zip(made_up.plan(seeds=1).runs, lines, strict=True):
        assert line["key"] == run.key == run_key(run.config)


def test_two_studies_cannot_work_in_one_folder(folder: StudyFolder) -> None:
    message = rf"Another study works in .*out \(process {os.getpid()}\)\. Wait for it, or give another --out"
    for _ in range(2):
        with folder.lock(), pytest.raises(UserError, match=message), folder.lock():
            pass
    assert "/.lock" in (folder.root / ".gitignore").read_text().splitlines()


def test_git_is_told_to_leave_the_runs_out(folder: StudyFolder) -> None:
    assert "/runs/" in (folder.root / ".gitignore").read_text().splitlines()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--out .*file.* cannot be written"):
        StudyFolder(tmp_path / "file").create()


def test_what_killed_runs_left_among_the_predictions_goes_and_the_rest_stays(folder: StudyFolder) -> None:
    folder.remove_halves()  # there is none yet
    label = folder.predictions / "key" / "street" / "a.png"
    predictions._save(np.zeros((2, 3), np.uint8), label)
    label.with_name(".4242.png").write_bytes(b"half")
    folder.remove_halves()
    assert [path for path in folder.predictions.rglob("*") if path.is_file()] == [label]


def test_a_prediction_is_on_the_disk_before_it_has_its_name(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut after its run was recorded left an empty file, with which no study could be finished any more."""
    label, placed = folder.predictions / "key" / "a.png", list[Path]()

    def note(half: Path, path: Path) -> None:
        assert not label.exists() and half.stat().st_size > 0
        placed.append(path)
        put_in_place(half, path)

    monkeypatch.setattr(predictions, "put_in_place", note)
    predictions._save(np.zeros((2, 3), np.uint8), label)
    assert placed == [label] and label.exists()
