"""benchmarks/full_size.py: a checkpoint that another run goes on from is one with all that a run needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import full_size
from benchmarks.full_size import Further, Seen, config_of, goes_on, judged, made, step_of, train
from iidm.recipes import with_values


def test_a_checkpoint_without_the_optimisers_state_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = with_values(config_of("gta5-cityscapes-100", 4, small=True), {"data": {"crop_size": (32, 64)}})
    cpu = torch.device("cpu")
    step, batches = step_of(config, cpu), [made(config, cpu, seed) for seed in range(3)]
    seen = Seen(loss=[1.0, 0.5], ms=train(step, batches, 0, 4).ms)
    answers = judged(seen, False, False, goes_on(step, batches, tmp_path))
    assert answers == dict.fromkeys(("finite", "learns", "goes on from its checkpoint"), True)
    load = full_size.load_checkpoint

    def without_state(path: Path, *, optimizer: torch.optim.Optimizer, **others: Any) -> None:
        load(path, optimizer=optimizer, **others)
        optimizer.state.clear()

    monkeypatch.setattr(full_size, "load_checkpoint", without_state)
    further = goes_on(step, batches, tmp_path)
    assert not judged(seen, False, False, further)["goes on from its checkpoint"], further


def test_both_losses_and_weights_must_be_close() -> None:
    seen, question = Seen(loss=[1.0, 0.5]), "goes on from its checkpoint"
    assert judged(seen, False, False, Further((0.5, 0.501), 0.05))[question]
    assert not judged(seen, False, False, Further((0.5, 0.52), 0.05))[question]
    assert not judged(seen, False, False, Further((0.5, 0.501), 0.5))[question]
    assert not judged(seen, False, False, Further((0.5, 0.501), float("nan")))[question]
    assert not judged(seen, False, False, Further((float("nan"), 0.5), 0.05))["finite"]
