"""What the tests of methods that remember share: a teacher that says what it is told, and what holds for a step late in
a run too, when all of its phases have begun."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from small_steps import CHANNELS, Tiny, assert_close, batch, config_of, gradients, make_step, with_streams
from torch import Tensor, nn

from iidm.config import Config
from iidm.method import TrainStep
from iidm.method.teacher import Teacher
from iidm.models import Network
from iidm.models.head import Head
from iidm.models.network import Look
from iidm.types import TrainBatch

MAX_STEPS = 100


class Told(nn.Module):
    """A network that says what it was told, whatever it sees."""

    def __init__(self, logits: Tensor, features: Tensor) -> None:
        super().__init__()
        self.logits, self.found = logits, features

    def look(self, image: Tensor) -> Look:
        return Look(self.logits, self.found, self.found)


class OneConvolution(Head):
    """A classifier of single cells."""

    def __init__(self, channels: int, stride: int, classes: int) -> None:
        super().__init__(channels, stride)
        self.conv = nn.Conv2d(channels, classes, 1)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.conv(features)
        return logits


def tiny_network(classes: int) -> Network:
    return Network(Tiny(), OneConvolution(CHANNELS, 8, classes))


def teacher_that_says(config: Config, logits: Tensor, features: Tensor) -> Teacher:
    return Teacher(Told(logits, features), config.teacher, labels_images=True)


def tiny_config(method: str, **step: object) -> Config:
    return replace(config_of(method, **step), max_steps=MAX_STEPS)


def read(config: Config, seed: int = 0) -> TrainBatch:
    """The streams that the losses read."""
    return with_streams(batch(seed), config)


def assert_merged_is_sequential(method: str) -> None:
    """In the first step and in one near the end, from the same weights: the optimiser's steps are left out."""
    results: list[list[Any]] = []
    for branches in ("merged", "sequential"):
        config = tiny_config(method, branches=branches)
        step = make_step(config, "tiny")
        step.optimizer.step = lambda *_, **__: None  # type: ignore[method-assign,assignment]
        first = gradients(step, [read(config)])
        first = (first[0], {k: v.clone() for k, v in first[1].items()}, first[2])
        late = learned(step, config, MAX_STEPS - 1)
        results.append([first, late])
    for mine, other in zip(*results, strict=True):
        assert_close(mine, other, tolerance=1e-3)


def trained(step: TrainStep) -> list[tuple[str, nn.Parameter]]:
    return [*step.student.named_parameters(), *step.method.named_parameters()]


def learned(step: TrainStep, config: Config, number: int) -> tuple[dict[str, Tensor], dict[str, Tensor], list[float]]:
    """Gradients of one batch at a step's number, the method's state behind it, and the losses."""
    step.optimizer.zero_grad()
    step.method.progress.fill_(number / config.max_steps)
    losses = [float(value) for value in step.learn(read(config, number)).losses]
    return (
        {name: p.grad.clone() for name, p in trained(step) if p.grad is not None},
        {name: value.clone() for name, value in step.method.state_dict().items()},
        losses,
    )


def assert_trains_and_resumes(method: str) -> None:
    """Weights move, the teacher and what is remembered get no gradient, and state goes on as if nothing happened."""
    config = tiny_config(method)
    step, other = make_step(config, "tiny"), make_step(config, "tiny")
    step([read(config)], 0)
    before = {name: p.detach().clone() for name, p in trained(step)}
    losses = step([read(config, 1)], MAX_STEPS - 2).losses
    assert all(bool(torch.isfinite(value)) for value in losses)
    assert all(not torch.equal(before[name], p) for name, p in trained(step))
    assert all(p.grad is None for p in step.teacher.network.parameters())
    assert all(not value.requires_grad for value in step.method.buffers())
    assert step.method.state_dict()
    for name, module in step.modules.items():
        other.modules[name].load_state_dict(module.state_dict())
    other.optimizer.load_state_dict(copy.deepcopy(step.optimizer.state_dict()))
    other.generator.set_state(step.generator.get_state())
    expected, found = (
        [float(value) for value in one([read(config, 7)], MAX_STEPS - 1).losses] for one in (step, other)
    )
    assert found == expected
    for name, value in step.method.state_dict().items():
        assert torch.equal(value, other.method.state_dict()[name]), name
