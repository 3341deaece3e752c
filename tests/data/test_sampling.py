"""Every draw is a function of (seed, stream, number), rare classes follow their formula, and crops keep their rules."""

from __future__ import annotations

import logging
from pathlib import Path

import make_coordinates as make
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from iidm.data.datasets.dataset import Dataset
from iidm.data.loading.crops import CropRules, cut_label, random_anchor, resize_label, search_anchor, share_over
from iidm.data.loading.sampling import FALLBACK_IMAGES, LabelCache, RareClasses, Sampler
from iidm.types import UserError

RULES = CropRules((32, 48))


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return make.write_dataset(tmp_path, sizes=[(40, 60 + n) for n in range(7)])


def _names(sampler: Sampler, numbers: range) -> list[str]:
    return [sampler.draw(number).sample.name for number in numbers]


def _rare(counts: list[list[int]], *, temperature: float = 0.1, min_px: int = 0) -> RareClasses:
    names = tuple(f"class {k}" for k in range(len(counts[0])))
    return RareClasses(np.array(counts, np.int64), temperature=temperature, min_px=min_px, class_names=names)


# ---- a pure function of (seed, stream, number)


def test_a_draw_depends_on_its_number_alone(dataset: Dataset) -> None:
    one, other = (Sampler(dataset, RULES, seed=3, stream=0, cache_bytes=cache) for cache in (0, 2**20))
    in_order = [one.draw(number) for number in range(20)]
    for number in (17, 4, 19, 0, 11):
        again = other.draw(number)
        assert again[:-1] == in_order[number][:-1]
        np.testing.assert_array_equal(again.label, in_order[number].label)


def test_an_epoch_holds_every_image_once(dataset: Dataset) -> None:
    sampler = Sampler(dataset, RULES, seed=0, stream=0, labeled=False)
    every = sorted(sample.name for sample in dataset.samples)
    epochs = [_names(sampler, range(7 * epoch, 7 * epoch + 7)) for epoch in range(6)]
    assert all(sorted(epoch) == every for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


@pytest.mark.parametrize("change", [{"seed": 1}, {"stream": 1}])
def test_seeds_and_streams_differ(dataset: Dataset, change: dict[str, int]) -> None:
    one, other = (Sampler(dataset, RULES, **{"seed": 0, "stream": 0, **c}) for c in ({}, change))
    draws = [[s.draw(n) for n in range(14)] for s in (one, other)]
    assert [d.sample.name for d in draws[0]] != [d.sample.name for d in draws[1]]
    assert [d.anchor for d in draws[0]] != [d.anchor for d in draws[1]]


@pytest.mark.parametrize(("probability", "low", "high"), [(0.0, 0, 0), (1.0, 300, 300), (0.5, 120, 180)])
def test_flips_come_with_their_probability(dataset: Dataset, probability: float, low: int, high: int) -> None:
    sampler = Sampler(dataset, RULES, seed=0, stream=0, labeled=False, flip_probability=probability)
    assert low <= sum(sampler.draw(number).flip for number in range(300)) <= high


def test_anchors_are_uniform_and_inside() -> None:
    rng = np.random.default_rng(0)
    anchors = np.array([random_anchor((10, 12), (7, 9), rng) for _ in range(3200)])
    cells = np.bincount(anchors[:, 0] * 4 + anchors[:, 1], minlength=16)
    assert len(cells) == 16 and (abs(cells - 200) < 4.5 * np.sqrt(200)).all()
    assert random_anchor((5, 9), (7, 9), rng) == (0, 0)


def test_no_images_and_missing_images_are_named(dataset: Dataset) -> None:
    with pytest.raises(UserError, match="coordinates has no images"):
        Sampler(dataset.with_samples([]), RULES, seed=0, stream=0)
    gone = dataset.with_samples(dataset.samples[:1])
    gone.samples[0].image.unlink()
    with pytest.raises(UserError, match=r"001\.png does not exist"):
        Sampler(gone, RULES, seed=0, stream=0).draw(0)
    gone.samples[0].image.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"001\.png cannot be read"):
        Sampler(gone, RULES, seed=0, stream=0).draw(0)


# ---- rare classes


