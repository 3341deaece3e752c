"""What the finished runs of a study say: numbers by row and budget, in per cent, and comparisons of rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from .folder import Record
from .grid import Row
from .plan import Cell, Plan
from .statistics import Difference, Sample, difference

NETWORKS = ("student", "teacher")


@dataclass(frozen=True)
class Result:
    """A cell of the table."""

    cell: Cell
    records: tuple[Record | None, ...]
    """By seed; None where the run is not finished."""

    @property
    def row(self) -> Row:
        """Its line of the table."""
        return self.cell.row

    @property
    def labeled(self) -> int:
        """Its column of the table."""
        return self.cell.labeled

    @property
    def keys(self) -> list[str]:
        """Of its runs; two cells of the same keys are the same runs."""
        return [run.key for run in self.cell.runs]

    @property
    def found(self) -> list[Record]:
        """The records that are there."""
        return [record for record in self.records if record is not None]

    def miou(self, network: str) -> Sample | None:
        """mIoU of a network over the seeds; None without any value."""
        found = [record.get(network, {}).get("miou") for record in self.found]
        values = tuple(100 * miou for miou in found if miou is not None)
        return Sample(values) if values else None

    def iou(self, network: str) -> dict[str, float | None]:
        """IoU of each class, the mean over the seeds; None for a class that no label holds."""
        found = [record.get(network, {}).get("iou", {}) for record in self.found]
        names = list(found[0]) if found else []
        return {name: _mean([iou.get(name) for iou in found]) for name in names}


@dataclass(frozen=True)
class Comparison:
    """Two rows at one budget."""

    labeled: int
    first: str
    second: str
    why: Literal["best", "next"]
    """The first is the best of the column, or stands above the second."""
    difference: Difference | None
    """Of the students' means, first less second; None where one seed cannot tell."""


def collect(plan: Plan, records: Mapping[str, Record]) -> list[Result]:
    """Every cell of the plan with what there is of it."""
    return [Result(cell, tuple(records.get(run.key) for run in cell.runs)) for cell in plan.cells]


def best_of(results: Sequence[Result], labeled: int) -> Result | None:
    """The cell of the highest student's mean at a budget, the first of several; None where there is no other."""
    means = {i: sample.mean for i, r in enumerate(results) if r.labeled == labeled and (sample := r.miou("student"))}
    return results[max(means, key=lambda i: means[i])] if len(means) > 1 else None


def compare(results: Sequence[Result], labeled: int) -> list[Comparison]:
    """Each row against the best one, and against the next in the table, where two of them are not the same runs."""
    column = [result for result in results if result.labeled == labeled and result.miou("student")]
    best = best_of(results, labeled)
    pairs: dict[tuple[int, int], Literal["best", "next"]] = {}
    for i, result in enumerate(column):
        if result is best:
            pairs |= {(i, j): "best" for j in range(len(column)) if j != i}
    for i in range(len(column) - 1):
        if (i, i + 1) not in pairs and (i + 1, i) not in pairs:
            pairs[i, i + 1] = "next"
    found = []
    for (i, j), why in pairs.items():
        first, second = column[i], column[j]
        a, b = first.miou("student"), second.miou("student")
        if a is not None and b is not None and first.keys != second.keys:
            found.append(Comparison(labeled, first.row.name, second.row.name, why, difference(a, b)))
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    whole = [100 * value for value in values if value is not None]
    return math.fsum(whole) / len(whole) if len(whole) == len(values) else None
