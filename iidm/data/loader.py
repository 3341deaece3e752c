"""From a data set to batches on the device: what the training loop and the evaluation iterate over.

A thread of the loader reads ahead (files, labels, crops in Python, decoding in DALI's own threads), so that the next
batch is ready while the network computes. What a batch holds depends on the seed and the step alone (sampling.py).
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..config import DataConfig
from ..types import EvalBatch, LabeledImages, Sample, TrainBatch, UserError
from .datasets import Dataset, Domains, training_size
from .pipeline import ImageDecoder, SampleSource, own, raise_damaged, read_bytes, train_pipeline
from .readahead import ReadAhead
from .sampling import CropRules, RareClasses, Sampler, image_size
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
        threads: int | None = None,
    ) -> None:
        streams = _streams(domains, data, seed, strategy, counts or {})
        source = SampleSource(list(streams.values()), start_step)
        pipeline = train_pipeline(
            source, device=device, threads=threads or _threads(), workers=data.workers, prefetch=_DALI_DEPTH
        )
        slices = _slices({name: count for name, (_, count) in streams.items()})
        self.wait_s = 0.0
        """Seconds that the caller waited for the last batch."""
        self._ahead = ReadAhead(_train_batches(source, pipeline, slices, device), data.prefetch, device)

    def __iter__(self) -> Iterator[TrainBatch]:
        return self

    def __next__(self) -> TrainBatch:
        started = time.perf_counter()
        batch = next(self._ahead)
        self.wait_s = time.perf_counter() - started
        return batch

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


def _train_batches(
    source: SampleSource, pipeline: Any, slices: Mapping[str, slice], device: torch.device
) -> Generator[TrainBatch]:
    step = source.start_step
    while True:
        try:
            images, labels = (own(output.as_tensor(), device) for output in pipeline.run())
        except UserError:
            raise
        except Exception:
            _explain(source, step)
            raise
        yield _train_batch(images, labels, slices)
        step += 1


def _explain(source: SampleSource, step: int) -> None:
    """Raise the UserError behind a failure of DALI or of a worker at `step` or just after it, if a file is to blame."""
    for failed in range(step, step + _DALI_DEPTH + 1):
        draws = [source.draw(failed, place) for place in range(source.batch_size)]
        raise_damaged([draw.sample.image for draw in draws])


def _train_batch(images: torch.Tensor, labels: torch.Tensor, slices: Mapping[str, slice]) -> TrainBatch:
    def labeled(name: str) -> LabeledImages | None:
        return LabeledImages(images[slices[name]], labels[slices[name]]) if name in slices else None

    unlabeled = images[slices["unlabeled"]] if "unlabeled" in slices else None
    return TrainBatch(labeled("source"), labeled("target"), unlabeled)


def _streams(
    domains: Domains, data: DataConfig, seed: int, strategy: str, counts: Mapping[str, NDArray[np.int64]]
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
            given = counts[name] if name in counts else class_pixel_counts(dataset)
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
            cache_bytes=cache_bytes,
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
    """Decode several images at a time, so that all threads have work; group neighbours of equal sizes."""
    most = max(batch_size, threads)
    decoder = ImageDecoder(device=device, batch_size=most, threads=threads)
    group: list[tuple[torch.Tensor, torch.Tensor, str]] = []
    with ThreadPoolExecutor(threads) as pool:
        for chunk in _chunks(dataset.samples, most):
            labels = [pool.submit(dataset.load_label, sample) for sample, _ in chunk]
            encoded = [read_bytes(sample.image) for sample, _ in chunk]
            try:
                images = decoder(encoded, [_new_size(dataset, size) for _, size in chunk])
            except RuntimeError:
                raise_damaged([sample.image for sample, _ in chunk])
                raise
            for (sample, _), image, future in zip(chunk, images, labels, strict=True):
                label = torch.from_numpy(future.result())
                if group and (
                    len(group) == batch_size or (image.shape, label.shape) != (group[0][0].shape, group[0][1].shape)
                ):
                    yield _eval_batch(group, device)
                    group = []
                group.append((image, label, sample.image.stem))
    if group:
        yield _eval_batch(group, device)


def _new_size(dataset: Dataset, disk_size: tuple[int, int]) -> tuple[int, int] | None:
    """The training resolution of an image where it is another than that on disk."""
    size = training_size(dataset, disk_size)
    return None if size == disk_size else size


def _chunks(samples: Sequence[Sample], most: int) -> Iterator[list[tuple[Sample, tuple[int, int]]]]:
    """Up to `most` samples and their sizes (H, W) at a time, no more than CHUNK_PX together unless it is one alone."""
    chunk: list[tuple[Sample, tuple[int, int]]] = []
    pixels = 0
    for sample in samples:
        size = image_size(sample)
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
