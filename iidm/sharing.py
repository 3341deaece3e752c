"""How several processes share a run: its batches, their random draws, the GPUs of a machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from iidm.config import Config
from iidm.engine.checkpoint import read_metadata
from iidm.ranks import Ranks
from iidm.types import UserError

BATCH_SIZES = ("source_batch", "target_batch", "unlabeled_batch")
BATCHES = "batches_per_step"
"""In a checkpoint's metadata: how many batches make a step, those of all processes."""


def device_of_rank(device: torch.device, ranks: Ranks) -> torch.device:
    """Each process of a machine has a GPU of its own. Raises UserError where there are fewer."""
    if device.type != "cuda" or ranks.is_alone:
        return device
    count = torch.cuda.device_count()
    if ranks.local_size > count:
        raise UserError(f"{ranks.local_size} processes are on this machine and {count} GPUs: --nproc-per-node {count}.")
    own = torch.device("cuda", ranks.local_rank)
    torch.cuda.set_device(own)
    return own


def config_of_rank(config: Config, ranks: Ranks, checkpoint: Path | None) -> tuple[Config, list[str]]:
    """What this process runs of a run that several share, and lines on how they share it.

    A run that goes on with another number of processes keeps its batches a step, and with them its images.

    Raises: UserError where batches cannot be shared by so many.
    """
    data, accumulate, size = config.data, config.step.accumulate, ranks.size
    if data.batch_per == "run" and size > 1:
        sizes = {name: getattr(data, name) for name in BATCH_SIZES}
        if wrong := [f"--data.{name.replace('_', '-')} {count}" for name, count in sizes.items() if count % size]:
            raise UserError(
                f"With --data.batch-per run {size} processes share a batch, and they do not divide {', '.join(wrong)}."
                " Give multiples, another number of processes, or --data.batch-per process."
            )
        data = replace(data, **{name: count // size for name, count in sizes.items()})
    elif checkpoint is not None:
        total = int(read_metadata(checkpoint).get(BATCHES, accumulate))
        if total % size:
            raise UserError(
                f"{checkpoint} is of a run with {total} batches a step, which {size} processes cannot share evenly."
                f" Go on with a number of processes that divides {total}."
            )
        accumulate = total // size
    config = replace(config, data=data, step=replace(config.step, accumulate=accumulate))
    if size * accumulate == 1:
        return config, []
    images = "+".join(str(getattr(data, name)) for name in BATCH_SIZES)
    who = "" if ranks.is_alone else f", {accumulate} of each of {size} processes"
    return config, [f"a step is of {size * accumulate} batches of {images} images{who}"]


def batch_numbers(ranks: Ranks, accumulate: int) -> list[int]:
    """Which of a step's batches are this process's; the loader numbers them alike."""
    return [turn * ranks.size + ranks.rank for turn in range(accumulate)]


def seed_of_batch(seed: int, number: int) -> int:
    """Batches of a step draw from generators of their own; a CPU's takes 32 bits."""
    return (seed + number * 1_000_003) % 2**32 if number else seed


def generator_name(number: int) -> str:
    return f"step.{number}" if number else "step"
