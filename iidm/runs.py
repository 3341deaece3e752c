"""What a run is made of: its folder, its networks and optimiser, its saved state. Used by every entry point."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from copy import deepcopy
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import iidm
from iidm.cli import config_as_dict, read_config, write_config
from iidm.config import Config
from iidm.data import (
    Domains,
    TooFewLabeled,
    changes_since,
    class_pixel_counts,
    refuse,
    with_kept_validation,
    write_splits,
)
from iidm.engine.checkpoint import (
    find_checkpoint,
    load_checkpoint,
    load_weights,
    read_metadata,
    remove_halves,
    remove_old,
    save_checkpoint,
)
from iidm.engine.norm_statistics import Buffers
from iidm.engine.optim import build_optimizer, learning_rate_factor
from iidm.engine.runtime import pick_amp_dtype
from iidm.engine.whole_checkpoint import find_whole_checkpoint, set_aside
from iidm.kernels import set_implementation
from iidm.locks import locked
from iidm.method import TrainStep
from iidm.method.base import Method
from iidm.method.class_weights import class_weights_note
from iidm.method.published import CODE, build_method
from iidm.method.teacher import Teacher
from iidm.models import Network, optimizer_groups, random_network, set_recompute
from iidm.presets import PRESETS
from iidm.ranks import ALONE, Ranks
from iidm.sharing import BATCHES, batch_numbers, generator_name, seed_of_batch
from iidm.text import write_bytes, write_text
from iidm.types import UserError
from iidm.warm_start import load_kept_start, start_network

DOMAINS = ("source", "target")


@contextmanager
def preset_named(config: Config) -> Iterator[None]:
    """A context in which a run's images are opened: where too few are labeled for the preset's own number, the error
    names the preset, as no option gave that number."""
    try:
        yield
    except TooFewLabeled as error:
        count = config.data.labeled_count
        own = PRESETS[config.preset]().data if config.preset in PRESETS else None
        if own is None or own.labeled_count != count:
            raise
        of_others = config.data.target.spec != own.target.spec
        instead = "For data of your own leave --preset out, which takes all labels, or give" if of_others else "Give"
        raise UserError(
            f"The preset {config.preset} takes {count} labeled target images, but there are {error.total} labeled"
            f" training images. {instead} --data.labeled-count 0 to {error.total}."
        ) from None


def prepare_run_dir(config: Config, domains: Domains, resume: Path | None) -> Path:
    """The run's folder with its configuration, its splits and the files that describe its data sets.

    Raises UserError for a folder that holds another run, and for a resumed run whose images have changed, unless
    `data.accept` says that they may.
    """
    if resume is not None:
        changes = "; ".join(changes_since(domains, resume))
        if changes:
            text = f"The images are not those that {resume} began with (its splits/ names them): {changes}."
            refuse({"changed": text}, config.data.accept)
            write_splits(domains, resume)
        return resume
    run_dir = config.run_dir or _new_folder(f"{config.preset}-{config.method}-{time.strftime('%Y%m%d-%H%M%S')}")
    if (run_dir / "config.json").exists():
        raise UserError(
            f"{run_dir} holds a run already. Continue it with --resume {run_dir}, or give another --run-dir."
        )
    run_dir.mkdir(parents=True, exist_ok=True)
    write_splits(domains, run_dir)
    write_config(keep_descriptions(replace(config, run_dir=None), run_dir), run_dir / "config.json")
    return run_dir


def _new_folder(name: str) -> Path:
    """runs/<name>, or with a number behind it where another run has begun in the same second."""
    for number in count(1):
        folder = Path("runs") / (name if number == 1 else f"{name}-{number}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise AssertionError


def alone_in(run_dir: Path | None) -> AbstractContextManager[object]:
    """Keep other trainings out of a run's folder, in which no file is left; None: nothing is kept."""
    return nullcontext() if run_dir is None else locked(run_dir, f"Another process trains in {run_dir}")


def keep_descriptions(config: Config, run_dir: Path) -> Config:
    """Copy the TOML files that describe data sets to RUN/source and RUN/target, for `read_config` to find them there.

    Returns the configuration with the folder that a description's relative folders lie below, which was the file's own.
    """
    roots: dict[str, Any] = {}
    for domain in DOMAINS:
        path = Path(getattr(config.data, domain).spec).expanduser()
        if path.suffix == ".toml":
            (run_dir / domain).mkdir(exist_ok=True)  # of a start that was killed
            write_bytes(run_dir / domain / path.name, path.read_bytes())
            if getattr(config, f"{domain}_root") is None:
                roots[f"{domain}_root"] = path.resolve().parent
    return replace(config, **roots)


