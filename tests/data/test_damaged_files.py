"""Damaged files of a prepared or downloaded folder: another image stands in, or the file is named."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import make_coordinates as make
import numpy as np
import pytest
from coordinate_folders import DATA, FORMATS, RARE, SIZES, Folders, Kind, config_of, number_of, write_images
from loaders import CPU, batches_of, domains_of, equal, evaluated, same
from PIL import Image

from iidm.data.datasets.dataset import open_dataset
from iidm.data.loading.loader import TrainLoader
from iidm.data.preparation.plan import make_plan, prepare
from iidm.types import TrainBatch, UserError

pytestmark = pytest.mark.usefixtures("no_file_stays_mapped")


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
        self.domains = domains_of(dataset)
        self.clean = batches_of(self.domains, STEPS, ONE)
        """The batches of before."""
        self.number = _numbers(self.clean)[5]
        self.sample = dataset.samples[self.number - 1]
        self.path: Path = getattr(self.sample, what)
        damage(self.path)


def _numbers(batches: Sequence[TrainBatch]) -> list[int]:
    return [number_of(image) for batch in batches if batch.source is not None for image in batch.source.image]


@pytest.fixture
def damaged(request: pytest.FixtureRequest, folders: Folders, tmp_path: Path) -> Damaged:
    return Damaged(folders, tmp_path, *request.param)


EVERY = pytest.mark.parametrize("damaged", [*IMAGES, *LABELS], ids=_ids([*IMAGES, *LABELS]), indirect=True)


@EVERY
def test_another_image_stands_in_and_the_others_keep_their_crops(
    damaged: Damaged, caplog: pytest.LogCaptureFixture
) -> None:
    batches = batches_of(damaged.domains, STEPS, SKIP)
    before, after = _numbers(damaged.clean), _numbers(batches)
    assert before.count(damaged.number) >= 3 and damaged.number not in after
    for number, clean, batch in zip(before, damaged.clean, batches, strict=True):
        assert same(clean, batch) == (number != damaged.number)
    stand_ins = {after for before, after in zip(before, after, strict=True) if before == damaged.number}
    assert len(stand_ins) > 1  # not always the same one
    named = [record.getMessage() for record in caplog.records if str(damaged.path) in record.getMessage()]
    assert len(named) == 1 == len(caplog.records)
    assert "Another image stands in for it (--data.skip-damaged)" in named[0]


@EVERY
def test_stand_ins_are_the_same_after_a_resume_and_where_the_file_is_known(damaged: Damaged) -> None:
    whole = batches_of(damaged.domains, STEPS, SKIP)
    for step in (3, 5, 8):
        assert equal(batches_of(damaged.domains, STEPS - step, SKIP, start_step=step), whole[step:])
    assert equal(batches_of(damaged.domains, STEPS, SKIP, damaged=[damaged.sample.image]), whole)
    resumed = batches_of(damaged.domains, STEPS - 7, SKIP, damaged=[damaged.sample.image], start_step=7)
    assert equal(resumed, whole[7:])


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
    domains, data = domains_of(dataset, None, dataset), replace(SKIP, source_batch=2)
    whole = batches_of(domains, 12, data)
    named = [record.getMessage() for record in caplog.records]
    assert [sum(str(getattr(sample, what)) in line for line in named) for sample, what, _ in files] == [1, 1, 1, 1]
    assert set(_numbers(whole)) == {2, 5}
    assert {number_of(i) for b in whole if b.unlabeled is not None for i in b.unlabeled} == {2, 4, 5, 6}
    for step in range(1, 12, 2):
        assert equal(batches_of(domains, 12 - step, data, start_step=step), whole[step:])
    known = [sample.image for sample, what, _ in files if what == "image"]
    for some in (known, known[:1], known[1:]):
        assert equal(batches_of(domains, 12, data, damaged=some), whole)


@EVERY
def test_without_leave_to_skip_the_file_is_named_after_the_batches_before_it(damaged: Damaged) -> None:
    """A step or two before it, as that many are read ahead."""
    got: list[TrainBatch] = []
    with TrainLoader(damaged.domains, ONE, seed=0, device=CPU, threads=1) as loader:
        with pytest.raises(UserError) as error:
            for batch in islice(loader, STEPS):
                got.append(batch)
    assert str(damaged.path) in str(error.value)
    assert 3 <= len(got) <= 5 and equal(got, damaged.clean[: len(got)])


@pytest.mark.parametrize("damaged", [("raw", "image", _cut_the_end), ("png", "image", _spoil)], indirect=True)
def test_a_known_damaged_file_does_not_end_a_run_that_never_draws_it(damaged: Damaged) -> None:
    assert equal(batches_of(damaged.domains, 3, ONE), damaged.clean[:3])


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
    write_images(tmp_path / "downloaded" / "train", [(200, 250)] * 4)
    for path in list((tmp_path / "downloaded").rglob("images/*.png")):
        Image.open(path).save(path.with_suffix(".jpg"), quality=95)
        path.unlink()
    if kind == "jpeg":
        plan = make_plan(
            config_of(), tmp_path / "downloaded", tmp_path / "jpeg", image_format="jpeg", splits=("train",)
        )
        prepare(plan, jobs=1)
    dataset = open_dataset(config_of(), tmp_path / kind, "train")
    damage(dataset.samples[1].image)
    whole = batches_of(domains_of(dataset), 40, SKIP)
    assert 2 not in _numbers(whole)
    for step in range(0, 40, 4):
        assert equal(batches_of(domains_of(dataset), 40 - step, SKIP, start_step=step), whole[step:]), step


@pytest.mark.timeout(900)
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
        batches_of(domains_of(dataset), 1, replace(SKIP, rare_class_sampling=rare), counts={"source": counts})
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
    assert set(_numbers(batches_of(domains_of(dataset), 4, data, **more))) == {3}
    damage(getattr(dataset.samples[2], what))
    whole = batches_of(domains_of(dataset), 12, data, **more)
    assert len(set(_numbers(whole)) - {3}) > 2 and 3 not in _numbers(whole)
    assert equal(batches_of(domains_of(dataset), 5, data, start_step=7, **more), whole[7:])
    known = batches_of(domains_of(dataset), 12, data, damaged=[dataset.samples[2].image], **more)
    assert equal(known, whole)


@pytest.mark.parametrize("damage", [_halve, _cut, _remove])
def test_rare_classes_are_counted_without_the_label_that_is_damaged(
    folders: Folders, tmp_path: Path, damage: Damage
) -> None:
    dataset = folders.copy("downloaded", tmp_path)
    label = dataset.samples[2].label
    assert label is not None
    damage(label)
    with pytest.raises(UserError, match=r"labels.003\.png"):
        batches_of(domains_of(dataset), 1, replace(RARE, source_batch=1))
    data = replace(RARE, source_batch=1, skip_damaged=True)
    whole = batches_of(domains_of(dataset), 12, data)
    assert len(set(_numbers(whole))) > 2 and 3 not in _numbers(whole)
    assert equal(batches_of(domains_of(dataset), 8, data, start_step=4), whole[4:])


def test_worker_processes_draw_the_same_stand_ins_and_end(
    folders: Folders, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One file that the workers' own reading notices, one that only DALI does: its graph and workers start anew."""
    caplog.set_level(logging.ERROR, "iidm.data")  # pytest keeps warnings, their errors and so the broken graph
    jpeg, raw = (
        Damaged(folders, tmp_path, kind, "image", damage) for kind, damage in (("jpeg", _spoil), ("raw", _cut))
    )
    domains = domains_of(raw.domains.source, jpeg.domains.source)
    whole = batches_of(domains, 14, SKIP)
    with TrainLoader(domains, replace(SKIP, workers=2), seed=0, device=CPU, start_step=1, threads=1) as loader:
        assert equal(list(islice(loader, 13)), whole[1:])
        end = time.monotonic() + 600
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
        batches_of(damaged.domains, STEPS, replace(ONE, workers=2))
    assert str(damaged.path) in str(error.value)


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
        evaluated(dataset, 2)
    assert str(path) in str(error.value)
