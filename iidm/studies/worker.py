"""One run of a study, in a process of its own: train or go on, then label the chosen validation images.

    python -m iidm.studies.worker --config FILE --run-dir RUN --labels DIR --pictures DIR --parent PID --strips NAME...

It is iidm.train with what only a study needs around it: it dies with the process that started it, it goes on where an
earlier one stopped, and it keeps predictions that outlive the checkpoint. What is there already is not done again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro

from iidm.cli import read_config, run_main
from iidm.config import Config
from iidm.engine.checkpoint import find_checkpoint
from iidm.engine.runtime import pick_device
from iidm.processes import end_with
from iidm.runs import choose_kernels
from iidm.studies.named_files import with_kept_descriptions
from iidm.studies.predictions import save_predictions
from iidm.train import run


@dataclass(frozen=True)
class Arguments:
    """One run of a study."""

    config: Path
    """The run's whole configuration."""
    run_dir: Path
    """Folder of the run."""
    labels: Path
    """Folder for its predictions."""
    pictures: Path
    """Folder for the images that they are of, and for the truth."""
    parent: int
    """Process id of the study."""
    strips: tuple[str, ...] = ()
    """Names of the validation images. Empty: evenly spaced ones."""


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    arguments = tyro.cli(Arguments, prog="python -m iidm.studies.worker", args=list(argv))
    # Killed, not interrupted: a second study may have started and would meet a run that is still saving.
    end_with(arguments.parent)
    config = replace(read_config(arguments.config), run_dir=arguments.run_dir)
    train(config, arguments.run_dir)
    checkpoint = find_checkpoint(arguments.run_dir)
    if checkpoint is None:
        print("no predictions: the run's checkpoints are gone")
    else:
        choose_kernels(config, pick_device(config.device))
        try:
            config = with_kept_descriptions(config, arguments.run_dir)
            save_predictions(config, checkpoint, arguments.labels, arguments.pictures, arguments.strips)
        except Exception as error:  # pictures are no reason to lose a run's results
            print(f"no predictions: {error}")


def train(config: Config, run_dir: Path) -> None:
    """The part of the run that is missing."""
    if read_results(run_dir) is not None:
        return
    if find_checkpoint(run_dir) is None and run_dir.exists():
        shutil.rmtree(run_dir)  # killed before anything was saved, perhaps while the folder was made
    run(with_kept_descriptions(config, run_dir), run_dir if run_dir.exists() else None)


def read_results(run_dir: Path) -> dict[str, Any] | None:
    """RUN/results.json, or None where it is not there or not whole."""
    try:
        results: dict[str, Any] = json.loads((run_dir / "results.json").read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return results


if __name__ == "__main__":
    run_main(main)
