"""The images that one may choose from: those of a run's target without label, or some that a user names."""

from __future__ import annotations

import os
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..data import Dataset, find_images, open_training_target
from ..data.datasets.splits import read_list
from ..data.datasets.validation import open_validation
from ..data.files.common import counted, first_few
from ..data.files.whole import check_picture
from ..data.specs.described import find_spec
from ..types import Sample, UserError


@dataclass(frozen=True)
class Pool:
    """Labeled images and candidates, N in all."""

    parts: tuple[Dataset, ...]
    """Their images without labels, one part after the other: those of the target, and named ones that lie elsewhere."""
    names: list[str]
    labeled: NDArray[np.bool_]
    """bool [N]: those that the next run has anyway."""
    has_label: NDArray[np.bool_]
    """bool [N]: those that a label is there for, whether or not the run was to know."""
    notes: tuple[str, ...]
    """Lines on what was left aside."""
    image_suffix: str = ""
    """That the target's image files have at the end of their names."""

    @property
    def candidates(self) -> NDArray[np.bool_]:
        """bool [N]: those that may be chosen."""
        return ~self.labeled

    @property
    def images(self) -> int:
        """How many there are."""
        return len(self.names)

    def sample(self, place: int) -> Sample:
        """An image and its file."""
        first = len(self.parts[0].samples)
        return self.parts[0].samples[place] if place < first else self.parts[1].samples[place - first]

    def is_outside(self, place: int) -> bool:
        """Whether an image lies outside of the target's image folder."""
        return place >= len(self.parts[0].samples)

    def problem(self, place: int) -> str:
        """What is wrong with an image's file; empty where it can be read. Those of a prepared folder were read."""
        if self.parts[0].prepared is not None and not self.is_outside(place):
            return ""
        try:
            check_picture(self.sample(place).image, "image", decode=True)
        except UserError as error:
            message = str(error)
            return f"{message[0].upper()}{message[1:].rstrip('.')}."
        return ""

    def copied_name(self, place: int) -> str:
        """The path of an image's copy below OUT/images: its name with its ending, which the name may hold already. One
        from outside of the target's folder is called as an image there must be."""
        sample = self.sample(place)
        suffix = self.image_suffix if self.is_outside(place) else ""
        return sample.name.removesuffix(sample.image.suffix) + suffix + sample.image.suffix

    def only(self, places: Sequence[int]) -> list[tuple[list[int], Dataset]]:
        """Some images by part: their places, increasing, and the data set of them."""
        first, found = len(self.parts[0].samples), []
        for part, start in zip(self.parts, (0, first), strict=False):
            own = sorted(p for p in places if start <= p < start + len(part.samples))
            if own:
                found.append((own, part.take([p - start for p in own])))
        return found


def open_pool(config: Config, run_dir: Path, images: Sequence[Path], target_root: Path | None) -> Pool:
    """Open the target of a run.

    Labeled are the images that the run was told are labeled (its splits/labeled.txt); where it takes all that have a
    label, also those that have one now.

    Args:
        images: files and folders to choose from; empty: all training images of the target.

    Raises:
        UserError: the target's folder is not there, or no image is left to choose from.
    """
    target = open_training_target(config, target_root=target_root)
    names, has_label, places = target.names, target.has_label, target.places
    labeled = np.zeros(len(names), np.bool_)
    if config.data.labeled_list is None and config.data.labeled_count is None:
        labeled |= has_label
    notes = list(target.notes)
    kept = run_dir / "splits" / "labeled.txt"
    if kept.is_file():
        known = read_list(kept)
        labeled[[places[name] for name in known if name in places]] = True
        gone = [name for name in known if name not in places]
        if gone:
            notes.append(
                f"{counted(len(gone), 'labeled image')} of the run cannot be found any more: {first_few(gone)}"
            )
    suffix = find_spec(config.data.target).image_suffix
    pool = Pool((target.without_labels(),), list(names), labeled, has_label, tuple(notes), suffix)
    if images:
        val = open_validation(config, target_root=target_root)
        pool = _named(pool, target, set() if val is None else {val.origin(sample) for sample in val.samples}, images)
    if not pool.candidates.any():
        raise UserError(
            f"All {int(pool.labeled.sum())} training images of the target are labeled: there is none to choose. Name"
            " other images with --images FOLDER."
        )
    return pool


def _named(pool: Pool, target: Dataset, validating: Collection[Hashable], images: Sequence[Path]) -> Pool:
    """The labeled images of a pool and those of `images` that are none and do not validate (by `Dataset.origin`)."""
    found = find_images(images)
    chosen = [(path, name) for path, name in found.images if os.path.realpath(path) not in validating]
    inside = {os.path.realpath(sample.image): place for place, sample in enumerate(target.samples)}
    wanted = {inside[real] for path, _ in chosen if (real := os.path.realpath(path)) in inside}
    outside = [
        Sample(name.removesuffix(pool.image_suffix), path, None)
        for path, name in chosen
        if os.path.realpath(path) not in inside
    ]
    twice = [sample for sample in outside if sample.name in target.places]
    if twice:
        raise UserError(
            f"{twice[0].image} would be called {twice[0].name!r}, as an image of the run's target is. Rename it."
        )
    keep = np.array(sorted(wanted | set(np.flatnonzero(pool.labeled).tolist())), np.int64)
    notes = [*pool.notes, *found.notes]
    if len(chosen) < len(found.images):
        count = len(found.images) - len(chosen)
        notes.append(f"{counted(count, 'image')} of those named validate the run, and are not chosen")
    again = sum(bool(pool.labeled[place]) for place in wanted)
    if again:
        notes.append(f"{counted(again, 'image')} of those named are labeled already, and are not chosen")
    parts = [pool.parts[0].take(keep)]
    if outside:
        parts.append(replace(target, samples=tuple(outside), prepared=None))
    count = len(outside)
    return Pool(
        tuple(parts),
        [pool.names[place] for place in keep] + [sample.name for sample in outside],
        np.concatenate([pool.labeled[keep], np.zeros(count, np.bool_)]),
        np.concatenate([pool.has_label[keep], np.zeros(count, np.bool_)]),
        tuple(notes),
        pool.image_suffix,
    )
