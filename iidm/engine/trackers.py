"""Weights & Biases and MLflow, through their own libraries: configuration, scalars, final scores, and how a run ended.

Where they write is their own affair: WANDB_MODE=offline, WANDB_PROJECT, MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME
and the like hold as ever. A resumed run goes on with the one that it began there; RUN/trackers.json keeps its id.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from ..config import LogConfig
from ..text import write_text
from ..types import UserError

IDS = "trackers.json"
FOLDER = "folder"
"""In it, where the run lay: a copy of its folder is another run, whose records must not be written into."""
PROJECT = "iidm"
"""The project (Weights & Biases) or experiment (MLflow) where the environment names none."""
TITLES = {"wandb": "Weights & Biases", "mlflow": "MLflow"}
REMEDIES = {
    "wandb": "Log in (wandb login), or set WANDB_MODE=offline to keep it in the run's folder.",
    "mlflow": "Look at MLFLOW_TRACKING_URI; sqlite:///FILE.db needs no server.",
}


class Tracker(Protocol):
    """A run, as a tracking service keeps it. Any call may raise what its library raises."""

    id: str

    def scalars(self, values: Mapping[str, float], done: int) -> None:
        """Values after `done` steps."""

    def final(self, values: Mapping[str, float]) -> None:
        """Scores at the end."""

    def finish(self, failed: bool) -> None:
        """The run is over."""


class WandbTracker:
    """A run of Weights & Biases, whose files lie in RUN/wandb. What a resumed run logs anew is left out by the service
    up to the step where it stopped."""

    def __init__(self, run_dir: Path, config: Mapping[str, Any], run_id: str | None) -> None:
        wandb = import_module("wandb")
        new = {"config": dict(config)} if run_id is None else {"id": run_id, "resume": "allow"}
        project = os.environ.get("WANDB_PROJECT", PROJECT)
        self._run = wandb.init(project=project, name=run_dir.resolve().name, dir=str(run_dir), **new)
        self.id: str = self._run.id

    def scalars(self, values: Mapping[str, float], done: int) -> None:
        self._run.log(dict(values), step=done)

    def final(self, values: Mapping[str, float]) -> None:
        self._run.summary.update(dict(values))

    def finish(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class MlflowTracker:
    """A run of MLflow. What a resumed run logs anew stands there twice."""

    def __init__(self, run_dir: Path, config: Mapping[str, Any], run_id: str | None) -> None:
        self._mlflow = import_module("mlflow")
        if "MLFLOW_EXPERIMENT_ID" not in os.environ:
            self._mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
        run = self._mlflow.start_run(run_id=run_id, run_name=run_dir.resolve().name)
        self.id: str = run.info.run_id
        if run_id is None:  # it refuses other values for what it has, as a longer run would give
            self._mlflow.log_params(flat(config))

    def scalars(self, values: Mapping[str, float], done: int) -> None:
        self._mlflow.log_metrics({_allowed(name): value for name, value in values.items()}, step=done)

    def final(self, values: Mapping[str, float]) -> None:
        self._mlflow.log_metrics({_allowed(name): value for name, value in values.items()})

    def finish(self, failed: bool) -> None:
        self._mlflow.end_run("FAILED" if failed else "FINISHED")


KINDS: dict[str, Callable[[Path, Mapping[str, Any], str | None], Tracker]] = {
    "wandb": WandbTracker,
    "mlflow": MlflowTracker,
}


class Trackers:
    """Those that a run is told to use. One that fails on the way is told of once and left aside: training goes on.

    Args:
        names: keys of KINDS.
        run_dir: the run's folder.
        config: plain values, in groups.
        note: says one line.

    Raises: UserError for one that does not start: it was asked for.
    """

    def __init__(
        self, names: Sequence[str], run_dir: Path, config: Mapping[str, Any], note: Callable[[str], None]
    ) -> None:
        self._note = note
        self._running: dict[str, Tracker] = {}
        if not names:
            return
        path = run_dir / IDS
        ids = self._read(path)
        here = str(run_dir.resolve())
        if ids.get(FOLDER, here) != here:
            note(f"the records of {', '.join(names)} begin anew: those of {path} are of {ids[FOLDER]}")
            ids = {}
        ids[FOLDER] = here
        for name in names:
            try:
                self._running[name] = KINDS[name](run_dir, config, ids.get(name))
            except Exception as error:  # whatever the library raises: no key, no server, a wrong address
                self.finish(failed=True)
                raise UserError(
                    f"--log.{name}: {TITLES[name]} did not start ({_line(error)}). {REMEDIES[name]} Then go on with"
                    f" --resume {run_dir}."
                ) from None
            ids[name] = self._running[name].id
        write_text(path, json.dumps(ids) + "\n")

    def _read(self, path: Path) -> dict[str, str]:
        """What the file holds; where it is damaged that is said, and the records begin anew."""
        try:
            ids: Any = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(ids, dict) and all(isinstance(value, str) for value in ids.values()):
                return ids
            reason = "it holds no names of records"
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            reason = str(error)
        self._note(f"{path} cannot be read ({reason}), so the records of this run begin anew")
        return {}

    def scalars(self, values: Mapping[str, float], done: int) -> None:
        """Values after `done` steps."""
        self._each(lambda tracker: tracker.scalars(values, done))

    def final(self, values: Mapping[str, Any]) -> None:
        """Scores at the end, in groups; what is no number (an absent class) is left out."""
        numbers = {f"final/{name}": value for name, value in flat(values, "/").items() if _is_number(value)}
        self._each(lambda tracker: tracker.final(numbers))

    def finish(self, failed: bool) -> None:
        """The run is over."""
        self._each(lambda tracker: tracker.finish(failed))
        self._running.clear()

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._running.items()):
            try:
                call(tracker)
            except Exception as error:  # a network that is away must not end hours of training
                del self._running[name]
                self._note(f"{TITLES[name]} failed and gets nothing more of this run: {_line(error)}")


def wanted_trackers(log: LogConfig) -> list[str]:
    """Names of the trackers that a run is told to use. Raises UserError for one that is not installed."""
    names = [name for name in KINDS if getattr(log, name)]
    for name in names:
        try:
            import_module(name)
        except ImportError as error:
            raise UserError(
                f"--log.{name} needs {TITLES[name]}, which cannot be imported here ({_line(error)}):"
                f" pip install 'iidm[{name}]'."
            ) from None
    return names


def flat(values: Mapping[str, Any], mark: str = ".", path: str = "") -> dict[str, Any]:
    """Groups of values as one: {"optim": {"lr": 1}} -> {"optim.lr": 1}."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        whole = f"{path}{name}"
        found |= flat(value, mark, f"{whole}{mark}") if isinstance(value, Mapping) else {whole: value}
    return found


def _allowed(name: str) -> str:
    """A name of a metric as MLflow takes it, other characters by their number: `a<b` -> `a_3c_b`."""
    return re.sub(r"[^\w\-. :/]", lambda match: f"_{ord(match[0]):x}_", name)[:250]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not math.isnan(value)


def _line(error: Exception) -> str:
    """What a library says, in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}..."
