"""Run by test_ranks.py with torchrun: three steps of two ranks, beside one process with two batches in each.

Prints one JSON line a case: how many parameters and losses differ, the largest difference, and whether the ranks agree.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from small_steps import batch, config_of, make_step
from torch import Tensor

from iidm.command import end_rank
from iidm.config import Config
from iidm.method import TrainStep
from iidm.ranks import ALONE, Ranks
from iidm.recipes import with_values

CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "merged": ("iidm", "adapt", {"branches": "merged"}),
    "sums over pixels": ("iidm", "paper", {"branches": "merged"}),
    "sequential": ("iidm", "adapt", {"branches": "sequential"}),
    "recomputed": ("iidm", "daformer", {"branches": "sequential", "recompute": True}),
    "a head for one branch": ("mme", "daformer", {"branches": "sequential"}),
    "a network of its own": ("ass", "daformer", {"branches": "merged"}),
    "high resolution": ("iidm_mic_hrda", "daformer", {"branches": "merged"}),
    "a quality of the batch": ("iidm", "daformer", {"branches": "merged"}),
    "prototypes": ("confeti", "daformer", {"branches": "merged"}),
    "centroids": ("diga", "daformer", {"branches": "merged"}),
    "histograms": ("dst_cbc", "daformer", {"branches": "merged"}),
    "a teacher with running statistics": ("iidm", "adapt", {"branches": "merged"}),
}
STEPS = 3
VALUES: dict[str, dict[str, dict[str, Any]]] = {
    # The networks start at random: hardly more than one of five.
    "a quality of the batch": {"teacher": {"confidence_threshold": 0.205}},
    "prototypes": {"teacher": {"confidence_threshold": 0.205}},
    "a teacher with running statistics": {"teacher": {"batchnorm": "running"}},
}
"""What a case sets beside how the step is run."""


def train(config: Config, ranks: Ranks) -> tuple[TrainStep, list[Tensor]]:
    """Three steps, and their losses."""
    step = make_step(config, "tiny", ranks=ranks)
    numbers = [turn * ranks.size + ranks.rank for turn in range(config.step.accumulate)]
    for generator, number in zip(step.generators, numbers, strict=True):
        generator.manual_seed(1 + number)
    losses = []
    total = len(numbers) * ranks.size
    for count in range(STEPS):
        out = step([batch(count * total + number) for number in numbers], count + 10)
        losses.append(ranks.mean(torch.stack([*out.losses, out.quality])).clone())
    return step, losses


def main() -> None:
    ranks = Ranks.of_environment()
    with ranks.joined(torch.device("cpu")):
        for name in sys.argv[1:] or CASES:
            method, recipe, options = CASES[name]
            values = VALUES.get(name, {})
            ours, losses = train(with_values(config_of(method, recipe, **options), values), ranks)
            state = [t.double().sum().item() for m in ours.modules.values() for t in m.state_dict().values()]
            states = ranks.gather(state)
            if not ranks.is_first:
                continue
            together = with_values(config_of(method, recipe, **options, accumulate=2), values)
            alone, expected = train(together, ALONE)
            pairs = [*zip(ours.student.parameters(), alone.student.parameters(), strict=True)]
            pairs += zip(ours.teacher.network.parameters(), alone.teacher.network.parameters(), strict=True)
            pairs += zip(losses, expected, strict=True)
            moved = [float((a - b).detach().abs().max() / b.abs().max().clamp(min=1e-12)) for a, b in pairs]
            found = {"case": name, "differ": sum(d > 0 for d in moved), "of": len(pairs), "most": max(moved)}
            print(json.dumps({**found, "ranks agree": states[0] == states[1]}), flush=True)


if __name__ == "__main__":
    main()
    end_rank()
