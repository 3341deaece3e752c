"""Trains a preset at its full size on images that are made, not read: no DALI, no data set, no command line.

    python -m benchmarks.full_size FOLDER [--preset gta5-cityscapes-100] [--steps 400] [--small] [--any-result]

What a run has beside the data path is all there: the preset's network, batch, losses and teacher, bfloat16, the step in
a CUDA graph, the schedule of the learning rate (over these few steps, and at a rate for a random start), scores of
student and teacher with the statistics of unlabeled images, a checkpoint that another run goes on from. Labels are
blocks of classes, each class has a colour, and there is noise: a network learns that in minutes.

Writes FOLDER/full-size.json and says it in a line. Exit status 1 unless the loss of the source falls, no number breaks,
the checkpoint goes on as the run does and, on a GPU, the step was captured and memory stays as it is.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

import torch

from iidm.config import Config
from iidm.engine.checkpoint import load_checkpoint, save_checkpoint
from iidm.engine.metrics import Scores, evaluate
from iidm.engine.norm_statistics import NormStatistics
from iidm.engine.optim import build_optimizer, learning_rate_factor, set_learning_rate
from iidm.engine.runtime import machine_info, pick_amp_dtype, pick_device
from iidm.kernels import set_implementation
from iidm.kernels.jitter import normalize
from iidm.method import TrainStep
from iidm.method.published import build_method
from iidm.method.teacher import Teacher
from iidm.models import parameter_groups, random_network, set_recompute
from iidm.presets import preset_config
from iidm.recipes import with_values
from iidm.types import MEAN_RGB, STD_RGB, ClassSet, EvalBatch, LabeledImages, TrainBatch

from .conftest import commit
from .ops import synchronize
from .steps import CLASSES

BATCHES = 24
"""Different ones, over and over."""
BLOCK, NOISE = 32, 24
"""Pixels of a side of a block of one class, and grey levels by which its colour varies."""
PARTS = 10
"""In so many parts of the run time, memory and loss are looked at."""
FURTHER, APART = 3, 0.25
"""Steps of the run and of one that goes on from its checkpoint, and how far apart their weights may then be: without
the optimiser's state that is farther than they have gone."""
LEARNS = 0.9
"""The source's loss in the last part is at most this share of the first part's."""
SMALL: dict[str, dict[str, Any]] = {
    "model": {"backbone": "mobilenet_v2", "output_stride": 16},
    "data": {"crop_size": (64, 128)},
}
CLASS_SET = ClassSet(tuple(f"class {k}" for k in range(CLASSES)), tuple((k, k, k) for k in range(CLASSES)))


@dataclass
class Seen:
    """What a run has shown, part by part."""

    ms: list[float] = field(default_factory=list)
    """Of a step."""
    loss: list[float] = field(default_factory=list)
    """Of the source, mean over the part."""
    reserved_mb: list[float] = field(default_factory=list)
    """Of the GPU, by torch, at the end of the part."""


