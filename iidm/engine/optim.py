"""AdamW, its schedule (linear warm-up times polynomial decay), and its state as a checkpoint holds it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import OptimConfig
from ..types import UserError

LONG_WARMUP = 0.25
"""Share of a run beyond which its warm-up is worth a word."""


def learning_rate_factor(step: int, config: OptimConfig, max_steps: int) -> float:
    """Share of the base learning rate at a step (0-based), as mmcv's `poly` policy with linear warm-up (DAFormer).

    (1 - t/max_steps)^power, times 1 - (1 - t/warmup)(1 - ratio) while t < warmup.
    """
    factor = (1.0 - step / max_steps) ** config.poly_power
    if step < config.warmup_steps:
        factor *= 1.0 - (1.0 - step / config.warmup_steps) * (1.0 - config.warmup_ratio)
    return factor


def warmup_note(config: OptimConfig, max_steps: int) -> str:
    """A line where the warm-up takes much of the run, else an empty one."""
    share = config.warmup_steps / max_steps
    if share <= LONG_WARMUP:
        return ""
    highest = max(learning_rate_factor(step, config, max_steps) for step in range(max_steps))
    return (
        f"the learning rate warms up for {config.warmup_steps} of {max_steps} steps and reaches {highest:.0%} of"
        " --optim.lr at most: give a smaller --optim.warmup-steps for a run of this length"
    )


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


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """An optimiser's state as plain JSON numbers and named tensors."""
    state = optimizer.state_dict()
    tensors = {f"optimizer.{i}.{key}": value for i, values in state["state"].items() for key, value in values.items()}
    groups = [{**group, "lr": float(group["lr"])} for group in state["param_groups"]]
    return {"param_groups": groups}, tensors


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, numbers: Mapping[str, Any], tensors: Mapping[str, Tensor], checkpoint: Path
) -> None:
    """Put back what `optimizer_state` gave, bit for bit; learning rates stay in their tensors.

    Args:
        tensors: may hold others too.
        checkpoint: where they are from, for errors.

    Raises: UserError for an optimiser over other groups.
    """
    _require_same_groups(optimizer, numbers["param_groups"], checkpoint)
    own = [group["lr"] for group in optimizer.param_groups]
    optimizer.load_state_dict(_joined(numbers, tensors))
    _restride(optimizer)
    for group, lr in zip(optimizer.param_groups, own, strict=True):
        group["lr"] = lr.fill_(group["lr"]) if isinstance(lr, Tensor) else group["lr"]


def _joined(numbers: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = tensor
    # JSON has no tuples.
    groups = [{**group, "betas": tuple(group["betas"])} for group in numbers["param_groups"]]
    return {"state": state, "param_groups": groups}


def _restride(optimizer: torch.optim.Optimizer) -> None:
    """Give the moments the memory layout of their parameters, as AdamW makes them; a fused step needs the same one."""
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            if value.shape == parameter.shape and value.stride() != parameter.stride():
                values[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _require_same_groups(optimizer: torch.optim.Optimizer, saved: list[dict[str, Any]], checkpoint: Path) -> None:
    given, own = ([len(group["params"]) for group in groups] for groups in (saved, optimizer.param_groups))
    if given != own:
        raise UserError(
            f"{checkpoint} holds an optimiser over groups of {given} tensors; this run trains groups of {own}. Use the"
            " configuration that lies beside it."
        )
