"""How a step is run changes nothing that it computes: merged, recomputed, compiled, accumulated; no copy, no wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from small_steps import B, Watch, assert_close, batch, config_of, gradients, make_step
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from iidm.engine.optim import set_learning_rate
from iidm.kernels import build_info
from iidm.method.graph import CaptureError, StepGraph
from iidm.types import TrainBatch, UserError


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2"])
@pytest.mark.parametrize("recipe", ["paper", "daformer"])
def test_merged_branches_are_sequential_ones(recipe: str, backbone: str) -> None:
    results = [
        gradients(make_step(config_of(recipe=recipe, branches=branches), backbone), [batch()])
        for branches in ("merged", "sequential")
    ]
    assert len(results[0][0]) > 50
    assert_close(*results, tolerance=2e-4)


def test_recomputed_activations_change_no_gradient() -> None:
    for branches in ("merged", "sequential"):
        results = [
            gradients(make_step(config_of(branches=branches, recompute=recompute)), [batch()])
            for recompute in (True, False)
        ]
        assert_close(*results, tolerance=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("branches", ["merged", "sequential"])
def test_a_compiled_step_is_an_eager_one(branches: str) -> None:
    torch._dynamo.reset()
    compiled = make_step(config_of(branches=branches, compile=True))
    before = {n: p.detach().clone() for n, p in compiled.student.named_parameters()}
    results = [gradients(step, [batch()]) for step in (compiled, make_step(config_of(branches=branches)))]
    assert_close(*results, tolerance=1e-3)
    assert before.keys() == dict(compiled.student.named_parameters()).keys()  # checkpoints keep their names


@pytest.mark.parametrize("recipe", ["paper", "daformer"])
def test_accumulated_batches_are_one_step_over_their_sum(recipe: str) -> None:
    """Without randomness: the same batch twice is twice its sum, or once its mean."""
    once = gradients(make_step(config_of("source_target", recipe)), [batch()])
    twice = gradients(make_step(config_of("source_target", recipe, accumulate=2)), [batch(), batch()])
    factor = 2 if recipe == "paper" else 1  # the paper sums over pixels, DAFormer takes the mean
    for name, value in twice[0].items():
        torch.testing.assert_close(value, factor * once[0][name], rtol=1e-4, atol=1e-4 * float(value.abs().max()))
    assert twice[2] == pytest.approx(once[2], rel=1e-5)  # logged as means
    one, two = (gradients(make_step(config_of("source_target", recipe)), [batch(seed)])[0] for seed in (0, 1))
    both = gradients(make_step(config_of("source_target", recipe)), [batch(0), batch(1)])[0]
    for name, value in both.items():
        expected = (one[name] + two[name]) * factor / 2
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=2e-4 * float(value.abs().max()), msg=name)


@pytest.mark.skipif(not build_info()["extension"], reason="the references read values and copy")
@pytest.mark.parametrize("amp", [None, torch.bfloat16])
@pytest.mark.parametrize("branches", ["merged", "sequential"])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet18-v1c", "mobilenet_v2"])
def test_no_value_is_read_and_no_layout_is_copied(backbone: str, branches: str, amp: torch.dtype | None) -> None:
    step = make_step(config_of(branches=branches), backbone, amp_dtype=amp)
    step([batch()], 0)
    with Watch() as watch:
        step([batch()], 1)
    assert watch.waits == []
    assert watch.copies == []
    assert watch.images > 60


def test_the_watch_sees_what_it_is_there_for() -> None:
    image = torch.zeros(2, 3, 4, 4)
    with Watch() as watch:
        float(image.sum())
        image.contiguous(memory_format=torch.channels_last)
    assert watch.waits == ["_local_scalar_dense"] and watch.copies == ["clone (2, 3, 4, 4)"]


def test_weights_are_cast_once_a_step() -> None:
    class Casts(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.weights = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if func.overloadpacket.__name__ == "_to_copy" and out.dtype is torch.bfloat16 and out.dim() == 4:
                self.weights += args[0].shape[2:].numel() in (1, 9, 49) and args[0].shape[0] > B * 4
            return out

    step = make_step(config_of(branches="sequential"), amp_dtype=torch.bfloat16)
    step([batch()], 0)
    with Casts() as casts:
        step([batch()], 1)
    wide = [p for p in step.student.parameters() if p.dim() == 4 and p.shape[0] > B * 4]
    assert casts.weights == 2 * len(wide), "once for the student, once for the teacher"


def test_a_graph_needs_a_gpu() -> None:
    with pytest.raises(UserError, match="--step.graph on needs a GPU"):
        make_step(config_of(graph="on"))


def test_options_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(UserError, match="do not go together"):
        config_of(compile=True, recompute=True)
    with pytest.raises(UserError, match="--step.accumulate must be at least 1"):
        config_of(accumulate=0)


class FakeGraph:
    """Stands in for a CUDA graph: a replay calls what was captured once more, with the inputs of the capture."""

    current: FakeGraph | None = None

    def __init__(self) -> None:
        self.function: Callable[[], None] = lambda: None
        self.replays = 0
        self.generators: list[torch.Generator] = []

    def register_generator_state(self, generator: torch.Generator) -> None:
        self.generators.append(generator)

    def replay(self) -> None:
        self.replays += 1
        self.function()


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream:
        def wait_stream(self, _: object) -> None:
            pass

    @contextmanager
    def nothing(*_: object) -> Iterator[None]:
        yield

    @contextmanager
    def capture(graph: FakeGraph, stream: object) -> Iterator[None]:
        FakeGraph.current = graph
        yield
        FakeGraph.current = None

    for name, value in {
        "Stream": Stream, "stream": nothing, "CUDAGraph": FakeGraph, "graph": capture, "current_stream": Stream
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)


def test_a_graph_is_captured_once_per_key_and_shape_and_fed_by_copies(fake_cuda: None) -> None:
    seen: list[tuple[bool, float]] = []
    out = torch.zeros(())

    def function(inputs: list[TrainBatch], decay: float) -> Tensor:
        graph, value = FakeGraph.current, inputs[0].unlabeled
        assert value is not None

        def run() -> None:
            seen.append((graph is not None, float(value.sum())))
            out.copy_(value.sum())

        if graph is None:
            run()
        else:
            graph.function = run
        return out

    def feed(number: float, size: int = 1, decay: float = 0.99) -> float:
        return float(graph([TrainBatch(None, None, torch.full((size,), number))], decay))

    generator = torch.Generator()
    graph: StepGraph[list[TrainBatch], float, Tensor] = StepGraph(function, [generator])
    assert [feed(float(i)) for i in range(6)] == [0, 1, 2, 3, 4, 5]
    assert [captured for captured, _ in seen] == [False] * 3 + [True] * 3
    assert graph.captured
    assert feed(7.0, size=2) == 14 and not graph.captured
    assert feed(7.0) == 7 and not graph.captured  # the old one is gone
    assert [feed(float(i), decay=0.5 + i / 10) for i in range(4)] == [0, 1, 2, 3]
    assert not graph.captured, "what changes with every step is never captured"


def test_the_ramp_of_the_decay_is_not_frozen_into_a_graph() -> None:
    decays: list[float] = []
    step = make_step(config_of(recipe="daformer"))
    step._graph = lambda batches, decay: decays.append(decay)  # type: ignore[assignment]
    for number in range(120):
        step([batch()], number)
    assert decays[:2] == pytest.approx([1 / 2, 2 / 3]) and len(set(decays[100:])) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("amp", [None, torch.bfloat16, torch.float16])
def test_a_replayed_step_is_an_eager_one_with_two_learning_rates(amp: torch.dtype | None, compiled: bool) -> None:
    """Same draws, same schedule: nothing of a step is frozen into its graph."""
    states = []
    for graph in ("on", "off"):
        config = config_of(graph=graph, compile=compiled)
        scaler = torch.amp.GradScaler("cuda", enabled=amp is torch.float16)
        step = make_step(config, device="cuda", amp_dtype=amp, scaler=scaler)
        losses = []
        for number in range(10):
            set_learning_rate(step.optimizer, 1.0 if number % 2 else 0.1)
            losses.append(float(step([batch(number, "cuda")], number).losses.total))
        assert (step._graph is not None and step._graph.captured) == (graph == "on")
        states.append((losses, [p.detach().clone() for p in step.student.parameters()], step.generator.get_state()))
    assert states[0][0] == pytest.approx(states[1][0], rel=1e-2 if amp else 1e-3)
    for mine, other in zip(states[0][1], states[1][1], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-2, atol=2e-4)
    assert torch.equal(states[0][2], states[1][2]), "the generator has gone as far"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("branches", ["merged", "sequential"])
@pytest.mark.parametrize("graph", ["on", "off"])
def test_no_step_waits_for_the_gpu(graph: str, branches: str) -> None:
    step = make_step(config_of(graph=graph, branches=branches), device="cuda", amp_dtype=torch.bfloat16)
    data = [batch(0, "cuda")]
    for number in range(5):
        step(data, number)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        set_learning_rate(step.optimizer, 0.5)
        step(data, 5)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_step_that_cannot_be_captured_goes_on_without() -> None:
    def refuse(*_: object) -> None:
        raise CaptureError("operation not permitted when stream is capturing")

    step = make_step(config_of())
    step._graph = refuse  # type: ignore[assignment]
    with pytest.warns(UserWarning, match="cannot be captured in a CUDA graph and runs without: operation not perm"):
        out = step([batch()], 0)
    assert float(out.losses.total) > 0
    assert step._graph is None
    insisting = make_step(config_of())
    insisting.config, insisting._graph = config_of(graph="on"), refuse  # type: ignore[assignment]
    with pytest.raises(UserError, match="--step.graph on: the step cannot be captured .*Use auto or off"):
        insisting([batch()], 0)
