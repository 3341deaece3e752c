"""The preview pictures of a training run: what went in, what was mixed, what the networks say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from iidm.config import sliding_window
from iidm.data import Domains, EvalLoader
from iidm.engine.log import NoLog
from iidm.engine.preview import Panel, colorize, save_sheet
from iidm.engine.windows import image_logits
from iidm.evaluation import normalize_image
from iidm.kernels.pseudo_label import pseudo_label
from iidm.method import TrainStep
from iidm.types import MEAN_RGB, STD_RGB, ClassSet, EvalBatch, LabeledImages, Mixed, StepOutput, TrainBatch

VALIDATION_ROWS = 3
"""Validation images in a preview."""


def save_previews(
    run_dir: Path,
    done: int,
    batch: TrainBatch,
    out: StepOutput,
    step: TrainStep,
    domains: Domains,
    log: NoLog,
) -> None:
    """Write RUN/previews/step-<done>-{batch,validation}.png: the first crop of each stream with its label, both mixes,
    and predictions of both networks against the truth; `unlabeled` in place of `validation` where nothing validates."""
    seen = "validation" if domains.val is not None else "unlabeled"
    sheets = {"batch": batch_rows(batch, out, domains.classes), seen: validation_rows(step, domains)}
    for name, rows in sheets.items():
        if not rows:
            continue
        path = run_dir / "previews" / f"step-{done:06d}-{name}.png"
        save_sheet(path, rows, domains.classes, f"{name} after {done} steps")
        log.picture(name, path, done)


def batch_rows(batch: TrainBatch, out: StepOutput, classes: ClassSet) -> list[list[Panel]]:
    """One row a stream: image, label, and for the mixes the loss weight."""
    rows = []
    for name, labeled in (("source", batch.source), ("labeled target", batch.target)):
        if isinstance(labeled, LabeledImages):
            rows.append([Panel(name, _numpy(labeled.image[0])), _label(f"{name}: label", labeled.label[0], classes)])
    if batch.unlabeled is not None and out.pseudo_label is not None:
        quality = f"pseudo-label, quality {float(out.pseudo_label.quality[0]):.2f}"
        rows.append(
            [
                Panel("unlabeled", _numpy(batch.unlabeled[0])),
                _label(quality, out.pseudo_label.label[0], classes),
            ]
        )
    for name, mixed in (("inter mix", out.inter), ("intra mix", out.intra)):
        if mixed is not None:
            rows.append(_mixed_row(name, mixed, classes))
    return rows


def validation_rows(step: TrainStep, domains: Domains) -> list[list[Panel]]:
    """Evenly spaced validation images: image, truth, student, teacher. Where nothing validates, images that the run
    has no label of, without truth."""
    dataset = domains.val or domains.unlabeled or domains.plain_target or domains.labeled
    if dataset is None:
        return []
    samples = dataset.samples
    chosen = sorted({round(i * (len(samples) - 1) / max(VALIDATION_ROWS - 1, 1)) for i in range(VALIDATION_ROWS)})
    networks = step.networks
    rows = []
    with EvalLoader(dataset.with_samples(tuple(samples[i] for i in chosen)), device=step.device) as batches:
        for batch in batches:
            labels = {name: _predict(network, batch, step) for name, network in networks.items()}
            for i, name in enumerate(batch.names):
                row = [Panel(name, _numpy(batch.image[i]))]
                if domains.val is not None:
                    row.append(_label("truth", batch.label[i], domains.classes))
                row += [_label(who, label[i], domains.classes) for who, label in labels.items()]
                rows.append(row)
    return rows


def _predict(network: nn.Module, batch: EvalBatch, step: TrainStep) -> Tensor:
    """uint8 [B,H,W] at the image's size; the network's mode is put back afterwards."""
    was_training = network.training
    network.eval()
    height, width = batch.image.shape[1:3]
    with (
        torch.inference_mode(),
        torch.autocast(step.device.type, dtype=step.amp_dtype, enabled=step.amp_dtype is not None),
    ):
        image, align_corners = normalize_image(batch.image), step.config.model.align_corners
        logits = image_logits(network, image, sliding_window(step.config), align_corners=align_corners)
        label = pseudo_label(logits, (height, width), 0.0, align_corners=align_corners).label
    network.train(was_training)
    return label


def _mixed_row(name: str, mixed: Mixed, classes: ClassSet) -> list[Panel]:
    weight = mixed.weight[0].clamp(0, 1).mul(255).to(torch.uint8)
    caption = f"{name}: weight {float(mixed.weight[0].min()):.2f} to {float(mixed.weight[0].max()):.2f}"
    return [
        Panel(name, _denormalized(mixed.image[0])),
        _label(f"{name}: label", mixed.label[0], classes),
        Panel(caption, np.repeat(_numpy(weight)[..., None], 3, axis=-1)),
    ]


def _label(caption: str, label: Tensor, classes: ClassSet) -> Panel:
    return Panel(caption, colorize(_numpy(label), classes))


def _denormalized(image: Tensor) -> np.ndarray:
    """float [3,H,W] normalized -> uint8 [H,W,3]."""
    mean, std = (torch.tensor(v, device=image.device)[:, None, None] for v in (MEAN_RGB, STD_RGB))
    return _numpy((image.float() * std + mean).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0))


def _numpy(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.cpu().numpy()
    return array
