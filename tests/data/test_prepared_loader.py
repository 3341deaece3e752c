"""Loaders on prepared folders: the same crops as from the files they were made of, bit for bit after a resume, round
damaged files, in memory that stays level, at a cost that does not grow with the data set."""

from __future__ import annotations

import gc
import json
import logging
import multiprocessing
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import make_coordinates as make
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from iidm.config import DataConfig, DatasetConfig
from iidm.data.datasets import Dataset, Domains, Split, open_dataset
from iidm.data.eval_loader import EvalLoader
from iidm.data.loader import TrainLoader
from iidm.data.preparation import make_plan, prepare
from iidm.data.prepared import INDEX, MANIFEST, ImageFormat, entry_paths, read_index, read_manifest
from iidm.types import EvalBatch, TrainBatch, UserError

Kind = Literal["downloaded", "raw", "jpeg", "png"]
FORMATS: tuple[ImageFormat, ...] = ("raw", "jpeg", "png")
CPU = torch.device("cpu")
CROP = (32, 48)
SIZES = (*make.SIZES, (40, 61), (41, 60))
"""(H, W) of the training images as downloaded: larger than the crop, and smaller along one side and along both."""
BOXED_SIZES = ((120, 150), (90, 130), (40, 140), (50, 60), (130, 90), (120, 151))
BOX = (45, 70)
"""They become 45x56, 45x65, 20x70, 45x54, 65x45 and 45x57."""
SPACING = 40
"""Image k is blue k * SPACING, far enough apart for JPEG."""
DATA = DataConfig(crop_size=CROP, source_batch=2, target_batch=1, unlabeled_batch=2, rare_class_sampling=False)
RARE = replace(
    DATA, rare_class_sampling=True, rare_class_target=True, rare_class_min_px=1, rare_class_min_crop_px=3, crop_tries=4
)
RULES = pytest.mark.parametrize("data", [DATA, RARE], ids=["shuffled", "by-rare-class"])


def _config(boxed: bool = False) -> DatasetConfig:
    return DatasetConfig(
        images="{split}/images",
        labels="{split}/labels",
        class_names=make.CLASS_SET.names,
        resize=BOX if boxed else None,
    )


def _write(folder: Path, sizes: Sequence[tuple[int, int]]) -> None:
    """Images whose pixels are (row, column, number) and labels that are a function of the three."""
    for number, size in enumerate(sizes, start=1):
        image = make.coordinates(size, SPACING * number)
        make.save(image, folder / "images" / f"{number:03d}.png")
        make.save(make.label_of(image), folder / "labels" / f"{number:03d}.png")


class Folders:
    """The coordinates as downloaded and in each prepared format, with and without a training box."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for boxed, sizes in ((False, SIZES), (True, BOXED_SIZES)):
            downloaded = self._root("downloaded", boxed)
            _write(downloaded / "train", sizes)
            _write(downloaded / "val", [size for size in sizes[:3] for _ in range(2)])
            for kind in FORMATS:
                plan = make_plan(_config(boxed), downloaded, self._root(kind, boxed), image_format=kind)
                prepare(plan, jobs=1)

    def _root(self, kind: Kind, boxed: bool) -> Path:
        return self.root / ("boxed" if boxed else "whole") / kind

    def open(self, kind: Kind, *, boxed: bool = False, split: Split = "train") -> Dataset:
        """One split of one of the folders; not to be written to."""
        return open_dataset(_config(boxed), self._root(kind, boxed), split)

    def copy(self, kind: Kind, folder: Path) -> Dataset:
        """The training images in a folder of one's own, where they may be damaged."""
        shutil.copytree(self._root(kind, False), folder / kind)
        return open_dataset(_config(), folder / kind, "train")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("folders"))


@pytest.fixture(autouse=True)
def no_file_stays_mapped(folders: Folders, tmp_path: Path) -> Iterator[None]:
    yield
    if _mapped(folders.root) or _mapped(tmp_path):  # collecting takes a while
        gc.collect()
    assert not _mapped(folders.root) and not _mapped(tmp_path)


