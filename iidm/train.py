"""Train a network on images of which few are labeled, with a labeled source domain or without.

    iidm train --amp                                     built-in data, minutes on 2 CPU cores
    iidm train --data.target.spec camera.toml --method target_intra --data.val-count 5 --amp       your own images
    iidm train --preset camvid-dusk --source-root DIR --target-root DIR --model.weights FILE --amp
    iidm train --preset gta5-cityscapes-100 --source-root GTA5 --target-root CITYSCAPES --amp
    iidm train --resume RUN [--max-steps MORE]           continues bit-exactly on CPU
    torchrun --nproc-per-node 4 -m iidm.train ... --run-dir RUN            on several GPUs (docs/scale.md)
    iidm train --list-presets | --list-methods | --help

What the run's folder holds: docs/runs.md.
"""

from __future__ import annotations

if __name__ == "__main__":  # first: it reads the command line before anything that takes seconds to import
    from iidm.command import run_command

    run_command("train")

import shlex
import time
import warnings
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from iidm.cli import config_as_dict, parse_config, program
from iidm.config import Config
from iidm.data import (
    Domains,
    TrainLoader,
    check_data,
    decoding_threads,
    open_domains,
    slow_reading_notes,
    with_kept_validation,
)
from iidm.engine.log import NoLog, Progress, RunLog
from iidm.engine.optim import warmup_note
from iidm.engine.runtime import keep_freed_memory, machine_info, pick_device, seed_everything
from iidm.engine.trackers import wanted_trackers
from iidm.evaluation import evaluate_networks, target_statistics, write_results
from iidm.method import TrainStep
from iidm.ranks import ALONE, Ranks
from iidm.runs import (
    alone_in,
    build_step,
    checkpoint_to_resume,
    choose_kernels,
    compares_with_start,
    describe_class_weights,
    load_state,
    prepare_run_dir,
    preset_named,
    resume_notes,
)
from iidm.sharing import config_of_rank, device_of_rank
from iidm.training import train
from iidm.types import UserError
from iidm.warm_start import keep_start


def main(argv: Sequence[str]) -> None:
    """Entry point: resolve the configuration, then run it. A run that torchrun has started again is resumed."""
    ranks = Ranks.of_environment()
    config, resume = parse_config(argv)
    folder = config.run_dir
    if ranks.may_restart and resume is None and folder is None:
        raise UserError("torchrun --max-restarts needs --run-dir: that is where a new start finds the checkpoint.")
    if ranks.restarts and resume is None and folder is not None and (folder / "config.json").exists():
        config, resume = parse_config(["--resume", str(folder)])
    run(config, resume, ranks)


def run(config: Config, resume: Path | None = None, ranks: Ranks = ALONE) -> Path:
    """Train, evaluate and write everything of one run; returns its folder."""
    device = device_of_rank(pick_device(config.device), ranks)
    with ranks.joined(device), alone_in(resume if ranks.is_first else None):
        return run_together(config, resume, ranks, device)


