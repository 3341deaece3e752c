"""The chosen images with what the teacher says of them: a contact sheet, and files for a labeling tool."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..data import EvalLoader, PredictedLabel, write_annotations
from ..data.annotating.writing import AnnotationFormat
from ..data.files.common import counted
from ..engine.preview import PANEL_WIDTH, Panel, overlay, save_sheet
from .files import ANNOTATIONS, IMAGES, SHEET
from .networks import Networks
from .pool import Pool
from .strategies import Chosen

MOST_SHOWN = 100
"""Images on the contact sheet."""
COLUMNS = 4
"""Its panels in a row."""


class _Picture(NamedTuple):
    """A chosen image, reduced to about the size of a panel."""

    image: NDArray[np.uint8]
    """uint8 [h,w,3]."""
    label: NDArray[np.uint8] | None
    """uint8 [h,w]; None where no network looked."""


def show(out: Path, pool: Pool, chosen: Chosen, networks: Networks | None, form: AnnotationFormat | None) -> list[str]:
    """Write OUT/sheet.png and the labels of the copied images for a tool: LabelMe's files beside them, others in
    OUT/annotations.

    Args:
        form: None: no annotations.

    Returns: a line on the annotations.
    """
    pictures: dict[int, _Picture] = {}
    notes = []
    if networks is None or form is None:
        for _ in _looked_at(out, pool, chosen.order[:MOST_SHOWN], networks, pictures, full_size=False):
            pass
    else:
        labels = _looked_at(out, pool, chosen.order, networks, pictures, full_size=True)
        folder = out / (IMAGES if form == "labelme" else ANNOTATIONS)
        classes, unlabeled = pool.parts[0].classes, pool.parts[0].encoding.unlabeled_class
        written = write_annotations(form, folder, labels, classes, unlabeled=unlabeled)
        small = f"; {written.dropped} small ones went to their neighbours" if written.dropped else ""
        notes = [
            f"the teacher's labels to correct ({form}, {counted(written.regions, 'region')}{small}): {written.path}"
        ]
        if unlabeled is not None:
            notes.append(f"  what has no outline there is {classes.names[unlabeled]!r}, as training reads it")
    names = [pool.names[place] for place in chosen.order]
    shown = [pictures[place] for place in chosen.order[:MOST_SHOWN]]
    _write_sheet(out / SHEET, names, shown, chosen.reasons, pool)
    return notes


def _looked_at(
    out: Path,
    pool: Pool,
    places: Sequence[int],
    networks: Networks | None,
    pictures: dict[int, _Picture],
    *,
    full_size: bool,
) -> Iterator[PredictedLabel]:
    """Fill `pictures` with those of `places`; with `full_size` yield the label of each at its size on disk."""
    device = torch.device("cpu") if networks is None else networks.device
    for own, part in pool.only(places):
        with EvalLoader(part, device=device) as batches:
            for place, sample, batch in zip(own, part.samples, batches, strict=True):
                image: NDArray[np.uint8] = batch.image[0].cpu().numpy()
                label = None if networks is None else networks.label_of(batch.image, image.shape[:2])
                every = max(1, image.shape[1] // (2 * PANEL_WIDTH))
                small = None if label is None else label[::every, ::every].copy()
                pictures[place] = _Picture(image[::every, ::every].copy(), small)
                if networks is not None and full_size:
                    name = pool.copied_name(place)
                    whole = networks.label_of(batch.image, part.image_size(sample))
                    yield PredictedLabel(name, out / IMAGES / name, whole)


def _write_sheet(
    path: Path, names: Sequence[str], pictures: Sequence[_Picture], reasons: Sequence[Sequence[int]], pool: Pool
) -> None:
    classes = pool.parts[0].classes
    rows: list[list[Panel]] = [[]]
    for number, (name, picture, why) in enumerate(zip(names, pictures, reasons, strict=False), start=1):
        own = [Panel(f"{number}: {name}", picture.image)]
        if picture.label is not None:
            said = ", ".join(classes.names[k] for k in why)
            caption = f"for {said}" if said else "the teacher's label"
            own.append(Panel(caption, overlay(picture.image, picture.label, classes)))
        if len(rows[-1]) + len(own) > COLUMNS:
            rows.append([])
        rows[-1] += own
    more = f", the first {len(pictures)} of them" if len(pictures) < len(names) else ""
    save_sheet(path, rows, classes, f"{counted(len(names), 'image')} to label next{more}")