def config_of(preset: str, steps: int, small: bool) -> Config:
    """The preset's, with a schedule over so many steps."""
    config = preset_config(preset)
    optim = {"lr": 5e-4, "head_lr_mult": 1.0, "warmup_steps": max(steps // 10, 1)}  # for a random start
    config = with_values(config, {"model": {"weights": "none"}, "optim": optim})
    return replace(with_values(config, SMALL) if small else config, max_steps=steps, amp=True)


def step_of(config: Config, device: torch.device) -> TrainStep:
    """Student, teacher, optimiser and randomness, as a run builds them."""
    torch.manual_seed(config.seed)
    optim = config.optim
    student = random_network(config, CLASSES)
    student.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    set_recompute(student, config.step.recompute)
    method = build_method(config, student, CLASS_SET.names)
    teacher = Teacher(deepcopy(student), config.teacher, labels_images=method.labels_images, student=student)
    groups = parameter_groups(student, optim.lr, optim.head_lr_mult, optim.weight_decay, optim.layer_decay)
    optimizer = build_optimizer(groups + method.parameter_groups(optim), optim, device)
    amp_dtype = pick_amp_dtype(device, config.amp)
    scaler = torch.amp.GradScaler(device.type, enabled=amp_dtype is torch.float16)
    generator = torch.Generator(device).manual_seed(config.seed)
    return TrainStep(student, teacher, optimizer, config, [generator], amp_dtype, scaler, method)


def made(config: Config, device: torch.device, seed: int) -> TrainBatch:
    """A batch of the preset's size, on the device. Every seed has the same colours."""
    generator, data = torch.Generator().manual_seed(seed), config.data
    colors = torch.randint(NOISE, 256 - NOISE, (CLASSES, 3), generator=torch.Generator().manual_seed(0))
    height, width = data.crop_size

    def labeled(count: int) -> LabeledImages:
        shape = (count, -(-height // BLOCK), -(-width // BLOCK))
        label = torch.randint(0, CLASSES, shape, generator=generator)
        label = label.repeat_interleave(BLOCK, 1).repeat_interleave(BLOCK, 2)[:, :height, :width].contiguous()
        noise = torch.randint(-NOISE, NOISE + 1, (*label.shape, 3), generator=generator)
        return LabeledImages((colors[label] + noise).to(torch.uint8).to(device), label.to(torch.uint8).to(device))

    return TrainBatch(labeled(data.source_batch), labeled(data.target_batch), labeled(data.unlabeled_batch).image)


def train(step: TrainStep, batches: list[TrainBatch], first: int, last: int) -> Seen:
    """Steps first .. last - 1 of a run, in PARTS parts."""
    seen, config, kind = Seen(), step.config, step.device.type
    edges = [first + (last - first) * part // PARTS for part in range(PARTS + 1)]
    for begin, end in zip(edges, edges[1:], strict=False):
        losses: list[torch.Tensor] = []
        synchronize()
        start = time.perf_counter()
        for number in range(begin, end):
            set_learning_rate(step.optimizer, learning_rate_factor(number, config.optim, config.max_steps))
            losses.append(step([batches[number % len(batches)]], number).losses.source.clone())
        synchronize()
        if losses:
            seen.ms.append(1e3 * (time.perf_counter() - start) / len(losses))
            seen.loss.append(float(torch.stack(losses).mean()))
            seen.reserved_mb.append(torch.cuda.memory_reserved() / 1e6 if kind == "cuda" else 0.0)
    return seen


def score(step: TrainStep, batches: list[TrainBatch]) -> dict[str, Scores]:
    """Student and teacher on images that were not trained on, with BatchNorm's statistics of unlabeled ones."""
    config = step.config
    normalized = partial(normalize, mean=MEAN_RGB, std=STD_RGB)
    held_out = [made(config, step.device, 1000 + seed).source for seed in range(4)]
    found = [EvalBatch(each.image, each.label, ("made",) * len(each.image)) for each in held_out if each is not None]
    images = [batch.unlabeled for batch in batches[:8] if batch.unlabeled is not None]
    with NormStatistics(images, normalized, step.amp_dtype).applied(step.networks):
        return evaluate(
            step.networks,
            found,
            CLASS_SET,
            device=step.device,
            amp_dtype=step.amp_dtype,
            normalize=normalized,
            align_corners=config.model.align_corners,
        )


class Further(NamedTuple):
    """Some further steps of a run, and of another that goes on from its checkpoint."""

    totals: tuple[float, float]
    """The loss of the last of them, of the run and of the other."""
    apart: float
    """How far the weights of the two then lie from each other, as a share of the way that the run's have gone."""


def goes_on(step: TrainStep, batches: list[TrainBatch], folder: Path) -> Further:
    """Both train some further steps. The loss of one is computed before the optimiser acts: after a single step nothing
    would tell that its state was lost."""
    done, config = step.config.max_steps, step.config
    path = save_checkpoint(
        folder, done, modules=step.modules, optimizer=step.optimizer, scaler=step.scaler,
        generators={"step": step.generator}, metadata={}, keep=1,
    )  # fmt: skip
    other = step_of(config, step.device)
    load_checkpoint(
        path, modules=other.modules, optimizer=other.optimizer, scaler=other.scaler,
        generators={"step": other.generator}, device=other.device,
    )  # fmt: skip
    before = weights_of(step)
    rate = learning_rate_factor(done // 2, config.optim, done)  # at the end of the schedule no step would move a weight
    for number in range(FURTHER):
        for each in (step, other):
            set_learning_rate(each.optimizer, rate)
        of_run, of_other = (float(each([batches[number]], done - 1).losses.total) for each in (step, other))
    ours, theirs = weights_of(step), weights_of(other)
    return Further((of_run, of_other), float((ours - theirs).norm() / (ours - before).norm()))


def weights_of(step: TrainStep) -> torch.Tensor:
    """All of the student's, as one vector."""
    return torch.cat([p.detach().flatten() for p in step.student.parameters()])


def judged(seen: Seen, captured: bool, on_gpu: bool, further: Further) -> dict[str, bool]:
    """What is asked of a run -> whether it is so."""
    totals = further.totals
    numbers, is_close = [*seen.loss, *totals], abs(totals[0] - totals[1]) <= 1e-2 * abs(totals[0]) + 1e-3
    answers = {
        "finite": all(abs(value) < float("inf") for value in numbers),
        "learns": seen.loss[-1] <= LEARNS * seen.loss[0],
        "goes on from its checkpoint": is_close and further.apart <= APART,
    }
    if on_gpu:
        later = seen.reserved_mb[2:]
        answers |= {"captured": captured, "memory stays": max(later) == min(later)}
    return answers


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--preset", default="gta5-cityscapes-100")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--small", action="store_true", help="a small network on small crops, for a CPU")
    parser.add_argument("--any-result", action="store_true", help="exit status 0 if it ends")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    device = pick_device("auto")
    on_gpu = device.type == "cuda"
    print(set_implementation("auto", device), flush=True)
    config = config_of(arguments.preset, arguments.steps, arguments.small)
    step, batches = step_of(config, device), [made(config, device, seed) for seed in range(BATCHES)]
    seen = train(step, batches, 0, config.max_steps)
    captured = step._graph is not None and step._graph.captured
    scores = score(step, batches)
    further = goes_on(step, batches, arguments.folder / "full-size")
    answers = judged(seen, captured, on_gpu, further)
    result = {
        "preset": config.preset, "steps": config.max_steps, "backbone": config.model.backbone,
        "precision": str(step.amp_dtype), "ms_per_step": seen.ms, "loss_source": seen.loss,
        "reserved_mb": seen.reserved_mb, "miou": {name: each.miou for name, each in scores.items()},
        "accuracy": {name: each.pixel_accuracy for name, each in scores.items()}, **further._asdict(),
        "answers": answers, "machine": machine_info(), "commit": commit(),
    }  # fmt: skip
    (arguments.folder / "full-size.json").write_text(json.dumps(result, indent=1) + "\n")
    wrong = [question for question, answer in answers.items() if not answer]
    accuracy = fmean(each.pixel_accuracy for each in scores.values())
    print(
        f"{config.preset}, {config.model.backbone}: {config.max_steps} steps, {median(seen.ms[1:]):.1f} ms a step;"
        f" loss {seen.loss[0]:.3f} to {seen.loss[-1]:.3f}; accuracy {accuracy:.2f};"
        f" {'NOT: ' + ', '.join(wrong) if wrong else 'good'}"
    )
    sys.exit(0 if not wrong or arguments.any_result else 1)


if __name__ == "__main__":
    main()