def run_together(config: Config, resume: Path | None, ranks: Ranks, device: torch.device) -> Path:
    """What each process of a run does; the first one speaks and writes."""
    started = time.time()
    seed_everything(config.seed)
    keep_freed_memory(device)
    if not ranks.is_first:
        warnings.simplefilter("ignore")
        config = replace(config, quiet=True)
    trackers = wanted_trackers(config.log) if ranks.is_first else []  # one may not be installed: tell that first
    notes = [choose_kernels(config, device)]
    with ranks.first_on_each_machine():
        with Progress("drawing scenes or labels, once", config.quiet) as progress, preset_named(config):
            domains = open_domains(with_kept_validation(config, resume), progress=progress)
        with Progress("reading the labels, once", config.quiet) as progress:
            checked = check_data(domains, config.data, progress)
    found = checkpoint_to_resume(resume, config.log.keep_checkpoints) if resume and ranks.is_first else (None, [])
    checkpoint, damages = ranks.from_first(found)
    notes += [*domains.notes, *checked.notes, *slow_reading_notes(domains), *damages]
    whole, (config, shared) = config, config_of_rank(config, ranks, checkpoint)
    step, origin = build_step(config, domains, device, checkpoint, ranks)
    statistics, note = target_statistics(config, domains.plain_target, step.networks, step.amp_dtype, checked.damaged)
    run_dir = ranks.from_first(prepare_run_dir(whole, domains, resume) if ranks.is_first else Path())
    if ranks.is_first and checkpoint is None and compares_with_start(config) and config.model.weights != "imagenet":
        keep_start(step.student, run_dir)
    notes += resume_notes(config, run_dir) if resume and ranks.is_first else []
    start_step, seconds_before = load_state(checkpoint, step) if checkpoint else (0, 0.0)
    started -= seconds_before
    new = run_dir if resume is None and ranks.is_first else None
    with alone_in(new), open_log(config, run_dir, start_step, ranks, trackers) as log:
        for line in [*describe(config, domains, step, run_dir), *shared, *origin, note, *notes]:
            log.note(line)
        if resume:
            log.note(f"resumed {checkpoint} at step {start_step}" if checkpoint else "no checkpoint yet: step 0")
        if start_step < config.max_steps:
            with open_loader(step, domains, start_step, checked.damaged) as loader:
                train(step, loader, log, run_dir, domains, statistics, start_step, started)
        else:
            log.note(f"all {config.max_steps} steps are done; its scores are computed again")
        scores = {}
        if domains.val is not None:
            # The loop leaves those of its last checkpoint in the networks.
            with nullcontext() if start_step < config.max_steps else statistics.applied(step.networks):
                scores = evaluate_networks(step.networks, domains.val, config, step.amp_dtype, ranks)
        log.results({name: value.as_json() for name, value in scores.items()})
    if ranks.is_first:
        from iidm.engine.curves import save_curves  # here: matplotlib takes half a second; no start should wait for it

        save_curves(run_dir)
        seconds = time.time() - started
        facts = {"seconds": round(seconds, 1), "steps": config.max_steps, "machine": machine_info()}
        facts |= {} if ranks.is_alone else {"processes": ranks.size}
        print(write_results(run_dir, scores, len(domains.val.samples) if domains.val else 0, facts))
        print(f"time taken: {seconds / 60:.1f} min\neverything lies in: {run_dir}\n{what_next(run_dir, config)}")
    return run_dir


def open_loader(step: TrainStep, domains: Domains, start_step: int, damaged: Collection[Path]) -> TrainLoader:
    """The batches of this rank from a step on, but for damaged files."""
    config, ranks = step.config, step.ranks
    return TrainLoader(
        domains,
        config.data,
        seed=config.seed,
        device=step.device,
        start_step=start_step * config.step.accumulate,
        strategy=config.mixing.strategy,
        damaged=damaged,
        rank=ranks.rank,
        world_size=ranks.size,
        threads=max(1, decoding_threads() // ranks.local_size),
    )


def what_next(run_dir: Path, config: Config) -> str:
    """What to look at after a run: its newest picture of predictions, its curves, and the commands that go on."""
    run = shlex.quote(str(run_dir))
    pictures = sorted(p for p in (run_dir / "previews").glob("*.png") if not p.stem.endswith("-batch"))
    found = [(str(pictures[-1]), "images and what the networks say to them")] if pictures else []
    found += [(str(path), "losses and scores over the steps") for path in [run_dir / "curves.png"] if path.exists()]
    found += [(f"{program('report')} {run}", "one HTML page: what is weak, where, and why")]
    found += [(f"{program('predict')} {run} IMAGES --out results", "labels images and videos of yours")]
    if config.preset == "scenes":
        found += [(f"{program('inspect')} IMAGES LABELS", "begins with data of your own")]
    width = max(len(what) for what, _ in found)
    return "\n".join(["to look at next:", *(f"  {what:{width}}  {tells}" for what, tells in found)])


def open_log(config: Config, run_dir: Path, start_step: int, ranks: Ranks, trackers: Sequence[str]) -> NoLog:
    """What a run says and writes while it trains."""
    if not ranks.is_first:
        return NoLog()
    return RunLog(
        run_dir,
        total_steps=config.max_steps,
        start_step=start_step,
        quiet=config.quiet,
        tensorboard=config.log.tensorboard,
        trackers=trackers,
        config=config_as_dict(config),
    )


def describe(config: Config, domains: Domains, step: TrainStep, run_dir: Path) -> list[str]:
    """What this run is, in a few lines."""
    precision = str(step.amp_dtype).removeprefix("torch.") if step.amp_dtype else "float32"
    mixes = max(config.loss.inter_weight, config.loss.intra_weight) > 0
    boxes = mixes and step.method.config.mixing.mask != config.mixing.mask
    return [
        f"{config.preset} · {config.method} · recipe {config.recipe} · {config.max_steps} steps · {run_dir}",
        f"{config.model.backbone} · {getattr(step.student, 'title', '')} · {len(domains.classes)} classes"
        f" · {step.device.type} · {precision}, channels-last",
        *describe_class_weights(step, domains.classes.names),
        *filter(None, [warmup_note(config.optim, config.max_steps)]),
        *(["two classes: boxes are pasted in place of classes (--mixing.two-classes)"] if boxes else []),
    ]
