"""Batches are the same for the same seed and step, belong to the caller, and bad files are named."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import make_coordinates as make
import numpy as np
import pytest
import torch
from coordinate_folders import DATA
from loaders import CPU, batches_of, equal, resident_mib, tensors

from iidm.config import DataConfig
from iidm.data.datasets.dataset import Dataset, Domains
from iidm.data.datasets.statistics import class_pixel_counts
from iidm.data.loading import eval_loader as eval_loader
from iidm.data.loading.eval_loader import EvalLoader
from iidm.data.loading.loader import TrainLoader
from iidm.types import EvalBatch, UserError


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return make.write_dataset(tmp_path / "data", sizes=[*make.SIZES, (40, 61), (41, 60)])


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert not _threads()


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "iidm-loader"]


# ---- what a batch is


def test_a_batch_holds_every_stream_paired_and_padded(dataset: Dataset) -> None:
    data = DataConfig(crop_size=(32, 48), source_batch=3, target_batch=1, unlabeled_batch=2, rare_class_sampling=False)
    for batch in batches_of(make.domains_of(dataset), 8, data):
        assert batch.source and batch.target and batch.unlabeled is not None
        assert batch.source.image.shape == (3, 32, 48, 3) and batch.source.label.shape == (3, 32, 48)
        assert batch.target.image.shape == (1, 32, 48, 3) and batch.target.label.shape == (1, 32, 48)
        assert batch.unlabeled.shape == (2, 32, 48, 3) and batch.beyond is not None
        np.testing.assert_array_equal(batch.beyond.numpy(), np.where(batch.unlabeled.numpy()[..., 2] > 0, 0, 255))
        assert {tensor.dtype for tensor in tensors(batch)} == {torch.uint8}
        for image, label in (batch.source, batch.target):
            inside = image.numpy()[..., 2] > 0
            np.testing.assert_array_equal(label.numpy()[inside], make.label_of(image.numpy())[inside])
            assert (label.numpy()[~inside] == 255).all()


def test_a_stream_without_domain_is_none_and_never_read(dataset: Dataset) -> None:
    without_labels = dataset.with_samples(sample._replace(label=None) for sample in dataset.samples)
    domains = Domains(make.CLASS_SET, None, None, without_labels, dataset)
    (batch,) = batches_of(domains, 1)
    assert batch.source is None and batch.target is None and batch.unlabeled is not None
    (batch,) = batches_of(make.domains_of(dataset, labeled=False, unlabeled=False), 1)
    assert batch.source is not None and batch.target is None and batch.unlabeled is None


def test_two_streams_of_unlabeled_images_are_twice_as_many_and_differ(dataset: Dataset) -> None:
    batches = batches_of(make.domains_of(dataset), 3, strategy="two-xu-two-streams", start_step=6)
    images = torch.cat([batch.unlabeled for batch in batches if batch.unlabeled is not None])
    assert images.shape[0] == 12
    numbers = [image[..., 2].max().item() for image in images]  # two epochs of the six images
    assert sorted(numbers[:6]) == sorted(numbers[6:]) == [1, 2, 3, 4, 5, 6]


def test_streams_of_one_data_set_draw_apart(dataset: Dataset) -> None:
    batches = batches_of(make.domains_of(dataset), 4)
    assert any(not torch.equal(b.source.image, b.target.image) for b in batches if b.source and b.target)


# ---- the same seed and step: the same batch


def test_a_resumed_loader_gives_the_tail_of_the_first_one_bit_for_bit(dataset: Dataset) -> None:
    domains = make.domains_of(dataset)
    data = DataConfig(crop_size=(32, 48), rare_class_min_px=5, rare_class_min_crop_px=3, rare_class_target=True)
    assert data.rare_class_sampling
    whole = batches_of(domains, 9, data)
    assert equal(batches_of(domains, 4, data, start_step=5), whole[5:])
    assert not equal(batches_of(domains, 4, data, start_step=4), whole[5:])


def test_seeds_give_other_batches(dataset: Dataset) -> None:
    domains = make.domains_of(dataset)
    one, same, other = (batches_of(domains, 3, seed=seed) for seed in (0, 0, 1))
    assert equal(one, same)
    assert not equal(one, other)


def test_threads_and_prefetch_change_nothing(dataset: Dataset) -> None:
    domains = make.domains_of(dataset)
    other = replace(DATA, prefetch=4)
    assert equal(batches_of(domains, 5), batches_of(domains, 5, other, threads=3))


def test_workers_change_nothing_outlive_ctrl_c_name_bad_files_and_end(dataset: Dataset) -> None:
    """One test: processes start slowly. Ctrl-C reaches them too; the run's last step still needs a batch."""
    domains = make.domains_of(dataset)
    expected = batches_of(domains, 25, start_step=2)
    data = replace(DATA, workers=2)
    with TrainLoader(domains, data, seed=0, device=CPU, start_step=2, threads=1) as loader:
        got = list(islice(loader, 2))
        workers = multiprocessing.active_children()
        assert len(workers) >= 2
        for worker in workers:
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGINT)
        got += list(islice(loader, 23))
        assert equal(got, expected)
        dataset.samples[4].image.unlink()
        with pytest.raises(UserError, match=r"005\.png does not exist"):
            list(islice(loader, 50))
    del loader
    gc.collect()
    for worker in workers:
        worker.join(20)
        assert not worker.is_alive()


