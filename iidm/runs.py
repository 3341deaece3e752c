"""What a run is made of: its folder, its networks and optimiser, its saved state. Used by every entry point."""

from __future__ import annotations

import time
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import iidm
from iidm.cli import config_as_dict, read_config, write_config
from iidm.config import Config
from iidm.data import Domains, write_splits
from iidm.engine.checkpoint import find_checkpoint, load_checkpoint, load_weights, save_checkpoint
from iidm.engine.norm_statistics import Buffers
from iidm.engine.optim import build_optimizer
from iidm.engine.runtime import pick_amp_dtype
from iidm.method import TrainStep
from iidm.method.published import build_method
from iidm.method.teacher import Teacher
from iidm.models import Network, build_network, load_pretrained, parameter_groups, set_recompute
from iidm.types import UserError


def prepare_run_dir(config: Config, domains: Domains, resume: Path | None) -> Path:
    """The run's folder with its configuration and its splits. A folder that holds another run is refused."""
    if resume is not None:
        return resume
    name = f"{config.preset}-{config.method}-{time.strftime('%Y%m%d-%H%M%S')}"
    run_dir = config.run_dir or Path("runs") / name
    if (run_dir / "config.json").exists():
        raise UserError(
            f"{run_dir} holds a run already. Continue it with --resume {run_dir}, or give another --run-dir."
        )
    run_dir.mkdir(parents=True, exist_ok=True)
    write_splits(domains, run_dir)
    write_config(replace(config, run_dir=None), run_dir / "config.json")
    return run_dir


def build_step(config: Config, domains: Domains, device: torch.device) -> tuple[TrainStep, str]:
    """Student, teacher, optimiser and randomness of a run at its start, and a line on where the weights are from."""
    student = random_network(config, len(domains.classes))
    origin = load_pretrained(student, config.model.weights, backbone=config.model.backbone)
    student = student.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    set_recompute(student, config.step.recompute)
    method = build_method(config, student, domains.classes.names)
    teacher = Teacher(deepcopy(student), config.teacher, labels_images=method.labels_images, student=student)
    optim = config.optim
    groups = parameter_groups(student, optim.lr, optim.head_lr_mult, optim.weight_decay, optim.layer_decay)
    groups += method.parameter_groups(optim)
    amp_dtype = pick_amp_dtype(device, config.amp)
    scaler = torch.amp.GradScaler(device.type, enabled=amp_dtype is torch.float16)
    generator = torch.Generator(device).manual_seed(config.seed)
    optimizer = build_optimizer(groups, optim, device)
    return TrainStep(student, teacher, optimizer, config, generator, amp_dtype, scaler, method), origin


def save_state(
    step: TrainStep, done: int, run_dir: Path, domains: Domains, seconds: float, training_statistics: Buffers
) -> None:
    """Everything that step `done` (0-based, the next to run) depends on, and the seconds that the run took so far.

    `training_statistics` are the networks' own where they have others now (NormStatistics.applied).
    """
    config = step.config
    metadata: dict[str, Any] = {
        "seconds": round(seconds, 1),
        "iidm": iidm.__version__,
        "backbone": config.model.backbone,
        "classes": list(domains.classes.names),
        "statistics": "target" if training_statistics else "running",
        "config": config_as_dict(config),
    }
    save_checkpoint(
        run_dir,
        done,
        modules=step.modules,
        optimizer=step.optimizer,
        scaler=step.scaler,
        generators={"step": step.generator},
        metadata=metadata,
        keep=config.log.keep_checkpoints,
        buffers=training_statistics,
    )


def load_state(checkpoint: Path, step: TrainStep) -> tuple[int, float]:
    """Put a checkpoint into the networks, the optimiser and the generators.

    Returns: the step to go on with, and the seconds that the run had taken.
    """
    metadata = load_checkpoint(
        checkpoint,
        modules=step.modules,
        optimizer=step.optimizer,
        scaler=step.scaler,
        generators={"step": step.generator},
        device=step.device,
    )
    return int(metadata["step"]), float(metadata["seconds"])


def open_run(run_dir: Path) -> tuple[Config, Path]:
    """The configuration and the newest checkpoint of a run folder. Raises UserError for a folder that is no run."""
    if not (run_dir / "config.json").is_file():
        raise UserError(
            f"{run_dir} is no run: it has no config.json. Give the folder that iidm.train printed at its end."
        )
    checkpoint = find_checkpoint(run_dir)
    if checkpoint is None:
        raise UserError(f"{run_dir} has no checkpoint yet; train it first, or go on with --resume {run_dir}.")
    return read_config(run_dir / "config.json"), checkpoint


def run_precision(config: Config, choice: str, device: torch.device) -> torch.dtype | None:
    """The autocast dtype of an evaluation: `run` as the run was trained, `float32`, or `amp`."""
    return pick_amp_dtype(device, config.amp if choice == "run" else choice == "amp")


def random_network(config: Config, num_classes: int) -> Network:
    """The configured network before any weights are loaded."""
    model = config.model
    return build_network(
        model.backbone,
        num_classes,
        output_stride=model.output_stride,
        head=model.head_by_name,
        dilations=model.dilations,
        dropout=model.dropout,
        drop_path=model.drop_path,
        crop_size=config.data.crop_size,
        hrda=model.hrda,
    )


def load_network(config: Config, checkpoint: Path, name: str, num_classes: int, device: torch.device) -> Network:
    """The student or the teacher of a checkpoint, in evaluation mode."""
    network = random_network(config, num_classes)
    load_weights(checkpoint, name, network)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval()
