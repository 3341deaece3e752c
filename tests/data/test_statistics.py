"""Class pixel counts equal a plain count, and their cache is never stale or half written."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import make_datasets as make
import numpy as np
import pytest

from iidm.config import DatasetConfig
from iidm.data.datasets.dataset import Dataset, open_dataset
from iidm.data.datasets.statistics import class_pixel_counts, label_pixel_counts
from iidm.data.files.common import cache_folder
from iidm.types import UserError


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    make.write_gta5(tmp_path / "data", count=5)
    return open_dataset(DatasetConfig(spec="gta5", resize=make.SIZE), tmp_path / "data", "train")


def _plain_counts(dataset: Dataset) -> np.ndarray:
    labels = [dataset.load_label(sample) for sample in dataset.samples]
    return np.array([[(label == k).sum() for k in range(len(dataset.classes))] for label in labels])


def test_counts_are_those_of_a_plain_count(dataset: Dataset, tmp_path: Path) -> None:
    counts = class_pixel_counts(dataset, cache=tmp_path / "cache", jobs=3)
    assert counts.dtype == np.int64 and counts.shape == (5, 19)
    np.testing.assert_array_equal(counts, _plain_counts(dataset))
    assert (counts.sum(axis=1) < make.SIZE[0] * make.SIZE[1]).all()  # ignored pixels are no class


def test_counts_are_scaled_to_the_training_area(dataset: Dataset, tmp_path: Path) -> None:
    half = replace(dataset, resize=(15, 26))
    counts = class_pixel_counts(half, cache=tmp_path / "cache")
    np.testing.assert_allclose(counts, _plain_counts(dataset) / 4, atol=0.5)
    whole = replace(dataset, resize=None)
    np.testing.assert_array_equal(class_pixel_counts(whole, cache=tmp_path / "cache"), _plain_counts(dataset))


def test_the_second_call_reads_no_label(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = class_pixel_counts(dataset, cache=tmp_path / "cache")

    def fail(*_: object) -> None:
        raise AssertionError("a label was read")

    monkeypatch.setattr(Dataset, "load_label", fail)
    np.testing.assert_array_equal(class_pixel_counts(dataset, cache=tmp_path / "cache"), first)


def test_a_changed_label_is_counted_again(dataset: Dataset, tmp_path: Path) -> None:
    before = class_pixel_counts(dataset, cache=tmp_path / "cache")
    path = dataset.samples[2].label
    assert path is not None
    length = path.stat().st_size
    make.save_palette(path, np.full(make.SIZE, 26, np.uint8))
    path.write_bytes(path.read_bytes().ljust(length, b"\0"))  # only the time of change tells
    assert path.stat().st_size == length
    os.utime(path, ns=(1, 1))
    after = class_pixel_counts(dataset, cache=tmp_path / "cache")
    assert after[2, 13] == make.SIZE[0] * make.SIZE[1] and after[2].sum() == after[2, 13]
    np.testing.assert_array_equal(np.delete(after, 2, 0), np.delete(before, 2, 0))


def test_another_encoding_or_selection_has_a_cache_of_its_own(dataset: Dataset, tmp_path: Path) -> None:
    every = class_pixel_counts(dataset, cache=tmp_path / "cache")
    some = class_pixel_counts(dataset.with_samples(dataset.samples[3:]), cache=tmp_path / "cache")
    np.testing.assert_array_equal(some, every[3:])
    swapped = {7: 1, 8: 0}
    ids = tuple((i, swapped.get(i, t)) for i, t in dataset.encoding.train_ids)
    other = replace(dataset, encoding=replace(dataset.encoding, train_ids=ids))
    np.testing.assert_array_equal(class_pixel_counts(other, cache=tmp_path / "cache")[:, :2], every[:, 1::-1])


def test_a_damaged_cache_is_counted_again(dataset: Dataset, tmp_path: Path) -> None:
    first = class_pixel_counts(dataset, cache=tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    for content in (b"", b"nonsense", file.read_bytes()[:50]):
        file.write_bytes(content)
        np.testing.assert_array_equal(class_pixel_counts(dataset, cache=tmp_path / "cache"), first)
    assert [f.suffix for f in (tmp_path / "cache").iterdir()] == [".npz"]


def test_a_cache_that_cannot_be_written_is_left_aside(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    counts = class_pixel_counts(dataset, cache=tmp_path / "file" / "cache")
    np.testing.assert_array_equal(counts, _plain_counts(dataset))


def test_progress_is_told_for_every_label(dataset: Dataset, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    label_pixel_counts(dataset, cache=tmp_path / "cache", progress=lambda *done: told.append(done))
    assert told == [(i, 5) for i in range(1, 6)]


def test_a_bad_label_is_named_and_nothing_is_cached(dataset: Dataset, tmp_path: Path) -> None:
    path = dataset.samples[1].label
    assert path is not None
    make.save_palette(path, np.full(make.SIZE, 99, np.uint8))
    with pytest.raises(UserError, match=f"{path.name} holds ids .* 99"):
        class_pixel_counts(dataset, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    unlabeled = dataset.with_samples([dataset.samples[0]._replace(label=None)])
    with pytest.raises(UserError, match="has no label to count"):
        class_pixel_counts(unlabeled, cache=tmp_path / "cache")


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IIDM_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("IIDM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "iidm"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "iidm"


def test_ignored_pixels_are_counted_beside_the_classes(dataset: Dataset, tmp_path: Path) -> None:
    pixels = label_pixel_counts(dataset, cache=tmp_path / "cache")
    labels = [dataset.load_label(sample) for sample in dataset.samples]
    assert pixels[:, -1].tolist() == [int((label == 255).sum()) for label in labels] and pixels[:, -1].any()
    np.testing.assert_array_equal(pixels[:, :-1], class_pixel_counts(dataset, cache=tmp_path / "cache"))
    assert pixels.sum(axis=1).tolist() == [label.size for label in labels]


def test_labels_whose_names_are_no_unicode_are_counted(dataset: Dataset, tmp_path: Path) -> None:
    sample = dataset.samples[0]
    assert sample.label is not None
    strange = sample.label.with_name(os.fsdecode(b"\xff1.png"))
    sample.label.rename(strange)
    one = dataset.with_samples([sample._replace(label=strange)])
    np.testing.assert_array_equal(class_pixel_counts(one, cache=tmp_path / "cache"), _plain_counts(one))
