"""Weights & Biases and MLflow: what they are called with (stand-ins), and that the true libraries take it."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iidm.config import LogConfig
from iidm.engine.log import RunLog
from iidm.engine.trackers import KINDS, Trackers, wanted_trackers
from iidm.types import UserError

CONFIG = {"preset": "folder", "optim": {"lr": 0.1, "betas": [0.9, 0.99]}}
SCORES = {"student": {"miou": 0.5, "iou": {"a<b": 0.25, "gone": None}, "absent": ["gone"], "pixel_accuracy": math.nan}}


class Calls:
    """Records the calls of a stand-in; a name in `broken` raises."""

    def __init__(self) -> None:
        self.made: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.broken: set[str] = set()

    def __call__(self, name: str, answer: Any = None) -> Any:
        def call(*words: Any, **more: Any) -> Any:
            self.made.append((name, words, more))
            if name in self.broken:
                raise ConnectionError("the network\nis away")
            return answer

        return call

    def of(self, name: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        return [(words, more) for called, words, more in self.made if called == name]


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()
    summary = SimpleNamespace(update=calls("summary"))
    run = SimpleNamespace(id="w1", log=calls("log"), summary=summary, finish=calls("finish"))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=calls("init", run)))
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return calls


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()
    run = SimpleNamespace(info=SimpleNamespace(run_id="m1"))
    names = ("set_experiment", "log_params", "log_metrics", "end_run")
    stand_in = SimpleNamespace(start_run=calls("start_run", run), **{name: calls(name) for name in names})
    monkeypatch.setitem(sys.modules, "mlflow", stand_in)
    for name in ("MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    return calls


def open_log(run_dir: Path, *trackers: str, start_step: int = 0) -> RunLog:
    return RunLog(
        run_dir, total_steps=4, start_step=start_step, quiet=False, tensorboard=False, trackers=trackers, config=CONFIG
    )


def test_wandb_gets_configuration_scalars_scores_and_the_end(tmp_path: Path, wandb: Calls) -> None:
    with open_log(tmp_path, "wandb") as log:
        log.log(1, {"loss_total": 1.5, "lr": 0.1})
        log.results(SCORES)
    ((_, init),) = wandb.of("init")
    assert init == {"project": "iidm", "name": tmp_path.name, "dir": str(tmp_path), "config": CONFIG}
    assert wandb.of("log") == [(({"loss/total": 1.5, "lr": 0.1},), {"step": 2})]
    assert wandb.of("summary") == [(({"final/student/miou": 0.5, "final/student/iou/a<b": 0.25},), {})]
    assert wandb.of("finish") == [((), {"exit_code": 0})]


def test_mlflow_gets_the_same_under_names_that_it_takes(tmp_path: Path, mlflow: Calls) -> None:
    with open_log(tmp_path, "mlflow") as log:
        log.log(1, {"loss_total": 1.5})
        log.results(SCORES)
    assert mlflow.of("set_experiment") == [(("iidm",), {})]
    assert mlflow.of("start_run") == [((), {"run_id": None, "run_name": tmp_path.name})]
    assert mlflow.of("log_params") == [(({"preset": "folder", "optim.lr": 0.1, "optim.betas": [0.9, 0.99]},), {})]
    scalars, final = mlflow.of("log_metrics")
    assert scalars == (({"loss/total": 1.5},), {"step": 2})
    assert final == (({"final/student/miou": 0.5, "final/student/iou/a_3c_b": 0.25},), {})
    assert mlflow.of("end_run") == [(("FINISHED",), {})]


def test_a_run_that_fails_is_told_to_have_failed(tmp_path: Path, wandb: Calls, mlflow: Calls) -> None:
    with pytest.raises(UserError, match="broke"), open_log(tmp_path, "wandb", "mlflow"):
        raise UserError("broke")
    assert wandb.of("finish") == [((), {"exit_code": 1})]
    assert mlflow.of("end_run") == [(("FAILED",), {})]


def test_a_resumed_run_goes_on_with_its_own(tmp_path: Path, wandb: Calls, mlflow: Calls) -> None:
    open_log(tmp_path, "wandb", "mlflow").close()
    kept = json.loads((tmp_path / "trackers.json").read_text())
    assert kept == {"wandb": "w1", "mlflow": "m1", "folder": str(tmp_path)}
    open_log(tmp_path, "wandb", "mlflow", start_step=2).close()
    _, (_, init) = wandb.of("init")
    assert (init["id"], init["resume"]) == ("w1", "allow") and "config" not in init
    assert mlflow.of("start_run")[1][1]["run_id"] == "m1"
    assert len(mlflow.of("log_params")) == 1  # MLflow refuses another value for a parameter that is there


@pytest.mark.parametrize("body", [b"", b'{"wandb": "w', b'["w1"]', b'{"wandb": 1}', b"\xff", b"[" * 100_000])
def test_a_damaged_file_of_records_is_told_and_they_begin_anew(body: bytes, tmp_path: Path, wandb: Calls) -> None:
    (tmp_path / "trackers.json").write_bytes(body)
    notes: list[str] = []
    Trackers(["wandb"], tmp_path, CONFIG, notes.append)
    ((_, init),) = wandb.of("init")
    assert "id" not in init
    (note,) = notes
    assert note.startswith(f"{tmp_path}/trackers.json cannot be read (") and note.endswith(
        "so the records of this run begin anew"
    )
    assert json.loads((tmp_path / "trackers.json").read_text()) == {"wandb": "w1", "folder": str(tmp_path)}


def test_the_environment_names_the_project(
    tmp_path: Path, wandb: Calls, mlflow: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "cameras")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "7")
    open_log(tmp_path, "wandb", "mlflow").close()
    assert wandb.of("init")[0][1]["project"] == "cameras" and mlflow.of("set_experiment") == []


@pytest.mark.parametrize("broken", ["log", "summary", "finish"])
def test_a_call_that_fails_is_one_warning_and_the_run_goes_on(
    broken: str, tmp_path: Path, wandb: Calls, mlflow: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    wandb.broken.add(broken)
    with open_log(tmp_path, "wandb", "mlflow") as log:
        for step in range(3):
            log.log(step, {"loss_total": 1.0})
        log.results(SCORES)
    assert (
        capsys.readouterr().err.count("Weights & Biases failed and gets nothing more of this run: the network is") == 1
    )
    assert "the network is away" in (tmp_path / "notes.txt").read_text()
    assert len(wandb.of("log")) == (1 if broken == "log" else 3)
    assert len(mlflow.of("log_metrics")) == 4 and mlflow.of("end_run") == [(("FINISHED",), {})]
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 3


def test_one_that_does_not_start_stops_the_run_and_ends_the_other(tmp_path: Path, wandb: Calls, mlflow: Calls) -> None:
    mlflow.broken.add("start_run")
    with pytest.raises(UserError) as error:
        open_log(tmp_path, "wandb", "mlflow")
    for words in ("--log.mlflow", "the network is away", "MLFLOW_TRACKING_URI", f"--resume {tmp_path}"):
        assert words in str(error.value)
    assert wandb.of("finish") == [((), {"exit_code": 1})]


@pytest.mark.parametrize("name", KINDS)
def test_one_that_is_not_installed_is_told_with_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"pip install 'iidm\[{name}\]'"):
        wanted_trackers(LogConfig(**{name: True}))
    assert wanted_trackers(LogConfig()) == []


# The true libraries


TRUE_RUN = """
import sys
from pathlib import Path
from iidm.config import LogConfig
from iidm.engine.log import RunLog
from iidm.engine.trackers import wanted_trackers
name, run_dir = sys.argv[1], Path(sys.argv[2])
trackers = wanted_trackers(LogConfig(**{name: True}))
config = {"preset": "folder", "optim": {"lr": 0.1}, **{f"value{i}": i for i in range(150)}}
scores = {"student": {"miou": 0.5, "iou": {"<a> & b": 0.25}}}
for first, last in ((0, 3), (2, 4)):  # and resumed
    with RunLog(run_dir, total_steps=4, start_step=first, quiet=False, tensorboard=False, trackers=trackers,
                config=config) as log:
        for step in range(first, last):
            log.log(step, {"loss_total": 1.0 / (step + 1)})
        log.results(scores)
