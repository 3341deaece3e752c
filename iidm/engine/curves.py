"""The curves of a run as a PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

from ..text import put_in_place
from .log import read_metrics

matplotlib.use("Agg")
from matplotlib.figure import Figure  # noqa: E402

WINDOWS = 20
"""The smoothed curve averages over about one part in so many of the run."""


def save_curves(run_dir: Path) -> Path | None:
    """Draw losses, quality, learning rate and mIoU of RUN/metrics.jsonl into RUN/curves.png; None without any value."""
    lines = read_metrics(run_dir)
    panels = [
        ("loss", sorted({k for line in lines for k in line if k.startswith("loss_")})),
        ("quality of pseudo-labels", ["quality"]),
        ("learning rate", ["lr"]),
        ("mIoU of the teacher", ["miou"]),
    ]
    panels = [(title, [k for k in keys if points(lines, k)[1]]) for title, keys in panels]
    panels = [(title, keys) for title, keys in panels if keys]
    if not panels:
        return None
    figure = Figure(figsize=(5.2 * len(panels), 3.8), layout="constrained")
    for axes, (title, keys) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for key in keys:
            steps, values = points(lines, key)
            (raw,) = axes.plot(steps, values, alpha=0.25 if title == "loss" else 1.0)
            if title == "loss":
                axes.plot(steps, smoothed(values), color=raw.get_color(), label=key.removeprefix("loss_"))
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        if title == "loss":
            axes.set_ylim(bottom=0)
            axes.legend()
    path = run_dir / "curves.png"
    half = path.with_name(f".{path.name}")
    figure.savefig(half, dpi=110, format="png")
    put_in_place(half, path)
    return path


def points(lines: list[dict[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """(steps, values) of one value in the lines of metrics.jsonl; none of a loss that is off."""
    found = [(line["step"], line[key]) for line in lines if line.get(key) is not None]
    # A loss that is switched off is zero at every step; it has no curve.
    if key.startswith("loss_") and not any(value for _, value in found):
        return [], []
    return [step for step, _ in found], [value for _, value in found]


def smoothed(values: list[float]) -> list[float]:
    """A running mean over about one part in WINDOWS of the values."""
    new = min(1.0, WINDOWS / len(values))
    out: list[float] = []
    for value in values:
        out.append(value if not out else out[-1] + new * (value - out[-1]))
    return out
