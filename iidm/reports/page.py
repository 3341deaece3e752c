"""The page: what was gathered, put into the template."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import iidm
from iidm.data.datasets.summary import TITLES
from iidm.studies.progress import duration

from . import words
from .charts import MIOU, charts
from .gather import Gathered
from .pictures import Album, ImagePanels, preview_strips
from .scoring import NETWORKS

MOST_BYTES = 6 * 10**6
"""Of all pictures in the file."""
MATRIX_CLASSES = 32
"""Classes of a confusion matrix that a person can still look at."""
GENERATOR = "iidm report"
_HERE = Path(__file__).parent


def render(runs: Sequence[Gathered], network: str, command: str) -> str:
    """The HTML of a report on one run or several.

    Args:
        network: `student` or `teacher`, whose weak classes, mistakes and images are shown.
        command: that wrote this report, as a shell reads it.
    """
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": words.percent, "small": words.small_percent}
    script = (_HERE / "report.js").read_text(encoding="utf-8")
    several, drawn = len(runs) > 1, charts(runs)
    page = environment.get_template("report.html.jinja").render(
        generator=GENERATOR,
        version=iidm.__version__,
        title=f"{len(runs)} runs" if several else runs[0].folder.name,
        css=Markup((_HERE / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        # The browser runs this script alone, whatever a name in the page looks like, and loads nothing from anywhere.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        headline=words.comparison(runs, network) if several else words.headline(runs[0], network),
        network=network,
        networks=NETWORKS,
        command=command,
        runs=[_run(number, run, network, MOST_BYTES // len(runs)) for number, run in enumerate(runs)],
        charts=[chart._replace(svg=Markup(chart.svg)) for chart in drawn],
        has_miou=any(chart.title == MIOU for chart in drawn),
        differences=words.differences(runs) if several else [],
        classes=_class_table(runs, network),
    )
    return page.encode("utf-8", "backslashreplace").decode("utf-8")  # file names that are no Unicode


def _run(number: int, run: Gathered, network: str, most_bytes: int) -> dict[str, Any]:
    album = Album(most_bytes)
    folder, results = run.folder, words.results_of(run)
    shares = words.class_shares(run)
    seconds = folder.results.get("seconds", folder.metadata.get("seconds"))
    ranked = {which: _images(images, album) for which, images in (("worst", run.worst), ("best", run.best))}
    previews = {
        "Pseudo-labels of the teacher, each of another unlabeled crop": ("batch", "unlabeled"),
        "The same validation image over time": ("validation", None),
        "The same unlabeled image over time": ("unlabeled", None),
    }
    strips = {
        title: [(done, address) for done, strip in preview_strips(folder.path, *which) if (address := album.add(strip))]
        for title, which in previews.items()
    }
    missing = list(run.missing)
    if not any(strips.values()):
        missing.append("No pseudo-labels over time: previews/ holds none (--log.preview-every 0, or it was removed).")
    if album.left_out:
        missing.append(
            f"{album.left_out} pictures are left out, as all of them together are limited to {MOST_BYTES / 1e6:.0f} MB."
        )
    return {
        "id": f"run{number}",
        "name": folder.name,
        "headline": words.headline(run, network),
        "missing": missing,
        "config": folder.config,
        "images": folder.images,
        "steps": folder.steps,
        "time": duration(seconds) if isinstance(seconds, int | float) else "–",
        "seconds": seconds,
        "results": results,
        "weak": words.weak_classes(run, network),
        "training": [title for title in shares if title != TITLES["val"]],
        "mistakes": words.largest_mistakes(run, network),
        "matrix": _matrix(run, network),
        "ranked": ranked,
        "strips": {title: found for title, found in strips.items() if found},
        "legend": [] if run.classes is None else list(zip(run.classes.names, run.classes.palette, strict=True)),
        "shares": shares,
        "pixels": {title: int(counts.sum()) for title, counts in run.pixels.items()},
        "ignored": {title: float(counts[-1] / max(counts.sum(), 1)) for title, counts in run.pixels.items()},
        "facts": words.facts(run),
        "repeat": words.repeat_command(folder),
        "notes": folder.notes,
    }


def _images(images: Sequence[ImagePanels], album: Album) -> list[dict[str, Any]]:
    found = []
    for image in images:
        pictures = {caption: album.add(picture) for caption, picture in image.pictures.items()}
        if all(pictures.values()):
            found.append({"name": image.name, "score": image.score, "pictures": pictures})
    return found


def _matrix(run: Gathered, network: str) -> dict[str, Any] | None:
    """Of the classes with the most pixels: share of each class's pixels that is called so."""
    if run.evaluation is None:
        return None
    scores = run.evaluation.scores[network]
    truth = scores.confusion.sum(1)
    held = [i for i in truth.argsort(descending=True, stable=True).tolist()[:MATRIX_CLASSES] if truth[i] > 0]
    shown, names = sorted(held), scores.classes.names
    rows = []
    for i in shown:
        row = (scores.confusion[i].double() / float(truth[i])).tolist()
        rows.append({"name": names[i], "pixels": int(truth[i]), "cells": [(names[j], row[j], i == j) for j in shown]})
    return {"names": [names[i] for i in shown], "rows": rows, "left_out": int((truth > 0).sum()) - len(shown)}


def _class_table(runs: Sequence[Gathered], network: str) -> dict[str, Any]:
    """A row a class: of one run student, teacher and shares of pixels; of several the network of each run."""
    shares: dict[str, dict[str, float]] = {}
    if len(runs) == 1:
        columns = {name: result for name, result in words.results_of(runs[0]).items()}
        shares = words.class_shares(runs[0])
    else:
        columns = {
            run.folder.name: result for run in runs if (result := words.results_of(run).get(network)) is not None
        }
    names = list(dict.fromkeys(name for result in columns.values() for name in result.iou))
    colors = {
        name: "#{:02x}{:02x}{:02x}".format(*color)
        for run in reversed(runs)
        if run.classes is not None
        for name, color in zip(run.classes.names, run.classes.palette, strict=True)
    }
    rows = [
        {
            "name": name,
            "color": colors.get(name),
            "iou": [result.iou.get(name) for result in columns.values()],
            "shares": [own.get(name) for own in shares.values()],
        }
        for name in names
    ]
    return {"columns": list(columns), "results": list(columns.values()), "shares": list(shares), "rows": rows}
