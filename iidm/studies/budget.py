"""The study `budget`: one method on one's own data with more and more labels, and what further ones would bring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np

from iidm.cli import parse_config
from iidm.config import Config, DatasetConfig
from iidm.data import open_training_target, require_validation
from iidm.data.datasets.splits import list_text
from iidm.text import write_text
from iidm.types import UserError

from .extrapolation import Curve, Expected, fit
from .grid import BUDGET, Row, Study
from .plan import LABELED_LIST, Wishes
from .results import Result

matplotlib.use("Agg")
from matplotlib.figure import Figure  # noqa: E402

NAME = BUDGET
ABOUT = "What labels are worth on your own data, and what more of them would bring"
COUNTS, SMALLEST_SHARE = 5, 16
"""Label counts where none are given: evenly spaced in their logarithm, from a sixteenth of the labels to all."""
CLASSES = 3
"""Classes named for their gain."""
DPI = 110


def ask(wishes: Wishes, out: Path, *, runs_follow: bool) -> tuple[Study, Wishes]:
    """The study and what is asked of it, with everything that the data tells: preset, method, label counts.

    Every seed draws other labeled images, the same ones and more at a larger count. Validation images are the same for
    all: where `--data.val-count` draws them they are written to OUT/val.txt.

    Args:
        runs_follow: whether to write that file.

    Raises: UserError for a list of labeled images, and for data that cannot be read or has too few labels.
    """
    method, options = _without_method(wishes.options)
    start = ["--preset", wishes.preset] if wishes.preset else []
    config = parse_config([*start, *(["--method", method] if method else []), *options])[0]
    if config.data.labeled_list is not None:
        raise UserError(
            f"{LABELED_LIST} names the labeled images, and this study draws them, anew for each seed. Leave it out."
        )
    if not method:
        method = "target_intra" if config.data.source == DatasetConfig() else config.method
    if config.data.val_count is not None:
        options += ["--data.val-list", str(out.resolve() / "val.txt")]  # a part of each run's key
        if runs_follow:
            _keep_validation(config, out / "val.txt")
    budgets = wishes.budgets or default_counts(int(open_training_target(config).has_label.sum()))
    study = Study(NAME, ABOUT, (Row(method, method),), split_per_seed=True)
    return study, replace(wishes, preset=config.preset, budgets=budgets, options=tuple(options))


def default_counts(labels: int) -> tuple[int, ...]:
    """Up to five counts from a sixteenth of the labels (at least 2) to all. Raises UserError for fewer than 4."""
    if labels < 4:
        raise UserError(
            f"The target has {labels} labeled training images, and the study needs at least 4 to draw from; more tell"
            " more. (Images that validate do not train.)"
        )
    least = max(2, labels / SMALLEST_SHARE)
    return tuple(sorted({round(count) for count in np.geomspace(least, labels, COUNTS)}))


def sentences(results: Sequence[Result]) -> list[str]:
    """What the runs say, for a person: the score with all labels, what more will give, which classes gain."""
    done = [result for result in sorted(results, key=lambda r: r.labeled) if result.miou("student")]
    if not done:
        return []
    last = done[-1]
    sample = last.miou("student")
    assert sample is not None
    spread = "" if sample.deviation is None else f" (± {sample.deviation:.1f} over {len(sample.values)} draws)"
    said = [f"With {last.labeled} labels the student's mIoU is {sample.mean:.1f}{spread}."]
    curve = fit(_points(done))
    if isinstance(curve, str):
        said.append(f"What more labels would bring cannot be told: {curve}.")
    else:
        double, far = curve.at(2 * last.labeled), curve.at(curve.farthest)
        gain, more = curve.gain(double.labels), curve.gain(far.labels)
        said.append(
            f"Doubling to {double.labels} is expected to give {_told(double)}, a gain of {_told(gain)};"
            f" {far.labels} labels {_told(far)}, a gain of {_told(more)}."
        )
        said.append(
            "In brackets: where the mean over draws lies with a probability of 95 %, if the power law through the runs"
            f" goes on. Nothing is said beyond {far.labels} labels."
        )
    return said + (_class_gains(done[-2], last) if len(done) > 1 else [])


def _told(expected: Expected) -> str:
    return f"{expected.middle:.1f} ({expected.low:.1f} to {expected.high:.1f})"


def draw(results: Sequence[Result], path: Path) -> None:
    """The runs, their means, and the law with its 95 % band as far as it is told; nothing where no run is done."""
    done = [result for result in results if result.miou("student")]
    if not done:
        return
    points = _points(done)
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    counts = sorted(points)
    runs = [(count, score) for count in counts for _, score in points[count]]
    axes.plot(*zip(*runs, strict=True), "o", color="C0", alpha=0.35, label="a run")
    means = [float(np.mean([score for _, score in points[count]])) for count in counts]
    axes.plot(counts, means, "s-", color="C0", label="mean over draws")
    ticks = counts
    curve = fit(points)
    if isinstance(curve, Curve):
        at = np.unique(np.geomspace(counts[0], curve.farthest, 80).round().astype(int))
        expected = [curve.at(int(count)) for count in at]
        axes.plot(at, [e.middle for e in expected], "--", color="C1", label="power law")
        low, high = [e.low for e in expected], [e.high for e in expected]
        axes.fill_between(at, low, high, color="C1", alpha=0.2, label="95 %")
        axes.axvline(counts[-1], color="gray", linewidth=0.8)
        ticks = [*counts, 2 * counts[-1], curve.farthest]
    axes.set_xscale("log")
    axes.set_xticks(ticks, [str(count) for count in ticks])
    axes.minorticks_off()
    axes.set_xlabel("labeled target images")
    axes.set_ylabel("mIoU of the student, per cent")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=DPI)


def _without_method(options: Sequence[str]) -> tuple[str, list[str]]:
    """The method among the options of iidm.train, and the others."""
    method, others, words = "", list[str](), iter(options)
    for word in words:
        name, has_value, value = word.partition("=")
        if name == "--method":
            method = value if has_value else next(words, "")
        else:
            others.append(word)
    return method, others


def _keep_validation(config: Config, path: Path) -> None:
    """Write the images that --data.val-count draws: another draw of labels must not change them."""
    text = list_text(require_validation(config).names)
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        raise UserError(f"{path} names other images than --data.val-count draws now. Give another --out.")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


def _points(done: Sequence[Result]) -> dict[int, list[tuple[int, float]]]:
    """Number of labels -> (seed, student's mIoU in per cent) of each run."""
    found: dict[int, list[tuple[int, float]]] = {}
    for result in done:
        for run, record in zip(result.cell.runs, result.records, strict=True):
            miou = None if record is None else record["student"]["miou"]
            if miou is not None:
                found.setdefault(result.labeled, []).append((run.config.seed, 100 * miou))
    return found


def _class_gains(before: Result, last: Result) -> list[str]:
    old, new = before.iou("student"), last.iou("student")
    gains = {name: a - b for name, a in new.items() if a is not None and (b := old.get(name)) is not None}
    best = [name for name in sorted(gains, key=lambda name: -gains[name]) if gains[name] > 0][:CLASSES]
    if not best:
        return []
    told = ", ".join(f"{name} {gains[name]:+.1f}" for name in best)
    return [f"From {before.labeled} to {last.labeled} labels these classes gained most: {told}."]
