"""Scores of a run's networks on each validation image, counted once and kept in RUN/report.json."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from iidm.config import Config
from iidm.data import Dataset, EvalLoader
from iidm.data.files.common import Progress
from iidm.engine.metrics import Scores
from iidm.evaluation import device_of, evaluate_batches
from iidm.text import write_text
from iidm.types import ClassSet

KEPT = "report.json"
NETWORKS = ("student", "teacher")


class ImageScore(NamedTuple):
    """What a network achieved on one image; NaN where its label holds no pixel that counts."""

    miou: float
    """Mean IoU over the classes that the image's label holds, each counted in this image alone, 0..1."""
    accuracy: float
    """Share of the labeled pixels that are right, 0..1."""


@dataclass(frozen=True)
class Evaluation:
    """Both networks on all validation images."""

    scores: dict[str, Scores]
    names: list[str]
    """Of the images, unique."""
    images: dict[str, list[ImageScore]]
    """Network -> a score each, as `names`."""

    def ranking(self, network: str) -> list[int]:
        """Places of the images from the worst to the best by `ImageScore.miou`, equal ones by accuracy; images without
        any labeled pixel are left out."""
        scores = self.images[network]
        return sorted((i for i, score in enumerate(scores) if score.miou == score.miou), key=lambda i: scores[i])


def evaluate_images(
    networks: Mapping[str, nn.Module],
    dataset: Dataset,
    config: Config,
    amp_dtype: torch.dtype | None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score each image by itself; their sums are what `evaluation.evaluate_networks` counts.

    Raises: UserError for an image or a label that cannot be read.
    """
    count, classes = len(dataset.samples), dataset.classes
    total = {name: torch.zeros(len(classes), len(classes), dtype=torch.int64) for name in networks}
    images: dict[str, list[ImageScore]] = {name: [] for name in networks}
    with EvalLoader(dataset, device=device_of(networks)) as batches:
        for batch in batches:
            for name, score in evaluate_batches(networks, [batch], classes, config, amp_dtype).items():
                total[name] += score.confusion
                held = Scores(score.confusion, ClassSet(classes.names, classes.palette))  # the mean over all classes
                images[name].append(ImageScore(held.miou, held.pixel_accuracy))
            if progress is not None:
                progress(len(images[next(iter(networks))]), count)
    return Evaluation({name: Scores(counts, classes) for name, counts in total.items()}, dataset.names, images)


def evaluation_key(metadata: Mapping[str, Any], dataset: Dataset | None, amp_dtype: torch.dtype | None) -> str:
    """A hash of what an evaluation depends on: the checkpoint (by its metadata), the validation images and labels (by
    size and time of change), and the precision; of None images the checkpoint alone."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    if dataset is not None:
        digest.update(repr((amp_dtype, dataset.encoding, dataset.resize, dataset.classes)).encode())
        for sample in dataset.samples:
            stats = [file.stat() for file in (sample.image, sample.label) if file is not None]
            digest.update(repr((sample.name, [(stat.st_size, stat.st_mtime_ns) for stat in stats])).encode())
    return digest.hexdigest()


def evaluation_as_json(evaluation: Evaluation) -> dict[str, Any]:
    """The inverse of `evaluation_from_json`, as plain JSON values."""
    return {
        "names": evaluation.names,
        "confusion": {name: value.confusion.tolist() for name, value in evaluation.scores.items()},
        "images": {
            name: [[None if value != value else value for value in score] for score in scores]
            for name, scores in evaluation.images.items()
        },
    }


def evaluation_from_json(data: Mapping[str, Any], classes: ClassSet) -> Evaluation:
    """Raises KeyError, TypeError or ValueError for anything but what `evaluation_as_json` makes of these classes."""
    scores = {name: Scores(torch.tensor(rows, dtype=torch.int64), classes) for name, rows in data["confusion"].items()}
    images = {
        name: [ImageScore(*(float("nan") if value is None else float(value) for value in score)) for score in found]
        for name, found in data["images"].items()
    }
    names = list(data["names"])
    whole = (len(classes), len(classes))
    if set(scores) != set(NETWORKS) or set(images) != set(NETWORKS):
        raise ValueError("not both networks")
    if any(score.confusion.shape != whole for score in scores.values()):
        raise ValueError("other classes")
    if any(len(found) != len(names) for found in images.values()):
        raise ValueError("other images")
    return Evaluation(scores, names, images)


def read_kept(run_dir: Path) -> dict[str, Any]:
    """RUN/report.json; empty where there is none that can be read."""
    try:
        kept = json.loads((run_dir / KEPT).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return kept if isinstance(kept, dict) else {}


def keep(run_dir: Path, kept: Mapping[str, Any]) -> str | None:
    """Write RUN/report.json, whole or not at all; a line where that is not possible."""
    try:
        write_text(run_dir / KEPT, json.dumps(kept) + "\n")
    except OSError as error:
        return f"The evaluation is not kept for the next report: {error}"
    return None
