"""How batches reach a GPU from DALI and from the loader's thread; CUDA is played, so that it runs anywhere."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from nvidia.dali import pipeline_def

from iidm.data.loading import pipeline
from iidm.data.loading.readahead import ReadAhead
from iidm.types import LabeledImages, TrainBatch


class Stream:
    cuda_stream = 7

    def __init__(self, said: list[Any]) -> None:
        self.said = said

    def synchronize(self) -> None:
        self.said.append("waited")


class Output:
    """A tensor of DALI's on a GPU."""

    def shape(self) -> list[int]:
        return [2, 3, 4, 3]

    def __dlpack__(self, **_: Any) -> None:
        raise AssertionError("DALI's thread would wait for the whole device when this is let go")


def test_a_batch_is_copied_out_of_dali_on_the_own_stream_and_complete_on_return(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[Any] = []
    stream, output, empty = Stream(said), Output(), torch.empty

    def copy(source: Any, target: torch.Tensor, cuda_stream: Any) -> None:
        assert source is output and cuda_stream is stream
        said.append("copied")
        target.fill_(5)

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch, "empty", lambda shape, dtype, device: empty(shape, dtype=dtype))
    monkeypatch.setattr(pipeline, "feed_ndarray", copy)
    tensor = pipeline.own(output, torch.device("cuda", 1))
    assert said == ["copied", "waited"]
    assert tensor.dtype is torch.uint8 and tensor.shape == (2, 3, 4, 3) and bool((tensor == 5).all())


class Lent(torch.Tensor):
    """Remembers the streams that the allocator is told of."""

    streams: list[object]

    def record_stream(self, stream: object) -> None:
        self.streams.append(stream)


def lent() -> Lent:
    tensor = torch.zeros(2).as_subclass(Lent)
    tensor.streams = []
    return tensor


def test_batches_are_made_on_a_stream_of_the_readers_gpu_and_lent_to_his(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []
    reader = threading.current_thread()

    class Using:
        def __init__(self, stream: Stream) -> None:
            self.stream = stream

        def __enter__(self) -> None:
            said.append(("uses", threading.current_thread() is reader))

        def __exit__(self, *_: object) -> None:
            pass

    def make(device: torch.device, priority: int) -> Stream:
        said.append((device, priority))
        return Stream(said)

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1 if threading.current_thread() is reader else 0)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: ("the reader's", device))
    monkeypatch.setattr(torch.cuda, "Stream", make)
    monkeypatch.setattr(torch.cuda, "stream", Using)
    batch = TrainBatch(LabeledImages(lent(), lent()), None, lent())
    ahead = ReadAhead((batch for _ in range(1)), 1, torch.device("cuda"))
    assert next(ahead) is batch
    with pytest.raises(StopIteration):
        next(ahead)
    gpu = torch.device("cuda", 1)
    assert said == [(gpu, -1), ("uses", False), "waited"], "complete before it is handed over"
    assert batch.source and isinstance(batch.unlabeled, Lent)
    for tensor in (*batch.source, batch.unlabeled):
        assert tensor.streams == [("the reader's", gpu)]  # type: ignore[union-attr]


@pytest.mark.parametrize("graph", [pipeline._raw_graph, pipeline._scaled_raw_graph, pipeline._encoded_graph])
@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_both_ways_through_a_graph_end_where_the_batches_are_to_lie(graph: Any, kind: str) -> None:
    """Making a graph needs no GPU; running it does."""
    on_gpu = kind == "cuda"
    options = {"batch_size": 2, "num_threads": 1, "device_id": 0 if on_gpu else None, "enable_conditionals": True}
    feed = {"source": lambda _: None, "batch": False}
    built = pipeline_def(graph, **options)((32, 48), torch.device(kind), feed)
    built._build_graph()
    assert [output.device for output in built._graph_outputs] == ["gpu" if on_gpu else "cpu"] * 2


def test_what_a_gpu_decodes_is_one_batch_before_anything_works_on_it() -> None:
    """Where no image goes a way, its decoder gives a batch without dimensions: on an H200 `resize` ended the run."""
    options = {"batch_size": 2, "num_threads": 1, "device_id": 0, "enable_conditionals": True}
    feed = {"source": lambda _: None, "batch": False}
    built = pipeline_def(pipeline._encoded_graph, **options)((32, 48), torch.device("cuda"), feed)
    built._build_graph()
    decoded = {node.name for op in built._ops if op.name.startswith("__Image") for node in op.outputs}
    readers = [op.name for op in built._ops if decoded & {node.name for node in op.inputs}]
    assert len(decoded) == 2 and len(readers) == 1 and readers[0].startswith("__Merge")
