"""Train a network for a target domain of which few images are labeled.

    iidm train --amp                                     built-in data, minutes on 2 CPU cores
    iidm train --preset camvid-dusk --source-root DIR --target-root DIR --model.weights FILE --amp
    iidm train --preset gta5-cityscapes-100 --source-root GTA5 --target-root CITYSCAPES --amp
    iidm train --resume RUN [--max-steps MORE]           continues bit-exactly on CPU
    iidm train --list-presets | --list-methods | --help

The run folder holds config.json, splits/, metrics.jsonl, tensorboard/, previews/, curves.png, checkpoints/ and, at the
end, results.json and results.txt.
"""

from __future__ import annotations

if __name__ == "__main__":  # first: it reads the command line before anything that takes seconds to import
    from iidm.command import run_command

    run_command("train")

import shlex
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from iidm.cli import parse_config
from iidm.config import Config
from iidm.data import Domains, TrainLoader, check_data, open_domains, slow_reading_notes
from iidm.engine.checkpoint import find_checkpoint
from iidm.engine.curves import save_curves
from iidm.engine.interrupt import InterruptFlag
from iidm.engine.log import Progress, RunLog, check_finite
from iidm.engine.norm_statistics import NormStatistics
from iidm.engine.optim import learning_rate_factor, set_learning_rate
from iidm.engine.profiler import profiled
from iidm.engine.runtime import keep_freed_memory, machine_info, pick_device, seed_everything
from iidm.evaluation import evaluate_networks, target_statistics, write_results
from iidm.kernels import set_implementation
from iidm.method import TrainStep
from iidm.previews import save_previews
from iidm.runs import build_step, describe_class_weights, load_state, prepare_run_dir, resume_notes, save_state
from iidm.types import StepOutput, UserError


def main(argv: Sequence[str]) -> None:
    """Entry point: resolve the configuration, then run it."""
    config, resume = parse_config(argv)
    run(config, resume)


def run(config: Config, resume: Path | None = None) -> Path:
    """Train, evaluate and write everything of one run; returns its folder."""
    started = time.time()
    device = pick_device(config.device)
    seed_everything(config.seed)
    keep_freed_memory()
    notes = [choose_kernels(config, device)]
    with Progress("drawing scenes or labels, once", config.quiet) as progress:
        domains = open_domains(config, progress=progress)
    with Progress("reading the labels, once", config.quiet) as progress:
        checked = check_data(domains, config.data, progress)
    notes += [*domains.notes, *checked.notes, *slow_reading_notes(domains)]
    checkpoint = find_checkpoint(resume) if resume else None
    step, origin = build_step(config, domains, device, checkpoint)
    statistics, note = target_statistics(config, domains.plain_target, step.networks, step.amp_dtype, checked.damaged)
    run_dir = prepare_run_dir(config, domains, resume)
    notes += resume_notes(config, run_dir) if resume else []
    start_step, seconds_before = load_state(checkpoint, step) if checkpoint else (0, 0.0)
    started -= seconds_before
    with RunLog(
        run_dir,
        total_steps=config.max_steps,
        start_step=start_step,
        quiet=config.quiet,
        tensorboard=config.log.tensorboard,
    ) as log:
        for line in [*describe(config, domains, step, run_dir), *origin, note, *notes]:
            log.note(line)
        if resume:
            log.note(f"resumed {checkpoint} at step {start_step}" if checkpoint else "no checkpoint yet: step 0")
        if start_step < config.max_steps:
            with TrainLoader(
                domains,
                config.data,
                seed=config.seed,
                device=device,
                start_step=start_step * config.step.accumulate,
                strategy=config.mixing.strategy,
                damaged=checked.damaged,
            ) as loader:
                train(step, loader, log, run_dir, domains, statistics, start_step, started)
        else:
            log.note(f"all {config.max_steps} steps are done; its scores are computed again")
    scores = {}
    if domains.val is not None:
        with statistics.applied(step.networks):
            scores = evaluate_networks(step.networks, domains.val, config, step.amp_dtype)
    save_curves(run_dir)
    seconds = time.time() - started
    facts = {"seconds": round(seconds, 1), "steps": config.max_steps, "machine": machine_info()}
    print(write_results(run_dir, scores, len(domains.val.samples) if domains.val else 0, facts))
    print(f"time taken: {seconds / 60:.1f} min\neverything lies in: {run_dir}")
    return run_dir


