"""A step that replays from a graph is the step without one: on the CPU a tape of operations, on a GPU a CUDA graph."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_steps import batch, config_of, distance, make_step
from tape import Tape, as_on_a_gpu
from torch import Tensor

from iidm.engine.checkpoint import load_checkpoint, save_checkpoint
from iidm.engine.optim import set_learning_rate
from iidm.kernels import build_info
from iidm.method import TrainStep
from iidm.method.graph import CaptureError, StepGraph
from iidm.recipes import with_values
from iidm.types import TrainBatch, UserError


def test_a_graph_needs_a_gpu() -> None:
    with pytest.raises(UserError, match="--step.graph on needs a GPU"):
        make_step(config_of(graph="on"))


def test_a_graph_is_captured_once_per_key_and_shape_and_fed_by_copies(tapes: list[Tape]) -> None:
    def function(inputs: list[TrainBatch], decay: float) -> Tensor:
        assert inputs[0].unlabeled is not None
        return inputs[0].unlabeled.sum() * decay

    def feed(number: float, size: int = 1, decay: float = 1.0) -> float:
        return float(graph([TrainBatch(None, None, torch.full((size,), number))], decay))

    graph: StepGraph[list[TrainBatch], float, Tensor] = StepGraph(function, [torch.Generator()])
    assert [feed(float(i)) for i in range(6)] == [0, 1, 2, 3, 4, 5]
    assert graph.captured and [tape.replays for tape in tapes] == [3]
    assert feed(7.0, size=2) == 14 and not graph.captured
    assert feed(7.0) == 7 and not graph.captured  # the old one is gone
    assert [feed(1.0, decay=0.5 + i / 4) for i in range(4)] == [0.5, 0.75, 1.0, 1.25]
    assert not graph.captured, "what changes with every step is never captured"


def test_the_warm_up_reads_the_memory_that_is_captured(tapes: list[Tape]) -> None:
    """A kernel that is compiled for another alignment of its arguments cannot be compiled in a capture."""
    seen: list[int] = []

    def function(inputs: list[Tensor], _: float) -> Tensor:
        seen.append(inputs[0].data_ptr())
        return inputs[0].sum()

    graph: StepGraph[list[Tensor], float, Tensor] = StepGraph(function, [])
    for number in range(6):
        loaded = torch.full((3, 5, 7), number, dtype=torch.uint8)  # as the loader's: the second of three streams
        assert graph([loaded[1:2]], float(min(number, 1))) == 35 * number, "with another number it starts again"
    assert len(seen) == 1 + StepGraph.WARMUP + 1 and len(set(seen)) == 1 and seen[0] % 16 == 0


def ten_steps(step: TrainStep) -> list[list[float]]:
    """Their losses, with two learning rates in turns."""
    losses = []
    for number in range(10):
        set_learning_rate(step.optimizer, 1.0 if number % 2 else 0.1)
        losses.append([float(value) for value in step([batch(number)], number).losses])
    return losses


@pytest.mark.skipif(not build_info()["extension"], reason="the references read values")
@pytest.mark.parametrize("amp", [None, torch.bfloat16])
@pytest.mark.parametrize("branches", ["merged", "sequential"])
@pytest.mark.parametrize(("backbone", "recipe"), [("tiny", "paper"), ("mobilenet_v2", "daformer"), ("tiny", "adapt")])
def test_nothing_that_changes_with_a_step_is_on_the_host(
    backbone: str, recipe: str, branches: str, amp: torch.dtype | None, tapes: list[Tape]
) -> None:
    """Replayed, the operations of one step are bit for bit those of all: draws, schedule, learning rates, EMA."""
    config = with_values(config_of(recipe=recipe, branches=branches), {"teacher": {"ema_ramp": False}})
    replayed, eager = (as_on_a_gpu(make_step(config, backbone, amp_dtype=amp), graph=graph) for graph in (True, False))
    assert ten_steps(replayed) == ten_steps(eager)
    assert [tape.replays for tape in tapes] == [10 - StepGraph.WARMUP] and len(tapes[0].calls) > 150
    for name, module in replayed.modules.items():
        for mine, other in zip(module.state_dict().items(), eager.modules[name].state_dict().items(), strict=True):
            assert torch.equal(mine[1], other[1]), mine[0]
    assert torch.equal(replayed.generator.get_state(), eager.generator.get_state())


def test_the_tape_freezes_what_a_graph_would(tapes: list[Tape]) -> None:
    replayed, eager = (as_on_a_gpu(make_step(config_of(), "tiny"), graph=graph) for graph in (True, False))
    for group in replayed.optimizer.param_groups:
        group["lr"] = float(group["lr"])
    assert ten_steps(replayed) != ten_steps(eager), "a learning rate that is a number is frozen"

    reading: StepGraph[list[Tensor], float, Tensor] = StepGraph(lambda x, _: x[0] * float(x[0].sum()), [])
    for _ in range(StepGraph.WARMUP):
        reading([torch.ones(2)], 0.0)
    with pytest.raises(CaptureError, match="not permitted when stream is capturing"):
        reading([torch.ones(2)], 0.0)


def test_the_ramp_of_the_decay_is_not_frozen_into_a_graph() -> None:
    decays: list[float] = []
    step = make_step(config_of(recipe="daformer"))
    step._graph = lambda batches, decay: decays.append(decay)  # type: ignore[assignment]
    for number in range(120):
        step([batch()], number)
    assert decays[:2] == pytest.approx([1 / 2, 2 / 3]) and len(set(decays[100:])) == 1


Run = tuple[list[float], list[Tensor]]
"""The losses of some steps, and how far they have moved each parameter."""
NOISE = {None: 5e-3, torch.bfloat16: 4e-2, torch.float16: 4e-2}
"""How far two runs of the same ten steps may be from each other, as a share of the losses: kernels of cuDNN and the
gradient of pooling add up in any order, AdamW moves a weight by the sign of a gradient that is nothing but rounding,
and ten steps make more of it. `test_runs_that_differ_by_rounding_count_as_the_same` holds them."""
OTHER_WAY = 0.7
"""The same for the parameters: the distance between two movements as a share of one of them."""


def run_of(step: TrainStep, device: str = "cpu", *, rates: tuple[float, float] = (0.1, 1.0)) -> Run:
    """Ten steps, with two learning rates in turns."""
    start, losses = [p.detach().clone() for p in step.student.parameters()], []
    for number in range(10):
        set_learning_rate(step.optimizer, rates[number % 2])
        losses.append(float(step([batch(number, device)], number).losses.total))
    return losses, [p.detach() - before for p, before in zip(step.student.parameters(), start, strict=True)]


def are_the_same(one: Run, other: Run, amp: torch.dtype | None) -> bool:
    """Whether two runs differ by no more than rounding grows to."""
    return one[0] == pytest.approx(other[0], rel=NOISE[amp]) and distance(one[1], other[1]) < OTHER_WAY


@pytest.mark.parametrize("amp", [None, torch.bfloat16])
def test_runs_that_differ_by_rounding_count_as_the_same(amp: torch.dtype | None) -> None:
    """What the next test compares by, on the CPU: it takes no rounding for a fault and no frozen rate for rounding."""

    def network() -> TrainStep:
        return make_step(config_of(branches="merged"), amp_dtype=amp)

    plain, shaken = run_of(network()), network()
    with torch.no_grad():
        for parameter in shaken.student.parameters():
            parameter.mul_(1 + 1e-7 * torch.randn(parameter.shape))
    assert are_the_same(run_of(shaken), plain, amp)
    assert not are_the_same(run_of(network(), rates=(0.1, 0.1)), plain, amp)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.long)])
@pytest.mark.parametrize("amp", [None, torch.bfloat16, torch.float16])
def test_a_replayed_step_is_an_eager_one_with_two_learning_rates(amp: torch.dtype | None, compiled: bool) -> None:
    """Same draws, same schedule: nothing of a step is frozen into its graph."""
    runs, states = [], []
    for graph in ("on", "off"):
        config = config_of(graph=graph, compile=compiled)
        # From this scale some steps are skipped, as gradients overflow, and some are not.
        scaler = torch.amp.GradScaler("cuda", init_scale=32.0, enabled=amp is torch.float16)
        step = make_step(config, device="cuda", amp_dtype=amp, scaler=scaler)
        runs.append(run_of(step, "cuda"))
        assert (step._graph is not None and step._graph.captured) == (graph == "on")
        states.append(step.generator.get_state())
    assert are_the_same(*runs, amp)
    assert torch.equal(*states), "the generator has gone as far"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_captured_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    """The generator that a graph advances, and the optimiser's state on the device, come back."""

    def train(step: TrainStep, first: int, last: int) -> list[float]:
        return [float(step([batch(number, "cuda")], number).losses.total) for number in range(first, last)]

    whole, other = (make_step(config_of(graph="on"), "tiny", device="cuda") for _ in range(2))
    train(whole, 0, 8)
    path = save_checkpoint(
        tmp_path, 8, modules=whole.modules, optimizer=whole.optimizer, scaler=whole.scaler,
        generators={"step": whole.generator}, metadata={}, keep=1,
    )  # fmt: skip
    load_checkpoint(
        path, modules=other.modules, optimizer=other.optimizer, scaler=other.scaler,
        generators={"step": other.generator}, device=other.device,
    )  # fmt: skip
    assert train(other, 8, 16) == pytest.approx(train(whole, 8, 16), rel=1e-3)
    for step in (whole, other):
        assert step._graph is not None and step._graph.captured
    assert torch.equal(whole.generator.get_state(), other.generator.get_state())


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
