"""Which classes and images the sampler draws in the long run, and its flips, by chi-square at fixed seeds."""

from __future__ import annotations

import numpy as np
import pytest
from draw_statistics import (
    BUS,
    CLASSES,
    DOG,
    IMAGES,
    LABELS,
    LIMIT,
    SIGN,
    Spy,
    class_probabilities,
    count_images,
    image_probabilities,
    independence,
    normal_score,
    rare_classes_of,
    sampler_of,
    write_dataset,
)

from iidm.data.datasets.dataset import Dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("statistics"))


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
    sampler = sampler_of(dataset, labeled=False, seed=seed, rare_classes=rare_classes_of(dataset, temperature))
    drawn = count_images([sampler.draw(number) for number in range(8000)])
    assert normal_score(drawn, image_probabilities(temperature)) < LIMIT
    for factor in (0.7, 1.5):  # another temperature shows
        assert normal_score(drawn, image_probabilities(temperature * factor)) > LIMIT


def test_the_class_of_each_draw_follows_the_formula_and_its_image_is_uniform(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    rare, spy = rare_classes_of(dataset, 0.3), Spy()
    spy.watch(rare, monkeypatch)
    draws = spy.draws(sampler_of(dataset, labeled=False, rare_classes=rare), 10_000)
    classes = np.array(spy.classes)
    assert normal_score(np.bincount(classes, minlength=len(CLASSES)), class_probabilities(0.3)) < LIMIT
    assert normal_score(np.bincount(classes, minlength=len(CLASSES)), np.ones(len(CLASSES))) > 3 * LIMIT
    images = np.array([int(draw.sample.name) for draw in draws])
    for number in range(len(CLASSES)):
        pixels = np.array([np.count_nonzero(label == number) for label in LABELS])
        holders = pixels > 3000 if number != DOG else pixels > 0
        assert normal_score(np.bincount(images[classes == number], minlength=IMAGES), holders) < LIMIT
    followed = np.zeros((len(CLASSES), len(CLASSES)))
    np.add.at(followed, (classes[:-1], classes[1:]), 1)
    assert independence(followed) < LIMIT  # of the draw before


@pytest.mark.parametrize("probability", [0.5, 0.2])
def test_flips_come_with_their_probability_and_without_memory(dataset: Dataset, probability: float) -> None:
    """Of the sample before, and of the same sample of another stream."""
    one, other = (sampler_of(dataset, labeled=False, stream=stream, flip_probability=probability) for stream in (0, 1))
    flips = np.array([[s.draw(number).flip for number in range(7000)] for s in (one, other)], int)
    for row in flips:
        assert normal_score(np.bincount(row, minlength=2), [1 - probability, probability]) < LIMIT
    for a, b in ((flips[0, :-1], flips[0, 1:]), (flips[0], flips[1])):
        table = np.zeros((2, 2))
        np.add.at(table, (a, b), 1)
        expected = np.outer(*([1 - probability, probability],) * 2)
        assert normal_score(table, expected) < LIMIT


def test_every_order_of_an_epoch_is_as_likely_and_holds_every_image_once(dataset: Dataset) -> None:
    count, epochs = 7, 1400
    sampler = sampler_of(dataset.with_samples(dataset.samples[:count]), labeled=False)
    drawn = [int(sampler.draw(number).sample.name) for number in range(count * epochs)]
    orders = np.array(drawn).reshape(epochs, count)
    assert (np.sort(orders, axis=1) == np.arange(count)).all()
    places = np.zeros((count, count))
    np.add.at(places, (orders, np.arange(count)[None]), 1)
    assert normal_score(places, np.ones((count, count))) < LIMIT
    ends = np.zeros((count, count))
    np.add.at(ends, (orders[:-1, -1], orders[1:, 0]), 1)
    assert normal_score(ends, np.ones((count, count))) < LIMIT  # the end of an epoch and the start of the next


@pytest.mark.parametrize("temperature", [None, 0.2], ids=["shuffled", "by-rare-class"])
def test_what_stands_in_for_damaged_images_is_drawn_like_the_others(
    dataset: Dataset, temperature: float | None
) -> None:
    gone = (0, 8, 13)
    sampler = sampler_of(
        dataset,
        labeled=False,
        rare_classes=None if temperature is None else rare_classes_of(dataset, temperature),
        skip_damaged=True,
        damaged=[dataset.samples[image].image for image in gone],
    )
    drawn = count_images([sampler.draw(number) for number in range(14 * 500)])
    expected = np.ones(IMAGES) if temperature is None else image_probabilities(temperature)
    expected[list(gone)] = 0
    assert normal_score(drawn, expected) < LIMIT
