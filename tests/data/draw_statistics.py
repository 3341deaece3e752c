"""Images whose classes are known, and how far what a sampler draws of them lies from what it should draw.

A statistic is given as its normal score (Wilson-Hilferty): beyond LIMIT one right sampler in 4,000 would fall. Where it
can, a test also shows that a sampler that is a little wrong would be far beyond it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import make_coordinates as make
import numpy as np
import pytest
from numpy.typing import NDArray

from iidm.config import DatasetConfig
from iidm.data.datasets.dataset import Dataset, open_dataset
from iidm.data.datasets.statistics import class_pixel_counts
from iidm.data.loading import crops
from iidm.data.loading.crops import CropRules, random_anchor
from iidm.data.loading.sampling import Draw, RareClasses, Sampler
from iidm.data.preparation.plan import make_plan, prepare

LIMIT = 3.5
SIZE = (80, 100)
"""(H, W) of every image; their 8,000 pixels are worth a rule of 3,000."""
CLASSES = ("road", "sky", "bus", "sign", "dog")
BUS, SIGN, DOG = 2, 3, 4
BLOCKS = {
    BUS: {0: (60, 90), 1: (50, 70), 2: (50, 61), 3: (50, 60), 4: (40, 60)},
    SIGN: {4: (40, 80), 5: (50, 60), 6: (30, 50), 7: (60, 60), 8: (70, 80), 9: (55, 55), 10: (64, 64), 1: (10, 10)},
    DOG: {9: (15, 20), 11: (20, 30)},
}
"""Class -> image -> (H, W) of its block. Two of the buses and three of the signs have 3,000 px or less, one each
3,000; no dog has as many."""
IMAGES = 14
CROP = (32, 40)


def _label(image: int) -> NDArray[np.uint8]:
    label = np.zeros(SIZE, np.uint8)
    label[: 24 + 2 * image] = 1
    label[-3:, -5:] = 255
    for place, (number, blocks) in enumerate(BLOCKS.items()):
        if image in blocks:
            height, width = blocks[image]
            y, x = ((0, 0), (SIZE[0] - height, SIZE[1] - width), (0, SIZE[1] - width))[place]
            label[y : y + height, x : x + width] = number
    return label


LABELS = [_label(image) for image in range(IMAGES)]


def write_dataset(root: Path) -> Dataset:
    """A prepared folder, whose index holds the pixels of each class."""
    for image, label in enumerate(LABELS):
        make.save(make.coordinates(SIZE, image), root / "downloaded" / "images" / f"{image:02d}.png")
        make.save(label, root / "downloaded" / "labels" / f"{image:02d}.png")
    config = DatasetConfig(images="images", labels="labels", class_names=CLASSES)
    prepare(make_plan(config, root / "downloaded", root / "raw", splits=("train",)), jobs=1)
    return open_dataset(config, root / "raw", "train")


def normal_score(observed: Any, expected: Any, freedom: int | None = None) -> float:
    """How many standard deviations the chi-square of counts lies above what is usual."""
    seen, wanted = np.asarray(observed, float).ravel(), np.asarray(expected, float).ravel()
    assert (seen[wanted == 0] == 0).all(), "something was drawn that never should be"
    seen, wanted = seen[wanted > 0], wanted[wanted > 0]
    wanted = wanted * seen.sum() / wanted.sum()
    assert wanted.min() >= 5, "chi-square needs five expected of each"
    freedom = freedom or len(wanted) - 1
    spread = 2 / (9 * freedom)
    ratio = float(((seen - wanted) ** 2 / wanted).sum()) / freedom
    return float((ratio ** (1 / 3) - (1 - spread)) / spread**0.5)


def independence(table: Any) -> float:
    """The same for rows and columns of a table of counts that should not know of each other."""
    counts = np.asarray(table, float)
    rows, columns = counts.sum(1, keepdims=True), counts.sum(0, keepdims=True)
    return normal_score(counts, rows * columns / counts.sum(), (len(counts) - 1) * (counts.shape[1] - 1))


def rare_classes_of(dataset: Dataset, temperature: float) -> RareClasses:
    counts = class_pixel_counts(dataset)
    return RareClasses(counts, temperature=temperature, min_px=3000, class_names=CLASSES)


def sampler_of(dataset: Dataset, rules: CropRules = CropRules(CROP), **more: Any) -> Sampler:  # noqa: B008
    return Sampler(dataset, rules, **{"seed": 0, "stream": 0, **more})


def count_images(draws: Sequence[Draw]) -> NDArray[np.int64]:
    """How often each image was drawn."""
    return np.bincount([int(draw.sample.name) for draw in draws], minlength=IMAGES)


def class_probabilities(temperature: float) -> NDArray[np.float64]:
    """softmax((1 - f) / T) of the shares of the labeled pixels (DAFormer eq. 4 and 5)."""
    pixels = np.stack([np.bincount(label.ravel(), minlength=256)[: len(CLASSES)] for label in LABELS]).sum(0)
    weights = np.exp((1 - pixels / pixels.sum()) / temperature)
    return weights / weights.sum()


def image_probabilities(temperature: float) -> NDArray[np.float64]:
    """Uniform among the images of more than 3,000 px of the class, or those that hold it where there is none."""
    expected = np.zeros(IMAGES)
    for number, probability in enumerate(class_probabilities(temperature)):
        pixels = np.array([np.count_nonzero(label == number) for label in LABELS])
        holders = np.flatnonzero(pixels > 3000) if pixels.max() > 3000 else np.flatnonzero(pixels)
        expected[holders] += probability / len(holders)
    return expected


@dataclass
class Spy:
    """What a sampler looked at: the class of each draw, and every position that it tried."""

    classes: list[int] = field(default_factory=list)
    tried: list[list[tuple[int, int]]] = field(default_factory=list)

    def watch(self, rare: RareClasses | None, monkeypatch: pytest.MonkeyPatch) -> None:
        def anchor(*arguments: Any) -> tuple[int, int]:
            found = random_anchor(*arguments)
            self.tried[-1].append(found)
            return found

        monkeypatch.setattr(crops, "random_anchor", anchor)
        if rare is not None:
            draw = rare.draw

            def drawn(rng: np.random.Generator) -> tuple[int, int]:
                number, image = draw(rng)
                self.classes.append(number)
                return number, image

            monkeypatch.setattr(rare, "draw", drawn)

    def draws(self, sampler: Sampler, count: int) -> list[Draw]:
        found = []
        for number in range(count):
            self.tried.append([])
            found.append(sampler.draw(number))
        return found
