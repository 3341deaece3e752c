"""The short form of the campaign of kills (benchmarks/campaign), and that its own tools see what they are for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from benchmarks.campaign import prepare, runs, study
from benchmarks.campaign.compare import contents, differences, left_in, nothing, without
from benchmarks.campaign.power import Recorder, cut_the_power
from benchmarks.campaign.trial import Kind, few_of
from benchmarks.campaign.trouble import damage

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


CHANGES = """
import os, shutil, sys
from pathlib import Path
from benchmarks.campaign.inside import Board, tell_events
from benchmarks.campaign.power import Recorder
from iidm.text import sync

folder, kept = map(Path, sys.argv[1:])
tell_events(Board(("start",)), folder, 0, Recorder(kept))
os.chdir(folder)

def append(name, text):
    with open(name, "a") as file:
        file.write(text)

def name_and_remove(place):
    os.replace(f"{place}/moved", f"{place}/named")
    os.replace(f"{place}/replacing", f"{place}/replaced")
    os.remove(f"{place}/gone")
    os.rename(f"{place}/full", f"{place}/.full.old")
    shutil.rmtree(f"{place}/.full.old")

for place in "abc":
    for name in ("moved", "replacing"):
        Path(place, name).write_text("new")
        sync(Path(place, name))
append("synced", "+"); sync(Path("synced")); append("synced", "more")
with open("over", "r+") as file:
    file.write("ab"); file.flush(); os.fsync(file.fileno()); file.seek(0); file.write("yz")
