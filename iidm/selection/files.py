"""What a choice leaves in its folder: lists, scores, images and a contact sheet."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data.datasets.splits import write_list
from ..engine.preview import Panel, overlay, save_sheet
from ..types import ClassSet, UserError
from .pool import Pool

NEW, LABELED, SCORES, SHEET = "new.txt", "labeled.txt", "scores.csv", "sheet.png"
MOST_SHOWN = 100
"""Images on the contact sheet."""


def create(out: Path) -> None:
    """Make the folder. Raises UserError where it holds a choice already."""
    if (out / NEW).exists():
        raise UserError(f"{out} holds a choice already ({NEW}). Give another folder with --out.")
    out.mkdir(parents=True, exist_ok=True)


def write_lists(out: Path, pool: Pool, order: Sequence[int]) -> None:
    """new.txt, the first one first, and labeled.txt: those of before and the new ones, sorted by name."""
    write_list(out / NEW, (pool.names[place] for place in order))
    together = [*np.flatnonzero(pool.labeled).tolist(), *order]
    write_list(out / LABELED, sorted(pool.names[place] for place in together))


def write_scores(out: Path, pool: Pool, order: Sequence[int], columns: Mapping[str, NDArray[np.floating]]) -> None:
    """scores.csv, a line an image: name, rank of the chosen ones, whether it counts as labeled and has a label, and
    `columns` (float [N], NaN is left empty)."""
    rank = {place: number for number, place in enumerate(order, start=1)}
    with (out / SCORES).open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["name", "rank", "labeled", "has_label", *columns])
        for place, name in enumerate(pool.names):
            facts = [int(pool.labeled[place]), int(pool.has_label[place])]
            values = ["" if np.isnan(own[place]) else f"{own[place]:.5g}" for own in columns.values()]
            writer.writerow([name, rank.get(place, ""), *facts, *values])


def copy_images(out: Path, pool: Pool, order: Sequence[int]) -> Path | None:
    """Copy the chosen images to OUT/images, for a labeling tool; None for those of a prepared folder, which are not as
    the camera took them."""
    if any(pool.parts[0].prepared is not None and not pool.is_outside(place) for place in order):
        return None
    folder = out / "images"
    for place in order:
        sample = pool.sample(place)
        # The name may hold the ending already, where two images share the rest of it.
        name = sample.name.removesuffix(sample.image.suffix) + sample.image.suffix
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(sample.image, folder / name)
    return folder


def write_sheet(
    out: Path,
    names: Sequence[str],
    pictures: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8] | None]],
    reasons: Sequence[Sequence[int]],
    classes: ClassSet,
) -> None:
    """sheet.png: the chosen images in their order, beside what the teacher says of them.

    Args:
        pictures: image uint8 [H,W,3] and label uint8 [H,W], or None where no network looked.
        reasons: of each, the classes that it was chosen for; empty where there is no reason.
    """
    rows: list[list[Panel]] = [[]]
    for number, (name, (image, label), why) in enumerate(zip(names, pictures, reasons, strict=False), start=1):
        own = [Panel(f"{number}: {name}", image)]
        if label is not None:
            said = ", ".join(classes.names[k] for k in why)
            own.append(Panel(f"for {said}" if said else "the teacher's labels", overlay(image, label, classes)))
        if len(rows[-1]) + len(own) > 4:
            rows.append([])
        rows[-1] += own
    more = f", the first {len(pictures)} of them" if len(pictures) < len(names) else ""
    save_sheet(out / SHEET, rows, classes, f"{len(names)} images to label next{more}")
