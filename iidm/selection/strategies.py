"""The strategies of `iidm select`, each from a pool to the images to label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..data import training_size_for
from ..data.datasets.splits import labeled_places
from ..data.files.common import counted
from ..types import UserError
from .coverage import choose, image_scores
from .networks import Networks
from .pool import Pool
from .regions import Seen, joined, see


@dataclass(frozen=True)
class Chosen:
    """What a strategy says."""

    order: list[int]
    """Places of the chosen images, the first one first."""
    reasons: list[tuple[int, ...]]
    """Of each, the classes that it was chosen for; empty where there is no reason."""
    columns: dict[str, NDArray[np.floating[Any]]]
    """Of all images, for scores.csv; NaN for one that cannot be read."""
    notes: list[str]
    """Lines for a person."""
    damaged: tuple[str, ...] = ()
    """A line for each image that could not be read."""


def by_position(pool: Pool, count: int, strategy: Literal["random", "even"], seed: int) -> Chosen:
    """Candidates by their place among all, sorted by name; no images but the chosen ones are opened.

    Raises: UserError where damaged files leave fewer than `count`.
    """
    candidates, damaged = np.flatnonzero(pool.candidates), list[str]()
    while True:
        if count > len(candidates):
            raise _too_few(count, len(candidates), damaged)
        order = candidates[labeled_places(len(candidates), count, strategy, seed)].tolist()
        problems = {place: problem for place in order if (problem := pool.problem(place))}
        if not problems:
            return Chosen(order, [()] * count, {}, _left_aside(damaged), tuple(damaged))
        damaged += problems.values()
        candidates = np.setdiff1d(candidates, list(problems))


def look_at(pool: Pool, networks: Networks, progress: Callable[[int, int], None]) -> Seen:
    """What student and teacher see in all images of a pool.

    Args:
        progress: called with (images done, all).
    """
    parts, before = [], 0
    for part in pool.parts:
        height, width = training_size_for(networks.config, part.image_size(part.samples[0]))

        def tell(done: int, _: int) -> None:
            progress(before + done, pool.images)  # noqa: B023 (called before the next part)

        parts.append(see(networks, part, height * width, tell))
        before += len(part.samples)
    return joined(parts)


def by_networks(pool: Pool, seen: Seen, count: int, strategy: Literal["select", "uncertainty"]) -> Chosen:
    """Candidates by what the networks see in them.

    Raises: UserError where damaged files leave fewer than `count`.
    """
    regions, can_be_read = seen.regions, ~np.isnan(seen.disagreement)
    candidates = pool.candidates & can_be_read
    there = int(candidates.sum())
    if count > there:
        raise _too_few(count, there, seen.damaged)
    scores = np.where(can_be_read, image_scores(regions, pool.images), np.nan)
    unsure, area = (
        np.bincount(regions.image, weights=own, minlength=pool.images)
        for own in (regions.area * regions.uncertainty, regions.area)
    )
    uncertainty = np.where(can_be_read, unsure / np.maximum(area, 1e-9), np.nan)
    columns: dict[str, NDArray[np.floating[Any]]] = {
        "score": scores,
        "uncertainty": uncertainty,
        "disagreement": seen.disagreement,
    }
    notes = _left_aside(seen.damaged)
    if strategy == "uncertainty":
        order = np.argsort(np.where(candidates, -scores, np.inf), kind="stable")[:count].tolist()
        return Chosen(order, [()] * count, columns, notes, seen.damaged)
    choice = choose(regions, pool.labeled & can_be_read, candidates, count)
    notes.append(
        f"of what there is to learn, labeled images show {choice.before:.0%}; with the chosen ones it is"
        f" {choice.after:.0%}"
    )
    return Chosen(choice.order, choice.reasons, columns, notes, seen.damaged)


def _too_few(count: int, there: int, damaged: Sequence[str]) -> UserError:
    return UserError(
        f"--count is {count}, but only {there} of the images can be read. {damaged[0]} Mend or remove such files, or"
        " give a smaller number."
    )


def _left_aside(damaged: Sequence[str]) -> list[str]:
    return [f"left aside: {counted(len(damaged), 'damaged image')}, named above"] if damaged else []
