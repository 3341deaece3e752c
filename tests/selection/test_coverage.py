"""The greedy choice, on regions made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from iidm.selection import coverage
from iidm.selection.coverage import Choice, choose, image_scores
from iidm.selection.regions import Regions

Seen = Mapping[int, tuple[Sequence[float], float, float]]
"""Of an image: class -> (feature, area, uncertainty)."""
ROAD, CAR, RIDER, GHOST = range(4)


def regions(images: Sequence[Seen]) -> Regions:
    rows = [(i, k, *seen) for i, image in enumerate(images) for k, seen in sorted(image.items())]
    place, kind, feature, area, uncertainty = zip(*rows, strict=True)
    return Regions(
        np.array(place, np.int32),
        np.array(kind, np.uint8),
        np.array(area, np.float32),
        np.array(uncertainty, np.float32),
        np.array(feature, np.float16),
    )


def pick(images: Sequence[Seen], count: int, labeled: Sequence[int] = ()) -> Choice:
    is_labeled = np.isin(np.arange(len(images)), labeled)
    return choose(regions(images), is_labeled, ~is_labeled, count)


def street(*feature: float, area: float = 0.5, uncertainty: float = 0.3) -> Seen:
    return {ROAD: (feature, area, uncertainty)}


def random_images(count: int) -> list[Seen]:
    rng = np.random.default_rng(0)
    images = []
    for _ in range(count):
        held = rng.choice(4, rng.integers(1, 4), replace=False)
        images.append({int(k): (rng.normal(k, 1, 3).tolist(), rng.random(), rng.random()) for k in held})
    return images


def test_twenty_frames_of_one_second_are_one_image() -> None:
    clip = [street(0.0 + i / 1000, 0.0) for i in range(20)]
    others = [street(3.0, 0.0), street(0.0, 3.0), street(3.0, 3.0)]
    order = pick([*clip, *others], 4).order
    assert sorted(order)[1:] == [20, 21, 22] and min(order) < 20


def test_what_resembles_a_labeled_image_is_chosen_last() -> None:
    images = [street(0.0, 0.0), street(0.01, 0.0), street(2.0, 0.0), street(0.0, 2.0)]
    assert pick(images, 3, labeled=[0]).order[-1] == 1


def test_typical_images_come_before_outliers() -> None:
    crowd = [street(0.1 * i, 0.0) for i in range(8)]
    assert pick([*crowd, street(40.0, 40.0)], 1).order[0] < 8


def test_a_rare_class_that_no_label_shows_comes_first_and_is_the_reason() -> None:
    usual = [street(0.1 * i, 0.0, area=0.9) for i in range(30)]
    rider = {**street(0.0, 0.0, area=0.9), RIDER: ((1.0, 1.0), 0.05, 0.3)}
    choice = pick([*usual, rider], 1, labeled=[0])
    assert choice.order == [30] and choice.reasons[0][0] == RIDER


def test_what_is_seen_as_good_as_nowhere_is_no_reason() -> None:
    images: list[Seen] = [{**street(0.1 * i, 0.0), CAR: ((float(i), 0.0), 0.05, 0.3)} for i in range(30)]
    ghost = {**street(0.0, 0.0), GHOST: ((1.0, 1.0), 0.0002, 1.0)}
    scores = image_scores(regions([*images, ghost]), 31)
    assert scores[30] < scores[:30].min()


def test_unsure_regions_count_more() -> None:
    images = [street(float(i % 2), 0.0, uncertainty=0.9 if i % 2 else 0.01) for i in range(10)]
    assert pick(images, 1).order[0] % 2 == 1


@pytest.mark.parametrize("looks", [1, 64])
def test_the_lazy_choice_is_that_of_computing_every_gain_anew(looks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage, "LOOKS", looks)
    images = random_images(60)
    labeled, order = [3, 7], list[int]()
    for _ in range(12):  # one image a call, the ones before counted as labeled
        order += pick(images, 1, labeled=[*labeled, *order]).order
    choice = pick(images, 12, labeled=labeled)
    assert choice.order == order
    assert 0 < choice.before < choice.after < 1
    assert pick(images, 12, labeled=labeled) == choice


def test_a_part_of_many_regions_stands_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [street(*5.0 * np.eye(4)[min(i // 80, 3)]) for i in range(400)]
    monkeypatch.setattr(coverage, "MOST_POPULATION", 50)
    monkeypatch.setattr(coverage, "LOOKS", 37)
    order = pick(images, 4).order
    assert sorted(min(place // 80, 3) for place in order) == [0, 1, 2, 3]
    assert order[0] >= 240  # of the largest group