# ---- batches belong to the caller; nothing piles up


def test_a_batch_never_changes_after_it_was_given(dataset: Dataset) -> None:
    with TrainLoader(make.domains_of(dataset), DATA, seed=0, device=CPU, threads=1) as loader:
        first = next(loader)
        kept = [tensor.clone() for tensor in tensors(first)]
        for tensor in tensors(next(loader)):
            tensor.zero_()  # writing is the caller's right too
        for _ in range(20):
            next(loader)
        assert all(torch.equal(a, b) for a, b in zip(tensors(first), kept, strict=True))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_memory_stays_level_over_hundreds_of_batches(dataset: Dataset) -> None:
    """A batch is 46 KiB: keeping each of 400 would take 18 MiB."""
    data = DataConfig(crop_size=(48, 64), rare_class_sampling=False)
    with TrainLoader(make.domains_of(dataset), data, seed=0, device=CPU, threads=1) as loader:
        for _ in islice(loader, 150):
            pass
        before = resident_mib()
        for _ in islice(loader, 400):
            pass
        assert resident_mib() - before < 6


def test_the_wait_for_a_batch_is_told(dataset: Dataset) -> None:
    with TrainLoader(make.domains_of(dataset), DATA, seed=0, device=CPU, threads=1) as loader:
        started = time.perf_counter()
        next(loader)
        assert 0 < loader.wait_s <= time.perf_counter() - started
        for _ in range(100):  # a busy machine may need several
            time.sleep(0.3)
            next(loader)
            if loader.wait_s < 0.2:
                break  # it was ready
        assert loader.wait_s < 0.2
        assert loader.mean_wait_ms() > 0
        assert loader.mean_wait_ms() == 0  # none since


def test_a_loader_that_is_dropped_or_closed_ends_its_thread(dataset: Dataset) -> None:
    loader = TrainLoader(make.domains_of(dataset), DATA, seed=0, device=CPU, threads=1)
    next(loader)
    assert _threads()
    loader.close()
    loader.close()
    assert not _threads()
    with pytest.raises(StopIteration):
        next(loader)
    TrainLoader(make.domains_of(dataset), DATA, seed=0, device=CPU, threads=1)
    gc.collect()
    assert not _threads()


# ---- rare classes


def test_rare_classes_are_drawn_from_counts_or_counted(dataset: Dataset) -> None:
    """With a tiny temperature nearly every draw is the class of fewest pixels, and so an image that holds it."""
    data = DataConfig(
        crop_size=(32, 48), rare_class_temperature=1e-6, rare_class_min_px=0, rare_class_min_crop_px=0, source_batch=4
    )
    counts = np.zeros((6, make.CLASSES), np.int64)
    counts[:, 0], counts[3, 1] = 100, 1
    (batch,) = batches_of(make.domains_of(dataset), 1, data, counts={"source": counts})
    assert batch.source is not None and set(batch.source.image[..., 2].unique().tolist()) == {0, 4}
    found = class_pixel_counts(dataset)
    totals = found.sum(axis=0)
    holders = set((1 + np.flatnonzero(found[:, totals == totals[totals > 0].min()].any(axis=1))).tolist())
    assert len(holders) < len(dataset.samples)
    (batch,) = batches_of(make.domains_of(dataset), 1, data)
    assert batch.source is not None and set(batch.source.image[..., 2].unique().tolist()) - {0} <= holders


# ---- bad files


def _damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])


@pytest.mark.parametrize(
    ("kind", "match"),
    [("missing", r"003\.png does not exist"), ("damaged", r"003\.png is damaged"), ("empty", r"003\.png")],
)
def test_a_bad_image_is_named(dataset: Dataset, kind: str, match: str) -> None:
    path = dataset.samples[2].image
    {"missing": path.unlink, "damaged": lambda: _damage(path), "empty": lambda: path.write_bytes(b"")}[kind]()
    with pytest.raises(UserError, match=match):
        batches_of(make.domains_of(dataset), 10)


