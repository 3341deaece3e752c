"""Pictures of a study: mIoU over the label budget, IoU per class, and what the methods see in the same images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

from iidm.engine.preview import Panel, colorize
from iidm.types import ClassSet

from .folder import StudyFolder
from .plan import Plan
from .predictions import label_file, list_labels, read_label
from .results import Result
from .tables import labels, row_title

matplotlib.use("Agg")
from matplotlib.figure import Figure  # noqa: E402

MARKERS = "os^vD*XP<>hd"
PANELS = 6
"""Most pictures beside each other in the strips."""
DPI = 110
HIGHLIGHTED = "iidm"
"""The method whose curve is thicker than the others."""
SHIFT = 0.006
"""Share of a budget by which the curves lie beside each other, so that their error bars can be told apart."""


def draw_curves(plan: Plan, results: Sequence[Result], path: Path) -> Path | None:
    """Student's mIoU over the number of labeled images, with the deviation over seeds; rows without labels are level.

    None where no row has two budgets.
    """
    budgets = sorted({result.labeled for result in results if result.labeled and result.miou("student")})
    if len(budgets) < 2:
        return None
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    for number, row in enumerate(plan.study.rows):
        own = [result for result in results if result.row is row]
        points = [(result.labeled, sample) for result in own if (sample := result.miou("student"))]
        style: dict[str, Any] = {
            "color": f"C{number % 10}",
            "label": row.name,
            "linewidth": 2.4 if row.method == HIGHLIGHTED else 1.2,
        }
        level = [sample.mean for labeled, sample in points if not labeled]
        if level:
            axes.axhline(level[0], linestyle=":" if number < 10 else "-.", **style)
        elif points:
            axes.errorbar(
                [labeled * (1 + SHIFT * (number - len(plan.study.rows) / 2)) for labeled, _ in points],
                [sample.mean for _, sample in points],
                yerr=[sample.deviation or 0.0 for _, sample in points],
                marker=MARKERS[number % len(MARKERS)],
                linestyle="-" if number < 10 else "--",
                capsize=3,
                **style,
            )
    axes.set_xscale("log")
    axes.set_xticks(budgets, [str(count) for count in budgets])
    axes.minorticks_off()
    axes.set_xlabel("labeled target images")
    axes.set_ylabel("mIoU of the student, per cent")
    axes.set_title(plan.study.title)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8)
    figure.savefig(path, dpi=DPI)
    return path


def draw_class_heatmap(plan: Plan, results: Sequence[Result], path: Path) -> Path | None:
    """IoU of the student per class, a panel a budget; None without any finished run."""
    found = [(labeled, [r for r in results if r.labeled == labeled and r.found]) for labeled in plan.budgets]
    found = [(labeled, column) for labeled, column in found if column]
    if not found:
        return None
    names = list(found[0][1][0].iou("student"))
    heights = [len(column) for _, column in found]
    size = (3.5 + 0.5 * len(names), 2.0 + 0.3 * sum(heights) + 1.3 * len(found))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(found), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    image: Any = None
    for axes, (labeled, column) in zip(panels, found, strict=True):
        iou = [result.iou("student") for result in column]
        values = np.array([[np.nan if row.get(n) is None else row[n] for n in names] for row in iou], float)
        image = axes.imshow(values, vmin=0, vmax=100, cmap="viridis", aspect="auto")
        for (y, x), value in np.ndenumerate(values):
            if not np.isnan(value):
                axes.text(x, y, f"{value:.0f}", ha="center", va="center", fontsize=7, color=_ink(value))
        axes.set_yticks(range(len(column)), [result.row.name for result in column], fontsize=8)
        axes.set_xticks(range(len(names)), names if axes is panels[-1] else [], rotation=40, ha="right", fontsize=8)
        axes.set_title(labels(labeled), fontsize=9)
    figure.colorbar(image, ax=list(panels), label="IoU of the student, per cent", aspect=50, pad=0.01)
    figure.savefig(path, dpi=DPI)
    return path


def strip_rows(
    results: Sequence[Result], labeled: int, folder: StudyFolder, classes: ClassSet, names: Sequence[str]
) -> list[list[Panel]]:
    """For each chosen validation image: itself, its truth, and what each row's student of the first seed says.

    Rows that have no labels stand beside those of every budget. Empty where there are no predictions.
    """
    shown = [r for r in results if r.records[0] and (r.labeled == labeled or r.row.labeled is not None)]
    rows: list[list[Panel]] = []
    if not any(result.labeled == labeled for result in shown):
        return rows
    pictures = folder.pictures_of(shown[0].cell.runs[0].config)
    kept = list_labels(pictures)
    for name in [name for name in names if name in kept] or kept:
        panels = [_image(name, pictures), Panel("truth", colorize(read_label(label_file(pictures, name)), classes))]
        for result in shown:
            file = label_file(folder.predictions / _key(result), name)
            if file.is_file():
                panels.append(Panel(_caption(result), colorize(read_label(file), classes)))
        if len(panels) > 2:
            width = math.ceil(len(panels) / math.ceil(len(panels) / PANELS))
            rows += [panels[i : i + width] for i in range(0, len(panels), width)]
    return rows


def _caption(result: Result) -> str:
    miou = result.found[0]["student"]["miou"]
    return row_title(result.row) + ("" if miou is None else f" · {100 * miou:.1f}")


def _key(result: Result) -> str:
    """The name of the folder of its predictions: of the time when they were made."""
    record = result.records[0]
    assert record is not None
    return str(record["key"])


def _image(name: str, pictures: Path) -> Panel:
    with Image.open(pictures / f"{name}.jpg") as image:
        return Panel(name, np.asarray(image.convert("RGB")))


def _ink(value: float) -> str:
    """A colour that is read on the heatmap's own."""
    return "black" if value > 60 else "white"
