"""Training steps of every method on fake CUDA tensors, and what of their findings is known and meant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from device_watch import DeviceWatch, Finding
from small_steps import K, batch, config_of, make_step, with_streams

from iidm.config import Config
from iidm.engine.optim import set_learning_rate
from iidm.method import TrainStep
from iidm.recipes import with_values
from iidm.types import StepOutput, TrainBatch

AMP = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
OBJECTIVES = "further terms of a loss are float32 (method/losses.py, branch_terms)"
BACKWARD = f"the backward of those: {OBJECTIVES}"
MEANT = {
    ("precision", "mm", "iidm/method/cells.py"): OBJECTIVES,
    ("precision", "bmm", "iidm/method/published/confeti.py"): OBJECTIVES,
    ("precision", "convolution", "iidm/method/published/confeti.py"): OBJECTIVES,
    ("precision", "convolution", "iidm/method/published/ass.py"): OBJECTIVES,
    ("precision", "addmm", "iidm/method/published/ass.py"): OBJECTIVES,
    ("precision", "mm", "iidm/method/step.py"): BACKWARD,
    ("precision", "bmm", "iidm/method/step.py"): BACKWARD,
    ("precision", "bmm", "iidm/method/masks.py"): "masks are drawn once for a batch, outside autocast",
    ("precision", "convolution", "iidm/models/cosine.py"): "cosines are divided by a temperature of 0.05",
    ("precision", "bmm", "iidm/models/mit.py"): "which attention runs is for a GPU to say: here it is plain products",
}
"""Kind, operation and file of a finding, and why it is right or bearable."""


def read(config: Config, seed: int = 0) -> TrainBatch:
    """The streams that the losses read, on the fake device."""
    return with_streams(batch(seed, "cuda"), config)


def step_of(method: str, amp: str = "float32", backbone: str = "tiny", **step: Any) -> TrainStep:
    """A step that runs without a graph unless it is told otherwise."""
    recipe = step.pop("recipe", "paper")
    config = config_of(method, recipe, **{"graph": "off", **step})
    config = with_values(config, {"model": {"weights": "given"}})
    scaler = torch.amp.GradScaler("cuda", enabled=amp == "float16")
    return make_step(config, backbone, "cuda", amp_dtype=AMP[amp], scaler=scaler)


def watched(step: TrainStep, numbers: Iterable[int] = (0, 1)) -> tuple[DeviceWatch, StepOutput]:
    """Trains steps of these numbers: the first makes what is made once, such as the optimiser's state."""
    batches = [read(step.config, seed) for seed in range(step.config.step.accumulate)]
    with DeviceWatch(step.amp_dtype, classes=K) as watch:
        for number in numbers:
            set_learning_rate(step.optimizer, 1.0 / (1 + number))
            output = step(batches, number)
    return watch, output


def not_meant(watch: DeviceWatch) -> list[str]:
    """The findings that nothing explains."""
    return [str(finding) for finding in watch.findings if key_of(finding) not in MEANT]


def key_of(finding: Finding) -> tuple[str, str, str]:
    """As in `MEANT`."""
    return finding.kind, finding.op, finding.file
