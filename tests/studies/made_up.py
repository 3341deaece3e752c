"""A study on the preset `scenes` and records as if its runs had been done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from iidm.cli import config_as_dict
from iidm.data import target_classes
from iidm.studies.folder import Record, StudyFolder
from iidm.studies.grid import Study, parse_study
from iidm.studies.plan import Plan, Run, Wishes, make_plan

GRID = """
title = "A small table"
note = "Two sentences. Made up."
budgets = [20, 40]
paper_setting = "GTA5 -> Cityscapes"

[[row]]
name = "L_s"
type = "UDA"
method = "source_only"
labeled = 0
paper = { "0" = 37.3 }

[[row]]
name = "both*"
method = "source_target"
paper = { "100" = 48.5 }

[[row]]
name = "IIDM"
type = "SSDA"
method = "iidm"
paper = { "100" = 69.5, "200" = 70.0 }

[[row]]
name = "twin"
method = "iidm"
options = ["--loss.inter-weight", "1"]
"""
MACHINE = {"cpu": "Abacus", "cores": 2, "threads": 2, "python": "3.11.0", "torch": "2.10.0"}


def study(text: str = GRID) -> Study:
    return parse_study(text, "small", "small.toml")


def plan(seeds: int = 3, text: str = GRID) -> Plan:
    return make_plan(study(text), Wishes(seeds=seeds, steps=10))


def record(run: Run, student: float, teacher: float) -> Record:
    """A line of runs.jsonl with these mIoU in per cent; class number k has an IoU of k per cent, the last has none."""
    names = target_classes(run.config).names
    iou = {name: None if name == names[-1] else k / 100 for k, name in enumerate(names)}
    scores = {"iou": iou, "pixel_accuracy": 0.5}
    return {
        "key": run.key,
        "method": run.config.method,
        "preset": "scenes",
        "labeled": run.labeled,
        "seed": run.config.seed,
        "student": {"miou": student / 100, **scores},
        "teacher": {"miou": teacher / 100, **scores},
        "images": 60,
        "seconds": 30.0,
        "steps": 10,
        "machine": MACHINE,
        "commit": "abc123",
        "iidm": "0.0",
        "date": "2020-02-02T02:02:02+00:00",
        "command": run.command,
        "config": config_as_dict(run.config),
    }


def records(plan: Plan, scores: Mapping[tuple[str, int], Sequence[float]]) -> dict[str, Record]:
    """Records of the cells that `scores` names by method and budget, by seed; the teacher has 1 more."""
    found = {}
    for cell in plan.cells:
        for run, score in zip(cell.runs, scores.get((cell.row.method, cell.labeled), ()), strict=False):
            found[run.key] = record(run, score, score + 1)
    return found


def write_predictions(plan: Plan, folder: StudyFolder, names: Sequence[str], rows: Sequence[str]) -> None:
    """Pictures as the runs of these rows leave them: the label of row number k is class k everywhere."""
    pictures = folder.pictures_of(plan.cells[0].runs[0].config)
    for name in names:
        save(np.full((16, 32, 3), 200, np.uint8), pictures / f"{name}.jpg")
        save(np.full((16, 32), 18, np.uint8), pictures / f"{name}.png")
        for cell in plan.cells:
            if cell.row.name in rows:
                label = np.full((16, 32), rows.index(cell.row.name), np.uint8)
                save(label, folder.predictions / cell.runs[0].key / f"{name}.png")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def save(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
