"""Runs that are killed, refused or stopped, wherever they are computed; and what a machine of a cluster is asked."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import made_up
import pytest

import iidm
from iidm.config import Config
from iidm.studies.folder import Record, StudyFolder
from iidm.studies.local import Ended
from iidm.studies.on_ray import Share, connect
from iidm.studies.plan import Run, Wishes, make_plan
from iidm.studies.preflight import Task, look_of, missing_here, task_of
from iidm.studies.runner import Failure, Listener, run_missing
from iidm.types import UserError

MACHINE = {"cpu": "Abacus", "cores": 2, "threads": 2, "python": "3.11.0", "torch": "2.10.0"}
RESULTS = {"student": {"miou": 0.5}, "seconds": 1.0, "images": 1, "steps": 10, "machine": MACHINE}
KILLED = Ended(None, "killed by SIGKILL", was_killed=True)
DONE = Ended(RESULTS, commit="abc")


class Script:
    """A place with room for one run at a time, whose runs end as it is told."""

    def __init__(self, *ends: Ended) -> None:
        self.started: list[str] = []
        self._ends, self._over = list(ends), list[tuple[Run, Ended]]()
        self.closed = False

    def room(self) -> int:
        return 1 - len(self._over)

    def start(self, run: Run) -> None:
        self.started.append(run.title)
        self._over.append((run, self._ends.pop(0)))

    def ended(self) -> Sequence[tuple[Run, Ended]]:
        over, self._over = self._over, []
        return over

    def stop(self) -> None:
        raise AssertionError("nobody stopped the study")

    def close(self) -> None:
        self.closed = True


class Heard:
    """What `run_missing` tells."""

    def __init__(self) -> None:
        self.done: list[Record] = []
        self.failed: list[str] = []
        self.again: list[str] = []

    def listener(self) -> Listener:
        return Listener(
            lambda run, record: self.done.append(record),
            lambda failure: self.failed.append(failure.line),
            lambda run, line: self.again.append(line),
        )


def run_script(place: Script, folder: StudyFolder, runs: int, retries: int) -> tuple[list[Failure], Heard]:
    heard = Heard()
    folder.create()
    failures = run_missing(made_up.plan(seeds=1).runs[:runs], folder, place, retries, heard.listener())
    assert place.closed
    return failures, heard


def test_a_run_that_was_killed_goes_on_before_the_others_and_is_recorded_once(tmp_path: Path) -> None:
    place, folder = Script(KILLED, KILLED, DONE, DONE), StudyFolder(tmp_path / "out")
    failures, heard = run_script(place, folder, 2, retries=2)
    first, second = (run.title for run in made_up.plan(seeds=1).runs[:2])
    assert place.started == [first, first, first, second]
    assert (failures, heard.failed, heard.again) == ([], [], ["killed by SIGKILL"] * 2)
    assert [record["commit"] for record in folder.records().values()] == ["abc", "abc"]
    assert list(folder.records()) == [record["key"] for record in heard.done]


def test_retries_end_and_an_error_of_the_runs_own_is_not_tried_again(tmp_path: Path) -> None:
    place = Script(KILLED, KILLED, Ended(None, "Training broke"), DONE)
    failures, heard = run_script(place, StudyFolder(tmp_path / "out"), 3, retries=1)
    assert heard.failed == [failure.line for failure in failures] == ["killed by SIGKILL", "Training broke"]
    assert len(heard.again) == len(heard.done) == 1
    assert len(place.started) == 4


# A machine of a cluster


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    """Of a study that this machine can do: nothing is missing."""
    plan = made_up.plan(seeds=1)
    folder = StudyFolder(tmp_path / "out")
    folder.create()
    monkeypatch.setattr("iidm.studies.preflight.check_data", lambda plan, records, strips: plan)
    found = task_of(plan, folder, ())
    found.token_file.write_text(found.token)
    return found


def test_a_machine_that_shares_the_folder_and_has_the_data_lacks_nothing(task: Task) -> None:
    assert missing_here(task) is None


def test_a_machine_with_another_folder_of_that_name_is_refused(task: Task) -> None:
    task.token_file.write_text("of another study")
    assert "is not the same folder there. Give one that all machines share" in str(missing_here(task))
    task.token_file.unlink()
    assert "is not the same folder there" in str(missing_here(task))


def test_a_machine_without_the_data_or_the_working_folder_is_refused(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "out")
    folder.create()
    wishes = Wishes("gta5-cityscapes-100", steps=1, options=("--target-root", str(tmp_path / "nowhere")))
    task = task_of(make_plan(made_up.study(), wishes), folder, ())
    task.token_file.write_text(task.token)
    assert "nowhere" in str(missing_here(task))
    assert missing_here(replace(task, done=tuple(run.key for run in task.plan.runs))) is None  # nothing is needed
    elsewhere = replace(task, working_folder=str(tmp_path / "gone"))
    assert "the folder in which the study was started is not there" in str(missing_here(elsewhere))


def test_a_machine_with_another_iidm_is_refused(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    words = pickle.dumps(task)
    monkeypatch.setenv("IIDM_COMMIT", "abc")
    assert look_of(iidm.__version__, "abc")(words) is None
    assert look_of(iidm.__version__, "")(words) is None  # installed from a wheel: the version has to do
    assert f"it has iidm {iidm.__version__} abc, the study 0.0 abc" in str(look_of("0.0", "abc")(words))
    assert "Install the same" in str(look_of(iidm.__version__, "def")(words))
    monkeypatch.setitem(sys.modules, "iidm.studies.preflight", None)
    assert "lacks this iidm" in str(look_of(iidm.__version__, "abc")(b"what it cannot read"))


def test_a_machine_takes_a_run_for_each_share_of_its_gpus_or_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    machine = {"Resources": {"CPU": 24.0, "GPU": 2.0}}
    for runs_per_gpu, room, threads in ((1, 2, "12"), (3, 6, "4"), (7, 14, "1")):
        share = Share(runs_per_gpu, cores=0)
        assert (share.room_on(machine), share.environment_on(machine)) == (room, {"OMP_NUM_THREADS": threads})
        assert share.needs["num_gpus"] * runs_per_gpu <= 1
    assert Share(1, cores=0).room_on({"Resources": {"CPU": 24.0}}) == 0
    share = Share(0, cores=16)
    assert (share.room_on(machine), share.environment_on(machine)) == (1, {"OMP_NUM_THREADS": "24"})
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert share.environment_on(machine) == {"OMP_NUM_THREADS": "3"}


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"--on ray needs Ray.*pip install 'iidm\[cluster\]'"):
        connect(Config(), 1)
