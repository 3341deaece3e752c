"""Evaluating the networks of a run on labeled images, and writing what came out."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from iidm.config import Config, sliding_window
from iidm.data import Dataset, EvalLoader, plain_crops
from iidm.engine.metrics import Scores, evaluate, score_table
from iidm.engine.norm_statistics import NormStatistics, running_statistics
from iidm.kernels.jitter import normalize
from iidm.ranks import ALONE, Ranks
from iidm.recipes import with_values
from iidm.text import write_text
from iidm.types import MEAN_RGB, STD_RGB, ClassSet, EvalBatch, UserError

normalize_image = partial(normalize, mean=MEAN_RGB, std=STD_RGB)
"""uint8 [B,H,W,3] -> float [B,3,H,W], as every backbone here was trained."""


def evaluate_networks(
    networks: Mapping[str, nn.Module],
    dataset: Dataset,
    config: Config,
    amp_dtype: torch.dtype | None,
    ranks: Ranks = ALONE,
) -> dict[str, Scores]:
    """Scores of each network on every image of `dataset`: images at training resolution, labels at their full size.

    Each rank sees its part of the images; all of them return the scores of the whole.
    """
    part = dataset.with_samples(ranks.share(dataset.samples))
    with EvalLoader(part, device=device_of(networks)) as batches:
        scores = evaluate_batches(networks, batches, dataset.classes, config, amp_dtype)
    return {name: replace(value, confusion=ranks.sum(value.confusion)) for name, value in scores.items()}


def evaluate_batches(
    networks: Mapping[str, nn.Module],
    batches: Iterable[EvalBatch],
    classes: ClassSet,
    config: Config,
    amp_dtype: torch.dtype | None,
) -> dict[str, Scores]:
    """`engine.metrics.evaluate` as a run's configuration wishes it."""
    return evaluate(
        networks,
        batches,
        classes,
        device=device_of(networks),
        amp_dtype=amp_dtype,
        align_corners=config.model.align_corners,
        windows=sliding_window(config),
        normalize=normalize_image,
    )


def device_of(networks: Mapping[str, nn.Module]) -> torch.device:
    """Where networks lie that lie together."""
    return next(next(iter(networks.values())).parameters()).device


def with_windows(
    config: Config,
    mode: Literal["whole", "slide"] | None,
    window: tuple[int, int] | None,
    stride: tuple[int, int] | None,
) -> Config:
    """A run's configuration with what --mode, --window and --stride say in place of its own; None leaves a value.

    Raises: UserError for a window or a stride where images are seen whole, and for those that do not fit together.
    """
    given = {"mode": mode, "window": window, "stride": stride}
    config = with_values(config, {"eval": {name: value for name, value in given.items() if value is not None}})
    if config.eval.mode == "whole" and (window or stride):
        raise UserError("--window and --stride say how windows lie, and this run sees images whole; add --mode slide.")
    return config


def target_statistics(
    config: Config,
    plain_target: Dataset | None,
    networks: Mapping[str, nn.Module],
    amp_dtype: torch.dtype | None,
    damaged: Collection[Path] = (),
) -> tuple[NormStatistics, str]:
    """The BatchNorm statistics that a run's saved networks have, and a line that says so.

    Args:
        plain_target: labeled and unlabeled target images; None where there are none.
        networks: without BatchNorm layers no image is read.
        damaged: files that are known to be damaged, which `data.skip_damaged` leaves out.

    Returns: statistics of the same crops for the same configuration and images; with `eval.statistics running`, or
        without images, some that change nothing.
    """
    crops: list[torch.Tensor] = []
    if not any(running_statistics(network) for network in networks.values()):
        note = "none, the network has no such layers"
    elif config.eval.statistics == "running":
        note = "those of training, a mixture of all branches (--eval.statistics running)"
    elif plain_target is None:
        note = "those of training, as there is no target image to take others from"
    else:
        count = config.eval.statistics_crops
        device = device_of(networks)
        crops = plain_crops(plain_target, config.data, count, seed=config.seed, device=device, damaged=damaged)
        drawn, images = sum(map(len, crops)), len(plain_target.samples)
        note = f"those of the target, from {drawn} plain crops of its {images} images"
    return NormStatistics(crops, normalize_image, amp_dtype), f"BatchNorm statistics: {note}"


def results_json(scores: Mapping[str, Scores], images: int) -> dict[str, Any]:
    """{"student": {"miou", "iou": {class: IoU}, "absent": [class], "pixel_accuracy"}, "teacher": {...}, "images": N};
    shares of 1."""
    return {**{name: value.as_json() for name, value in scores.items()}, "images": images}


def write_results(run_dir: Path, scores: Mapping[str, Scores], images: int, facts: Mapping[str, Any]) -> str:
    """Write RUN/results.json (scores and `facts`) and RUN/results.txt (the table); returns the table."""
    table = score_table(dict(scores)) if scores else "not scored: there are no validation images"
    write_text(run_dir / "results.json", json.dumps({**results_json(scores, images), **facts}, indent=2) + "\n")
    write_text(run_dir / "results.txt", table + "\n")
    return table
