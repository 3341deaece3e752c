"""The short form of the campaign of kills (benchmarks/campaign), and that its own tools see what they are for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from benchmarks.campaign import prepare, runs, study
from benchmarks.campaign.compare import contents, differences, nothing, without
from benchmarks.campaign.trial import Kind, few_of
from benchmarks.campaign.trouble import cut_the_power, damage

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a busy machine is slow
def test_what_is_killed_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    words = ["--short", "--results", str(tmp_path), "--work", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.campaign", *words], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    records = [json.loads(line) for file in tmp_path.glob("*.jsonl") for line in file.read_text().splitlines()]
    assert len(records) == 12 and not any(record["losses"] for record in records)
    assert sum(bool(record["kills"]) for record in records) >= 6, "kills that come too late show nothing"
    page = (tmp_path / "README.md").read_text()
    assert "**6 cases, " in page and "**5 cases, " in page and page.count(" 0 with losses.**") == 3
    assert not list(tmp_path.glob("iidm-campaign-*")), "it clears up after itself"


@pytest.mark.parametrize("kind", [runs.KIND, prepare.KIND, study.KIND])
def test_a_case_is_drawn_from_its_number_alone(kind: Kind) -> None:
    cases = [kind.draw(number) for number in range(40)]
    assert cases == [kind.draw(number) for number in range(40)] and len({case.seed for case in cases}) == 40
    few = few_of(kind)
    assert len(few) == kind.few and {kind.draw(number).variant for number in few} == {kind.short}


def test_what_differs_is_named(tmp_path: Path) -> None:
    for name, text in (("same", "x"), ("other", "x"), ("gone", "x"), ("facts.json", '{"seconds": 1, "a": {"b": 2}}')):
        for folder in ("one", "two"):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / name).write_text(text)
    one, two = tmp_path / "one", tmp_path / "two"
    (one / "other").write_text("y")
    (one / "gone").unlink()
    (one / ".half").write_text("")
    (one / "facts.json").write_text('{"seconds": 2, "a": {"b": 2}}')
    rules = {"facts.json": without("seconds")}
    found = differences(contents(one, rules), contents(two, rules))
    assert found == ["gone is missing", ".half is a temporary file that was left", "other differs"]
    (one / "facts.json").write_text('{"seconds": 1, "a": {"b": 3}}')
    assert "facts.json differs" in differences(contents(one, rules), contents(two, rules))
    rules["facts.json"] = nothing
    assert "facts.json differs" not in differences(contents(one, rules), contents(two, rules))


def test_damage_changes_a_file(tmp_path: Path) -> None:
    for seed in range(20):
        path = tmp_path / str(seed)
        path.write_bytes(bytes(range(200)))
        said = damage(path, Random(seed))
        assert path.read_bytes() != bytes(range(200)) and path.name in said


def test_a_power_cut_takes_what_was_not_synced(tmp_path: Path) -> None:
    folder, syncs = tmp_path / "run", tmp_path / "syncs"
    folder.mkdir()
    for name in ("old", "synced", "half", "lost"):
        (folder / name).write_text("12345678")
    os.utime(folder / "old", ns=(0, 0))
    sizes = {"synced": 8, "half": 3}
    syncs.write_text("".join(f"{(folder / name).stat().st_ino} {size}\n" for name, size in sizes.items()))
    assert cut_the_power(folder, 1, syncs) == ["half", "lost"]
    left = {path.name: path.read_text() for path in folder.iterdir()}
    assert left == {"old": "12345678", "synced": "12345678", "half": "123", "lost": ""}