def test_classes_are_drawn_by_the_formula() -> None:
    counts = [[500, 100, 0, 20], [300, 0, 0, 60], [100, 200, 0, 0]]
    rare = _rare(counts, temperature=0.5)
    share = torch.tensor(counts, dtype=torch.float64).sum(0)[[0, 1, 3]] / 1280
    expected = torch.softmax((1 - share) / 0.5, 0).numpy()
    rng = np.random.default_rng(0)
    drawn = np.bincount([rare.draw(rng)[0] for _ in range(6000)], minlength=4)
    assert drawn[2] == 0  # a class that does not occur
    deviation = np.sqrt(6000 * expected * (1 - expected))
    assert (abs(drawn[[0, 1, 3]] - 6000 * expected) < 4 * deviation).all()
    assert (abs(drawn[[0, 1, 3]] - 2000) > 4 * deviation).any()  # the bound tells the formula from a uniform draw


def test_a_small_temperature_draws_the_rarest_class_and_never_overflows() -> None:
    rare = _rare([[10**9, 10, 10**9]], temperature=1e-4)
    assert np.isfinite(rare.probabilities).all()
    assert rare.draw(np.random.default_rng(0))[0] == 1


def test_images_hold_more_than_the_minimum_and_are_drawn_alike() -> None:
    rare = _rare([[3001, 0], [3000, 9000], [5000, 0], [9000, 0]], temperature=100.0, min_px=3000)
    rng = np.random.default_rng(0)
    drawn = [rare.draw(rng) for _ in range(4000)]
    assert {image for c, image in drawn if c == 1} == {1}
    images = np.bincount([image for c, image in drawn if c == 0], minlength=4)
    assert images[1] == 0  # exactly the minimum is not more than it
    expected = images.sum() / 3
    assert (abs(images[[0, 2, 3]] - expected) < 4 * np.sqrt(expected)).all()


def test_a_class_that_no_image_holds_enough_of_falls_back_and_is_named(caplog: pytest.LogCaptureFixture) -> None:
    counts = [[10**5, n] for n in range(FALLBACK_IMAGES + 5)]
    with caplog.at_level(logging.WARNING):
        rare = _rare(counts, temperature=1.0, min_px=3000)
    assert len(caplog.records) == 1 and "class 1" in caplog.text and "class 0" not in caplog.text
    rng = np.random.default_rng(0)
    drawn = {image for c, image in (rare.draw(rng) for _ in range(2000)) if c == 1}
    assert drawn == set(range(5, FALLBACK_IMAGES + 5))


def test_a_fallback_image_holds_the_class() -> None:
    rare = _rare([[100, 0], [100, 5], [100, 0]], temperature=1.0, min_px=50)
    rng = np.random.default_rng(0)
    assert {image for c, image in (rare.draw(rng) for _ in range(200)) if c == 1} == {1}


def test_labels_without_any_class_are_an_error() -> None:
    with pytest.raises(UserError, match="all ignored"):
        _rare([[0, 0], [0, 0]])


def test_a_rare_class_draw_gives_an_image_and_a_crop_that_hold_it(tmp_path: Path) -> None:
    data = make.write_dataset(tmp_path, sizes=[(60, 80)] * 3)
    for number, sample in enumerate(data.samples):
        label = np.zeros((60, 80), np.uint8)
        label[5:15, 60:75] = number + 1  # class n+1 in image n alone
        assert sample.label is not None
        make.save(label, sample.label)
    counts = np.zeros((3, 251), np.int64)
    counts[[0, 1, 2], [1, 2, 3]] = 150
    rare = RareClasses(counts, temperature=1.0, min_px=100, class_names=data.classes.names)
    rules = CropRules((20, 30), min_class_px=120, tries=400)
    sampler = Sampler(data, rules, seed=0, stream=0, rare_classes=rare)
    for number in range(30):
        draw = sampler.draw(number)
        assert draw.label is not None
        assert np.count_nonzero(draw.label == int(draw.sample.name)) > 120


# ---- crops


def _draws(label: np.ndarray, rules: CropRules, seed: int) -> list[np.ndarray]:
    """Every crop that `search_anchor` may look at."""
    rng = np.random.default_rng(seed)
    h, w = rules.size
    anchors = [random_anchor((label.shape[0], label.shape[1]), rules.size, rng) for _ in range(rules.tries)]
    return [label[y : y + h, x : x + w] for y, x in anchors]


def _found(label: np.ndarray, rules: CropRules, seed: int, wanted: int | None) -> np.ndarray:
    y, x = search_anchor(label, rules, np.random.default_rng(seed), wanted)
    return label[y : y + rules.size[0], x : x + rules.size[1]]


