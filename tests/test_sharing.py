"""How processes share a run: its batches, the GPUs of a machine, and its end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from iidm.config import Config, DataConfig, StepConfig
from iidm.engine.checkpoint import FORMAT, METADATA
from iidm.ranks import ALONE, Ranks
from iidm.sharing import BATCHES, batch_numbers, config_of_rank, device_of_rank
from iidm.types import AgreedError, UserError


def config(batch: int = 2, accumulate: int = 1, **data: object) -> Config:
    sizes = dict.fromkeys(("source_batch", "target_batch", "unlabeled_batch"), batch)
    return replace(Config(), data=DataConfig(**sizes, **data), step=StepConfig(accumulate=accumulate))  # type: ignore[arg-type]


def checkpoint(folder: Path, batches: int) -> Path:
    (folder / METADATA).write_text(json.dumps({"format": FORMAT, "step": 3, BATCHES: batches}))
    return folder


def test_each_process_has_the_batch_sizes_of_the_run_by_default() -> None:
    own, notes = config_of_rank(config(), Ranks(1, 4), None)
    assert own == config()
    assert notes == ["a step is of 4 batches of 2+2+2 images, 1 of each of 4 processes"]
    assert config_of_rank(config(), ALONE, None) == (config(), [])


def test_they_divide_a_batch_of_the_run() -> None:
    own, notes = config_of_rank(config(4, batch_per="run"), Ranks(1, 2), None)
    assert (own.data.source_batch, own.data.target_batch, own.data.unlabeled_batch) == (2, 2, 2)
    assert notes == ["a step is of 2 batches of 2+2+2 images, 1 of each of 2 processes"]
    with pytest.raises(UserError, match="they do not divide --data.source-batch 4, --data.target-batch 4"):
        config_of_rank(config(4, batch_per="run"), Ranks(1, 3), None)


@pytest.mark.parametrize(("size", "accumulate"), [(1, 4), (2, 2), (4, 1)])
def test_a_run_keeps_its_batches_with_any_number_of_processes(size: int, accumulate: int, tmp_path: Path) -> None:
    own, _ = config_of_rank(config(), Ranks(0, size), checkpoint(tmp_path, 4))
    assert own.step.accumulate == accumulate


def test_a_number_that_cannot_share_them_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="4 batches a step, which 3 processes cannot share evenly"):
        config_of_rank(config(), Ranks(0, 3), checkpoint(tmp_path, 4))


@pytest.mark.parametrize(("size", "accumulate"), [(1, 4), (2, 2), (4, 1), (3, 2)])
def test_every_batch_of_a_step_is_one_process_s(size: int, accumulate: int) -> None:
    numbers = [number for rank in range(size) for number in batch_numbers(Ranks(rank, size), accumulate)]
    assert sorted(numbers) == list(range(size * accumulate))


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made_current = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", made_current.append)
    assert device_of_rank(torch.device("cuda"), Ranks(1, 2, 1, 2)) == torch.device("cuda", 1)
    assert made_current == [torch.device("cuda", 1)]
    with pytest.raises(UserError, match="3 processes are on this machine and 2 GPUs"):
        device_of_rank(torch.device("cuda"), Ranks(0, 3, 0, 3))
    assert device_of_rank(torch.device("cuda"), ALONE) == torch.device("cuda")


@pytest.mark.parametrize(
    ("error", "kind", "leaves"),
    [
        (None, "cuda", True),
        (AgreedError("Stopped after step 7"), "cuda", True),
        (UserError("an image of this machine is missing"), "cuda", False),
        (RuntimeError("CUDA out of memory"), "cuda", False),
        (RuntimeError("[gloo] Connection closed by peer"), "cuda", False),
        (KeyboardInterrupt(), "cuda", False),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "cpu", True),
    ],
)
def test_a_process_that_ends_alone_waits_for_no_other(
    error: BaseException | None, kind: str, leaves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of NCCL's group waits for all processes, and they wait in the middle of a step for this one."""
    said: list[str] = []
    monkeypatch.setattr(dist, "rendezvous", lambda url: iter([(dist.HashStore(), 0, 2)]))
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **_: said.append(backend))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: said.append("left"))
    found = None
    try:
        with Ranks(0, 2).joined(torch.device(kind)):
            if error is not None:
                raise error
    except BaseException as caught:
        found = caught
    assert said == ["gloo" if kind == "cpu" else "cpu:gloo,cuda:nccl", *["left"] * leaves]
    if "gloo" in str(error):
        assert isinstance(found, UserError) and "Another process of this run has ended" in str(found)
    else:
        assert found is error