name_and_remove("a"); sync(Path("a"))
name_and_remove("b"); sync(Path("other"))
name_and_remove("c"); Path("c/named").rename("c/again")
append("grown", "+"); Path("anew").write_text("xy"); Path("new").write_text("new")
os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("strict", [False, True])
def test_a_power_cut_takes_back_what_was_not_synced(strict: bool, tmp_path: Path) -> None:
    folder, kept = tmp_path / "run", tmp_path / "kept"
    for name in "abc":
        (folder / name / "full").mkdir(parents=True)
        for file in ("replaced", "gone", "full/one"):
            (folder / name / file).write_text("old")
    for name in ("old", "synced", "over", "grown", "anew", "other"):
        (folder / name).write_text("12")
    Recorder(kept).begin(folder)
    done = subprocess.run(
        [sys.executable, "-c", CHANGES, str(folder), str(kept)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == -9, done.stderr
    lost = cut_the_power(folder, kept, strict=strict)
    found = contents(folder, {})
    texts = {name: found[name] for name in ("old", "synced", "over", "grown", "anew", "new", "other")}
    assert texts == dict(old=b"12", synced=b"12+", over=b"ab", grown=b"12", anew=b"", new=b"", other=b"12")
    old = {"/": None, "/full/": None, "/replaced": b"old", "/gone": b"old", "/full/one": b"old"}
    back = {**old, "/moved": b"new", "/replacing": b"new"}
    named = {"/": None, "/named": b"new", "/replaced": b"new"}
    # Of a the folder was synced, after b another file, after c nothing.
    for letter, wanted in (("a", named), ("b", back if strict else named), ("c", back)):
        inside = {name[1:]: value for name, value in found.items() if name.startswith(f"{letter}/")}
        assert inside == wanted, letter
    assert {"named -> again", "replacing -> replaced", "gone removed", "grown", "anew", "new"} <= set(lost)


OLD_ONES = """
import os, sys
from pathlib import Path
from benchmarks.campaign.inside import Board, tell_events
from benchmarks.campaign.power import Recorder
from iidm.engine.checkpoint import remove_old

folder, kept = map(Path, sys.argv[1:])
tell_events(Board(("start",)), folder, 0, Recorder(kept))
remove_old(folder, 1)
os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_checkpoint_that_was_removed_stays_removed(tmp_path: Path) -> None:
    """Strictly, too: a power cut brought its folder back, and in a run that is done nobody removed it again."""
    run, kept = tmp_path / "run", tmp_path / "kept"
    for step in (1, 2, 3):
        folder = run / "checkpoints" / f"step-{step:08d}"
        folder.mkdir(parents=True)
        (folder / "metadata.json").write_text("{}")
    Recorder(kept).begin(run)
    done = subprocess.run(
        [sys.executable, "-c", OLD_ONES, str(run), str(kept)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == -9, done.stderr
    cut_the_power(run, kept, strict=True)
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000003"]


def test_links_folders_and_what_lies_elsewhere_are_looked_at(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        (folder / "empty").mkdir(parents=True)
        (folder / "link").symlink_to("empty")
    assert differences(contents(one, {}), contents(two, {})) == []
    (one / ".half").mkdir()
    (one / "dangling").symlink_to("nowhere")
    (one / "link").unlink()
    (one / "link").symlink_to("elsewhere")
    (two / "more").mkdir()
    assert differences(contents(one, {}), contents(two, {})) == [
        "more/ is missing", ".half/ is a temporary file that was left", "dangling is not in the other", "link differs",
    ]  # fmt: skip
    cache = tmp_path / "cache"
    for name in ("whole", ".half", "x.part", ".whole.lock"):
        (cache / "labels" / name).mkdir(parents=True)
    assert left_in(cache) == ["cache/labels/.half was left", "cache/labels/x.part was left"]
    assert "cache/labels/whole was left" in left_in(cache, all_is_temporary=True)


CAMPAIGN = """
import json, os, sys, types
from pathlib import Path
import benchmarks.campaign.report, benchmarks.conftest  # here once, not in each call: they import torch
from benchmarks.campaign import __main__ as command
from benchmarks.campaign.cases import Case, Outcome
from benchmarks.campaign.processes import end_as_a_process
from benchmarks.campaign.trial import Kind

class Trial:
    def __init__(self, shared, own, case):
        self.case = case

    def run(self):
        return Outcome(losses=["a bit"] if str(self.case.number) in lost else [])

folder, *calls = sys.argv[1:]
draw = lambda number: Case("fake", number, (), False, (), "", number)
sys.modules["benchmarks.campaign.fake"] = fake = types.ModuleType("fake")
fake.KIND = Kind(draw, lambda shared: None, Trial, 3, (), 1)
command.KINDS, command.import_all = ("fake",), lambda: None
for call in calls:
    lost, *more = json.loads(call)
    words = ["--kinds", "fake", "--results", folder, "--work", folder, *more]
    said = Path(folder, "said")
    child = os.fork()
    if child == 0:
        end_as_a_process(lambda: command.main(words), said)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps([status, said.read_text()]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs prctl")
def test_a_loss_of_an_earlier_call_is_not_forgotten(tmp_path: Path) -> None:
    calls = (
        ("1",),  # case 1 loses something
        ("", "--minutes", "0"),  # no time is left to do it again
        ("", "--count", "1"),  # that one is not among these
        ("1",),
        ("",),
        ("1",),
    )
    words = [sys.executable, "-c", CAMPAIGN, str(tmp_path), *map(json.dumps, calls)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, late, other, again, mended, last = (json.loads(line) for line in done.stdout.splitlines())
    assert first[0] == 1 and "3 cases, 0 of them again" in first[1] and "what they left lies in" in first[1], first
    assert late[0] == 1 and "1 cases lost something, in earlier calls" in late[1], late
    assert other[0] == 0, other
    assert again[0] == 1 and "1 cases, 1 of them again; 2 are done" in again[1], again
    assert mended[0] == 0 and "1 cases, 1 of them again; 2 are done" in mended[1], mended
    assert "fake: all 3 cases are done" in last[1], last
    page = (tmp_path / "README.md").read_text()
    assert "**3 cases, 0 kills, 0 with losses.**" in page and page.count("- case 1, done again, had lost this") == 2
