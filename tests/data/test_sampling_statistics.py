"""What the sampler draws in the long run: classes, images, positions and flips, by chi-square at fixed seeds.

A statistic is given as its normal score (Wilson-Hilferty): beyond LIMIT one right sampler in 4,000 would fall. Where it
can, a test also shows that a sampler that is a little wrong would be far beyond it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
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


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A prepared folder, whose index holds the pixels of each class."""
    root = tmp_path_factory.mktemp("statistics")
    for image, label in enumerate(LABELS):
        make.save(make.coordinates(SIZE, image), root / "downloaded" / "images" / f"{image:02d}.png")
        make.save(label, root / "downloaded" / "labels" / f"{image:02d}.png")
    config = DatasetConfig(images="images", labels="labels", class_names=CLASSES)
    prepare(make_plan(config, root / "downloaded", root / "raw", splits=("train",)), jobs=1)
    return open_dataset(config, root / "raw", "train")


def _score(observed: Any, expected: Any, freedom: int | None = None) -> float:
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


def _independent(table: Any) -> float:
    """The same for rows and columns of a table of counts that should not know of each other."""
    counts = np.asarray(table, float)
    rows, columns = counts.sum(1, keepdims=True), counts.sum(0, keepdims=True)
    return _score(counts, rows * columns / counts.sum(), (len(counts) - 1) * (counts.shape[1] - 1))


def _rare(dataset: Dataset, temperature: float, min_px: int = 3000) -> RareClasses:
    counts = class_pixel_counts(dataset)
    return RareClasses(counts, temperature=temperature, min_px=min_px, class_names=CLASSES)


def _sampler(dataset: Dataset, rules: CropRules = CropRules(CROP), **more: Any) -> Sampler:  # noqa: B008
    return Sampler(dataset, rules, **{"seed": 0, "stream": 0, **more})


def _images(draws: Sequence[Draw], count: int = IMAGES) -> NDArray[np.int64]:
    """How often each image was drawn."""
    return np.bincount([int(draw.sample.name) for draw in draws], minlength=count)


# ---- rare class sampling, from the labels themselves


def _class_probabilities(temperature: float) -> NDArray[np.float64]:
    """softmax((1 - f) / T) of the shares of the labeled pixels (DAFormer eq. 4 and 5)."""
    pixels = np.stack([np.bincount(label.ravel(), minlength=256)[: len(CLASSES)] for label in LABELS]).sum(0)
    weights = np.exp((1 - pixels / pixels.sum()) / temperature)
    return weights / weights.sum()


def _image_probabilities(temperature: float) -> NDArray[np.float64]:
    """Uniform among the images of more than 3,000 px of the class, or those that hold it where there is none."""
    expected = np.zeros(IMAGES)
    for number, probability in enumerate(_class_probabilities(temperature)):
        pixels = np.array([np.count_nonzero(label == number) for label in LABELS])
        holders = np.flatnonzero(pixels > 3000) if pixels.max() > 3000 else np.flatnonzero(pixels)
        expected[holders] += probability / len(holders)
    return expected


def test_the_labels_lie_on_both_sides_of_the_rule_of_3000_pixels() -> None:
    """So that the tests below can tell."""
    pixels = np.array([[np.count_nonzero(label == number) for label in LABELS] for number in range(len(CLASSES))])
    enough = [set(np.flatnonzero(row > 3000).tolist()) for row in pixels]
    assert enough[BUS] == {0, 1, 2} and enough[SIGN] == {4, 7, 8, 9, 10} and enough[DOG] == set()
    assert pixels[BUS, 3] == pixels[SIGN, 5] == 3000
    assert all(0 < len(enough[number]) < IMAGES for number in (0, 1))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("temperature", [0.08, 0.3])
def test_classes_and_their_images_are_drawn_by_the_formula(dataset: Dataset, temperature: float, seed: int) -> None:
    sampler = _sampler(dataset, labeled=False, seed=seed, rare_classes=_rare(dataset, temperature))
    drawn = _images([sampler.draw(number) for number in range(8000)])
    assert _score(drawn, _image_probabilities(temperature)) < LIMIT
    for factor in (0.7, 1.5):  # another temperature shows
        assert _score(drawn, _image_probabilities(temperature * factor)) > LIMIT


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