def test_a_bad_label_is_named(dataset: Dataset) -> None:
    assert dataset.samples[2].label is not None
    _damage(dataset.samples[2].label)
    with pytest.raises(UserError, match=r"labels.003\.png"):
        batches_of(make.domains_of(dataset), 10)


def test_batches_before_a_damaged_image_are_given(dataset: Dataset) -> None:
    """The error comes with the step that needs the file (or up to a few before), not at the start."""
    expected = batches_of(make.domains_of(dataset, source=False, labeled=False), 3, start_step=0)
    numbers = [{int(image[..., 2].max()) for image in b.unlabeled} for b in expected if b.unlabeled is not None]
    third = min(numbers[2])
    _damage(dataset.samples[third - 1].image)
    with TrainLoader(
        make.domains_of(dataset, source=False, labeled=False), DATA, seed=0, device=CPU, threads=1
    ) as loader:
        for batch in expected[:2]:
            got = next(loader).unlabeled
            assert got is not None and batch.unlabeled is not None and torch.equal(got, batch.unlabeled)
        with pytest.raises(UserError, match=f"{third:03d}.png is damaged"):
            next(loader)


# ---- evaluation


def _evaluate(dataset: Dataset, batch_size: int, threads: int = 2) -> list[EvalBatch]:
    with EvalLoader(dataset, device=CPU, batch_size=batch_size, threads=threads) as loader:
        assert len(loader) == len(dataset.samples)
        first, second = list(loader), list(loader)
        assert [batch.names for batch in first] == [batch.names for batch in second]
        return first


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_every_image_is_evaluated_once_in_order_and_sizes_never_mix(tmp_path: Path, batch_size: int) -> None:
    sizes = [(20, 30)] * 3 + [(24, 30)] * 2 + [(20, 30)] * 5 + [(40, 20)]
    dataset = make.write_dataset(tmp_path, sizes=sizes)
    batches = _evaluate(dataset, batch_size)
    assert [name for batch in batches for name in batch.names] == [sample.name for sample in dataset.samples]
    runs = [3, 2, 5, 1]
    expected = [min(batch_size, run - start) for run in runs for start in range(0, run, batch_size)]
    assert [len(batch.names) for batch in batches] == expected
    for batch in batches:
        assert batch.image.dtype == batch.label.dtype == torch.uint8
        assert batch.image.shape[:3] == batch.label.shape
        np.testing.assert_array_equal(batch.label.numpy(), make.label_of(batch.image.numpy()))


def test_images_are_evaluated_at_training_size_and_labels_at_their_own(tmp_path: Path) -> None:
    dataset = make.write_dataset(tmp_path, sizes=[(60, 80), (60, 80), (30, 80)], resize=(30, 40))
    batches = _evaluate(dataset, 2)
    assert [tuple(batch.image.shape) for batch in batches] == [(2, 30, 40, 3), (1, 15, 40, 3)]
    assert [tuple(batch.label.shape) for batch in batches] == [(2, 60, 80), (1, 30, 80)]
    for batch in batches:
        nearest = batch.label.numpy()[:, 1::2, 1::2]
        expected = make.label_of(np.stack([make.coordinates(batch.label.shape[1:], int(n)) for n in batch.names]))
        np.testing.assert_array_equal(nearest, expected[:, 1::2, 1::2])
        rows = batch.image[0, :, 0, 0].numpy().astype(int)
        assert abs(rows - (2 * np.arange(len(rows)) + 0.5)).max() <= 1


def test_large_images_are_decoded_few_at_a_time(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = _evaluate(dataset, 1, threads=4)
    monkeypatch.setattr(eval_loader, "CHUNK_PX", 2500)
    chunks = [len(chunk) for chunk in eval_loader._chunks(dataset, 4)]
    assert sum(chunks) == len(dataset.samples) and max(chunks) < 3
    for one, other in zip(_evaluate(dataset, 1, threads=4), expected, strict=True):
        assert one.names == other.names and torch.equal(one.image, other.image) and torch.equal(one.label, other.label)


@pytest.mark.parametrize("what", ["image", "label"])
def test_a_damaged_file_of_the_evaluation_is_named(dataset: Dataset, what: str) -> None:
    path = getattr(dataset.samples[4], what)
    _damage(path)
    with pytest.raises(UserError, match=f"{what}s.005.png"):
        _evaluate(dataset, 2)


def test_an_evaluation_that_stops_early_leaves_no_thread(dataset: Dataset) -> None:
    with EvalLoader(dataset, device=CPU, threads=1) as loader:
        for batch in loader:
            assert batch.names == ("001",)
            break
