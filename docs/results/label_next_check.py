"""What a choice of images is worth, told without training: what it holds of the classes, and what a linear classifier
on the run's own features learns from it.

    python docs/results/label_next_check.py RUN --counts 5 15

RUN is a finished run whose target has labels of all its images. Each line is a strategy of iidm.select from that run:
classes that the labeled images hold (half a cell at least), the share of their pixels that are of the rarer half of the
classes, the mean distance of all images to the nearest labeled one (mean features, standardized), and the mIoU on the
validation images, cell by cell, of a linear classifier that is trained on the labeled ones. The last is no score of
a trained network: it ranks choices, in seconds. `random` is the mean ± deviation over draws.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from iidm.cli.arguments import SelectArguments
from iidm.data import Dataset, EvalLoader, open_training_target, require_validation
from iidm.select import load
from iidm.selection.networks import Networks
from iidm.selection.pool import Pool, open_pool
from iidm.selection.strategies import by_networks, by_position, look_at

STEPS, RATE, DECAY = 150, 0.01, 1e-4
"""Of the linear classifier: Adam on all cells at once."""


@dataclass(frozen=True)
class Cells:
    """Images cell by cell."""

    features: Tensor
    """float16 [N,n,C]."""
    share: Tensor
    """float16 [N,n,K] of each class in a cell."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--counts", type=int, nargs="+", default=[5, 15])
    parser.add_argument("--draws", type=int, default=8)
    told = parser.parse_args()
    networks = load(SelectArguments(told.run, 1))
    pool = open_pool(networks.config, told.run, (), None)
    train = cells_of(networks, open_training_target(networks.config))
    val = cells_of(networks, require_validation(networks.config))
    print(f"{told.run}: {int(pool.labeled.sum())} labeled of {pool.images}")
    seen = look_at(pool, networks, lambda done, total: None)
    for count in told.counts:
        for name in ("select", "uncertainty"):
            order = by_networks(pool, seen, count, name).order  # type: ignore[arg-type]
            show(f"+{count} {name}", [facts(pool, order, train, val)])
        show(f"+{count} even", [facts(pool, by_position(pool, count, "even", 0).order, train, val)])
        draws = [by_position(pool, count, "random", seed).order for seed in range(told.draws)]
        show(f"+{count} random", [facts(pool, order, train, val) for order in draws])


def cells_of(networks: Networks, dataset: Dataset) -> Cells:
    """What the teacher's head classifies, and the truth."""
    classes, found = len(dataset.classes), []
    with EvalLoader(dataset, device=networks.device, batch_size=8) as batches, torch.inference_mode():
        for batch in batches:
            with networks.autocast():
                features = networks.teacher.look(networks.normalize(batch.image)).features.float()
            known = torch.where(batch.label < classes, batch.label, classes).long()
            share = F.one_hot(known, classes + 1)[..., :classes].permute(0, 3, 1, 2).float()
            share = F.adaptive_avg_pool2d(share, features.shape[2:])
            found.append([part.flatten(2).transpose(1, 2).half().cpu() for part in (features, share)])
    return Cells(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def facts(pool: Pool, order: Sequence[int], train: Cells, val: Cells) -> dict[str, float]:
    """The columns of a line."""
    labeled = [*np.flatnonzero(pool.labeled).tolist(), *order]
    pixels = train.share.float().sum((0, 1))
    rare = pixels.argsort()[: len(pixels) // 2]
    own = train.share[labeled].float().sum((0, 1))
    image = train.features.float().mean(1)
    image = (image - image.mean(0)) / (image.std(0) + 1e-6)
    return {
        "classes": float((own > 0.5).sum()),
        "rare pixels %": float(100 * own[rare].sum() / own.sum()),
        "distance": float(torch.cdist(image, image[labeled]).min(1).values.mean()),
        "linear mIoU": linear_miou(train, val, labeled),
    }


def linear_miou(train: Cells, val: Cells, labeled: Sequence[int]) -> float:
    """Per cent."""
    mean, deviation = train.features.float().mean((0, 1)), train.features.float().std((0, 1)) + 1e-6
    x = ((train.features[labeled].float() - mean) / deviation).flatten(0, 1)
    y = train.share[labeled].float().flatten(0, 1)
    # The classes' shares are added to the logits in training alone (logit adjustment): the mIoU counts all alike.
    prior = (y.sum(0) / y.sum()).clamp_min(1e-5).log()
    weight = torch.zeros(x.shape[1], y.shape[1], requires_grad=True)
    bias = torch.zeros(y.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], RATE)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = -(y * torch.log_softmax(x @ weight + bias + prior, 1)).sum(1).mean() + DECAY * (weight**2).sum()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        said = (((val.features.float() - mean) / deviation) @ weight + bias).argmax(2).flatten()
    truth = val.share.float().flatten(0, 1)
    confusion = torch.zeros(y.shape[1], y.shape[1]).index_add_(0, said, truth)  # rows prediction
    hit = confusion.diagonal()
    iou = hit / (confusion.sum(0) + confusion.sum(1) - hit)
    return float(100 * iou[confusion.sum(0) > 0].mean())


def show(name: str, rows: Sequence[dict[str, float]]) -> None:
    told = []
    for key in rows[0]:
        values = [row[key] for row in rows]
        spread = f" ± {np.std(values, ddof=1):.2f}" if len(rows) > 1 else ""
        told.append(f"{key} {np.mean(values):.2f}{spread}")
    print(f"{name:16s}", " · ".join(told), flush=True)


if __name__ == "__main__":
    main()
