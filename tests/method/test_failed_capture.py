"""A capture that the device cannot end leaves torch as it was: stream, generators, allocator, memory.

torch.cuda.graph is torch's own here; what lies below it is played as torch 2.9 to 2.12 behave.
"""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from small_steps import batch, config_of, make_step
from torch import Tensor

from iidm.method import TrainStep
from iidm.method.graph import CaptureError, StepGraph


class Generator:
    """Refuses to draw while it believes in a capture."""

    capturing = False

    def clone_state(self) -> Generator:
        return Generator()

    def graphsafe_set_state(self, other: Generator) -> None:
        self.capturing = other.capturing


class Stream:
    def __init__(self, device: torch.device | None = None) -> None:
        self.device_index = 0 if device is None else device.index

    def wait_stream(self, _: Stream) -> None:
        pass


class StreamContext:
    """As torch's: what is not left stays, also when the context itself is gone."""

    def __init__(self, cuda: Cuda, stream: Stream) -> None:
        self.cuda, self.stream = cuda, stream

    def __enter__(self) -> None:
        self.before, self.cuda.current = self.cuda.current, self.stream

    def __exit__(self, *_: object) -> None:
        self.cuda.current = self.before


class Cuda:
    """One device: its current stream, the captures that its allocator believes in, and what was asked of it."""

    def __init__(self) -> None:
        self.default, self.generator = Stream(), Generator()
        self.current = self.default
        self.captures: set[tuple[int, int]] = set()
        self.begins: list[dict[str, Any]] = []
        self.error = ""
        """What the end of a capture says; empty: it succeeds."""

    def end_allocate_to_pool(self, _: int, pool: tuple[int, int]) -> None:
        if pool not in self.captures:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.captures.remove(pool)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    device = Cuda()

    class Graph:
        def __init__(self) -> None:
            self.generators = [device.generator]

        def register_generator_state(self, generator: Generator) -> None:
            self.generators.append(generator)

        def capture_begin(self, pool: tuple[int, int], **options: Any) -> None:
            device.begins.append(options)
            device.captures.add(pool)
            self.pool = pool
            for generator in self.generators:
                generator.capturing = True

        def capture_end(self) -> None:
            if device.error:
                raise RuntimeError(device.error)
            device.captures.remove(self.pool)
            for generator in self.generators:
                generator.capturing = False

        def replay(self) -> None:
            pass

    for name, value in {
        "Stream": Stream, "stream": lambda s: StreamContext(device, s), "current_stream": lambda _=None: device.current,
        "CUDAGraph": Graph, "graph_pool_handle": lambda: (0, len(device.begins) + 1),
        "default_generators": (device.generator,), "synchronize": lambda: None, "empty_cache": lambda: None,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch._C, "_host_emptyCache", lambda: None, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", device.end_allocate_to_pool)
    return device


def run(graph: StepGraph[list[Tensor], int, Tensor]) -> None:
    for _ in range(StepGraph.WARMUP + 1):
        graph([torch.ones(2)], 0)


def test_other_threads_may_use_the_device_during_a_capture(cuda: Cuda) -> None:
    """The loader's thread and DALI's allocate memory at any time; in the mode `global` that breaks capture and run."""
    graph: StepGraph[list[Tensor], int, Tensor] = StepGraph(lambda x, _: x[0] * 2, [])
    run(graph)
    assert graph.captured and [begin["capture_error_mode"] for begin in cuda.begins] == ["thread_local"]


@pytest.mark.parametrize("error", ["", "operation failed due to a previous error during capture"])
def test_a_capture_ends_whatever_happens(cuda: Cuda, error: str) -> None:
    cuda.error = error
    own: Any = Generator()
    graph: StepGraph[list[Tensor], int, Tensor] = StepGraph(lambda x, _: x[0] * 2, [own])
    if error:
        with pytest.raises(CaptureError, match=error):
            run(graph)
    else:
        run(graph)
    assert cuda.current is cuda.default, "what comes next runs on the caller's stream"
    assert not cuda.captures, "the allocator gives back what other streams have read"
    assert not own.capturing and not cuda.generator.capturing, "generators draw"


def test_an_error_of_the_step_itself_ends_the_capture_once(cuda: Cuda) -> None:
    def function(inputs: list[Tensor], _: int) -> Tensor:
        if cuda.captures:
            raise RuntimeError("its tables cannot be copied")
        return inputs[0] * 2

    with pytest.raises(CaptureError, match="its tables cannot be copied"):
        run(StepGraph(function, []))
    assert cuda.current is cuda.default and not cuda.captures and not cuda.generator.capturing


def test_what_a_failed_capture_held_is_free_before_the_step_runs_without(cuda: Cuda) -> None:
    """Else the first step without a graph needs the memory of two."""
    step = make_step(config_of(), "tiny")
    held: list[weakref.ref[Tensor]] = []
    train = step._train

    def heavy(batches: Any, decay: float) -> Any:
        if cuda.captures:
            activations = torch.ones(3)
            held.append(weakref.ref(activations))
            raise RuntimeError("out of memory")
        assert all(kept() is None for kept in held), "still held"
        assert not held or cuda.current is cuda.default
        return train(batches, decay)

    step._graph, step._train = StepGraph(heavy, []), heavy  # type: ignore[method-assign]
    for number in range(StepGraph.WARMUP):
        step([batch()], number + 1000)
    with pytest.warns(UserWarning, match="runs without: out of memory"):
        step([batch()], 2000)
    assert len(held) == 1 and step._graph is None


@pytest.mark.parametrize(
    ("wish", "debug", "has_graph"),
    [("auto", False, True), ("auto", True, False), ("on", True, True), ("off", False, False)],
)
def test_no_capture_is_tried_where_labels_are_checked_on_the_host(
    cuda: Cuda, monkeypatch: pytest.MonkeyPatch, wish: str, debug: bool, has_graph: bool
) -> None:
    class OnGpu(torch.Generator):
        device = torch.device("cuda", 0)

    small = make_step(config_of(), "tiny")
    monkeypatch.setattr("iidm.kernels._checks.DEBUG", debug)
    step = TrainStep(
        small.student, small.teacher, small.optimizer, config_of(graph=wish), [OnGpu()], scaler=small.scaler
    )
    assert (step._graph is not None) == has_graph


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_device_everything_goes_on_after_a_failed_capture() -> None:
    generator = torch.Generator("cuda").manual_seed(0)

    def waits(inputs: list[Tensor], _: int) -> Tensor:
        return torch.rand(2, device="cuda", generator=generator) * float(inputs[0].sum())

    def draws(inputs: list[Tensor], _: int) -> Tensor:
        return torch.rand(2, device="cuda", generator=generator) * inputs[0]

    before, other = torch.cuda.current_stream(), torch.cuda.Stream()
    graph: StepGraph[list[Tensor], int, Tensor] = StepGraph(waits, [generator])
    with pytest.raises(CaptureError, match="captur"):
        for _ in range(StepGraph.WARMUP + 1):
            graph([torch.ones(2, device="cuda")], 0)
    assert torch.cuda.current_stream() == before
    for own in (generator, None):
        assert 0 <= float(torch.rand(1, device="cuda", generator=own)) < 1

    def active() -> int:
        torch.empty(1, device="cuda")  # an allocation looks for what has come back
        return int(torch.cuda.memory_stats()["active_bytes.all.current"])

    held, lent = active(), torch.empty(2**26, dtype=torch.uint8, device="cuda")
    lent.record_stream(other)
    del lent
    torch.cuda.synchronize()
    assert active() == held, "memory that another stream has read comes back"

    graph = StepGraph(draws, [generator])
    for _ in range(StepGraph.WARMUP + 3):
        out = graph([torch.ones(2, device="cuda")], 0)
    assert graph.captured and 0 <= float(out.min()) <= float(out.max()) < 1
