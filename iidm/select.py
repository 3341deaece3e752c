"""Choose the images that are worth labeling next.

    python -m iidm.select RUN --count 20                          of the run's unlabeled images, into RUN/label-next
    python -m iidm.select RUN --count 20 --images NEW --out DIR   of a folder
    python -m iidm.select RUN --count 20 --strategy even          to compare with

DIR gets new.txt (what to label, the first one first), labeled.txt (those of before and the new ones, for
--data.labeled-list), images/ (copies for a labeling tool), sheet.png to look at and scores.csv of all images. How they
are chosen: iidm/selection.
"""

from __future__ import annotations

if __name__ == "__main__":  # first: it reads the command line before anything that takes seconds to import
    from iidm.command import run_command

    run_command("select")

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from iidm.cli import SelectArguments, parse_arguments, read_config
from iidm.config import Config, sliding_window
from iidm.data import EvalLoader, target_classes, training_size_for
from iidm.data.datasets.splits import labeled_places
from iidm.data.files.common import counted, first_few
from iidm.engine.log import Progress
from iidm.engine.runtime import pick_device
from iidm.engine.windows import image_logits
from iidm.evaluation import normalize_image
from iidm.kernels.pseudo_label import pseudo_label
from iidm.models import Network
from iidm.runs import description_notes, load_network, open_run, run_precision
from iidm.selection import files
from iidm.selection.advice import next_round, where_labels_go
from iidm.selection.coverage import choose, image_scores
from iidm.selection.pool import Pool, open_pool
from iidm.selection.regions import joined, see
from iidm.types import UserError


@dataclass(frozen=True)
class Chosen:
    """What a strategy says."""

    order: list[int]
    """Places of the chosen images, the first one first."""
    reasons: list[tuple[int, ...]]
    """Of each, the classes that it was chosen for; empty where there is no reason."""
    columns: dict[str, NDArray[np.floating]]
    """Of all images, for scores.csv."""
    notes: list[str]


@dataclass(frozen=True)
class Networks:
    """A run's networks and how they compute."""

    config: Config
    student: Network
    teacher: Network
    amp_dtype: torch.dtype | None
    title: str


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    arguments = parse_arguments(SelectArguments, "select", argv)
    if arguments.count < 1:
        raise UserError(f"--count must be at least 1, not {arguments.count}.")
    networks = None
    if arguments.strategy in ("random", "even"):
        path = arguments.run / "config.json"
        if not path.is_file():
            raise UserError(f"{arguments.run} is no run: it has no config.json.")
        config = read_config(path)
    else:
        networks = load(arguments)
        config = networks.config
    pool = open_pool(config, arguments.run, arguments.images, arguments.target_root)
    for line in (*description_notes(arguments.run), *pool.notes):
        print(line, file=sys.stderr)
    there = int(pool.candidates.sum())
    if arguments.count > there:
        raise UserError(f"--count is {arguments.count}, but there {_are(there)} to choose from. Give at most {there}.")
    out = arguments.out or arguments.run / "label-next"
    files.create(out)
    chosen = by_position(pool, arguments) if networks is None else by_networks(pool, arguments, networks)
    files.write_scores(out, pool, chosen.order, chosen.columns)
    copies = files.copy_images(out, pool, chosen.order)
    shown = chosen.order[: files.MOST_SHOWN]
    names = [pool.names[place] for place in chosen.order]
    files.write_sheet(out, names, pictures(pool, shown, networks), chosen.reasons, target_classes(config))
    files.write_lists(out, pool, chosen.order)  # last: its presence says that the choice is whole
    report(arguments, config, pool, chosen, out, copies)


def load(arguments: SelectArguments) -> Networks:
    """Student and teacher of the run's newest checkpoint."""
    device = pick_device(arguments.device)
    config, checkpoint = open_run(arguments.run)
    count = len(target_classes(config))
    student, teacher = (load_network(config, checkpoint, name, count, device) for name in ("student", "teacher"))
    amp_dtype = run_precision(config, arguments.precision, device)
    return Networks(config, student, teacher, amp_dtype, f"student and teacher of {checkpoint}")


def by_position(pool: Pool, arguments: SelectArguments) -> Chosen:
    """The strategies that look at no image: of the candidates, sorted by name."""
    candidates = np.flatnonzero(pool.candidates)
    choice = "even" if arguments.strategy == "even" else "random"
    places = labeled_places(len(candidates), arguments.count, choice, arguments.seed)
    return Chosen(candidates[places].tolist(), [()] * arguments.count, {}, [])


