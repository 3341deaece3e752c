"""Looks at the data of every run before the first one starts, here and on the machines that will have them: no study
should fail at its fortieth run."""

from __future__ import annotations

import json
import os
import pickle
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from iidm.cli import config_as_dict
from iidm.config import Config, streams_of
from iidm.data import NoneUnlabeled, TooFewLabeled, open_domains, require_validation
from iidm.data.files.common import Progress
from iidm.types import UserError

from .folder import Record, StudyFolder
from .plan import Cell, Plan
from .predictions import choose_images


@dataclass(frozen=True)
class Task:
    """What a machine is told of the study."""

    plan: Plan
    done: tuple[str, ...]
    """Keys of the runs that are finished and need no data any more."""
    folder: StudyFolder
    strips: tuple[str, ...]
    working_folder: str
    """What relative paths start from."""
    token: str
    """What `token_file` holds."""

    @property
    def token_file(self) -> Path:
        """By which a machine knows that it shares the folder."""
        return self.folder.runs / ".shared"


def check_data(
    plan: Plan, records: Mapping[str, Record], strips: Sequence[str], progress: Progress | None = None
) -> Plan:
    """Open the data of every cell of which a run is missing.

    A cell whose method needs unlabeled images where all are labeled cannot be; it is left out with a note, as in the
    paper's Table 7.

    Raises: UserError naming the row for data that a run could not use, and for a validation image that is not there.
    """
    seen: dict[str, UserError | None] = {}
    cells: list[Cell] = []
    notes: list[str] = []
    for cell in plan.cells:
        if all(run.key in records for run in cell.runs):
            cells.append(cell)
            continue
        config = _cheap(cell.runs[0].config)
        about = json.dumps([*streams_of(config), config_as_dict(config)["data"]])
        if about not in seen:
            seen[about] = _error(config, strips, progress)
        error = seen[about]
        if error is None:
            cells.append(cell)
        elif isinstance(error, NoneUnlabeled):
            notes.append(
                f"{cell.row.name} has no cell at {cell.labeled} labels: it needs unlabeled images, none is left"
            )
        elif isinstance(error, TooFewLabeled):
            raise UserError(
                f"{cell.row.name} is to learn from {error.count} labeled images, but there are {error.total}. Budgets"
                f" are 0 to {error.total}: --budgets before the --, or budgets in the study's file."
            )
        else:
            raise UserError(f"{cell.row.name}, {cell.labeled} labels: {error}")
    if not cells:
        raise UserError(f"No row can be run. {notes[0]}.")
    return replace(plan, cells=tuple(cells), notes=tuple(notes))


def task_of(plan: Plan, folder: StudyFolder, strips: Sequence[str]) -> Task:
    """What the machines are told of a study whose folder is there."""
    done = tuple(folder.records())
    return Task(plan, done, StudyFolder(folder.root.resolve()), tuple(strips), os.getcwd(), uuid.uuid4().hex)


def missing_here(task: Task) -> str | None:
    """What this machine lacks for the study's runs, for a person; None where nothing is."""
    folder, where = task.folder.root, Path(task.working_folder)
    if not task.token_file.is_file() or task.token_file.read_text() != task.token:
        return f"--out {folder} is not the same folder there. Give one that all machines share (NFS, sshfs)."
    if not where.is_dir():
        return f"the folder in which the study was started is not there: {where}."
    os.chdir(where)
    try:
        check_data(task.plan, dict.fromkeys(task.done, {}), task.strips)
    except UserError as error:
        return str(error)
    return None


def look_of(version: str, commit: str) -> Callable[[bytes], str | None]:
    """What asks a machine whether it can do the runs. Ray sends it as code: the machine may have another iidm."""

    def look(task: bytes) -> str | None:
        try:
            import iidm
            from iidm.studies.local import source_commit
            from iidm.studies.preflight import missing_here
        except ImportError as error:
            return f"its Ray runs in a Python that lacks this iidm ({error}). Install {version} {commit} there."
        there = source_commit()
        if iidm.__version__ != version or commit and there and commit != there:
            return f"it has iidm {iidm.__version__} {there}, the study {version} {commit}. Install the same."
        return missing_here(pickle.loads(task))

    return look


def _cheap(config: Config) -> Config:
    """Without what reads every label of the source."""
    return replace(config, data=replace(config.data, source_subset=None))


def _error(config: Config, strips: Sequence[str], progress: Progress | None) -> UserError | None:
    try:
        domains = open_domains(config, progress=progress)
        choose_images(domains.val or require_validation(config), strips)
    except UserError as error:
        return error
    return None
