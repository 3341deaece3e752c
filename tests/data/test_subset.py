"""The source images nearest to the labeled target: distances computed by hand, and which images are kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from iidm.data.datasets import subset as subset
from iidm.data.datasets.subset import MIN_IMAGES_PER_CLASS, choose_subset, label_distances
from iidm.types import UserError


def _counts(*rows: Sequence[int]) -> np.ndarray:
    return np.array(rows, np.int64)


def test_distances_are_those_computed_by_hand() -> None:
    target = _counts([64, 36, 0])  # square roots of its shares: 0.8, 0.6
    source = _counts([128, 72, 0], [36, 64, 0], [100, 0, 0], [0, 0, 7], [0, 0, 0])
    by_hand = [
        0.0,  # twice the pixels, equal shares
        0.2,  # (0.6, 0.8): sqrt((0.2^2 + 0.2^2) / 2)
        np.sqrt(0.2),  # (1, 0): sqrt((0.2^2 + 0.6^2) / 2)
        1.0,  # no class in common
        1.0,  # no labeled pixel
    ]
    np.testing.assert_allclose(label_distances(source, target), by_hand, rtol=1e-12, atol=1e-9)
    assert label_distances(source, target)[0] == 0


def test_the_nearest_labeled_image_counts() -> None:
    source = _counts([36, 64], [10, 90], [0, 5])
    both = label_distances(source, _counts([64, 36], [0, 100]))
    alone = [label_distances(source, _counts(row)) for row in ([64, 36], [0, 100])]
    np.testing.assert_array_equal(both, np.minimum(*alone))
    assert both[2] == 0


def test_classes_that_the_source_lacks_and_images_without_the_others_are_left_aside() -> None:
    source = _counts([36, 64, 0], [100, 0, 0])
    plain = label_distances(source, _counts([64, 36, 0]))
    np.testing.assert_array_equal(label_distances(source, _counts([64, 36, 900], [0, 0, 50])), plain)
    for target in (_counts([0, 0, 9]), _counts([0, 0, 0])):
        with pytest.raises(UserError, match="have none in common.*id maps"):
            label_distances(source, target)


def test_a_rare_class_weighs_more_than_some_road() -> None:
    target = _counts([40, 59, 1])
    less_road, no_rider, without_both = label_distances(_counts([35, 64, 1], [40, 60, 0], [35, 65, 0]), target)
    assert less_road < no_rider < without_both


def test_distances_do_not_depend_on_how_many_are_compared_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    source, target = rng.integers(0, 5000, (50, 19)), rng.integers(0, 5000, (7, 19))
    at_once = label_distances(source, target)
    monkeypatch.setattr(subset, "_ROWS", 3)
    np.testing.assert_array_equal(label_distances(source, target), at_once)
    p, q = source / source.sum(1, keepdims=True), target / target.sum(1, keepdims=True)
    np.testing.assert_allclose(at_once, np.sqrt(1 - np.sqrt(p[:, None] * q).sum(2)).min(1), atol=1e-9)


def _choose(distances: Sequence[float], counts: np.ndarray, number: int, min_px: int = 0) -> list[int]:
    names = [f"{i:03d}" for i in range(len(counts))]
    return choose_subset(np.array(distances), counts, names, number, min_px=min_px)


def test_equally_near_images_are_taken_by_name() -> None:
    counts = _counts(*[[1, 1]] * 4)
    assert choose_subset(np.array([0.5, 0.5, 0.1, 0.5]), counts, ["d", "b", "c", "a"], 2, min_px=0) == [2, 3]
    assert choose_subset(np.array([0.5, 0.5, 0.1, 0.5]), counts, ["d", "b", "c", "a"], 3, min_px=0) == [1, 2, 3]


def test_every_class_keeps_its_images_before_nearer_ones_are_taken() -> None:
    common, rare = [[9, 0]] * 25, [[0, 9]] * 5  # the rare class only in the farthest images
    counts, distances = _counts(*common, *rare), np.arange(30) / 30
    assert _choose(distances, counts, 20) == [*range(15), *range(25, 30)]
    assert _choose(distances, counts, 30) == list(range(30))
    more = _counts(*common, *common, *rare * 4)
    assert _choose(np.arange(70) / 70, more, 40) == [*range(30), *range(50, 50 + MIN_IMAGES_PER_CLASS)]


def test_half_of_the_subset_is_chosen_by_distance_alone_once_every_class_has_an_image() -> None:
    counts, distances = _counts(*[[9, 0]] * 25, *[[0, 9]] * 5), np.arange(30) / 30
    assert _choose(distances, counts, 6) == [0, 1, 2, 3, 25, 26]
    assert _choose(distances, counts, 2) == [0, 25]


def test_the_subset_is_the_nearest_images_where_they_hold_every_class() -> None:
    rng = np.random.default_rng(1)
    counts, distances = rng.integers(0, 2, (200, 6)), rng.random(200)
    nearest = np.sort(np.argsort(distances)[:80]).tolist()
    assert (counts[nearest].sum(0) >= MIN_IMAGES_PER_CLASS).all()
    assert _choose(distances, counts, 80) == nearest


@pytest.mark.parametrize("seed", range(5))
def test_no_class_is_lost_while_there_are_as_many_images_as_classes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = (rng.random((60, 12)) < 0.1) * 50
    for number in (12, 15, 30):
        chosen = _choose(rng.random(60), counts, number)
        assert len(set(chosen)) == number
        assert (counts[chosen].any(0) == counts.any(0)).all()


def test_an_image_holds_a_class_with_as_many_pixels_as_rare_class_sampling_wants() -> None:
    counts = _counts([90, 1], [90, 0], [90, 9])
    assert _choose([0.1, 0.2, 0.3], counts, 2, min_px=5) == [0, 2]
    assert _choose([0.1, 0.2, 0.3], counts[[1, 1, 2]], 2, min_px=50) == [0, 2]  # none has so many: one pixel does


def test_an_image_that_holds_several_classes_stands_for_each() -> None:
    assert _choose([0.1, 0.2, 0.3], _counts([1, 1], [1, 0], [0, 1]), 2) == [0, 1]