def resume_notes(config: Config, run_dir: Path) -> list[str]:
    """What a resumed run has other than the one that began, a line each: its length, TOML files that changed since.

    Raises UserError for fewer steps than are done.
    """
    return [*change_length(config, run_dir), *description_notes(run_dir)]


def description_notes(run_dir: Path) -> list[str]:
    """A line for each TOML file that was changed since the run copied it."""
    data = json.loads((run_dir / "config.json").read_text()).get("data", {})
    notes = []
    for domain in DOMAINS:  # a configuration that was written by hand may leave one out
        path = Path(str(data.get(domain, {}).get("spec", ""))).expanduser()
        kept = run_dir / domain / path.name
        if path.suffix == ".toml" and kept.is_file() and path.is_file() and path.read_bytes() != kept.read_bytes():
            notes.append(f"{path} was changed since this run began; the run reads its own copy, {kept}")
    return notes


def change_length(config: Config, run_dir: Path) -> list[str]:
    """Give a run that is resumed the length of `config`, from its newest checkpoint on.

    Its config.json holds the new one then, so that a further --resume goes on with it. Results of the old length are
    kept as results-after-N-steps.

    Returns: a line where the length changes, none where it stays.
    Raises: UserError for fewer steps than are done; the run stays as it is.
    """
    path = run_dir / "config.json"
    saved, new = read_config(path), config.max_steps
    if new == saved.max_steps:
        return []
    checkpoint = find_checkpoint(run_dir)
    done = int(read_metadata(checkpoint)["step"]) if checkpoint else 0
    if new < done:
        raise UserError(f"{run_dir} has done {done} steps, and --max-steps {new} is fewer; give more than {done}.")
    for ending in ("json", "txt"):
        results = run_dir / f"results.{ending}"
        if results.exists():
            results.replace(run_dir / f"results-after-{saved.max_steps}-steps.{ending}")
    # All else as it is: `saved` names the run's copies of its TOML files, and not the originals.
    write_text(path, json.dumps({**json.loads(path.read_text()), "max_steps": new}, indent=2) + "\n")
    rate = learning_rate_factor(done, config.optim, new)
    return [
        f"{new} steps in place of {saved.max_steps}: from step {done} on the learning rate is that of a run of {new}"
        f" steps, {rate:.3g} of --optim.lr at first"
    ]


def choose_kernels(config: Config, device: torch.device) -> str:
    """Which implementation the ops run as, in one line; a wish that cannot be met ends the run."""
    try:
        return set_implementation(config.kernels, device)
    except RuntimeError as error:
        raise UserError(str(error)) from None


def build_step(
    config: Config, domains: Domains, device: torch.device, checkpoint: Path | None = None, ranks: Ranks = ALONE
) -> tuple[TrainStep, list[str]]:
    """Student, teacher, optimiser and randomness of a run at its start, and a line on where the weights are from.

    With a `checkpoint`, whose weights will take their place, none are read and no line is said: what a run started from
    need not be there any more. A method that compares with the start has it from the run's folder.
    """
    student = random_network(config, len(domains.classes))
    origin = []
    is_kept = checkpoint is not None and compares_with_start(config) and load_kept_start(student, checkpoint.parents[1])
    if checkpoint is None or (compares_with_start(config) and not is_kept):
        origin = [start_network(student, config, domains.classes.names)]
    student = student.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    set_recompute(student, config.step.recompute)
    method = build_method(config, student, domains.classes.names, count_classes(config, domains))
    teacher = Teacher(deepcopy(student), config.teacher, labels_images=method.labels_images, student=student)
    amp_dtype = pick_amp_dtype(device, config.amp)
    scaler = torch.amp.GradScaler(device.type, enabled=amp_dtype is torch.float16)
    seeds = [seed_of_batch(config.seed, number) for number in batch_numbers(ranks, config.step.accumulate)]
    generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
    groups = optimizer_groups({"": student, **method.networks}, config.optim) + method.parameter_groups(config.optim)
    optimizer = build_optimizer(groups, config.optim, device)
    return TrainStep(student, teacher, optimizer, config, generators, amp_dtype, scaler, method, ranks), origin


def compares_with_start(config: Config) -> bool:
    """Whether the method's further term reads the weights of the start all the time."""
    return CODE.get(config.method, Method).keeps_start and config.loss.auxiliary_weight > 0


