"""From a data set to batches on the device: what the training loop and the evaluation iterate over.

A thread of the loader reads ahead (files, labels, crops in Python, decoding in DALI's own threads), so that the next
batch is ready while the network computes. What a batch holds depends on the seed and the step alone (sampling.py).
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..config import DataConfig
from ..types import EvalBatch, LabeledImages, Sample, TrainBatch, UserError
from .arrays import map_rows
from .datasets import Dataset, Domains, training_size
from .pipeline import ImageDecoder, own, raise_damaged, read_image, train_pipeline
from .readahead import ReadAhead
from .sampling import CropRules, RareClasses, Sampler
from .source import SampleSource, read_bytes
from .statistics import class_pixel_counts

LABEL_CACHE_BYTES = 512 * 2**20
"""For decoded labels, all streams and worker processes together."""
CHUNK_PX = 64 * 2**20
"""Most pixels on disk that the evaluation decodes at once, unless one image has more."""
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
        damaged: images that are known to be damaged, which `data.skip_damaged` leaves out from the start.
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
                groups.append(_Group(source, slices, device, threads or _threads(), data))
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


class EvalLoader:
    """Every image of a data set once, in order. Each iteration starts anew.

    Images come at training resolution (uint8 [B,H,W,3]), labels at their full size on disk (uint8 [B,H2,W2]).
    Neighbours of equal sizes share a batch; `len()` is the number of images.

    Args:
        dataset: labeled images.
        device: where the batches lie.
        batch_size: most images of a batch.
        threads: decoding threads; None: one a core, 8 at most.

    Raises:
        UserError: from iteration, for a missing or damaged file; the message names it.
    """

    def __init__(
        self, dataset: Dataset, *, device: torch.device, batch_size: int = 1, threads: int | None = None
    ) -> None:
        assert batch_size >= 1
        self.dataset = dataset
        self.device = device
        self.batch_size = batch_size
        self.threads = threads or _threads()

    def __len__(self) -> int:
        return len(self.dataset.samples)

    def __iter__(self) -> Generator[EvalBatch]:
        batches = _eval_batches(self.dataset, self.device, self.batch_size, self.threads)
        with closing(ReadAhead(batches, 2, self.device)) as ahead:
            yield from ahead

    def __enter__(self) -> EvalLoader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing stays open between iterations."""


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
            except Exception:
                if not self._leave_out_damaged(step):
                    raise
                self._pipeline = self._build(step)  # a DALI pipeline is of no use after an error

    def _build(self, step: int) -> Any:
        return train_pipeline(
            self.source.starting_at(step),
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
                    sample = sampler.draw(number).sample
                    try:
                        if not sampler.dataset.is_raw:
                            read_image(sample.image)
                        break
                    except UserError as error:
                        sampler.give_up(sample, error)
                        found = True
        return found


def _train_batches(groups: Sequence[_Group], start_step: int) -> Generator[TrainBatch]:
    for step in itertools.count(start_step):
        streams: dict[str, LabeledImages] = {}
        for group in groups:
            streams |= group.read(step)
        unlabeled = streams.get("unlabeled")
        yield TrainBatch(streams.get("source"), streams.get("target"), unlabeled.image if unlabeled else None)


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
            damaged=damaged,
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


def _eval_batches(dataset: Dataset, device: torch.device, batch_size: int, threads: int) -> Generator[EvalBatch]:
    """Load several images at a time, so that all threads have work; group neighbours of equal sizes."""
    most = max(batch_size, threads)
    load_images = _raw_images(dataset, device) if dataset.is_raw else _decoded_images(dataset, device, most, threads)
    group: list[tuple[torch.Tensor, torch.Tensor, str]] = []
    with ThreadPoolExecutor(threads) as pool:
        for chunk in _chunks(dataset, most):
            labels = [pool.submit(dataset.load_label, sample) for sample, _ in chunk]
            for (sample, _), image, future in zip(chunk, load_images(chunk), labels, strict=True):
                label = torch.from_numpy(np.require(future.result(), requirements="W"))
                if group and (
                    len(group) == batch_size or (image.shape, label.shape) != (group[0][0].shape, group[0][1].shape)
                ):
                    yield _eval_batch(group, device)
                    group = []
                group.append((image, label, sample.image.stem))
    if group:
        yield _eval_batch(group, device)


_Chunk = list[tuple[Sample, tuple[int, int]]]
"""Samples and the sizes (H, W) of their images on disk."""


def _raw_images(dataset: Dataset, device: torch.device) -> Callable[[_Chunk], list[torch.Tensor]]:
    def load(chunk: _Chunk) -> list[torch.Tensor]:
        images = (np.array(map_rows(sample.image, (*size, 3))) for sample, size in chunk)
        return [torch.from_numpy(image).to(device) for image in images]

    return load


def _decoded_images(
    dataset: Dataset, device: torch.device, most: int, threads: int
) -> Callable[[_Chunk], list[torch.Tensor]]:
    decoder = ImageDecoder(device=device, batch_size=most, threads=threads)

    def load(chunk: _Chunk) -> list[torch.Tensor]:
        encoded = [read_bytes(sample.image) for sample, _ in chunk]
        try:
            return decoder(encoded, [_new_size(dataset, size) for _, size in chunk])
        except RuntimeError:
            raise_damaged([sample.image for sample, _ in chunk])
            raise

    return load


def _new_size(dataset: Dataset, disk_size: tuple[int, int]) -> tuple[int, int] | None:
    """The training resolution of an image where it is another than that on disk."""
    size = training_size(dataset, disk_size)
    return None if size == disk_size else size


def _chunks(dataset: Dataset, most: int) -> Iterator[_Chunk]:
    """Up to `most` samples at a time, no more than CHUNK_PX together unless it is one alone."""
    chunk: _Chunk = []
    pixels = 0
    for sample in dataset.samples:
        size = dataset.image_size(sample)
        if chunk and (len(chunk) == most or pixels + size[0] * size[1] > CHUNK_PX):
            yield chunk
            chunk, pixels = [], 0
        chunk.append((sample, size))
        pixels += size[0] * size[1]
    if chunk:
        yield chunk


def _eval_batch(group: Sequence[tuple[torch.Tensor, torch.Tensor, str]], device: torch.device) -> EvalBatch:
    images, labels, names = zip(*group, strict=True)
    return EvalBatch(_stack(images), _stack(labels).to(device), names)


def _stack(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """As torch.stack, which in this thread would wait for OpenMP (see pipeline.own)."""
    if len(tensors) == 1:
        return tensors[0][None]
    if tensors[0].is_cuda:
        return torch.stack(tuple(tensors))
    return torch.from_numpy(np.stack([tensor.numpy() for tensor in tensors]))


def _threads() -> int:
    """Cores that this process may use, 8 at most."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 8)
