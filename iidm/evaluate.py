"""Score a trained run.

    iidm evaluate RUN                                    its own validation images
    iidm evaluate RUN --images DIR --labels DIR          any other labeled images, labeled in the ids of the run's data
    iidm evaluate RUN --network student --json           one network, as JSON on stdout
    iidm evaluate RUN --statistics target                as a network for the target, if it was not saved so
    iidm evaluate RUN --mode slide --window 512 512      in overlapping windows, logits averaged

Tells the IoU of each class, mIoU and pixel accuracy, of student and teacher.
"""

from __future__ import annotations

if __name__ == "__main__":  # first: it reads the command line before anything that takes seconds to import
    from iidm.command import run_command

    run_command("evaluate")

import json
import sys
from collections.abc import Sequence

from iidm.cli import EvaluateArguments, parse_arguments
from iidm.config import sliding_window
from iidm.data import open_folder, open_plain_target, require_validation
from iidm.engine.checkpoint import read_metadata
from iidm.engine.metrics import score_table
from iidm.engine.norm_statistics import NormStatistics
from iidm.engine.runtime import pick_device
from iidm.evaluation import evaluate_networks, normalize_image, results_json, target_statistics, with_windows
from iidm.recipes import with_values
from iidm.runs import description_notes, load_network, open_run, run_precision
from iidm.types import UserError


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    arguments = parse_arguments(EvaluateArguments, "evaluate", argv)
    if (arguments.images is None) != (arguments.labels is None):
        raise UserError("--images and --labels go together: both folders, or none for the run's validation images.")
    device = pick_device(arguments.device)
    config, checkpoint = open_run(arguments.run)
    for line in description_notes(arguments.run):
        print(line, file=sys.stderr)
    config = with_windows(config, arguments.mode, arguments.window, arguments.stride)
    if arguments.images is not None and arguments.labels is not None:
        dataset = open_folder(config, arguments.images, arguments.labels)
    else:
        dataset = require_validation(config, arguments.target_root)
    for line in dataset.notes:
        print(line, file=sys.stderr)
    names = ["student", "teacher"] if arguments.network == "both" else [arguments.network]
    networks = {name: load_network(config, checkpoint, name, len(dataset.classes), device) for name in names}
    amp_dtype = run_precision(config, arguments.precision, device)
    if arguments.statistics == "target":
        config = with_values(config, {"eval": {"statistics": "target"}})
        plain_target = open_plain_target(config, target_root=arguments.target_root)
        if plain_target is None:
            raise UserError(
                "--statistics target needs the run's labeled or unlabeled target images, and there are none where they"
                " were. Name their data set with --target-root, or leave the statistics as saved."
            )
        statistics, note = target_statistics(config, plain_target, networks, amp_dtype)
    else:
        saved = read_metadata(checkpoint).get("statistics", "running")
        statistics, note = NormStatistics([], normalize_image, amp_dtype), f"BatchNorm statistics as saved: {saved}"
    with statistics.applied(networks):
        scores = evaluate_networks(networks, dataset, config, amp_dtype)
    if arguments.json:
        print(json.dumps(results_json(scores, len(dataset.samples)), indent=2))
    else:
        seen = sliding_window(config) or "whole images"
        print(f"{arguments.run} · {checkpoint.name} · {len(dataset.samples)} images of {dataset.name} · {seen}")
        print(note)
        print(score_table(scores))
