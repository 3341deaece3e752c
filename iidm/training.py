"""The training loop: steps, what is read and written between them, and its ends."""

from __future__ import annotations

import math
import shlex
import time
from pathlib import Path

import torch
from torch import nn

from iidm.data import Domains, TrainLoader
from iidm.engine.interrupt import InterruptFlag
from iidm.engine.log import NoLog, check_finite
from iidm.engine.norm_statistics import NormStatistics
from iidm.engine.optim import learning_rate_factor, set_learning_rate
from iidm.engine.profiler import profiled
from iidm.engine.runtime import return_freed_memory
from iidm.evaluation import evaluate_networks
from iidm.method import TrainStep
from iidm.previews import save_previews
from iidm.ranks import ALONE, Ranks
from iidm.runs import save_state
from iidm.types import AgreedError, StepOutput, UserError


def train(
    step: TrainStep,
    loader: TrainLoader,
    log: NoLog,
    run_dir: Path,
    domains: Domains,
    statistics: NormStatistics,
    start_step: int,
    started: float,
) -> None:
    """The loop. Ctrl-C ends it after a checkpoint; a damaged image ends it after a checkpoint too. What one rank meets,
    all do at the same step. At its end the networks are as they are saved, with `statistics` applied."""
    config, ranks = step.config, step.ranks
    steps_left = config.max_steps - start_step
    profiler = profiled(config.profile if ranks.is_first else 0, run_dir / "profile", log.note, steps_left=steps_left)
    patience = config.log.checkpoint_minutes * 60 or math.inf
    saved_at = time.monotonic()
    with InterruptFlag() as interrupted, profiler as step_is_done:
        stream = iter(loader)
        for number in range(start_step, config.max_steps):
            problem = ""
            try:
                batches = [next(stream) for _ in range(config.step.accumulate)]
            except UserError as error:
                problem = str(error)
            if any(ranks.any(bool(problem))):
                log.sync()
                with statistics.applied(step.networks) as own:
                    save_state(step, number, run_dir, domains, time.time() - started, own)
                problem = next(filter(None, ranks.gather(problem)))
                raise AgreedError(f"{problem} Mend it, then go on with {resume_words(run_dir)}")
            factor = learning_rate_factor(number, config.optim, config.max_steps)
            set_learning_rate(step.optimizer, factor)
            out = step(batches, number)
            step_is_done()
            done = number + 1
            is_late = time.monotonic() - saved_at > patience
            last, (stop, hurry) = done == config.max_steps, ranks.any(interrupted.set, interrupted.save or is_late)
            save = is_due(done, config.log.checkpoint_every) or last or stop or hurry
            if done % config.log.every == 0 or save:
                # Before the checkpoint too: one of broken weights would push out those that are whole.
                values = read_values(out, number, run_dir, ranks)
            if save:
                require_finite(step.student, number, run_dir)
            if done % config.log.every == 0 or last:
                log.log(number, {**values, "lr": config.optim.lr * factor}, wait_ms=loader.mean_wait_ms())
            draw = is_due(done, config.log.preview_every) or last
            score = is_due(done, config.log.eval_every) and not last
            if draw or score or save:
                with statistics.applied(step.networks, keep=last) as own:
                    if draw and ranks.is_first:
                        save_previews(run_dir, done, batches[-1], out, step, domains, log)
                    if score and domains.val is not None:
                        networks = {"teacher": step.teacher.network}
                        scores = evaluate_networks(networks, domains.val, config, step.amp_dtype, ranks)
                        log.log(number, {"miou": scores["teacher"].miou})
                    if save:
                        log.sync()
                        save_state(step, done, run_dir, domains, time.time() - started, own)
                        interrupted.save, saved_at = False, time.monotonic()
                return_freed_memory()
            if hurry and not stop:
                log.note(f"saved after step {done}")
            if stop:
                raise AgreedError(f"Stopped after step {done}; everything is saved. Go on with {resume_words(run_dir)}")


def is_due(done: int, every: int) -> bool:
    """Whether something that happens every so many steps happens after `done` of them; 0 is never."""
    return every > 0 and done % every == 0


def resume_words(run_dir: Path) -> str:
    """What continues a run, as a shell reads it."""
    return f"--resume {shlex.quote(str(run_dir))}"


def require_finite(network: nn.Module, number: int, run_dir: Path) -> None:
    """Stop if the update of a step has broken the network: the step's losses were computed before it."""
    largest = torch.stack(torch._foreach_norm([p.detach() for p in network.parameters()], math.inf)).max()
    check_finite({"the largest weight after its update": largest.item()}, number, run_dir)


def read_values(out: StepOutput, number: int, run_dir: Path, ranks: Ranks = ALONE) -> dict[str, float]:
    """Read the step's scalars, means over the ranks (the loop's only host synchronisation); stop on NaN."""
    names = (*out.losses._fields, "quality")
    read = ranks.mean(torch.stack([*out.losses, out.quality])).tolist()
    values = dict(zip(names, read, strict=True))
    check_finite(values, number, run_dir)
    return {f"loss_{k}" if k != "quality" else k: v for k, v in values.items()}
