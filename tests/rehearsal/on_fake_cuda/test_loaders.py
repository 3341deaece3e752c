"""How batches leave DALI and reach the step, on a GPU that is not there. DALI is a stand-in: it needs a driver."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import make_datasets as make
import pytest
import torch
from device_watch import DeviceWatch
from fake_steps import not_meant, step_of
from small_steps import B, H, K, W
from stand_ins import DEFAULT, DEVICE, Stream, current_stream, fake_cuda, stream_context
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.utils._pytree import tree_leaves

from iidm.config import DataConfig, DatasetConfig
from iidm.data.datasets.dataset import Dataset, Domains, open_dataset
from iidm.data.loading import eval_loader, loader, pipeline, readahead
from iidm.types import TrainBatch

DATA = DataConfig(
    crop_size=(H, W), source_batch=B, target_batch=B, unlabeled_batch=B, rare_class_sampling=False, prefetch=1
)
copied_on: dict[int, Stream] = {}
"""On which stream each tensor was copied out of DALI's memory."""


class Output:
    """A tensor of DALI's on the GPU."""

    def __init__(self, *shape: int) -> None:
        self.buffer = torch.empty(shape, dtype=torch.uint8, device=DEVICE)

    def as_tensor(self) -> Output:
        return self

    def shape(self) -> list[int]:
        return list(self.buffer.shape)


class Lent:
    """What torch.from_dlpack makes of it, until it is copied."""

    def __init__(self, output: Output) -> None:
        self.output = output

    def clone(self) -> Tensor:
        copy = self.output.buffer.clone()
        copied_on[id(copy)] = current_stream()
        return copy


def feed_ndarray(output: Output, into: Tensor, cuda_stream: Stream) -> None:
    assert into.is_cuda and into.dtype is torch.uint8 and list(into.shape) == output.shape()
    copied_on[id(into)] = cuda_stream


class Pipeline:
    """Runs as `train_pipeline` does: all streams in one batch."""

    def __init__(self, images: int) -> None:
        self.images = images

    def run(self) -> tuple[Output, Output]:
        return Output(self.images, H, W, 3), Output(self.images, H, W)


class Decoder:
    """Decodes as `ImageDecoder` does."""

    def __init__(self, *, device: torch.device, **_: int) -> None:
        self.device = device

    def __call__(self, encoded: list[object], sizes: list[object]) -> list[Tensor]:
        return [pipeline.own(Output(48, 64, 3), self.device) for _ in encoded]


@pytest.fixture(autouse=True)
def dali(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """DALI's part, and threads whose tensors are fake too."""
    fill = readahead._fill

    def fill_with_fake(*arguments: Any) -> None:
        with fake_cuda():
            fill(*arguments)

    monkeypatch.setattr(readahead, "_fill", fill_with_fake)
    monkeypatch.setattr(loader, "train_pipeline", lambda source, **_: Pipeline(source.batch_size))
    monkeypatch.setattr(eval_loader, "ImageDecoder", Decoder)
    monkeypatch.setattr(torch, "from_dlpack", Lent)
    monkeypatch.setattr(pipeline, "feed_ndarray", feed_ndarray, raising=False)
    copied_on.clear()
    DEFAULT.lent.clear()
    yield


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    with unset_fake_temporarily():
        make.write_camvid(tmp_path, [f"{i:03d}" for i in range(4)], "train", size=(48, 64))
        return open_dataset(DatasetConfig(spec="camvid"), tmp_path, "train")


def train_batches(dataset: Dataset, count: int) -> list[TrainBatch]:
    domains = Domains(dataset.classes, dataset, dataset, dataset, dataset)
    with loader.TrainLoader(domains, DATA, seed=0, device=DEVICE) as batches:
        return list(islice(batches, count))


def assert_handed_over(batch: object, reader: Stream) -> None:
    """Copied out of DALI on a stream that was waited for, and lent to the stream of the one who reads it."""
    lent = {id(tensor) for tensor in reader.lent}
    for tensor in tree_leaves(batch):
        if isinstance(tensor, Tensor):
            assert tensor.is_cuda and tensor.dtype is torch.uint8 and id(tensor) in lent
    streams = set(copied_on.values())
    assert streams and reader not in streams and all(stream.synchronized > 0 for stream in streams)


def test_a_training_batch_is_handed_to_the_stream_of_the_step(dataset: Dataset) -> None:
    reader = Stream()
    with stream_context(reader):
        (batch,) = train_batches(dataset, 1)
    assert_handed_over(batch, reader)
    assert batch.source is not None and batch.target is not None and batch.unlabeled is not None
    assert [tuple(t.shape) for t in (*batch.source, *batch.target, batch.unlabeled)] == [
        (B, H, W, 3), (B, H, W), (B, H, W, 3), (B, H, W), (B, H, W, 3)
    ]  # fmt: skip


def test_an_evaluation_batch_is_handed_to_the_stream_of_the_network(dataset: Dataset) -> None:
    reader = Stream()
    with stream_context(reader):
        batches = list(eval_loader.EvalLoader(dataset, device=DEVICE, batch_size=2))
    assert [tuple(batch.image.shape) for batch in batches] == [(2, 48, 64, 3)] * 2
    for batch in batches:
        assert_handed_over((batch.image, batch.label), reader)


def test_what_the_loader_gives_is_what_a_captured_step_takes(dataset: Dataset) -> None:
    step = step_of("iidm", "bfloat16", graph="on")
    batches = train_batches(dataset, 6)
    with DeviceWatch(torch.bfloat16, classes=K) as watch:
        for number, batch in enumerate(batches):
            step([batch], number)
    assert step._graph is not None and step._graph.captured
    assert not_meant(watch) == []
