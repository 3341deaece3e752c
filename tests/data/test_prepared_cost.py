"""Prepared folders: memory that stays level, evaluation, and a cost that does not grow with the data set."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import make_coordinates as make
import numpy as np
import pytest
import torch
from coordinate_folders import (
    BOX,
    BOXED_SIZES,
    CROP,
    DATA,
    FORMATS,
    RARE,
    SIZES,
    SPACING,
    Folders,
    Kind,
    config_of,
    mapped,
    write_images,
)
from loaders import CPU, batches_of, domains_of, evaluated, everywhere, resident_mib, tensors

from iidm.config import DataConfig, DatasetConfig
from iidm.data.datasets.dataset import Dataset, open_dataset
from iidm.data.loading.loader import TrainLoader
from iidm.data.preparation.plan import make_plan, prepare
from iidm.data.prepared.entries import INDEX, entry_paths, read_index
from iidm.data.prepared.folder import MANIFEST, read_manifest
from iidm.data.prepared.index import Index

pytestmark = pytest.mark.usefixtures("no_file_stays_mapped")

# ---- memory


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
@pytest.mark.timeout(900)
def test_memory_and_open_files_stay_level_over_ten_thousand_batches(folders: Folders) -> None:
    """A page kept of each mapped file would be 39 MiB and more."""
    data = replace(RARE, crop_size=(16, 16), source_batch=1, unlabeled_batch=1)
    raw = folders.open("raw")
    with TrainLoader(domains_of(raw, None, raw), data, seed=0, device=CPU, threads=1) as loader:
        kept = list(islice(loader, 1500))[-100:]  # holding batches holds no file
        before, files = resident_mib(), len(os.listdir("/proc/self/fd"))
        for count, _ in enumerate(islice(loader, 10_000)):
            if count % 500 == 0:
                assert len(os.listdir("/proc/self/fd")) <= files + 4
                assert len(mapped(folders.root)) <= 12
        after = resident_mib()
        assert after - before < 5
    assert len(kept) == 100 and not mapped(folders.root)


def test_a_batch_stays_what_it_was_when_its_file_is_written_anew(folders: Folders, tmp_path: Path) -> None:
    """A crop as wide as its image is one stretch of the file: it too must have been copied."""
    write_images(tmp_path / "downloaded" / "train", [(40, CROP[1])] * 2)
    plan = make_plan(config_of(), tmp_path / "downloaded", tmp_path / "raw", image_format="raw", splits=("train",))
    prepare(plan, jobs=1)
    dataset = open_dataset(config_of(), tmp_path / "raw", "train")
    batches = batches_of(everywhere(dataset), 6)
    kept = [[tensor.clone() for tensor in tensors(batch)] for batch in batches]
    for sample in dataset.samples:
        for path in (sample.image, sample.label):
            assert path is not None
            with path.open("r+b") as file:
                file.write(bytes(path.stat().st_size))
    assert all(
        torch.equal(a, b)
        for batch, c in zip(batches, kept, strict=True)
        for a, b in zip(tensors(batch), c, strict=True)
    )


# ---- evaluation


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("boxed", [False, True], ids=["whole", "boxed"])
@pytest.mark.parametrize("kind", FORMATS)
def test_an_evaluation_is_that_of_the_files_as_downloaded(
    folders: Folders, kind: Kind, boxed: bool, batch_size: int
) -> None:
    ours, theirs = (evaluated(folders.open(k, boxed=boxed, split="val"), batch_size) for k in (kind, "downloaded"))
    sizes = [size for size in (BOXED_SIZES if boxed else SIZES)[:3] for _ in range(2)]
    assert [name for batch in ours for name in batch.names] == [f"{k:03d}" for k in range(1, 7)]
    labels = [label for batch in ours for label in batch.label.numpy()]
    for number, (size, label) in enumerate(zip(sizes, labels, strict=True), start=1):
        np.testing.assert_array_equal(label, make.label_of(make.coordinates(size, SPACING * number)))
    for our, their in zip(ours, theirs, strict=True):
        assert our.names == their.names and torch.equal(our.label, their.label)
        assert our.image.shape == their.image.shape and our.image.dtype == torch.uint8
        if boxed:
            assert our.image.shape[1] <= max(BOX) and our.image.shape[1:3] != our.label.shape[1:]
        error = abs(our.image.numpy().astype(int) - their.image.numpy())
        assert error.max() <= (12 if kind == "jpeg" else int(boxed)) and error.mean() < 1.5
    for our, again in zip(ours, evaluated(folders.open(kind, boxed=boxed, split="val"), batch_size), strict=True):
        assert torch.equal(our.image, again.image)


# ---- the cost does not grow with the data set


def _repeated(dataset: Dataset, count: int) -> Dataset:
    """A data set of `count` images that are a few files over and over."""
    assert dataset.prepared is not None
    known = [entry for entry in read_index(dataset.prepared.root / INDEX) if entry.split == dataset.prepared.split]
    entries, samples = [], []
    for place in range(count):
        sample, entry = dataset.samples[place % len(known)], known[place % len(known)]
        name = f"drive_{place // 1000:04d}/frame_{place:08d}"
        entries.append(entry._replace(name=name))
        samples.append(sample._replace(name=name))
    prepared = replace(dataset.prepared, index=Index.of(entries))
    return replace(dataset, samples=tuple(samples), prepared=prepared)


@pytest.mark.parametrize(("kind", "data"), [("raw", RARE), ("png", DATA)], ids=["raw-by-rare-class", "png-shuffled"])
def test_a_batch_of_a_thousand_times_as_many_images_does_not_cost_several_times_as_much(
    folders: Folders, kind: Kind, data: DataConfig
) -> None:
    """Processor time of 60 batches, the better half of the turns. Of few images: what they cost themselves hides the
    rest."""
    data = replace(data, crop_size=(16, 16))
    loaders = []
    for count in (100, 100_000):
        dataset = _repeated(folders.open(kind), count)
        loaders.append(TrainLoader(domains_of(dataset, None, dataset), data, seed=0, device=CPU, threads=1))
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(6):
        for loader, found in zip(loaders, times, strict=True):
            start = time.process_time()
            for _ in islice(loader, 60):
                pass
            if turn:  # the first warms up and shuffles
                found.append(time.process_time() - start)
    for loader in loaders:
        loader.close()
    small, large = (statistics.median(found) for found in times)
    assert large < 5 * small, (small, large)  # 1.0 to 1.2 where nothing else runs


def _prepared_folder_of(count: int, folder: Path) -> tuple[DatasetConfig, Path]:
    """An index of `count` images, of which only the three that hold class 1 are there."""
    size, classes = (40, 60), 19
    config = replace(config_of(), class_names=make.CLASS_SET.names[:classes])
    make.save(np.full((*size, 3), 7, np.uint8), folder / "downloaded" / "train" / "images" / "one.png")
    make.save(np.ones(size, np.uint8), folder / "downloaded" / "train" / "labels" / "one.png")
    root = folder / "raw"
    prepare(make_plan(config, folder / "downloaded", root, image_format="raw", splits=("train",)), jobs=1)
    (one,) = read_index(root / INDEX)
    entries = []
    for place in range(count):
        rare = place in (5, count // 2, count - 1)
        name, pixels = f"drive_{place // 1000:04d}/frame_{place:08d}", (2000, 400 if rare else 0, *range(classes - 2))
        entries.append(one._replace(name=name, pixels=pixels))
        if rare:
            for path, source in zip(entry_paths(root, "raw", entries[-1]), entry_paths(root, "raw", one), strict=True):
                assert path is not None and source is not None
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, path)
    (root / INDEX).write_text("".join(entry.line() for entry in entries))
    manifest = replace(read_manifest(root), images=count)
    (root / MANIFEST).write_text(json.dumps(manifest.as_json()))
    return config, root


def test_a_prepared_folder_of_25000_images_opens_and_gives_a_batch_without_a_look_at_the_others(tmp_path: Path) -> None:
    """GTA5 holds as many. All files but those that are drawn do not exist."""
    config, root = _prepared_folder_of(25_000, tmp_path)
    data = replace(RARE, rare_class_temperature=1e-6, rare_class_min_px=300, rare_class_target=False)
    dataset = open_dataset(config, root, "train")
    with TrainLoader(domains_of(dataset), data, seed=0, device=CPU, threads=1) as loader:
        batch = next(loader)
    assert len(dataset.samples) == 25_000
    assert batch.source is not None and set(batch.source.image.unique().tolist()) == {7}