def test_the_class_of_each_draw_follows_the_formula_and_its_image_is_uniform(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    rare, spy = _rare(dataset, 0.3), Spy()
    spy.watch(rare, monkeypatch)
    draws = spy.draws(_sampler(dataset, labeled=False, rare_classes=rare), 10_000)
    classes = np.array(spy.classes)
    assert _score(np.bincount(classes, minlength=len(CLASSES)), _class_probabilities(0.3)) < LIMIT
    assert _score(np.bincount(classes, minlength=len(CLASSES)), np.ones(len(CLASSES))) > 3 * LIMIT
    images = np.array([int(draw.sample.name) for draw in draws])
    for number in range(len(CLASSES)):
        pixels = np.array([np.count_nonzero(label == number) for label in LABELS])
        holders = pixels > 3000 if number != DOG else pixels > 0
        assert _score(np.bincount(images[classes == number], minlength=IMAGES), holders) < LIMIT
    followed = np.zeros((len(CLASSES), len(CLASSES)))
    np.add.at(followed, (classes[:-1], classes[1:]), 1)
    assert _independent(followed) < LIMIT  # of the draw before


# ---- crops


def _crop(draw: Draw, anchor: tuple[int, int]) -> NDArray[np.uint8]:
    return LABELS[int(draw.sample.name)][anchor[0] : anchor[0] + CROP[0], anchor[1] : anchor[1] + CROP[1]]


def _share(crop: NDArray[np.uint8]) -> float:
    counts = np.bincount(crop.ravel(), minlength=256)[:255]
    return float(counts.max() / counts.sum())


@pytest.mark.parametrize("share", [1.0, 0.75, 0.6])
@pytest.mark.parametrize("wanted_px", [None, 300, 600])
def test_a_crop_keeps_the_rules_whenever_one_of_the_tries_does(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, share: float, wanted_px: int | None
) -> None:
    """The rules of the class drawn and of the largest share, alone and together; then it is the first such try."""
    rare = _rare(dataset, 1.0) if wanted_px is not None else None
    spy = Spy()
    spy.watch(rare, monkeypatch)
    rules = CropRules(CROP, max_class_share=share, min_class_px=wanted_px or 0, tries=10)
    draws = spy.draws(_sampler(dataset, rules, rare_classes=rare), 1500)
    kept = rescued = 0
    for place, (draw, tried) in enumerate(zip(draws, spy.tried, strict=True)):
        crops = [_crop(draw, anchor) for anchor in tried]

        def has_class(crop: NDArray[np.uint8], place: int = place) -> bool:
            return wanted_px is None or np.count_nonzero(crop == spy.classes[place]) > wanted_px

        good = [has_class(crop) and _share(crop) <= share for crop in crops]
        chosen = _crop(draw, draw.anchor)
        assert draw.label is not None
        np.testing.assert_array_equal(draw.label[:, ::-1] if draw.flip else draw.label, chosen)
        if any(good):
            assert draw.anchor == tried[good.index(True)]
            assert len(tried) == good.index(True) + 1  # and no try is made in vain
        else:
            assert len(tried) == rules.tries
            assert has_class(chosen) == any(map(has_class, crops))  # the class comes first
        kept += any(good)
        rescued += any(good) and not good[0]
    assert kept > 0.2 * len(draws)
    assert (rescued > 0.05 * len(draws)) == (share < 1 or wanted_px is not None)


@pytest.mark.parametrize("tries", [1, 3])
def test_as_many_crops_keep_the_rule_as_so_many_tries_find(dataset: Dataset, tries: int) -> None:
    """A share of q positions keeps it: 1 - (1 - q)^tries of the crops do."""
    one = dataset.with_samples([dataset.samples[8]])
    rules = CropRules(CROP, max_class_share=0.75, tries=tries)
    sampler = _sampler(one, rules)
    good = np.mean([_share(_crop(sampler.draw(0), anchor)) <= 0.75 for anchor in _anchors()])
    expected = 1 - (1 - good) ** tries
    assert 0.1 < good < 0.5
    count = 3000
    labels = [sampler.draw(number).label for number in range(count)]
    kept = sum(_share(label) <= 0.75 for label in labels if label is not None)
    assert abs(kept - count * expected) < LIMIT * (count * expected * (1 - expected)) ** 0.5


def _anchors() -> list[tuple[int, int]]:
    return [(y, x) for y in range(SIZE[0] - CROP[0] + 1) for x in range(SIZE[1] - CROP[1] + 1)]


def _positions(draws: Sequence[Draw], cells: int) -> NDArray[np.float64]:
    """Counts of flip x image x (row, column of the position, in so many stretches)."""
    table = np.zeros((2, IMAGES, cells, cells))
    for draw in draws:
        y, x = (a * cells // (s - c + 1) for a, s, c in zip(draw.anchor, SIZE, CROP, strict=True))
        table[int(draw.flip), int(draw.sample.name), y, x] += 1
    return table


def _usual(cells: int) -> NDArray[np.float64]:
    """How many positions lie in each cell."""
    sides = [
        np.bincount(np.arange(s - c + 1) * cells // (s - c + 1), minlength=cells)
        for s, c in zip(SIZE, CROP, strict=True)
    ]
    return np.multiply.outer(*sides).astype(float)


@pytest.mark.parametrize(
    ("labeled", "rules", "rare"),
    [
        (False, CropRules(CROP), False),
        (True, CropRules(CROP, tries=10), False),
        (True, CropRules(CROP, max_class_share=0.999999, min_class_px=-1, tries=1), True),
        (True, CropRules(CROP, min_class_px=-1, tries=10), True),
    ],
    ids=["unlabeled", "no-rule", "one-try", "a-rule-that-every-crop-keeps"],
)
def test_positions_are_uniform_whatever_the_image_and_the_flip(
    dataset: Dataset, labeled: bool, rules: CropRules, rare: bool
) -> None:
    classes = _rare(dataset, 1.0) if rare else None
    sampler = _sampler(dataset, rules, labeled=labeled, rare_classes=classes)
    table = _positions([sampler.draw(number) for number in range(9800)], cells=7)
    assert _score(table.sum((0, 1)), _usual(7)) < LIMIT
    assert _score(table.sum(1), np.stack([_usual(7)] * 2)) < LIMIT
    coarse = table[:, :, :6, :6].reshape(2, IMAGES, 2, 3, 2, 3).sum((0, 3, 5)).reshape(IMAGES, 4)
    assert _independent(coarse[coarse.sum(1) > 0]) < LIMIT
    assert _independent(table.sum((2, 3)).T[table.sum((0, 2, 3)) > 0]) < LIMIT  # flips, of the image


def test_positions_are_uniform_among_those_that_keep_the_rule(dataset: Dataset) -> None:
    """With tries enough: a rule chooses, it does not lean to one side."""
    one = dataset.with_samples([dataset.samples[8]])
    sampler = _sampler(one, CropRules(CROP, max_class_share=0.75, tries=200))
    draws = [sampler.draw(number) for number in range(4000)]
    usual = np.zeros((6, 6))
    for y, x in _anchors():
        keeps = _share(_crop(draws[0], (y, x))) <= 0.75
        usual[y * 6 // (SIZE[0] - CROP[0] + 1), x * 6 // (SIZE[1] - CROP[1] + 1)] += keeps
    found = _positions(draws, 6).sum((0, 1))
    often = usual * 4000 / usual.sum() >= 5
    assert _score(found[often], usual[often]) < LIMIT
    assert _score(found, _usual(6)) > 3 * LIMIT


# ---- flips and epochs


@pytest.mark.parametrize("probability", [0.5, 0.2])
def test_flips_come_with_their_probability_and_without_memory(dataset: Dataset, probability: float) -> None:
    """Of the sample before, and of the same sample of another stream."""
    one, other = (_sampler(dataset, labeled=False, stream=stream, flip_probability=probability) for stream in (0, 1))
    flips = np.array([[s.draw(number).flip for number in range(7000)] for s in (one, other)], int)
    for row in flips:
        assert _score(np.bincount(row, minlength=2), [1 - probability, probability]) < LIMIT
    for a, b in ((flips[0, :-1], flips[0, 1:]), (flips[0], flips[1])):
        table = np.zeros((2, 2))
        np.add.at(table, (a, b), 1)
        expected = np.outer(*([1 - probability, probability],) * 2)
        assert _score(table, expected) < LIMIT


def test_every_order_of_an_epoch_is_as_likely_and_holds_every_image_once(dataset: Dataset) -> None:
    count, epochs = 7, 1400
    sampler = _sampler(dataset.with_samples(dataset.samples[:count]), labeled=False)
    drawn = [int(sampler.draw(number).sample.name) for number in range(count * epochs)]
    orders = np.array(drawn).reshape(epochs, count)
    assert (np.sort(orders, axis=1) == np.arange(count)).all()
    places = np.zeros((count, count))
    np.add.at(places, (orders, np.arange(count)[None]), 1)
    assert _score(places, np.ones((count, count))) < LIMIT
    ends = np.zeros((count, count))
    np.add.at(ends, (orders[:-1, -1], orders[1:, 0]), 1)
    assert _score(ends, np.ones((count, count))) < LIMIT  # the end of an epoch and the start of the next


# ---- damaged images


@pytest.mark.parametrize("temperature", [None, 0.2], ids=["shuffled", "by-rare-class"])
def test_what_stands_in_for_damaged_images_is_drawn_like_the_others(
    dataset: Dataset, temperature: float | None
) -> None:
    gone = (0, 8, 13)
    sampler = _sampler(
        dataset,
        labeled=False,
        rare_classes=None if temperature is None else _rare(dataset, temperature),
        skip_damaged=True,
        damaged=[dataset.samples[image].image for image in gone],
    )
    drawn = _images([sampler.draw(number) for number in range(14 * 500)])
    expected = np.ones(IMAGES) if temperature is None else _image_probabilities(temperature)
    expected[list(gone)] = 0
    assert _score(drawn, expected) < LIMIT
