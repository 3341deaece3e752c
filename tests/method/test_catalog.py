"""What holds for every method: it trains, merged or not, waits for nothing, and its state is in the checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_steps import CLASSES, Watch, assert_close, batch, config_of, distance, gradients, make_step, with_streams
from tape import Tape, as_on_a_gpu

from iidm.catalog import METHODS, describe_methods, with_method
from iidm.config import Config
from iidm.engine.checkpoint import load_checkpoint, save_checkpoint
from iidm.kernels import build_info
from iidm.method import TrainStep
from iidm.method.published import CODE, build_method
from iidm.models import build_network
from iidm.presets import PRESETS, preset_config
from iidm.recipes import with_values
from iidm.types import TrainBatch, UserError

PUBLISHED = set(
    "iidm source_only target_only source_target target_intra source_target_inter source_target_intra dacs daformer"
    " proda diga confeti cowmix cutmix dusperb dst_cbc mme ass ass_sdss dldm complexmix mic hrda diga_hrda mic_hrda"
    " iidm_hrda iidm_mic iidm_mic_hrda".split()
)

WITH_CODE = list(CODE)
"""Methods that no configuration of IIDM's step makes."""
ROUNDING = 0.1
"""How far two runs of the same twelve steps may end from each other on a GPU, where sums come in any order. A learning
rate that is frozen at two thirds makes 0.3."""


def read(config: Config, seed: int = 0, device: str = "cpu") -> TrainBatch:
    """The streams that the losses read."""
    return with_streams(batch(seed, device), config)


def step_of(method: str, **step: object) -> tuple[Config, TrainStep]:
    config = config_of(method, **step)
    config = with_values(config, {"model": {"weights": "given"}, "optim": {"lr": 1e-3}})
    return config, make_step(config, "tiny")


def test_every_method_of_the_papers_tables_is_there_and_says_what_it_is() -> None:
    assert PUBLISHED == set(METHODS)
    said = describe_methods()
    for name, entry in METHODS.items():
        assert entry.summary in said and entry.source in said and name in said
        assert len(entry.summary) < 110 and "\n" not in entry.summary


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_goes_with_every_preset(method: str, preset: str) -> None:
    config = with_method(preset_config(preset), method)
    assert config.method == method
    assert config.max_steps == preset_config(preset).max_steps


def test_the_paper_is_what_a_method_without_values_computes() -> None:
    assert with_method(Config(), "iidm") == Config()


@pytest.mark.parametrize("method", METHODS)
def test_a_method_trains_and_merged_branches_are_sequential_ones(method: str) -> None:
    results = []
    for branches in ("merged", "sequential"):
        config, step = step_of(method, branches=branches)
        results.append(gradients(step, [read(config)]))
        before = [p.detach().clone() for p in step.student.parameters()]
        losses = step([read(config, 1)], config.max_steps - 1).losses  # all phases have begun
        assert all(bool(torch.isfinite(value)) for value in losses)
        assert any(not torch.equal(a, b) for a, b in zip(before, step.student.parameters(), strict=True))
        weights = config.loss
        for name in ("source", "target", "inter", "intra", "mask"):
            if getattr(weights, f"{name}_weight") == 0:
                assert float(getattr(losses, name)) == 0, name
        assert (float(losses.auxiliary) != 0) == (weights.auxiliary_weight > 0)
    assert_close(*results, tolerance=2e-3)


@pytest.mark.skipif(not build_info()["extension"], reason="the references read values")
@pytest.mark.parametrize("branches", ["merged", "sequential"])
@pytest.mark.parametrize("method", METHODS)
def test_no_method_reads_a_value_on_the_host(method: str, branches: str) -> None:
    config, step = step_of(method, branches=branches)
    step([read(config)], 0)
    with Watch() as watch:
        step([read(config, 1)], 1)
    assert watch.waits == []