def choose_kernels(config: Config, device: torch.device) -> str:
    """Which implementation the ops run as, in one line; a wish that cannot be met ends the run."""
    try:
        return set_implementation(config.kernels, device)
    except RuntimeError as error:
        raise UserError(str(error)) from None


def describe(config: Config, domains: Domains, step: TrainStep, run_dir: Path) -> list[str]:
    """What this run is, in a few lines."""
    precision = str(step.amp_dtype).removeprefix("torch.") if step.amp_dtype else "float32"
    return [
        f"{config.preset} · {config.method} · recipe {config.recipe} · {config.max_steps} steps · {run_dir}",
        f"{config.model.backbone} · {getattr(step.student, 'title', '')} · {len(domains.classes)} classes"
        f" · {step.device.type} · {precision}, channels-last",
        *describe_class_weights(step, domains.classes.names),
    ]


def train(
    step: TrainStep,
    loader: TrainLoader,
    log: RunLog,
    run_dir: Path,
    domains: Domains,
    statistics: NormStatistics,
    start_step: int,
    started: float,
) -> None:
    """The loop. Ctrl-C ends it after a checkpoint; a damaged image ends it after a checkpoint too."""
    config = step.config
    steps_left = config.max_steps - start_step
    profiler = profiled(config.profile, run_dir / "profile", log.note, steps_left=steps_left)
    with InterruptFlag() as interrupted, profiler as step_is_done:
        stream = iter(loader)
        for number in range(start_step, config.max_steps):
            try:
                batches = [next(stream) for _ in range(config.step.accumulate)]
            except UserError as error:
                with statistics.applied(step.networks) as own:
                    save_state(step, number, run_dir, domains, time.time() - started, own)
                raise UserError(f"{error} Mend it, then go on with {resume_words(run_dir)}") from None
            factor = learning_rate_factor(number, config.optim, config.max_steps)
            set_learning_rate(step.optimizer, factor)
            out = step(batches, number)
            step_is_done()
            done = number + 1
            last, stop = done == config.max_steps, interrupted.set
            save = is_due(done, config.log.checkpoint_every) or last or stop
            if done % config.log.every == 0 or save:
                # Before the checkpoint too: one of broken weights would push out those that are whole.
                values = read_values(out, number, run_dir)
            if done % config.log.every == 0 or last:
                log.log(number, {**values, "lr": config.optim.lr * factor}, wait_ms=loader.mean_wait_ms())
            draw = is_due(done, config.log.preview_every) or last
            score = is_due(done, config.log.eval_every) and not last
            if draw or score or save:
                with statistics.applied(step.networks) as own:
                    if draw:
                        save_previews(run_dir, done, batches[-1], out, step, domains, log)
                    if score and domains.val is not None:
                        networks = {"teacher": step.teacher.network}
                        scores = evaluate_networks(networks, domains.val, config, step.amp_dtype)
                        log.log(number, {"miou": scores["teacher"].miou})
                    if save:
                        save_state(step, done, run_dir, domains, time.time() - started, own)
            if stop:
                raise UserError(f"Stopped after step {done}; everything is saved. Go on with {resume_words(run_dir)}")


def is_due(done: int, every: int) -> bool:
    """Whether something that happens every so many steps happens after `done` of them; 0 is never."""
    return every > 0 and done % every == 0


def resume_words(run_dir: Path) -> str:
    """What continues a run, as a shell reads it."""
    return f"--resume {shlex.quote(str(run_dir))}"


def read_values(out: StepOutput, number: int, run_dir: Path) -> dict[str, float]:
    """Read the step's scalars (the loop's only host synchronisation); stop on NaN."""
    names = (*out.losses._fields, "quality")
    read = torch.stack([*out.losses, out.quality]).tolist()
    values = dict(zip(names, read, strict=True))
    check_finite(values, number, run_dir)
    return {f"loss_{k}" if k != "quality" else k: v for k, v in values.items()}
