"""Source images that resemble the labeled target images: the subset that a run trains on (`--data.source-subset`).

The idea is that of SDSS (Kim et al. 2022, arXiv 2205.00312): the whole source may hold images that do not help, so a
small subset of relevant ones, chosen before training, saves time and adapts better, in front of any method. That is
what its abstract says. How it scores an image was not at hand, and no code of it is known to be public, so this is its
idea and not its formula. Chosen here:

- An image is its class shares: the pixels of each class over all labeled pixels, of the classes that the source has.
  Rare class sampling counts the same pixels, so nothing is read twice and nothing where the data is prepared. Where in
  the image a class lies is left aside: that would decode every label again.
- Two images are as far apart as the Hellinger distance of their shares. Its square roots keep road and sky from ruling:
  0 against 1 % of riders weighs more than 30 against 40 % of road.
- A source image is as near as the nearest labeled target image, so that each of those may have its own kind of source
  images, which a mean over all of them would not.
- Every class keeps an image, and up to `MIN_IMAGES_PER_CLASS` where half of the subset has room for them, if need be in
  place of nearer ones: rare class sampling would draw a class of a single image again and again.

All of it depends on the labels alone. A run that is resumed and every process of a run choose the same images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...config import DataConfig
from ...types import UserError
from .dataset import Dataset
from .statistics import class_pixel_counts, keep_counts, label_pixel_counts

MIN_IMAGES_PER_CLASS = 10
"""Images of each class that a subset keeps where the source has so many and there is room: as many as stand in for a
class in rare class sampling."""

_ROWS = 256
"""Source images that are compared at once: with 1,000 labeled images 2 MB, which a core's cache holds."""


def nearest_subset(source: Dataset, labeled: Dataset, data: DataConfig) -> tuple[Dataset, str]:
    """The share `data.source_subset` of the source images, nearest first, sorted by name.

    Args:
        labeled: target images, each with its label.
        data: the share, what counts as an image of a class (`rare_class_min_px`), and whether a damaged label is
            an error or the farthest of all (`skip_damaged`).

    Returns:
        the subset, and a line for the start of a run.

    Raises:
        UserError: a label that is missing or damaged; source and target labels that have no class in common.
    """
    assert data.source_subset is not None
    pixels = label_pixel_counts(source, skip_damaged=data.skip_damaged)
    counts = pixels[:, :-1]
    distances = label_distances(counts, class_pixel_counts(labeled, skip_damaged=data.skip_damaged))
    names = source.names
    number = max(1, int(data.source_subset * len(names) + 0.5))
    chosen = choose_subset(distances, counts, names, number, min_px=data.rare_class_min_px)
    subset = source.take(chosen)
    keep_counts(subset, pixels[chosen], skip_damaged=data.skip_damaged)
    note = (
        f"source: {len(chosen)} of {len(names)} images, those nearest to {len(labeled.samples)} labeled target images"
        f" (--data.source-subset {data.source_subset:g})"
    )
    lost = np.flatnonzero(counts.any(axis=0) & ~counts[chosen].any(axis=0))
    if len(lost):
        note += f"; too few to keep {', '.join(source.classes.names[c] for c in lost)}"
    return subset, note


def label_distances(source: NDArray[np.int64], target: NDArray[np.int64]) -> NDArray[np.float64]:
    """How far each source image is from the nearest target image, by class shares.

    H(s, t) = sqrt(sum_c (sqrt(s_c) - sqrt(t_c))^2 / 2) of two images' shares s and t: 0 for equal shares, 1 without a
    common class. It is summed class by class and not as a matrix product, whose rounding depends on the machine.

    Args:
        source: int64 [N,K] pixels of each class in each source image.
        target: int64 [M,K] the same of the target images; those without a pixel of the source's classes do not count.

    Returns:
        float64 [N] in 0..1; 1 for an image without labeled pixels.

    Raises:
        UserError: no target image has a pixel of a class that the source has.
    """
    held = source.any(axis=0)
    roots_s, roots_t = _root_shares(source[:, held]), _root_shares(target[:, held])
    roots_t = roots_t[roots_t.any(axis=1)]
    if not len(roots_t):
        raise UserError(
            "--data.source-subset compares the classes of source and labeled target images, but their labels have none"
            " in common. Check the id maps, or leave it out."
        )
    distances = np.ones(len(source))
    for start in range(0, len(source), _ROWS):
        part = roots_s[start : start + _ROWS]
        squares = np.zeros((len(part), len(roots_t)))
        for c in range(part.shape[1]):
            difference = np.subtract.outer(part[:, c], roots_t[:, c])
            squares += difference * difference
        distances[start : start + _ROWS] = np.sqrt(squares.min(axis=1) / 2)
    distances[~roots_s.any(axis=1)] = 1.0
    return np.minimum(distances, 1.0)


def choose_subset(
    distances: NDArray[np.float64], counts: NDArray[np.int64], names: Sequence[str], number: int, *, min_px: int
) -> list[int]:
    """The `number` nearest images, with some of every class among them.

    First each class is given the nearest image that holds it, then a second one, until each has
    `MIN_IMAGES_PER_CLASS` or all that there are, or half of the subset is taken; classes of few images come first,
    and one that has its number through the others' images takes none. The nearest of the rest fill up. So the subset
    is the nearest images and no others where these hold every class often enough, and no class is lost where `number`
    is at least the number of classes.

    Args:
        distances: float64 [N].
        counts: int64 [N,K] pixels of each class in each image.
        names: N names, which order images of equal distance.
        number: how many images, N at most.
        min_px: an image holds a class with more pixels than this, as in rare class sampling; with one pixel where no
            image has so many.

    Returns:
        Their rows, sorted.
    """
    order = np.array(sorted(range(len(names)), key=lambda i: (distances[i], names[i])), np.int64)
    holds = counts > min_px
    holds = np.where(holds.any(axis=0), holds, counts > 0)[order]
    taken = np.zeros(len(order), bool)
    few_images_first = np.argsort(holds.sum(axis=0), kind="stable")
    for wanted in range(1, MIN_IMAGES_PER_CLASS + 1):
        room = number if wanted == 1 else number // 2
        for c in few_images_first:
            if taken.sum() < room and holds[taken, c].sum() < wanted:
                taken[np.flatnonzero(holds[:, c] & ~taken)[:1]] = True
    taken[np.flatnonzero(~taken)[: number - int(taken.sum())]] = True
    return sorted(order[taken].tolist())


def _root_shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Square roots of each row's shares; zeros where it has no pixel."""
    return np.sqrt(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
