"""A run goes on from its checkpoint on a GPU that is not there: everything comes back to the device that it was on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from device_watch import DeviceWatch
from fake_steps import not_meant, step_of, watched
from small_steps import K, make_step
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily

from iidm.engine import checkpoint as checkpoints
from iidm.engine.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from iidm.method import TrainStep
from iidm.types import UserError

METHODS = ["iidm", "confeti", "mic"]  # two that remember or learn something, in buffers and parameters


@pytest.fixture(autouse=True)
def files_are_real(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written to a file has values, and what is read from one too; there they are zeros."""
    contiguous, load_file = checkpoints._contiguous, checkpoints._load_file

    def written(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        on_host = contiguous(tensors)
        assert all(tensor.device.type == "cpu" and tensor.is_contiguous() for tensor in on_host.values())
        with unset_fake_temporarily():
            zeros = {name: torch.zeros(tensor.shape, dtype=tensor.dtype) for name, tensor in on_host.items()}
            return zeros | {name: tensor for name, tensor in tensors.items() if name.startswith("rng.")}

    def read(path: Path) -> dict[str, Tensor]:
        with unset_fake_temporarily():
            return load_file(path)

    monkeypatch.setattr(checkpoints, "_contiguous", written)
    monkeypatch.setattr(checkpoints, "_load_file", read)


def save(step: TrainStep, folder: Path) -> Path:
    save_checkpoint(
        folder, 2, modules=step.modules, optimizer=step.optimizer, scaler=step.scaler,
        generators={"step": step.generator}, metadata={}, keep=1,
    )  # fmt: skip
    found = find_checkpoint(folder)
    assert found is not None
    return found


def load(checkpoint: Path, step: TrainStep) -> None:
    load_checkpoint(
        checkpoint, modules=step.modules, optimizer=step.optimizer, scaler=step.scaler,
        generators={"step": step.generator}, device=step.device,
    )  # fmt: skip


@pytest.mark.parametrize("amp", ["bfloat16", "float16"])
@pytest.mark.parametrize("method", METHODS)
def test_a_run_goes_on_where_it_was(method: str, amp: str, tmp_path: Path) -> None:
    step, other = step_of(method, amp), step_of(method, amp)
    watched(step)
    step.generator.set_offset(12)
    with DeviceWatch(step.amp_dtype, classes=K) as watch:
        checkpoint = save(step, tmp_path)
        load(checkpoint, other)
        assert other.scaler.state_dict() == step.scaler.state_dict()
    # It waits, copies and makes dense what it writes; that is all.
    assert {finding.kind for finding in watch.findings} == {"wait", "copy", "cpu", "layout"}
    assert other.generator.device.type == "cuda" and other.generator.get_offset() == 12
    for parameter, values in other.optimizer.state.items():
        own = step.optimizer.state[dict(zip(parameters(other), parameters(step), strict=True))[parameter]]
        assert values.keys() == own.keys()
        for name, value in values.items():
            assert (value.device, value.dtype, value.stride()) == (
                own[name].device, own[name].dtype, own[name].stride()), name  # fmt: skip
    for module, theirs in zip(step.modules.values(), other.modules.values(), strict=True):
        for name, value in theirs.state_dict().items():
            was = module.state_dict()[name]
            assert (value.device, value.dtype, value.stride()) == (was.device, was.dtype, was.stride()), name
    assert all(group["lr"].is_cuda for group in other.optimizer.param_groups)
    watch, _ = watched(other, [2, 3])
    assert not_meant(watch) == []


def parameters(step: TrainStep) -> list[Tensor]:
    return [parameter for group in step.optimizer.param_groups for parameter in group["params"]]


def test_random_numbers_of_a_cpu_do_not_go_on_on_a_gpu(tmp_path: Path) -> None:
    """What `rng.step` holds is another state there; the message says so."""
    on_cpu = make_step(step_of("iidm").config, "tiny", "cpu")
    checkpoint = save(on_cpu, tmp_path)
    with pytest.raises(UserError, match="random generator 'step' on cuda: it was written on another kind of device"):
        load(checkpoint, step_of("iidm"))