def count_classes(config: Config, domains: Domains) -> list[NDArray[np.int64]]:
    """The pixels of each class in the labeled images, of source and target apart; none where no weights need them."""
    if config.loss.class_weights != ("auto",):
        return []
    labeled = [dataset for dataset in (domains.source, domains.labeled) if dataset is not None]
    return [class_pixel_counts(dataset, skip_damaged=config.data.skip_damaged) for dataset in labeled]


def describe_class_weights(step: TrainStep, names: Sequence[str]) -> list[str]:
    """A line on what the classes weigh in the loss; none where they all weigh the same."""
    loss, weights = step.config.loss, step.method.class_weight
    return [] if weights is None else [class_weights_note(weights.tolist(), names, loss)]


def save_state(
    step: TrainStep, done: int, run_dir: Path, domains: Domains, seconds: float, training_statistics: Buffers
) -> None:
    """Everything that step `done` (0-based, the next to run) depends on, and the seconds that the run took so far.

    All ranks call it; the first writes. `training_statistics` are the networks' own where they have others now
    (NormStatistics.applied).
    """
    config, ranks = step.config, step.ranks
    numbers = batch_numbers(ranks, config.step.accumulate)
    own = {number: generator.get_state() for number, generator in zip(numbers, step.generators, strict=True)}
    states = {number: state for each in ranks.gather(own) for number, state in each.items()}
    if not ranks.is_first:
        return
    generators = {generator_name(number): torch.Generator(step.device) for number in sorted(states)}
    for number, state in states.items():
        generators[generator_name(number)].set_state(state)
    metadata: dict[str, Any] = {
        BATCHES: len(states),
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
        generators=generators,
        metadata=metadata,
        keep=config.log.keep_checkpoints,
        buffers=training_statistics,
    )


def load_state(checkpoint: Path, step: TrainStep) -> tuple[int, float]:
    """Put a checkpoint into the networks, the optimiser and the generators.

    Returns: the step to go on with, and the seconds that the run had taken.
    """
    saved = int(read_metadata(checkpoint).get(BATCHES, 1))  # a process that has joined since begins to draw
    numbers = batch_numbers(step.ranks, step.config.step.accumulate)
    known = [(number, own) for number, own in zip(numbers, step.generators, strict=True) if number < saved]
    metadata = load_checkpoint(
        checkpoint,
        modules=step.modules,
        optimizer=step.optimizer,
        scaler=step.scaler,
        generators={generator_name(number): own for number, own in known},
        device=step.device,
    )
    return int(metadata["step"]), float(metadata.get("seconds", 0))


def open_run(run_dir: Path) -> tuple[Config, Path]:
    """The configuration and the newest whole checkpoint of a run folder; a damaged one is told on stderr.

    Raises: UserError for a folder that is no run, and where no checkpoint is whole.
    """
    if not (run_dir / "config.json").is_file():
        raise UserError(
            f"{run_dir} is no run: it has no config.json. Give the folder that iidm.train printed at its end."
        )
    found = find_whole_checkpoint(run_dir)
    if found.checkpoint is None:
        raise UserError(f"{run_dir} has no checkpoint yet; train it first, or go on with --resume {run_dir}.")
    for note in found.notes:
        print(note, file=sys.stderr)
    return with_kept_validation(read_config(run_dir / "config.json"), run_dir), found.checkpoint


def checkpoint_to_resume(run_dir: Path, keep: int) -> tuple[Path | None, list[str]]:
    """The newest whole checkpoint of a run, if it has any, and a line for each damaged one, which is set aside.

    What a kill left is removed, and all but the `keep` newest checkpoints. Raises UserError where all are damaged.
    """
    remove_halves(run_dir)
    found = find_whole_checkpoint(run_dir)
    for damaged in found.damaged:
        set_aside(damaged)
    remove_old(run_dir, keep)
    return found.checkpoint, found.notes


def run_precision(config: Config, choice: str, device: torch.device) -> torch.dtype | None:
    """The autocast dtype of an evaluation: `run` as the run was trained, `float32`, or `amp`."""
    return pick_amp_dtype(device, config.amp if choice == "run" else choice == "amp")


def load_network(config: Config, checkpoint: Path, name: str, num_classes: int, device: torch.device) -> Network:
    """The student or the teacher of a checkpoint, in evaluation mode."""
    network = random_network(config, num_classes)
    load_weights(checkpoint, name, network)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval()