def _mapped(folder: Path) -> list[str]:
    """Files below a folder in the map of this process's memory."""
    maps = Path("/proc/self/maps")
    return [line for line in maps.read_text().splitlines() if f"{folder}/" in line] if maps.exists() else []


def _domains(source: Dataset | None, labeled: Dataset | None = None, unlabeled: Dataset | None = None) -> Domains:
    val = source or labeled or unlabeled
    assert val is not None
    return Domains(val.classes, source, labeled, unlabeled, val)


def _everywhere(dataset: Dataset) -> Domains:
    return _domains(dataset, dataset, dataset)


def _batches(domains: Domains, count: int, data: DataConfig = DATA, **more: Any) -> list[TrainBatch]:
    with TrainLoader(domains, data, **{"seed": 0, "device": CPU, "threads": 1, **more}) as loader:
        return list(islice(loader, count))


def _tensors(batch: TrainBatch) -> list[torch.Tensor]:
    unlabeled = [] if batch.unlabeled is None else [batch.unlabeled]
    return [*(batch.source or ()), *(batch.target or ()), *unlabeled]


def _same(one: TrainBatch, other: TrainBatch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(_tensors(one), _tensors(other), strict=True))


def _equal(one: Sequence[TrainBatch], other: Sequence[TrainBatch]) -> bool:
    return len(one) == len(other) and all(map(_same, one, other))


def _labeled_crops(batches: Sequence[TrainBatch]) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    for batch in batches:
        for part in (batch.source, batch.target):
            if part is not None:
                yield from zip(part.image.numpy(), part.label.numpy(), strict=True)


def _number(image: torch.Tensor) -> int:
    """Which image a crop was cut from: 1 for the first."""
    return round(int(image[..., 2].max()) / SPACING)


def _is_window(image: NDArray[np.uint8], sizes: Sequence[tuple[int, int]]) -> bool | None:
    """Whether a crop is mirrored; None where it is no window, padded with 0, of its image."""
    number = int(image[..., 2].max()) // SPACING
    inside = image[..., 2] > 0
    y, x = image[inside][:, 0].min(), image[inside][:, 1].min()
    part = make.coordinates(sizes[number - 1], number * SPACING)[y : y + CROP[0], x : x + CROP[1]]
    window = np.zeros_like(image)
    window[: part.shape[0], : part.shape[1]] = part
    for flip in (False, True):
        if np.array_equal(image[:, ::-1] if flip else image, window):
            return flip
    return None


# ---- image and label stay a pair


