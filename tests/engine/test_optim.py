"""The schedule at points computed by hand, and the groups it moves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from iidm.config import OptimConfig
from iidm.engine.optim import build_optimizer, learning_rate_factor, set_learning_rate, warmup_note

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("step", "rate"),
    (
        (0, 6e-5 * 1e-6),
        # 1499/1500 of the way from 1e-6 to 1, times (1 - 1499/40000).
        (1499, 6e-5 * (1e-6 + (1 - 1e-6) * 1499 / 1500) * 0.962525),
        (1500, 6e-5 * 0.9625),
        (39_999, 6e-5 * 2.5e-5),
    ),
)
def test_the_papers_schedule_has_the_rates_computed_by_hand(step: int, rate: float) -> None:
    config = OptimConfig()
    assert config.lr * learning_rate_factor(step, config, 40_000) == pytest.approx(rate, rel=1e-9)


def test_the_rate_rises_through_the_warmup_and_falls_after_it() -> None:
    factors = [learning_rate_factor(t, OptimConfig(warmup_steps=10), 100) for t in range(101)]
    assert factors[:11] == sorted(factors[:11])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[10] == max(factors) == 0.9 and factors[100] == 0


def test_without_warmup_the_first_step_has_the_full_rate() -> None:
    assert learning_rate_factor(0, OptimConfig(warmup_steps=0), 10) == 1.0


def test_a_warmup_of_much_of_the_run_is_told_with_the_rate_that_it_reaches() -> None:
    assert warmup_note(OptimConfig(warmup_steps=100), 400) == ""
    assert "1000 of 1000 steps and reaches 25% of" in warmup_note(OptimConfig(warmup_steps=1000), 1000)


def test_the_power_bends_the_decay() -> None:
    config = OptimConfig(warmup_steps=0, poly_power=2.0)
    assert learning_rate_factor(50, config, 100) == 0.25


def test_a_group_remembers_its_base_rate_through_every_change() -> None:
    backbone, head = nn.Linear(2, 2), nn.Linear(2, 2)
    groups = [
        {"name": "backbone", "params": list(backbone.parameters()), "lr": 6e-5},
        {"name": "head", "params": list(head.parameters()), "lr": 6e-4, "weight_decay": 0.5},
    ]
    optimizer = build_optimizer(groups, OptimConfig(betas=(0.8, 0.9), weight_decay=0.02), CPU)
    for factor in (0.5, 0.1, 1.0):
        set_learning_rate(optimizer, factor)
        assert [g["lr"] for g in optimizer.param_groups] == [6e-5 * factor, 6e-4 * factor]
        assert [g["base_lr"] for g in optimizer.param_groups] == [6e-5, 6e-4]
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.02, 0.5]
    assert all(g["betas"] == (0.8, 0.9) for g in optimizer.param_groups)
    assert all("base_lr" not in group for group in groups)


def test_the_first_step_of_adamw_moves_by_decay_and_rate() -> None:
    # With m/(1-b1) = g and sqrt(v/(1-b2)) = |g| the first update is lr * sign(g), after w *= 1 - lr * decay.
    weight = nn.Parameter(torch.tensor([2.0, -3.0]))
    optimizer = build_optimizer([{"params": [weight], "lr": 0.1}], OptimConfig(weight_decay=0.5), CPU)
    set_learning_rate(optimizer, 0.5)
    weight.grad = torch.tensor([4.0, -0.25])
    optimizer.step()
    expected = torch.tensor([2.0 * (1 - 0.05 * 0.5) - 0.05, -3.0 * (1 - 0.05 * 0.5) + 0.05])
    torch.testing.assert_close(weight.detach(), expected)


@pytest.mark.parametrize("channels_last_gradient", [True, False])
def test_channels_last_weights_move_as_with_the_plain_loop(channels_last_gradient: bool) -> None:
    """The fused step goes through memory: a gradient of another layout than its weight would be applied shuffled.
    Autograd gives each gradient the layout of its weight, whatever it comes in."""
    torch.manual_seed(0)
    start, factors = torch.randn(8, 6, 3, 3), torch.randn(4, 8, 6, 3, 3)
    results = []
    for fused in (True, False):
        weight = nn.Parameter(start.clone().contiguous(memory_format=torch.channels_last))
        groups: list[dict[str, Any]] = [{"params": [weight], "lr": 0.1}]
        optimizer = build_optimizer(groups, OptimConfig(), CPU)
        if not fused:
            optimizer = torch.optim.AdamW([weight], lr=0.1, betas=OptimConfig().betas, foreach=False)
        for factor in factors:
            layout = torch.channels_last if channels_last_gradient else torch.contiguous_format
            for share in (0.25, 0.75):  # two branches
                (weight * (share * factor).contiguous(memory_format=layout)).sum().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        results.append(weight.detach())
    torch.testing.assert_close(*results)
    assert float((results[0] - start).abs().max()) > 0.1


def test_a_rate_in_a_tensor_is_overwritten_in_place() -> None:
    """As on a GPU, where a captured step reads it."""
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([{"params": [weight], "lr": torch.tensor(0.5), "base_lr": 0.5}], fused=True)
    rate = optimizer.param_groups[0]["lr"]
    set_learning_rate(optimizer, 0.25)
    assert optimizer.param_groups[0]["lr"] is rate and float(rate) == 0.125
