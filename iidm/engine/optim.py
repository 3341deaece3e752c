"""AdamW and its schedule: linear warm-up times polynomial decay."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..config import OptimConfig


def learning_rate_factor(step: int, config: OptimConfig, max_steps: int) -> float:
    """Share of the base learning rate at a step (0-based), as mmcv's `poly` policy with linear warm-up (DAFormer).

    (1 - t/max_steps)^power, times 1 - (1 - t/warmup)(1 - ratio) while t < warmup.
    """
    factor = (1.0 - step / max_steps) ** config.poly_power
    if step < config.warmup_steps:
        factor *= 1.0 - (1.0 - step / config.warmup_steps) * (1.0 - config.warmup_ratio)
    return factor


def build_optimizer(groups: list[dict[str, Any]], config: OptimConfig, device: torch.device) -> torch.optim.AdamW:
    """AdamW over parameter groups, each with a `lr` that is remembered as its `base_lr`.

    All parameters in one fused call. On a GPU the step can be captured in a CUDA graph: its learning rates lie in
    tensors, since a number would be frozen into the graph.
    """
    capturable = device.type == "cuda"
    groups = [
        {**group, "base_lr": group["lr"], "lr": torch.tensor(group["lr"], device=device) if capturable else group["lr"]}
        for group in groups
    ]
    return torch.optim.AdamW(
        groups, betas=config.betas, weight_decay=config.weight_decay, fused=True, capturable=capturable
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to its base times `factor`; one that lies in a tensor is overwritten there."""
    for group in optimizer.param_groups:
        lr = group["base_lr"] * factor
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