@RULES
@pytest.mark.parametrize("kind", ["raw", "png"])
def test_every_pixel_of_a_prepared_crop_meets_its_own_label(folders: Folders, kind: Kind, data: DataConfig) -> None:
    batches = _batches(_everywhere(folders.open(kind)), 10, data)
    numbers, flips = set(), set()
    for image, label in _labeled_crops(batches):
        inside = image[..., 2] > 0
        height, width = SIZES[int(image[..., 2].max()) // SPACING - 1]
        assert inside.sum() == min(height, CROP[0]) * min(width, CROP[1])
        np.testing.assert_array_equal(label[inside], make.label_of(image)[inside])
        assert (image[~inside] == 0).all() and (label[~inside] == 255).all()
        flips.add(_is_window(image, SIZES))
        numbers.add(int(image[..., 2].max()) // SPACING)
    assert flips == {False, True} and numbers == set(range(1, len(SIZES) + 1))
    unlabeled = torch.cat([batch.unlabeled for batch in batches if batch.unlabeled is not None]).numpy()
    assert {_is_window(image, SIZES) for image in unlabeled} == {False, True}


# ---- the same crops as from the files that were prepared


@RULES
@pytest.mark.parametrize("kind", FORMATS)
def test_a_prepared_folder_gives_the_crops_of_its_own_files(folders: Folders, kind: Kind, data: DataConfig) -> None:
    """The labels bit for bit; the images too unless they are JPEGs, which are a grey level off."""
    ours, theirs = (_batches(_everywhere(folders.open(k)), 12, data) for k in (kind, "downloaded"))
    if kind != "jpeg":
        assert _equal(ours, theirs)
        return
    for (image, label), (expected, expected_label) in zip(_labeled_crops(ours), _labeled_crops(theirs), strict=True):
        np.testing.assert_array_equal(label, expected_label)
        error = abs(image.astype(int) - expected)
        assert error.mean() < 1.5 and error.max() < 12
        assert (image[label == 255] == 0).all()  # nothing of the image bleeds into the padding


@RULES
@pytest.mark.parametrize("kind", FORMATS)
def test_crops_of_resized_images_are_within_a_grey_level(folders: Folders, kind: Kind, data: DataConfig) -> None:
    """From the downloaded files only the crop is resized, in preparing the whole image was."""
    ours, theirs = (_batches(_everywhere(folders.open(k, boxed=True)), 12, data) for k in (kind, "downloaded"))
    pairs = list(zip(_labeled_crops(ours), _labeled_crops(theirs), strict=True))
    for (image, label), (expected, expected_label) in pairs:
        np.testing.assert_array_equal(label, expected_label)
        error = abs(image.astype(int) - expected)
        assert error.mean() < 1 and error.max() <= (12 if kind == "jpeg" else 1)
    assert {_number(torch.from_numpy(image)) for (image, _), _ in pairs} == set(range(1, len(SIZES) + 1))


@RULES
def test_kinds_ride_side_by_side_and_each_stream_is_as_alone(folders: Folders, data: DataConfig) -> None:
    """Two DALI graphs: raw crops, and images that are decoded."""
    raw, downloaded, png = (folders.open(kind) for kind in ("raw", "downloaded", "png"))
    both = _batches(_domains(raw, downloaded, png), 8, data)
    alone = (_batches(_domains(*domains), 8, data) for domains in ((raw,), (None, downloaded), (None, None, png)))
    for batch, source, target, unlabeled in zip(both, *alone, strict=True):
        assert batch.source and batch.target and batch.unlabeled is not None
        parts = (source, target, unlabeled)
        assert all(map(torch.equal, _tensors(batch), [tensor for part in parts for tensor in _tensors(part)]))
    assert _equal(both, _batches(_everywhere(downloaded), 8, data))
    assert _equal(_batches(_domains(raw, downloaded, png), 5, data, start_step=3), both[3:])


# ---- a resume, and several processes


@RULES
@pytest.mark.parametrize("kind", FORMATS)
def test_a_resumed_loader_gives_the_tail_of_the_first_one_bit_for_bit(
    folders: Folders, kind: Kind, data: DataConfig
) -> None:
    domains = _everywhere(folders.open(kind))
    whole = _batches(domains, 11, data)
    for step in (1, 6):
        assert _equal(_batches(domains, 11 - step, data, start_step=step), whole[step:])
    assert not _equal(_batches(domains, 5, data, start_step=5), whole[6:])


def test_worker_processes_resume_to_the_same_batches_of_every_format(folders: Folders) -> None:
    """One test: processes start slowly."""
    domains = _domains(*(folders.open(kind) for kind in FORMATS))
    whole = _batches(domains, 12, RARE)
    assert _equal(_batches(domains, 8, replace(RARE, workers=2), start_step=4), whole[4:])


@RULES
@pytest.mark.parametrize("kind", ["raw", "png"])
def test_two_processes_draw_what_one_draws_with_twice_the_batch(folders: Folders, kind: Kind, data: DataConfig) -> None:
    domains = _everywhere(folders.open(kind))
    small = replace(data, source_batch=1, target_batch=3, unlabeled_batch=1)
    large = replace(data, source_batch=2, target_batch=6, unlabeled_batch=2)
    steps, strategy = 6, "two-xu-two-streams"
    ranks = [_batches(domains, steps, small, strategy=strategy, rank=r, world_size=2) for r in (0, 1)]
    whole = _batches(domains, steps, large, strategy=strategy)
    for first, second, one in zip(*ranks, whole, strict=True):
        halves = zip(_tensors(first), _tensors(second), strict=True)
        assert all(map(torch.equal, [torch.cat(pair) for pair in halves], _tensors(one)))
    resumed = _batches(domains, steps - 2, small, strategy=strategy, rank=1, world_size=2, start_step=2)
    assert _equal(resumed, ranks[1][2:])
    # 2 unlabeled crops a step and rank: three steps are two epochs of the six images, and nothing twice in either.
    numbers = [[_number(image) for b in rank[:3] if b.unlabeled is not None for image in b.unlabeled] for rank in ranks]
    steps_of_both = [*zip(numbers[0][0::2], numbers[0][1::2], numbers[1][0::2], numbers[1][1::2], strict=True)]
    drawn = [number for step in steps_of_both for number in step]
    assert sorted(drawn[:6]) == sorted(drawn[6:]) == [1, 2, 3, 4, 5, 6]


# ---- damaged files


def _cut(path: Path) -> None:
    """So short that no crop can be decoded."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 20])


def _cut_the_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def _spoil(path: Path) -> None:
    """As long as before: only a decoder notices."""
    body = bytearray(path.read_bytes())
    places = range(len(body) // 2, len(body) // 2 + 4) if path.suffix == ".png" else range(20)
    for place in places:
        body[place] ^= 0x5A
    path.write_bytes(body)


def _halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _remove(path: Path) -> None:
    path.unlink()


Damage = Callable[[Path], None]
IMAGES: list[tuple[Kind, str, Damage]] = [
    ("raw", "image", _cut_the_end),
    ("raw", "image", _remove),
    ("jpeg", "image", _cut),
    ("jpeg", "image", _spoil),
    ("jpeg", "image", _remove),
    ("png", "image", _cut),
    ("png", "image", _spoil),
    ("downloaded", "image", _cut_the_end),
    ("downloaded", "image", _remove),
]
LABELS: list[tuple[Kind, str, Damage]] = [
    ("raw", "label", _cut_the_end),
    ("raw", "label", _remove),
    ("jpeg", "label", _halve),
    ("png", "label", _cut),
    ("downloaded", "label", _halve),
]
ONE = replace(DATA, source_batch=1)
"""One crop a step, so that an epoch is six steps."""
SKIP = replace(ONE, skip_damaged=True)
STEPS = 20


def _ids(damages: Sequence[tuple[Kind, str, Damage]]) -> list[str]:
    return [f"{kind}-{what}-{damage.__name__.strip('_')}" for kind, what, damage in damages]


class Damaged:
    """A copy of a folder in which the file that an epoch draws last is damaged."""

    def __init__(self, folders: Folders, folder: Path, kind: Kind, what: str, damage: Damage) -> None:
        dataset = folders.copy(kind, folder)
        self.domains = _domains(dataset)
        self.clean = _batches(self.domains, STEPS, ONE)
        """The batches of before."""
        self.number = _numbers(self.clean)[5]
        self.sample = dataset.samples[self.number - 1]
        self.path: Path = getattr(self.sample, what)
        damage(self.path)


def _numbers(batches: Sequence[TrainBatch]) -> list[int]:
    return [_number(image) for batch in batches if batch.source is not None for image in batch.source.image]


@pytest.fixture
def damaged(request: pytest.FixtureRequest, folders: Folders, tmp_path: Path) -> Damaged:
    return Damaged(folders, tmp_path, *request.param)


EVERY = pytest.mark.parametrize("damaged", [*IMAGES, *LABELS], ids=_ids([*IMAGES, *LABELS]), indirect=True)


@EVERY
def test_another_image_stands_in_and_the_others_keep_their_crops(
    damaged: Damaged, caplog: pytest.LogCaptureFixture
) -> None:
    batches = _batches(damaged.domains, STEPS, SKIP)
    before, after = _numbers(damaged.clean), _numbers(batches)
    assert before.count(damaged.number) >= 3 and damaged.number not in after
    for number, clean, batch in zip(before, damaged.clean, batches, strict=True):
        assert _same(clean, batch) == (number != damaged.number)
    stand_ins = {after for before, after in zip(before, after, strict=True) if before == damaged.number}
    assert len(stand_ins) > 1  # not always the same one
    named = [record.getMessage() for record in caplog.records if str(damaged.path) in record.getMessage()]
    assert len(named) == 1 == len(caplog.records)
    assert "Another image stands in for it (--data.skip-damaged)" in named[0]


@EVERY
def test_stand_ins_are_the_same_after_a_resume_and_where_the_file_is_known(damaged: Damaged) -> None:
    whole = _batches(damaged.domains, STEPS, SKIP)
    for step in (3, 5, 8):
        assert _equal(_batches(damaged.domains, STEPS - step, SKIP, start_step=step), whole[step:])
    assert _equal(_batches(damaged.domains, STEPS, SKIP, damaged=[damaged.sample.image]), whole)
    resumed = _batches(damaged.domains, STEPS - 7, SKIP, damaged=[damaged.sample.image], start_step=7)
    assert _equal(resumed, whole[7:])


@pytest.mark.parametrize("kind", [*FORMATS, "downloaded"])
def test_stand_ins_do_not_depend_on_when_each_damaged_file_was_found(
    folders: Folders, tmp_path: Path, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    """Four of six images are damaged, each in its own way: a stand-in is often damaged too."""
    dataset = folders.copy(kind, tmp_path)
    files = [(dataset.samples[0], "image", _remove), (dataset.samples[2], "image", _cut)]
    files += [(dataset.samples[3], "label", _halve), (dataset.samples[5], "label", _remove)]
    for sample, what, damage in files:
        damage(getattr(sample, what))
    domains, data = _domains(dataset, None, dataset), replace(SKIP, source_batch=2)
    whole = _batches(domains, 12, data)
    named = [record.getMessage() for record in caplog.records]
    assert [sum(str(getattr(sample, what)) in line for line in named) for sample, what, _ in files] == [1, 1, 1, 1]
    assert set(_numbers(whole)) == {2, 5}
    assert {_number(i) for b in whole if b.unlabeled is not None for i in b.unlabeled} == {2, 4, 5, 6}
    for step in range(1, 12, 2):
        assert _equal(_batches(domains, 12 - step, data, start_step=step), whole[step:])
    known = [sample.image for sample, what, _ in files if what == "image"]
    for some in (known, known[:1], known[1:]):
        assert _equal(_batches(domains, 12, data, damaged=some), whole)


@EVERY
def test_without_leave_to_skip_the_file_is_named_after_the_batches_before_it(damaged: Damaged) -> None:
    """A step or two before it, as that many are read ahead."""
    got: list[TrainBatch] = []
    with TrainLoader(damaged.domains, ONE, seed=0, device=CPU, threads=1) as loader:
        with pytest.raises(UserError) as error:
            for batch in islice(loader, STEPS):
                got.append(batch)
    assert str(damaged.path) in str(error.value)
    assert 3 <= len(got) <= 5 and _equal(got, damaged.clean[: len(got)])


@pytest.mark.parametrize("damaged", [("raw", "image", _cut_the_end), ("png", "image", _spoil)], indirect=True)
def test_a_known_damaged_file_does_not_end_a_run_that_never_draws_it(damaged: Damaged) -> None:
    assert _equal(_batches(damaged.domains, 3, ONE), damaged.clean[:3])


def _cut_at_60_percent(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])


def _zeros_from_60_percent(path: Path) -> None:
    """What a loss of power may leave: the right length, but not all of the content."""
    body = path.read_bytes()
    kept = len(body) * 6 // 10
    path.write_bytes(body[:kept] + bytes(len(body) - kept))


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        ("jpeg", _cut_at_60_percent),
        ("downloaded", _cut_at_60_percent),
        ("downloaded", _zeros_from_60_percent),
        ("jpeg", _zeros_from_60_percent),
    ],
)
def test_a_jpeg_that_is_good_where_some_of_its_crops_lie_is_left_out_from_its_first_crop_on(
    tmp_path: Path, kind: Kind, damage: Damage
) -> None:
    """Which image stands in must not hang on whether a crop further down was drawn before."""
    _write(tmp_path / "downloaded" / "train", [(200, 250)] * 4)
    for path in list((tmp_path / "downloaded").rglob("images/*.png")):
        Image.open(path).save(path.with_suffix(".jpg"), quality=95)
        path.unlink()
    if kind == "jpeg":
        plan = make_plan(_config(), tmp_path / "downloaded", tmp_path / "jpeg", image_format="jpeg", splits=("train",))
        prepare(plan, jobs=1)
    dataset = open_dataset(_config(), tmp_path / kind, "train")
    damage(dataset.samples[1].image)
    whole = _batches(_domains(dataset), 40, SKIP)
    assert 2 not in _numbers(whole)
    for step in range(0, 40, 4):
        assert _equal(_batches(_domains(dataset), 40 - step, SKIP, start_step=step), whole[step:]), step


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("kind", "what", "damage"),
    [("raw", "image", _remove), ("png", "image", _spoil), ("jpeg", "label", _cut), ("downloaded", "image", _cut)],
)
@pytest.mark.parametrize("rare", [False, True], ids=["shuffled", "by-rare-class"])
def test_where_every_image_is_damaged_the_run_ends(
    folders: Folders,
    tmp_path: Path,
    kind: Kind,
    what: str,
    damage: Damage,
    rare: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    dataset = folders.copy(kind, tmp_path)
    counts = np.full((len(SIZES), make.CLASSES), 100, np.int64)
    for sample in dataset.samples:
        damage(getattr(sample, what))
    with pytest.raises(UserError, match=r"draws in a row from folder .*met damaged images; 6 of 6 are known to be"):
        _batches(_domains(dataset), 1, replace(SKIP, rare_class_sampling=rare), counts={"source": counts})
    for sample in dataset.samples:
        assert sum(str(getattr(sample, what)) in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize(
    ("kind", "what", "damage"), [("raw", "image", _cut_the_end), ("png", "image", _spoil), ("jpeg", "label", _cut)]
)
def test_a_rare_class_whose_only_image_is_damaged_does_not_stop_the_run(
    folders: Folders, tmp_path: Path, kind: Kind, what: str, damage: Damage
) -> None:
    """The temperature is so small that every draw is of class 1, which image 3 alone holds."""
    dataset = folders.copy(kind, tmp_path)
    counts = np.zeros((len(SIZES), make.CLASSES), np.int64)
    counts[:, 0], counts[2, 1] = 100, 1
    data = replace(SKIP, rare_class_sampling=True, rare_class_temperature=1e-6, rare_class_min_px=0)
    more = {"counts": {"source": counts}}
    assert set(_numbers(_batches(_domains(dataset), 4, data, **more))) == {3}
    damage(getattr(dataset.samples[2], what))
    whole = _batches(_domains(dataset), 12, data, **more)
    assert len(set(_numbers(whole)) - {3}) > 2 and 3 not in _numbers(whole)
    assert _equal(_batches(_domains(dataset), 5, data, start_step=7, **more), whole[7:])
    known = _batches(_domains(dataset), 12, data, damaged=[dataset.samples[2].image], **more)
    assert _equal(known, whole)


@pytest.mark.parametrize("damage", [_halve, _cut, _remove])
def test_rare_classes_are_counted_without_the_label_that_is_damaged(
    folders: Folders, tmp_path: Path, damage: Damage
) -> None:
    dataset = folders.copy("downloaded", tmp_path)
    label = dataset.samples[2].label
    assert label is not None
    damage(label)
    with pytest.raises(UserError, match=r"labels.003\.png"):
        _batches(_domains(dataset), 1, replace(RARE, source_batch=1))
    data = replace(RARE, source_batch=1, skip_damaged=True)
    whole = _batches(_domains(dataset), 12, data)
    assert len(set(_numbers(whole))) > 2 and 3 not in _numbers(whole)
    assert _equal(_batches(_domains(dataset), 8, data, start_step=4), whole[4:])


def test_worker_processes_draw_the_same_stand_ins_and_end(
    folders: Folders, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One file that the workers' own reading notices, one that only DALI does: its graph and workers start anew."""
    caplog.set_level(logging.ERROR, "iidm.data")  # pytest keeps warnings, their errors and so the broken graph
    jpeg, raw = (
        Damaged(folders, tmp_path, kind, "image", damage) for kind, damage in (("jpeg", _spoil), ("raw", _cut))
    )
    domains = _domains(raw.domains.source, jpeg.domains.source)
    whole = _batches(domains, 14, SKIP)
    with TrainLoader(domains, replace(SKIP, workers=2), seed=0, device=CPU, start_step=1, threads=1) as loader:
        assert _equal(list(islice(loader, 13)), whole[1:])
        end = time.monotonic() + 10
        while len(processes := multiprocessing.active_children()) > 4 and time.monotonic() < end:
            gc.collect()
            time.sleep(0.1)
        assert len(processes) == 4, processes  # two a graph; those of the broken one are gone
    del loader
    gc.collect()
    for process in processes:
        process.join(20)
        assert not process.is_alive()


def test_a_damaged_array_that_a_worker_process_reads_is_named(folders: Folders, tmp_path: Path) -> None:
    damaged = Damaged(folders, tmp_path, "raw", "image", _cut_the_end)
    with pytest.raises(UserError) as error:
        _batches(damaged.domains, STEPS, replace(ONE, workers=2))
    assert str(damaged.path) in str(error.value)


# ---- memory


def _resident_mib() -> float:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
@pytest.mark.timeout(120)
def test_memory_and_open_files_stay_level_over_ten_thousand_batches(folders: Folders) -> None:
    """A page kept of each mapped file would be 39 MiB and more."""
    data = replace(RARE, crop_size=(16, 16), source_batch=1, unlabeled_batch=1)
    raw = folders.open("raw")
    with TrainLoader(_domains(raw, None, raw), data, seed=0, device=CPU, threads=1) as loader:
        kept = list(islice(loader, 1500))[-100:]  # holding batches holds no file
        before, files = _resident_mib(), len(os.listdir("/proc/self/fd"))
        for count, _ in enumerate(islice(loader, 10_000)):
            if count % 500 == 0:
                assert len(os.listdir("/proc/self/fd")) <= files + 4
                assert len(_mapped(folders.root)) <= 12
        after = _resident_mib()
        assert after - before < 5
    assert len(kept) == 100 and not _mapped(folders.root)


def test_a_batch_stays_what_it_was_when_its_file_is_written_anew(folders: Folders, tmp_path: Path) -> None:
    """A crop as wide as its image is one stretch of the file: it too must have been copied."""
    _write(tmp_path / "downloaded" / "train", [(40, CROP[1])] * 2)
    plan = make_plan(_config(), tmp_path / "downloaded", tmp_path / "raw", image_format="raw", splits=("train",))
    prepare(plan, jobs=1)
    dataset = open_dataset(_config(), tmp_path / "raw", "train")
    batches = _batches(_everywhere(dataset), 6)
    kept = [[tensor.clone() for tensor in _tensors(batch)] for batch in batches]
    for sample in dataset.samples:
        for path in (sample.image, sample.label):
            assert path is not None
            with path.open("r+b") as file:
                file.write(bytes(path.stat().st_size))
    assert all(
        torch.equal(a, b)
        for batch, c in zip(batches, kept, strict=True)
        for a, b in zip(_tensors(batch), c, strict=True)
    )


# ---- evaluation


def _evaluate(dataset: Dataset, batch_size: int) -> list[EvalBatch]:
    with EvalLoader(dataset, device=CPU, batch_size=batch_size, threads=2) as loader:
        assert len(loader) == len(dataset.samples)
        return list(loader)


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("boxed", [False, True], ids=["whole", "boxed"])
@pytest.mark.parametrize("kind", FORMATS)
def test_an_evaluation_is_that_of_the_files_as_downloaded(
    folders: Folders, kind: Kind, boxed: bool, batch_size: int
) -> None:
    ours, theirs = (_evaluate(folders.open(k, boxed=boxed, split="val"), batch_size) for k in (kind, "downloaded"))
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
    for our, again in zip(ours, _evaluate(folders.open(kind, boxed=boxed, split="val"), batch_size), strict=True):
        assert torch.equal(our.image, again.image)


@pytest.mark.parametrize(
    ("kind", "what", "damage"), [*IMAGES[:-2], *LABELS[:-1]], ids=_ids([*IMAGES[:-2], *LABELS[:-1]])
)
def test_a_damaged_file_of_the_evaluation_is_named(
    folders: Folders, tmp_path: Path, kind: Kind, what: str, damage: Damage
) -> None:
    dataset = folders.copy(kind, tmp_path)
    path: Path = getattr(dataset.samples[3], what)
    damage(path)
    with pytest.raises(UserError) as error:
        _evaluate(dataset, 2)
    assert str(path) in str(error.value)


# ---- the cost does not grow with the data set


def _repeated(dataset: Dataset, count: int) -> Dataset:
    """A data set of `count` images that are a few files over and over."""
    assert dataset.prepared is not None
    entries, samples = {}, []
    for place in range(count):
        sample = dataset.samples[place % len(dataset.samples)]
        name = f"drive_{place // 1000:04d}/frame_{place:08d}"
        entries[name] = dataset.prepared.entries[sample.name]._replace(name=name)
        samples.append(sample._replace(name=name))
    prepared = replace(dataset.prepared, entries=entries)
    return replace(dataset, samples=tuple(samples), prepared=prepared)


@pytest.mark.parametrize(("kind", "data"), [("raw", RARE), ("png", DATA)], ids=["raw-by-rare-class", "png-shuffled"])
def test_a_batch_of_a_thousand_times_as_many_images_costs_the_same(
    folders: Folders, kind: Kind, data: DataConfig
) -> None:
    """Processor time of 60 batches, the better half of the turns."""
    data = replace(data, crop_size=(16, 16), source_batch=8, unlabeled_batch=8)
    loaders = []
    for count in (100, 100_000):
        dataset = _repeated(folders.open(kind), count)
        loaders.append(TrainLoader(_domains(dataset, None, dataset), data, seed=0, device=CPU, threads=1))
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
    assert large < 2 * small, (small, large)


def _prepared_folder_of(count: int, folder: Path) -> tuple[DatasetConfig, Path]:
    """An index of `count` images, of which only the three that hold class 1 are there."""
    size, classes = (40, 60), 19
    config = replace(_config(), class_names=make.CLASS_SET.names[:classes])
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


def test_a_prepared_folder_of_25000_images_opens_and_gives_a_batch_in_seconds(tmp_path: Path) -> None:
    """Of processor time; GTA5 holds as many. No file is looked at but those that are drawn: the others do not exist."""
    config, root = _prepared_folder_of(25_000, tmp_path)
    data = replace(RARE, rare_class_temperature=1e-6, rare_class_min_px=300, rare_class_target=False)
    start = time.process_time()
    dataset = open_dataset(config, root, "train")
    with TrainLoader(_domains(dataset), data, seed=0, device=CPU, threads=1) as loader:
        batch = next(loader)
        seconds = time.process_time() - start
    assert len(dataset.samples) == 25_000
    assert batch.source is not None and set(batch.source.image.unique().tolist()) == {7}
    assert seconds < 3