def by_networks(pool: Pool, arguments: SelectArguments, networks: Networks) -> Chosen:
    """The strategies that ask what the networks see."""
    config = networks.config
    seen = []
    for part in pool.parts:
        height, width = training_size_for(config, part.image_size(part.samples[0]))
        with Progress("looking at the images", quiet=False) as progress:
            look = see(
                networks.student,
                networks.teacher,
                part,
                image_px=height * width,
                amp_dtype=networks.amp_dtype,
                normalize=normalize_image,
                progress=progress,
            )
        seen.append(look)
    whole = joined(seen)
    can_be_read = ~np.isnan(whole.disagreement)
    candidates = pool.candidates & can_be_read
    for line in whole.damaged:
        print(line, file=sys.stderr)
    there = int(candidates.sum())
    if arguments.count > there:
        raise UserError(f"--count is {arguments.count}, but only {there} of the images can be read; see above.")
    regions = whole.regions
    scores = np.where(can_be_read, image_scores(regions, pool.images), np.nan)
    weights = [regions.area * regions.uncertainty, regions.area]
    unsure, area = (np.bincount(regions.image, weights=own, minlength=pool.images) for own in weights)
    columns = {"score": scores, "uncertainty": unsure / np.maximum(area, 1e-9), "disagreement": whole.disagreement}
    notes = [f"looked at {counted(int(can_be_read.sum()), 'image')} with {networks.title}"]
    if whole.damaged:
        notes.append(f"left aside: {counted(len(whole.damaged), 'damaged image')}, named above")
    if arguments.strategy == "uncertainty":
        order = np.argsort(np.where(candidates, -scores, np.inf), kind="stable")[: arguments.count]
        return Chosen(order.tolist(), [()] * arguments.count, columns, notes)
    choice = choose(regions, pool.labeled & can_be_read, candidates, arguments.count)
    notes.append(
        f"what there is to learn from all images: labeled ones cover {choice.before:.0%} of it, with the chosen ones"
        f" {choice.after:.0%}"
    )
    return Chosen(choice.order, choice.reasons, columns, notes)


def pictures(
    pool: Pool, places: Sequence[int], networks: Networks | None
) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8] | None]]:
    """Each image uint8 [H,W,3] at training resolution, and the teacher's label uint8 [H,W] of it."""
    device = torch.device("cpu") if networks is None else next(networks.teacher.parameters()).device
    found: dict[int, tuple[NDArray[np.uint8], NDArray[np.uint8] | None]] = {}
    for own, part in pool.only(places):
        with EvalLoader(part, device=device) as batches:
            for place, batch in zip(own, batches, strict=True):
                label = None if networks is None else label_of(networks, batch.image)
                found[place] = batch.image[0].cpu().numpy(), label
    return [found[place] for place in places]


def label_of(networks: Networks, image: torch.Tensor) -> NDArray[np.uint8]:
    """uint8 [H,W]: the teacher's label of an image uint8 [1,H,W,3]."""
    align_corners, amp_dtype = networks.config.model.align_corners, networks.amp_dtype
    with torch.inference_mode():
        with torch.autocast(image.device.type, dtype=amp_dtype, enabled=amp_dtype is not None):
            windows = sliding_window(networks.config)
            logits = image_logits(networks.teacher, normalize_image(image), windows, align_corners=align_corners)
        size = (image.shape[1], image.shape[2])
        label: NDArray[np.uint8] = pseudo_label(logits, size, 0.0, align_corners=align_corners).label[0].cpu().numpy()
    return label


def report(
    arguments: SelectArguments, config: Config, pool: Pool, chosen: Chosen, out: Path, copies: Path | None
) -> None:
    """What was chosen and what comes next."""
    for line in chosen.notes:
        print(line)
    names, labeled = [pool.names[place] for place in chosen.order], int(pool.labeled.sum())
    there = int(pool.candidates.sum())
    print(f"chosen ({arguments.strategy}): {len(names)} of {there} unlabeled images, beside {labeled} labeled ones")
    print(f"  {first_few(names, 8)}")
    print(f"look at them: {out / files.SHEET}")
    missing = [place for place in chosen.order if not pool.has_label[place]]
    outside = [place for place in chosen.order if pool.is_outside(place)]
    step = 1
    if outside:
        print(
            f"{step}. {counted(len(outside), 'image')} of them lie outside of the run's images: put them there first."
        )
        step += 1
    if missing:
        root = arguments.target_root or config.target_root
        what = "them" if len(missing) == len(names) else f"{len(missing)} of them, the others have a label"
        listed = f"copies: {copies}, names: {out / files.NEW}" if copies else f"names: {out / files.NEW}"
        print(f"{step}. Label {what} ({listed}).")
        print(f"   {where_labels_go(config, root, is_prepared=pool.parts[0].prepared is not None)}")
        step += 1
    print(f"{step}. Train on, with {labeled + len(names)} labeled images:")
    print(f"   {next_round(config, arguments.run, out / files.LABELED)}")


def _are(count: int) -> str:
    return "is 1 image" if count == 1 else f"are {count} images"
