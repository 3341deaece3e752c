"""Curves of runs as SVG inside an HTML page: they take its font and its text colour, and need no JavaScript."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib

from iidm.engine.curves import points, smoothed

from .gather import Gathered

matplotlib.use("Agg")
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.ticker import MaxNLocator  # noqa: E402

COLORS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9")
"""Okabe and Ito's, told apart without colour vision, and read on white and on black; then again with other dashes."""
DASHES = ("-", "--", ":", "-.")
MIOU = "mIoU of the teacher on the validation images, %"
_INK = "#010203"
"""Stands for the colour of the text around, which matplotlib has no word for."""


class Curve(NamedTuple):
    """One line."""

    name: str
    steps: list[int]
    values: list[float]


class Chart(NamedTuple):
    """A drawn panel."""

    title: str
    svg: str
    legend: list[tuple[str, str, str]]
    """(name, colour, dashes as CSS calls them); empty for one line alone."""


def charts(runs: Sequence[Gathered]) -> list[Chart]:
    """Losses, quality of the pseudo-labels and mIoU over the steps: the runs over each other, of one its loss terms."""
    if len(runs) == 1:
        lines = runs[0].folder.metrics
        keys = sorted({key for line in lines for key in line if key.startswith("loss_")})
        losses = [Curve(key.removeprefix("loss_"), *points(lines, key)) for key in keys]
    else:
        losses = [Curve(run.folder.name, *points(run.folder.metrics, "loss_total")) for run in runs]
    losses = [curve._replace(values=smoothed(curve.values)) for curve in losses if curve.steps]
    quality = [Curve(run.folder.name, *points(run.folder.metrics, "quality")) for run in runs]
    miou = [_miou(run) for run in runs]
    title = "Loss" if len(runs) == 1 else "Total loss"
    panels = [
        (f"{title}, smoothed", losses, 1.0),
        ("Quality of the pseudo-labels, % of their pixels that are confident", quality, 100.0),
        (MIOU, miou, 100.0),
    ]
    return [
        _draw(number, title, curves, scale)
        for number, (title, curves, scale) in enumerate(panels)
        if any(len(curve.steps) > 1 for curve in curves)
    ]


def _miou(run: Gathered) -> Curve:
    """Of the evaluations on the way, and of the end."""
    steps, values = points(run.folder.metrics, "miou")
    last = run.evaluation.scores["teacher"].miou if run.evaluation is not None else math.nan
    done = int(run.folder.metadata.get("step", 0)) - 1
    if not math.isnan(last) and (not steps or steps[-1] < done):
        steps, values = [*steps, done], [*values, last]
    return Curve(run.folder.name, steps, values)


def _draw(number: int, title: str, curves: Sequence[Curve], scale: float) -> Chart:
    options: Any = {"svg.fonttype": "none", "svg.hashsalt": title, "font.size": 9.0, "axes.edgecolor": _INK}
    options |= {"text.color": _INK, "xtick.color": _INK, "ytick.color": _INK, "axes.labelcolor": _INK}
    legend = []
    with matplotlib.rc_context(options):
        figure = Figure(figsize=(4.6, 2.6), layout="constrained")
        axes = figure.subplots()
        for place, curve in enumerate(curves):
            color, dash = COLORS[place % len(COLORS)], DASHES[place // len(COLORS) % len(DASHES)]
            if not curve.steps:
                continue
            values = [scale * value for value in curve.values]
            marker = "o" if len(values) < 12 else None
            done = [step + 1 for step in curve.steps]
            axes.plot(done, values, color=color, linestyle=dash, linewidth=1.6, marker=marker, markersize=3)
            legend.append((curve.name, color, {"-": "solid", ":": "dotted"}.get(dash, "dashed")))
        axes.set_xlabel("step")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.grid(alpha=0.25, linewidth=0.6, color=_INK)
        axes.spines[["top", "right"]].set_visible(False)
        return Chart(title, _inline(figure, f"chart{number}-"), legend if len(curves) > 1 else [])


def _inline(figure: Any, prefix: str) -> str:
    """The figure as an element of a page: without what belongs to a file of its own, with ids that no other has."""
    out = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Type", "Format"))
    figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.S)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"| (width|height)="[\d.]+pt"', "", svg)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}", svg)
    svg = re.sub(r"font-family: [^;]*;|\bfont: ([\d.]+px) [^;]*;", r"font-size: \1;", svg)
    return svg.replace(_INK, "currentColor")
