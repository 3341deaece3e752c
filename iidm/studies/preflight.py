"""Looks at the data of every run before the first one starts: no study should fail at its fortieth run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from iidm.cli import config_as_dict
from iidm.config import Config, streams_of
from iidm.data import open_domains, require_validation
from iidm.data.files.common import Progress
from iidm.types import UserError

from .folder import Record
from .plan import Cell, Plan
from .predictions import choose_images

ALL_LABELED = "No target image is unlabeled"
"""How the error of a method begins whose unlabeled images are all labeled at a budget."""


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
        elif str(error).startswith(ALL_LABELED):
            notes.append(
                f"{cell.row.name} has no cell at {cell.labeled} labels: it needs unlabeled images, none is left"
            )
        else:
            raise UserError(f"{cell.row.name}, {cell.labeled} labels: {error}")
    if not cells:
        raise UserError(f"No row can be run. {notes[0]}.")
    return replace(plan, cells=tuple(cells), notes=tuple(notes))


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