@pytest.mark.parametrize("seed", range(12))
def test_the_first_crop_with_enough_of_the_class_is_taken_else_the_best(seed: int) -> None:
    label = np.zeros((50, 60), np.uint8)
    label[:12, :12] = 4
    rules = CropRules((16, 16), min_class_px=70, tries=6)
    held = [int((crop == 4).sum()) for crop in _draws(label, rules, seed)]
    expected = next((px for px in held if px > 70), max(held))
    assert int((_found(label, rules, seed, 4) == 4).sum()) == expected


@pytest.mark.parametrize("seed", range(12))
def test_the_first_crop_within_the_share_is_taken_else_the_best(seed: int) -> None:
    label = np.zeros((50, 60), np.uint8)
    label[:, :9] = 4
    rules = CropRules((16, 16), max_class_share=0.75, tries=6)
    shares = [share_over(crop, 0) for crop in _draws(label, rules, seed)]
    expected = next((share for share in shares if share <= 0.75), min(shares))
    assert share_over(_found(label, rules, seed, None), 0) == expected


def test_without_a_rule_the_first_crop_is_taken() -> None:
    label = np.zeros((50, 60), np.uint8)
    rng = np.random.default_rng(5)
    assert search_anchor(label, CropRules((16, 16), tries=10), np.random.default_rng(5), None) == random_anchor(
        (50, 60), (16, 16), rng
    )


def test_ignored_pixels_have_no_share() -> None:
    label = np.array([[255, 255, 255, 1], [255, 255, 2, 1]], np.uint8)
    assert share_over(label, 0) == pytest.approx(2 / 3)
    assert share_over(np.full((2, 2), 255, np.uint8), 0.75) == 1


@settings(max_examples=200)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.2, 0.4, 0.5, 0.75, 0.9]), st.integers(1, 6))
def test_the_share_over_a_limit_is_that_of_a_full_count(seed: int, limit: float, classes: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(classes + 1, 0.5))
    label = rng.choice(np.array([*range(classes), 255], np.uint8), size=(20, 30), p=weights)
    label[::16, ::16] = rng.integers(classes)  # what the quick look sees may mislead
    counts = np.bincount(label.ravel(), minlength=256)[:255]
    largest = counts.max() / counts.sum()
    assert share_over(label, limit) == (pytest.approx(largest) if largest > limit else 0)


@settings(max_examples=60)
@given(st.tuples(*[st.integers(1, 40)] * 4), st.integers(0, 1000))
def test_labels_are_resized_to_the_nearest_pixel_centre(sides: tuple[int, int, int, int], seed: int) -> None:
    label = np.random.default_rng(seed).integers(0, 256, sides[:2], dtype=np.uint8)
    expected = F.interpolate(torch.from_numpy(label)[None, None].float(), size=sides[2:], mode="nearest-exact")
    resized = resize_label(label, (sides[2], sides[3]))
    assert resized.dtype == np.uint8
    # An exact tie between two pixels may fall either way in torch's float32: one pixel off is the bound there.
    rows, columns = ((np.arange(new) + 0.5) * old / new for old, new in zip(label.shape, resized.shape, strict=True))
    clear = np.ix_(abs(rows - rows.round()) > 1e-4, abs(columns - columns.round()) > 1e-4)
    np.testing.assert_array_equal(resized[clear], expected[0, 0].numpy()[clear])
    assert set(np.unique(resized)) <= set(np.unique(label))


def test_halving_a_label_takes_one_pixel_of_each_block() -> None:
    label = np.arange(24, dtype=np.uint8).reshape(4, 6)
    np.testing.assert_array_equal(resize_label(label, (2, 3)), label[1::2, 1::2])


def test_a_crop_is_padded_with_255_and_mirrored() -> None:
    label = np.arange(6, dtype=np.uint8).reshape(2, 3)
    np.testing.assert_array_equal(
        cut_label(label, label.shape, (0, 1), (3, 3), False), [[1, 2, 255], [4, 5, 255], [255] * 3]
    )
    np.testing.assert_array_equal(
        cut_label(label, label.shape, (0, 1), (3, 3), True), [[255, 2, 1], [255, 5, 4], [255] * 3]
    )


def test_the_label_cache_keeps_the_last_used_within_its_budget() -> None:
    cache, loaded = LabelCache(250), []

    def get(index: int) -> None:
        def load() -> np.ndarray:
            loaded.append(index)
            return np.full((10, 10), index, np.uint8)

        assert (cache.get(index, load) == index).all()
        assert cache.used_bytes <= 250

    for index in (0, 1, 0, 2, 0, 1):  # 2 drives out 1, the least recently used
        get(index)
    assert loaded == [0, 1, 2, 1]
