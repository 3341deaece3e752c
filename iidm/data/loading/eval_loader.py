"""From a data set to batches on the device: what the evaluation iterates over."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from types import TracebackType

import numpy as np
import torch

from ...types import IGNORE_INDEX, EvalBatch, Sample
from ..datasets.dataset import Dataset, training_size
from ..prepared.arrays import map_rows
from .decoding import decoding_threads, raise_damaged
from .pipeline import ImageDecoder
from .readahead import ReadAhead

CHUNK_PX = 64 * 2**20
"""Most pixels on disk that the evaluation decodes at once, unless one image has more."""


class EvalLoader:
    """Every image of a data set once, in order. Each iteration starts anew.

    Images come at training resolution (uint8 [B,H,W,3]), labels at their full size on disk (uint8 [B,H2,W2]).
    Neighbours of equal sizes share a batch; `len()` is the number of images.

    Args:
        dataset: images; the label of one without is ignored everywhere.
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
        self.threads = threads or decoding_threads()

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


def _eval_batches(dataset: Dataset, device: torch.device, batch_size: int, threads: int) -> Generator[EvalBatch]:
    """Load several images at a time, so that all threads have work; group neighbours of equal sizes."""
    most = max(batch_size, threads)
    load_images = _raw_images(dataset, device) if dataset.is_raw else _decoded_images(dataset, device, most, threads)
    group: list[tuple[torch.Tensor, torch.Tensor, str]] = []
    with ThreadPoolExecutor(threads) as pool:
        for chunk in _chunks(dataset, most):
            labels = [
                pool.submit(dataset.load_fitting_label, sample, size) if sample.label else None
                for sample, size in chunk
            ]
            for (sample, _), image, future in zip(chunk, load_images(chunk), labels, strict=True):
                read = future.result() if future else np.full(image.shape[:2], IGNORE_INDEX, np.uint8)
                label = torch.from_numpy(np.require(read, requirements="W"))
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
        encoded = [dataset.read_image_file(sample) for sample, _ in chunk]
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
