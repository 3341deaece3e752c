"""Choose the images that are worth labeling next.

    iidm select RUN --count 20                          of the run's unlabeled images, into RUN/label-next
    iidm select RUN --count 20 --images NEW --out DIR   of a folder
    iidm select RUN --count 20 --strategy even          to compare with

DIR gets new.txt (what to label, the first one first), labeled.txt (those of before and the new ones, for
--data.labeled-list), images/ (copies for a labeling tool), annotations/ (the teacher's labels, to be corrected there),
sheet.png to look at and scores.csv of all images. How they are chosen: iidm/selection.
"""

from __future__ import annotations

if __name__ == "__main__":  # first: it reads the command line before anything that takes seconds to import
    from iidm.command import run_command

    run_command("select")

import sys
from collections.abc import Sequence
from pathlib import Path

from iidm.cli import SelectArguments, parse_arguments, read_config
from iidm.config import Config
from iidm.data import target_classes, with_kept_validation
from iidm.data.annotating.writing import AnnotationFormat
from iidm.data.files.common import counted, first_few
from iidm.engine.log import Progress
from iidm.engine.runtime import pick_device
from iidm.evaluation import normalize_image
from iidm.runs import description_notes, load_network, open_run, run_precision
from iidm.selection import files
from iidm.selection.advice import form_of_labels, next_round, where_labels_go
from iidm.selection.networks import Networks
from iidm.selection.pictures import show
from iidm.selection.pool import Pool, open_pool
from iidm.selection.strategies import Chosen, by_networks, by_position, look_at
from iidm.types import UserError


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    arguments = parse_arguments(SelectArguments, "select", argv)
    if arguments.count < 1:
        raise UserError(f"--count must be at least 1, not {arguments.count}.")
    if arguments.seed < 0:
        raise UserError(f"--seed must be 0 or more, not {arguments.seed}.")
    needs_networks = arguments.strategy in ("select", "uncertainty")
    networks = load(arguments) if needs_networks else None
    config = read_run(arguments.run) if networks is None else networks.config
    pool = open_pool(config, arguments.run, arguments.images, arguments.target_root)
    for line in (*description_notes(arguments.run), *pool.notes):
        print(line, file=sys.stderr)
    there = int(pool.candidates.sum())
    if arguments.count > there:
        are = "is 1 image" if there == 1 else f"are {there} images"
        raise UserError(f"--count is {arguments.count}, but there {are} to choose from. Give at most {there}.")
    out = arguments.out or arguments.run / "label-next"
    files.create(out)
    chosen = choose(pool, arguments, networks)
    for line in chosen.damaged:
        print(line, file=sys.stderr)
    with files.removed_if_broken_off(out):
        files.write_scores(out, pool, chosen.order, chosen.columns)
        files.write_labeled(out, pool, chosen.order)  # with scores.csv: by them a folder of images is known as none
        copies = files.copy_images(out, pool, chosen.order)
        form = annotation_form(arguments, config) if copies else None
        looked = [] if networks is None else [f"looked at {counted(pool.images, 'image')} with {networks.title}"]
        lines = [*looked, *chosen.notes, *show(out, pool, chosen, networks, form)]
        files.write_new(out, pool, chosen.order)
    print("\n".join([*lines, *report(arguments, config, pool, chosen, copies)]))


def load(arguments: SelectArguments) -> Networks:
    """Student and teacher of the run's newest checkpoint."""
    device = pick_device(arguments.device)
    config, checkpoint = open_run(arguments.run)
    count = len(target_classes(config))
    student, teacher = (load_network(config, checkpoint, name, count, device) for name in ("student", "teacher"))
    amp_dtype = run_precision(config, arguments.precision, device)
    return Networks(config, student, teacher, amp_dtype, normalize_image, f"student and teacher of {checkpoint}")


def read_run(run_dir: Path) -> Config:
    """The configuration of a run that may have no checkpoint."""
    if not (run_dir / "config.json").is_file():
        raise UserError(
            f"{run_dir} is no run: it has no config.json. Give the folder that iidm.train printed at its end."
        )
    return with_kept_validation(read_config(run_dir / "config.json"), run_dir)


def choose(pool: Pool, arguments: SelectArguments, networks: Networks | None) -> Chosen:
    """What the strategy says."""
    if networks is None:
        assert arguments.strategy == "random" or arguments.strategy == "even"
        return by_position(pool, arguments.count, arguments.strategy, arguments.seed)
    assert arguments.strategy == "select" or arguments.strategy == "uncertainty"
    with Progress("looking at the images", quiet=False) as progress:
        seen = look_at(pool, networks, progress)
    return by_networks(pool, seen, arguments.count, arguments.strategy)


def annotation_form(arguments: SelectArguments, config: Config) -> AnnotationFormat | None:
    """The form that was asked for; of `run` that of the target's labels, COCO where they are pictures."""
    if arguments.annotations == "none":
        return None
    if arguments.annotations != "run":
        return arguments.annotations
    kind = form_of_labels(config)
    return "cvat" if kind == "cvat" else "labelme" if kind == "labelme" else "coco"


def report(arguments: SelectArguments, config: Config, pool: Pool, chosen: Chosen, copies: Path | None) -> list[str]:
    """What was chosen and what comes next."""
    out = arguments.out or arguments.run / "label-next"
    names, labeled = [pool.names[place] for place in chosen.order], int(pool.labeled.sum())
    there = int(pool.candidates.sum())
    missing = sum(not pool.has_label[place] for place in chosen.order)
    outside = sum(pool.is_outside(place) for place in chosen.order)
    lines = [
        f"chosen ({arguments.strategy}): {len(names)} of {there} unlabeled images, beside {labeled} labeled ones",
        f"  {first_few(names, 8)}",
        f"look at them: {out / files.SHEET}",
    ]
    if copies is None:
        lines.append("no copies and no annotations: a prepared folder's images are not those that a labeling tool has")
    steps, is_prepared = [], pool.parts[0].prepared is not None
    if outside:
        lies, it = ("lies", "it") if outside == 1 else ("lie", "them")
        steps.append(f"{counted(outside, 'image')} of them {lies} outside of the run's image folder: copy {it} there.")
    if missing:
        what = "them" if missing == len(names) else f"{missing} of them, the others have a label"
        listed = f"copies: {copies}, names: {out / files.NEW}" if copies else f"names: {out / files.NEW}"
        root = arguments.target_root or config.target_root
        steps.append(f"Label {what} ({listed}).\n   {where_labels_go(config, root, is_prepared=is_prepared)}")
    moved = None if is_prepared else arguments.target_root  # else one that is prepared anew will be given
    command = next_round(config, arguments.run, out / files.LABELED, moved)
    steps.append(f"Train on, with {labeled + len(names)} labeled images:\n   {command}")
    return lines + [f"{number}. {step}" for number, step in enumerate(steps, start=1)]