"""


def run_truly(name: str, run_dir: Path, **environment: str) -> str:
    """Two parts of one run, as a process of its own; what it said."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed: pip install 'iidm[{name}]'")
    run_dir.mkdir()
    words = [sys.executable, "-c", TRUE_RUN, name, str(run_dir)]
    done = subprocess.run(words, env={**os.environ, **environment}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "failed" not in (run_dir / "notes.txt").read_text()
    return done.stderr


def test_the_true_wandb_keeps_an_offline_run_in_the_runs_folder(tmp_path: Path) -> None:
    run_truly("wandb", tmp_path / "run", WANDB_MODE="offline")
    files = list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    name = json.loads((tmp_path / "run" / "trackers.json").read_text())["wandb"]
    assert files and all(file.stem == f"run-{name}" for file in files)
    body = b"".join(file.read_bytes() for file in files)
    for words in (b"loss/total", b"final/student/miou", b"<a> & b", b"value149"):
        assert words in body, words


def test_the_true_mlflow_keeps_a_run_in_a_database_file(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path}/runs.db"
    run_truly("mlflow", tmp_path / "run", MLFLOW_TRACKING_URI=address)
    import mlflow

    client = mlflow.MlflowClient(address)
    run = client.get_run(json.loads((tmp_path / "run" / "trackers.json").read_text())["mlflow"])
    assert run.info.status == "FINISHED" and run.data.params["optim.lr"] == "0.1" and len(run.data.params) == 152
    assert run.data.metrics["final/student/iou/_3c_a_3e_ _26_ b"] == 0.25
    history = {point.step: point.value for point in client.get_metric_history(run.info.run_id, "loss/total")}
    assert history == {1: 1.0, 2: 0.5, 3: 1 / 3, 4: 0.25}


def test_a_copy_of_a_run_begins_records_of_its_own(wandb: Calls, tmp_path: Path) -> None:
    first, copy = tmp_path / "first", tmp_path / "copy"
    first.mkdir()
    notes: list[str] = []
    for run_dir in (first, first):
        Trackers(["wandb"], run_dir, CONFIG, notes.append)
    shutil.copytree(first, copy)
    for run_dir in (copy, copy):
        Trackers(["wandb"], run_dir, CONFIG, notes.append)
    assert [more.get("id") for _, more in wandb.of("init")] == [None, "w1", None, "w1"]
    assert notes == [f"the records of wandb begin anew: those of {copy}/trackers.json are of {first}"]
