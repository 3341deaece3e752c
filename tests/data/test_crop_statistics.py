"""Where the sampler's crops lie in the long run, and which rules they keep, by chi-square at fixed seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from draw_statistics import (
    CROP,
    IMAGES,
    LABELS,
    LIMIT,
    SIZE,
    Spy,
    independence,
    normal_score,
    rare_classes_of,
    sampler_of,
    write_dataset,
)
from numpy.typing import NDArray

from iidm.data.datasets.dataset import Dataset
from iidm.data.loading.crops import CropRules
from iidm.data.loading.sampling import Draw


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("statistics"))


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
    rare = rare_classes_of(dataset, 1.0) if wanted_px is not None else None
    spy = Spy()
    spy.watch(rare, monkeypatch)
    rules = CropRules(CROP, max_class_share=share, min_class_px=wanted_px or 0, tries=10)
    draws = spy.draws(sampler_of(dataset, rules, rare_classes=rare), 1500)
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
    sampler = sampler_of(one, rules)
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
    classes = rare_classes_of(dataset, 1.0) if rare else None
    sampler = sampler_of(dataset, rules, labeled=labeled, rare_classes=classes)
    table = _positions([sampler.draw(number) for number in range(9800)], cells=7)
    assert normal_score(table.sum((0, 1)), _usual(7)) < LIMIT
    assert normal_score(table.sum(1), np.stack([_usual(7)] * 2)) < LIMIT
    coarse = table[:, :, :6, :6].reshape(2, IMAGES, 2, 3, 2, 3).sum((0, 3, 5)).reshape(IMAGES, 4)
    assert independence(coarse[coarse.sum(1) > 0]) < LIMIT
    assert independence(table.sum((2, 3)).T[table.sum((0, 2, 3)) > 0]) < LIMIT  # flips, of the image


def test_positions_are_uniform_among_those_that_keep_the_rule(dataset: Dataset) -> None:
    """With tries enough: a rule chooses, it does not lean to one side."""
    one = dataset.with_samples([dataset.samples[8]])
    sampler = sampler_of(one, CropRules(CROP, max_class_share=0.75, tries=200))
    draws = [sampler.draw(number) for number in range(4000)]
    usual = np.zeros((6, 6))
    for y, x in _anchors():
        keeps = _share(_crop(draws[0], (y, x))) <= 0.75
        usual[y * 6 // (SIZE[0] - CROP[0] + 1), x * 6 // (SIZE[1] - CROP[1] + 1)] += keeps
    found = _positions(draws, 6).sum((0, 1))
    often = usual * 4000 / usual.sum() >= 5
    assert normal_score(found[often], usual[often]) < LIMIT
    assert normal_score(found, _usual(6)) > 3 * LIMIT
