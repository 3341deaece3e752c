"""From data sets to batches on the device: what the training loop iterates over.

A thread of the loader reads ahead (files, labels, crops in Python, decoding in DALI's own threads), so that the next
batch is ready while the network computes. What a batch holds depends on the seed and the step alone (sampling.py).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...config import DataConfig
from ...types import LabeledImages, TrainBatch, UserError
from ..datasets.dataset import Dataset, Domains
from ..datasets.statistics import class_pixel_counts
from .crops import CropRules
from .decoding import decoding_threads, read_image
from .lost_worker import WORKER_IS_GONE, lost_worker
from .pipeline import own, train_pipeline
from .readahead import ReadAhead
from .sampling import RareClasses, Sampler
from .source import SampleSource

LABEL_CACHE_BYTES = 512 * 2**20
"""For decoded labels, all streams and worker processes together."""
PLAIN_BATCH = 8
"""Most crops of a batch of `plain_crops`."""
_DALI_DEPTH = 2
"""Batches inside DALI: one is read and sampled while the one before is decoded."""


class TrainLoader:
    """Training batches forever, from `start_step` on. Iterate over it once; close it, or use it in a `with`.

    A stream whose domain is None is None in every batch. Images are uint8 [B,h,w,3], labels uint8 [B,h,w] of
    `data.crop_size`, on `device`, and belong to the caller.

    Args:
        domains: what each stream reads.
        data: crop size, batch sizes, rules, workers.
        seed: the run's seed; the same seed and step give the same batch, with any number of workers.
        device: where the batches lie.
        start_step: step of the first batch.
        strategy: mixing strategy; `two-xu-two-streams` reads twice `data.unlabeled_batch` unlabeled images.
        damaged: files that are known to be damaged, which `data.skip_damaged` leaves out from the start.
        rank, world_size: this process among those that train together, each on its own samples.
        counts: int64 [N,K] pixels of each class in each image at training resolution, by stream ("source", "target"),
            for rare class sampling; counted from the labels where they are not given.
        threads: decoding threads; None: one a core, 8 at most.

    Raises:
        UserError: from iteration, for a missing or damaged file; the message names it.
    """

    def __init__(
        self,
        domains: Domains,
        data: DataConfig,
        *,
        seed: int,
        device: torch.device,
        start_step: int = 0,
        strategy: str = "one-xu-two-streams",
        counts: Mapping[str, NDArray[np.int64]] | None = None,
        damaged: Collection[Path] = (),
        rank: int = 0,
        world_size: int = 1,
        threads: int | None = None,
    ) -> None:
        assert 0 <= rank < world_size
        streams = _streams(domains, data, seed, strategy, counts or {}, damaged)
        groups = []
        for is_raw in (True, False):
            alike = {name: stream for name, stream in streams.items() if stream[0].dataset.is_raw == is_raw}
            if alike:
                source = SampleSource(list(alike.values()), start_step, rank=rank, world_size=world_size)
                slices = _slices({name: count for name, (_, count) in alike.items()})
                groups.append(_Group(source, slices, device, threads or decoding_threads(), data))
        self.wait_s = 0.0
        """Seconds that the caller waited for the last batch."""
        self._waits = (0, 0.0)
        self._ahead = ReadAhead(_train_batches(groups, start_step), data.prefetch, device)

    def __iter__(self) -> Iterator[TrainBatch]:
        return self

    def __next__(self) -> TrainBatch:
        started = time.perf_counter()
        batch = next(self._ahead)
        self.wait_s = time.perf_counter() - started
        self._waits = (self._waits[0] + 1, self._waits[1] + self.wait_s)
        return batch

    def mean_wait_ms(self) -> float:
        """Milliseconds a batch that the caller waited, since the last call of this."""
        (count, seconds), self._waits = self._waits, (0, 0.0)
        return 1e3 * seconds / max(1, count)

    def close(self) -> None:
        """End the thread and the worker processes."""
        self._ahead.close()

    def __enter__(self) -> TrainLoader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def plain_crops(
    dataset: Dataset,
    data: DataConfig,
    count: int,
    *,
    seed: int,
    device: torch.device,
    damaged: Collection[Path] = (),
) -> list[torch.Tensor]:
    """`count` crops of a data set, or a few more to fill the last batch, as training draws its unlabeled ones: without
    augmentation but the flip, and in the size that evaluation sees.

    Args:
        damaged: files that are known to be damaged, which `data.skip_damaged` leaves out.

    Returns: uint8 [b,h,w,3] of `data.crop_size`, b at most PLAIN_BATCH; the same ones for the same seed.
    Raises: UserError for a missing or damaged file; the message names it.
    """
    domains = Domains(dataset.classes, None, None, dataset, dataset)
    batches = -(-count // PLAIN_BATCH)
    data = replace(data, unlabeled_batch=-(-count // batches), workers=0, scale_range=(1.0, 1.0))
    with TrainLoader(domains, data, seed=seed, device=device, damaged=damaged) as loader:
        found = [next(loader).unlabeled for _ in range(batches)]
    return [crops for crops in found if crops is not None]


class _Group:
    """The streams that share a DALI graph, as all their images are raw or all are encoded."""

    def __init__(
        self, source: SampleSource, slices: Mapping[str, slice], device: torch.device, threads: int, data: DataConfig
    ) -> None:
        self.source, self.slices, self.device, self.threads = source, slices, device, threads
        self.workers, self.skip_damaged = data.workers, data.skip_damaged
        self._pipeline = self._build(source.start_step)

    def read(self, step: int) -> dict[str, LabeledImages]:
        """The crops of each stream at `step`, which is the one after that of the last call."""
        while True:
            try:
                images, labels = (own(output.as_tensor(), self.device) for output in self._pipeline.run())
                return {name: LabeledImages(images[part], labels[part]) for name, part in self.slices.items()}
            except UserError:
                raise
            except Exception as error:
                if not self._leave_out_damaged(step):
                    if WORKER_IS_GONE in str(error):
                        raise lost_worker(self.workers) from None
                    raise
                self._pipeline = self._build(step)  # a DALI pipeline is of no use after an error

    def _build(self, step: int) -> Any:
        # DALI keeps the bytes that it sends to its workers alone, and their arrays lie here until they are mapped.
        self._sent = self.source.starting_at(step)
        return train_pipeline(
            self._sent,
            device=self.device,
            threads=self.threads,
            workers=self.workers,
            prefetch=_DALI_DEPTH,
        )

    def _leave_out_damaged(self, step: int) -> bool:
        """Whether files of `step`, or of those read ahead of it, are to blame for a failure of DALI or of a worker.

        Raises their UserError where damaged images are not skipped.
        """
        found = False
        for failed in range(step, step + _DALI_DEPTH + 1):
            for place in range(self.source.batch_size):
                sampler, number = self.source.sampler(failed, place)
                while True:
                    draw = sampler.draw(number)
                    try:
                        if self.source.is_raw:
                            self.source.read_raw(draw)
                        else:
                            sampler.dataset.read_image_file(draw.sample)
                            read_image(draw.sample.image)
                        break
                    except UserError as error:
                        sampler.give_up(draw.sample.image, error)
                        found = True
        return found


def _train_batches(groups: Sequence[_Group], start_step: int) -> Generator[TrainBatch]:
    for step in itertools.count(start_step):
        streams: dict[str, LabeledImages] = {}
        for group in groups:
            streams |= group.read(step)
        image, beyond = streams.get("unlabeled", (None, None))
        yield TrainBatch(streams.get("source"), streams.get("target"), image, beyond)


def _streams(
    domains: Domains,
    data: DataConfig,
    seed: int,
    strategy: str,
    counts: Mapping[str, NDArray[np.int64]],
    damaged: Collection[Path],
) -> dict[str, tuple[Sampler, int]]:
    """Sampler and crops a step of each stream that has a domain."""
    crops = {
        "source": (domains.source, data.source_batch, data.rare_class_sampling),
        "target": (domains.labeled, data.target_batch, data.rare_class_target),
        "unlabeled": (
            domains.unlabeled,
            data.unlabeled_batch * (1 + (strategy == "two-xu-two-streams")),
            False,
        ),
    }
    cache_bytes = LABEL_CACHE_BYTES // (2 * max(data.workers, 1))
    streams: dict[str, tuple[Sampler, int]] = {}
    known = set(damaged)
    for number, (name, (dataset, count, by_rare_class)) in enumerate(crops.items()):
        if dataset is None:
            continue
        rare_classes = None
        if by_rare_class:
            given = counts[name] if name in counts else class_pixel_counts(dataset, skip_damaged=data.skip_damaged)
            rare_classes = RareClasses(
                given,
                temperature=data.rare_class_temperature,
                min_px=data.rare_class_min_px,
                class_names=dataset.classes.names,
            )
        rules = CropRules(
            data.crop_size,
            max_class_share=data.max_class_share if name == "source" else 1.0,
            min_class_px=data.rare_class_min_crop_px,
            tries=data.crop_tries,
            scale_range=data.scale_range,
        )
        sampler = Sampler(
            dataset,
            rules,
            seed=seed,
            stream=number,
            flip_probability=data.flip_probability,
            labeled=name != "unlabeled",
            rare_classes=rare_classes,
            cache_bytes=0 if dataset.prepared and dataset.prepared.maps_labels else cache_bytes,
            skip_damaged=data.skip_damaged,
            damaged=known,
        )
        streams[name] = sampler, count
    assert streams, "a training run reads one stream or more"
    return streams


def _slices(counts: Mapping[str, int]) -> dict[str, slice]:
    """Where each stream lies in the batch."""
    slices, start = {}, 0
    for name, count in counts.items():
        slices[name] = slice(start, start + count)
        start += count
    return slices