@pytest.mark.parametrize("method", METHODS)
def test_a_method_goes_on_from_a_checkpoint_as_if_nothing_had_happened(method: str, tmp_path: Path) -> None:
    config, step = step_of(method)
    step([read(config)], 0)
    save_checkpoint(
        tmp_path, 1, modules=step.modules, optimizer=step.optimizer, scaler=None,
        generators={"step": step.generator}, metadata={}, keep=1,
    )  # fmt: skip
    expected = [float(value) for value in step([read(config, 1)], 1).losses]
    _, other = step_of(method)
    load_checkpoint(
        next((tmp_path / "checkpoints").iterdir()), modules=other.modules, optimizer=other.optimizer,
        scaler=None, generators={"step": other.generator}, device=torch.device("cpu"),
    )  # fmt: skip
    assert [float(value) for value in other([read(config, 1)], 1).losses] == expected
    for mine, others in zip(step.modules.items(), other.modules.items(), strict=True):
        assert mine[0] == others[0]
        for name, value in mine[1].state_dict().items():
            assert torch.equal(value, others[1].state_dict()[name]), name


@pytest.mark.parametrize("method", WITH_CODE)
def test_a_method_computes_in_bfloat16_what_it_computes_in_float32(method: str) -> None:
    totals = []
    for amp_dtype in (None, torch.bfloat16):
        config = with_values(config_of(method), {"model": {"weights": "given"}})
        step = make_step(config, "tiny", amp_dtype=amp_dtype)
        totals.append(float(step([read(config)], 0).losses.total))
    assert totals[1] == pytest.approx(totals[0], rel=0.1, abs=0.02)


@pytest.mark.skipif(not build_info()["extension"], reason="the references read values")
@pytest.mark.parametrize("method", METHODS)
def test_nothing_of_a_method_that_changes_with_a_step_is_on_the_host(method: str, tapes: list[Tape]) -> None:
    """With phases that change on the way: its operations replay bit for bit as the method runs without a graph."""
    steps, losses = [], []
    for replays in (True, False):
        config = with_values(
            config_of(method),
            {"model": {"weights": "given"}, "teacher": {"ema_ramp": False}, "optim": {"lr": 1e-3}},
        )
        config = replace(config, max_steps=12)
        steps.append(as_on_a_gpu(make_step(config, "tiny"), graph=replays))
        losses.append([[float(v) for v in steps[-1]([read(config, n)], n).losses] for n in range(12)])
    assert tapes[-1].replays > 1
    assert losses[0] == losses[1]
    for mine, other in zip(*(step.modules.values() for step in steps), strict=True):
        for name, value in mine.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("method", METHODS)
def test_every_method_replays_from_a_graph_what_it_computes_without(method: str) -> None:
    """With phases that change on the way, and without waiting for the device once it is captured."""
    moved = []
    for graph in ("on", "off"):
        config = with_values(
            config_of(method, graph=graph),
            {"model": {"weights": "given"}, "teacher": {"ema_ramp": False}, "optim": {"lr": 1e-3}},
        )
        config = replace(config, max_steps=12)
        step = make_step(config, "tiny", device="cuda")
        weights = [value for module in step.modules.values() for value in module.parameters()]
        start = [value.detach().clone() for value in weights]
        batches = [[read(config, number, "cuda")] for number in range(12)]
        for number in range(11):
            step(batches[number], number)
        assert (step._graph is not None and step._graph.captured) == (graph == "on")
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            step(batches[11], 11)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        moved.append([value.detach() - before for value, before in zip(weights, start, strict=True)])
    assert distance(*moved) < ROUNDING


def test_an_unknown_method_is_named_with_the_nearest() -> None:
    with pytest.raises(UserError, match="There is no method 'cutmx'. Did you mean 'cutmix'"):
        with_method(Config(), "cutmx")
    student = build_network("resnet18", len(CLASSES))
    with pytest.raises(UserError, match="There is no method 'x'"):
        build_method(Config(method="x"), student, CLASSES)
