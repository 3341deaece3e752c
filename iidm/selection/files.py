"""What a choice leaves in its folder: lists, scores and copies of the images."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data.datasets.splits import write_list
from ..types import UserError
from .pool import Pool

NEW, LABELED, SCORES, SHEET, IMAGES = "new.txt", "labeled.txt", "scores.csv", "sheet.png", "images"
ANNOTATIONS = "annotations"


def create(out: Path) -> None:
    """Make the folder.

    Raises UserError where it holds a choice already, or something of the names of one: labels of the user's, whose
    folder this is, or images of a choice that was broken off, among which those of this one would get lost.
    """
    if (out / NEW).exists():
        raise UserError(f"{out} holds a choice already ({NEW}). Give another folder with --out.")
    there = [name for name in (IMAGES, ANNOTATIONS, LABELED, SCORES, SHEET) if (out / name).exists()]
    if there:
        raise UserError(
            f"{out} holds {', '.join(there)} and no whole choice. Give another folder with --out; if a choice was"
            " broken off there, remove them."
        )
    out.mkdir(parents=True, exist_ok=True)


@contextmanager
def removed_if_broken_off(out: Path) -> Iterator[None]:
    """A context in which a choice is written into a folder of `create`: after Ctrl-C or an error what was written of it
    is removed, and the next call finds its place free."""
    try:
        yield
    except BaseException:
        for path in (out / name for name in (IMAGES, ANNOTATIONS, LABELED, SCORES, SHEET)):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        raise


def write_labeled(out: Path, pool: Pool, order: Sequence[int]) -> None:
    """labeled.txt: the labeled images of before and the new ones, sorted by name."""
    together = [*np.flatnonzero(pool.labeled).tolist(), *order]
    write_list(out / LABELED, sorted(pool.names[place] for place in together))


def write_new(out: Path, pool: Pool, order: Sequence[int]) -> None:
    """new.txt, the first one first. Written last: it says that the choice is whole."""
    write_list(out / NEW, (pool.names[place] for place in order))


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
    folder = out / IMAGES
    for place in order:
        sample, name = pool.sample(place), pool.copied_name(place)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(sample.image, folder / name)
    return folder
