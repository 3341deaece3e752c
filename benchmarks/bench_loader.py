"""The way from disk to the student's batch: this loader against a DataLoader, on generated data in the official sizes.

    pytest benchmarks/bench_loader.py --benchmark-json loader.json && python -m benchmarks.report_loader loader.json

One timed unit is the same for all: BATCHES batches of 2 source + 2 labeled + 2 unlabeled crops of 512x512, labels
included, on the device. `ideal` hands out copies of one cached batch: what remains when reading costs nothing.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from iidm.config import DataConfig, DatasetConfig
from iidm.data import Domains, TrainLoader
from iidm.data.datasets.dataset import open_dataset
from iidm.data.prepared.entries import INDEX, read_index
from iidm.data.prepared.index import Index
from iidm.types import TrainBatch

from . import dataloader, many_images, street_data

BATCHES = 20
WARM_UP = 8
"""Batches before the first timed one: caches, processes, and what is read ahead."""
IMPLS = (
    "iidm-prepared",
    "iidm-jpeg",
    "iidm-png",
    "dataloader-prepared-uint8",
    "dataloader-prepared",
    "dataloader-png",
    "ideal",
)
DATA = DataConfig()
"""The paper's: 512x512, 2 + 2 + 2, rare class sampling."""


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def bench_loader(benchmark: Any, provenance: dict[str, Any], device: str, impl: str) -> None:
    """Time BATCHES batches of one loader."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    where = torch.device(device)
    with ExitStack() as stack:
        batches = _batches(impl, where, stack)
        count = BATCHES if benchmark.enabled else 1
        for _ in itertools.islice(batches, WARM_UP if benchmark.enabled else 1):
            pass

        def unit() -> None:
            for _ in itertools.islice(batches, count):
                pass
            if device == "cuda":
                torch.cuda.synchronize()

        benchmark.pedantic(unit, rounds=3 if impl.endswith("png") else 10)
    images = 6 * count
    if benchmark.stats is not None:  # None where timing is off
        benchmark.extra_info["images_per_s"] = images / benchmark.stats.stats.median
    benchmark.extra_info.update(op="loader", impl=impl, device=device, images=images, crop=DATA.crop_size, **provenance)


@pytest.mark.parametrize("count", [100, 100_000])
def bench_index(benchmark: Any, provenance: dict[str, Any], tmp_path: Path, count: int) -> None:
    """Time BATCHES batches where the index has so many entries (of the same few files)."""
    if not benchmark.enabled:
        count = min(count, 1000)
    roots = street_data.prepared("raw")
    small = _domains(roots)
    assert small.source is not None and small.labeled is not None
    source, target = (_repeated(dataset, count) for dataset in (small.source, small.labeled))
    domains = replace(small, source=source, labeled=target, unlabeled=target)
    with TrainLoader(domains, DATA, seed=0, device=torch.device("cpu")) as loader:
        for _ in itertools.islice(loader, WARM_UP):
            pass

        def unit() -> None:
            for _ in itertools.islice(loader, BATCHES):
                pass

        benchmark.pedantic(unit, rounds=10)
    benchmark.extra_info.update(op="loader-index", impl="iidm-prepared", device="cpu", entries=count, **provenance)


@pytest.mark.parametrize("count", [1000, 1_000_000])
def bench_start(benchmark: Any, provenance: dict[str, Any], count: int) -> None:
    """Time the start of a run on a source and a target of so many prepared images together (of few files), from the
    command line to where it asks for its first batch, in a process of its own."""
    count = count if benchmark.enabled else 300
    many_images.roots(count)
    found = benchmark.pedantic(lambda: many_images.start(count, "--quiet", "--data.workers", "0"), rounds=2)
    parts = {name: clock for name, (clock, _) in found["s"].items()}
    info = {"parts_s": parts, "peak_mb": found["peak_mb"], "peak_after_batches_mb": found["peak_after_batches_mb"]}
    benchmark.extra_info.update(
        op="loader-start", impl="iidm-prepared", device="cpu", entries=count, **info, **provenance
    )


def _batches(impl: str, device: torch.device, stack: ExitStack) -> Iterator[Any]:
    workers = os.cpu_count() or 1
    if impl == "dataloader-png":
        return dataloader.batches(*street_data.official(), "png", workers, device)
    if impl.startswith("dataloader-"):
        kind: Any = impl.removeprefix("dataloader-")
        return dataloader.batches(*street_data.prepared("raw"), kind, workers, device)
    formats: dict[str, Callable[[], street_data.Roots]] = {
        "iidm-prepared": lambda: street_data.prepared("raw"),
        "iidm-jpeg": lambda: street_data.prepared("jpeg"),
        "iidm-png": street_data.official,
        "ideal": lambda: street_data.prepared("raw"),
    }
    loader = stack.enter_context(TrainLoader(_domains(formats[impl]()), DATA, seed=0, device=device))
    return _copies(next(loader)) if impl == "ideal" else loader


def _copies(batch: TrainBatch) -> Iterator[TrainBatch]:
    assert batch.source and batch.target and batch.unlabeled is not None
    while True:
        source, target = (type(part)(*(tensor.clone() for tensor in part)) for part in (batch.source, batch.target))
        yield TrainBatch(source, target, batch.unlabeled.clone())


def _domains(roots: street_data.Roots) -> Domains:
    source = open_dataset(DatasetConfig(spec="gta5"), roots.gta5, "train")
    target = open_dataset(DatasetConfig(spec="cityscapes"), roots.cityscapes, "train")
    return Domains(target.classes, source, target, target, target)


def _repeated(dataset: Any, count: int) -> Any:
    """The same few files under many names."""
    prepared = dataset.prepared
    known = [entry for entry in read_index(prepared.root / INDEX) if entry.split == prepared.split]
    few = itertools.islice(itertools.cycle(zip(dataset.samples, known, strict=True)), count)
    samples, entries = [], []
    for number, (sample, entry) in enumerate(few):
        samples.append(sample._replace(name=f"{number:06d}"))
        entries.append(entry._replace(name=samples[-1].name))
    return replace(dataset, samples=tuple(samples), prepared=replace(prepared, index=Index.of(entries)))
