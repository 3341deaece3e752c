"""What tests of loaders share: batches of a loader, whether they are equal, and the memory of this process."""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from coordinate_folders import DATA

from iidm.config import DataConfig
from iidm.data.datasets.dataset import Dataset, Domains
from iidm.data.loading.eval_loader import EvalLoader
from iidm.data.loading.loader import TrainLoader
from iidm.types import EvalBatch, TrainBatch

CPU = torch.device("cpu")


def domains_of(source: Dataset | None, labeled: Dataset | None = None, unlabeled: Dataset | None = None) -> Domains:
    val = source or labeled or unlabeled
    assert val is not None
    return Domains(val.classes, source, labeled, unlabeled, val)


def everywhere(dataset: Dataset) -> Domains:
    return domains_of(dataset, dataset, dataset)


def batches_of(domains: Domains, count: int, data: DataConfig = DATA, **more: Any) -> list[TrainBatch]:
    with TrainLoader(domains, data, **{"seed": 0, "device": CPU, "threads": 1, **more}) as loader:
        return list(islice(loader, count))


def tensors(batch: TrainBatch) -> list[torch.Tensor]:
    unlabeled = [part for part in (batch.unlabeled, batch.beyond) if part is not None]
    return [*(batch.source or ()), *(batch.target or ()), *unlabeled]


def same(one: TrainBatch, other: TrainBatch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


def equal(one: Sequence[TrainBatch], other: Sequence[TrainBatch]) -> bool:
    return len(one) == len(other) and all(map(same, one, other))


def evaluated(dataset: Dataset, batch_size: int) -> list[EvalBatch]:
    with EvalLoader(dataset, device=CPU, batch_size=batch_size, threads=2) as loader:
        assert len(loader) == len(dataset.samples)
        return list(loader)


def resident_mib() -> float:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
