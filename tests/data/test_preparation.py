"""A prepared folder holds what the raw data set holds, exactly; it is refused, resumed and checked as it should be."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import make_datasets as make
import numpy as np
import pytest
import torch
from prepared_folders import (
    BOX,
    WRITERS,
    image_of,
    open_small,
    prepare_again,
    prepare_small,
    times,
    write_camvid,
    write_dusk,
)

from iidm.config import DatasetConfig
from iidm.data.datasets.dataset import open_dataset, training_size
from iidm.data.datasets.statistics import class_pixel_counts
from iidm.data.files.reading import read_bytes
from iidm.data.loading.crops import resize_label
from iidm.data.loading.pipeline import ImageDecoder
from iidm.data.preparation import plan as preparation
from iidm.data.preparation.check import check_prepared
from iidm.data.preparation.plan import make_plan, prepare
from iidm.data.preparation.writing import JOURNAL
from iidm.data.prepared.entries import INDEX, ImageFormat
from iidm.data.prepared.folder import MANIFEST, read_manifest
from iidm.locks import locked
from iidm.types import UserError

# ---- the same data, exactly


@pytest.mark.parametrize("image_format", ["raw", "jpeg", "png"])
@pytest.mark.parametrize("name", WRITERS)
def test_every_encoding_is_kept_exactly_in_every_format(tmp_path: Path, name: str, image_format: ImageFormat) -> None:
    raw_root, out = prepare_small(name, tmp_path, image_format)
    decoder = ImageDecoder(device=torch.device("cpu"), batch_size=1, threads=1)
    for split in read_manifest(out).splits:
        raw, prepared = open_small(name, raw_root, split), open_small(name, out, split)
        assert [s.name for s in raw.samples] == [s.name for s in prepared.samples]
        assert raw.classes == prepared.classes
        np.testing.assert_array_equal(class_pixel_counts(raw), class_pixel_counts(prepared))
        for place, (before, after) in enumerate(zip(raw.samples, prepared.samples, strict=True)):
            size = training_size(raw, raw.image_size(before))
            assert prepared.image_size(after) == size == training_size(prepared, size)
            label = raw.load_label(before)
            expected = label if split == "val" else resize_label(label, size)
            np.testing.assert_array_equal(prepared.load_label(after), expected)
            (decoded,) = decoder([read_bytes(before.image)], [size])
            error = np.abs(image_of(prepared, place).astype(int) - decoded.numpy())
            assert error.mean() < 3 if image_format == "jpeg" else error.max() == 0


def test_a_toml_data_set_with_unlabeled_images_is_prepared(tmp_path: Path) -> None:
    make.write_folder(tmp_path / "raw", [f"train/drive/{i}" for i in range(3)] + ["val/9"], (3, 7, 255))
    (tmp_path / "raw" / "labels" / "train" / "drive" / "1.png").unlink()
    (tmp_path / "own.toml").write_text(
        'images = "images/{split}"\nlabels = "labels/{split}"\nresize = [22, 38]\nignore = [255]\n'
        '[[classes]]\nname = "a"\nids = [7]\n[[classes]]\nname = "b"\nids = [3]\n'
    )
    config = DatasetConfig(spec=str(tmp_path / "own.toml"))
    prepare(make_plan(config, tmp_path / "raw", tmp_path / "out"), jobs=1)
    dataset = open_dataset(config, tmp_path / "out", "train", labels="some")
    assert [(s.name, s.label is not None) for s in dataset.samples] == [
        ("drive/0", True),
        ("drive/1", False),
        ("drive/2", True),
    ]
    with pytest.raises(UserError, match="1 of 3 images .* have no label"):
        open_dataset(config, tmp_path / "out", "train")
    assert len(open_dataset(config, tmp_path / "out", "val").samples) == 1


def test_one_prepared_folder_serves_data_sets_of_the_same_images(tmp_path: Path) -> None:
    """Cityscapes with 16 classes, CamVid by day, StreetScenes in CamVid's classes."""
    for prepared_as, read_as, split, writer in (
        ("cityscapes", "cityscapes-16", "train", make.write_cityscapes),
        ("cityscapes", "cityscapes-16", "val", make.write_cityscapes),
        ("camvid", "camvid-day", "train", write_camvid),
        ("camvid", "camvid-dusk", "train", write_dusk),
        (
            "streetscenes-rendered",
            "streetscenes-rendered-camvid",
            "train",
            lambda root: make.write_scene_folders(root, "rendered", "train", 3),
        ),
    ):
        raw, out = tmp_path / read_as / split / "raw", tmp_path / read_as / split / "out"
        writer(raw)
        splits = (split,)
        prepare(make_plan(DatasetConfig(spec=prepared_as, resize=BOX), raw, out, splits=splits), jobs=1)  # type: ignore[arg-type]
        one, other = open_small(read_as, raw, split), open_small(read_as, out, split)
        assert [s.name for s in one.samples] == [s.name for s in other.samples]
        # Counts are rounded class by class before classes are merged.
        np.testing.assert_allclose(class_pixel_counts(one), class_pixel_counts(other), atol=3)
        for before, after in zip(one.samples, other.samples, strict=True):
            label = one.load_label(before)
            expected = label if split == "val" else resize_label(label, training_size(one, label.shape))
            np.testing.assert_array_equal(other.load_label(after), expected)


@pytest.mark.parametrize(
    ("read_as", "split", "box", "message"),
    [
        ("cityscapes", "train", BOX, "do not tell apart all classes"),
        ("cityscapes-16", "train", None, "prepared with the box 22x38"),
        ("gta5", "train", BOX, "reads the images of images, which .* does not hold; it has train .leftImg8bit"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(
    tmp_path: Path, read_as: str, split: str, box: tuple[int, int] | None, message: str
) -> None:
    _, out = prepare_small("cityscapes" if read_as == "gta5" else "cityscapes-16", tmp_path)
    with pytest.raises(UserError, match=message):
        open_small(read_as, out, split, box)


def test_validation_labels_at_training_resolution_are_refused(tmp_path: Path) -> None:
    write_dusk(tmp_path / "raw")
    config = DatasetConfig(spec="camvid", resize=BOX)
    prepare(make_plan(config, tmp_path / "raw", tmp_path / "out", splits=("train",)), jobs=1)
    with pytest.raises(UserError, match="at training resolution only"):
        open_small("camvid-dusk", tmp_path / "out", "val")


@pytest.mark.parametrize(
    ("key", "value", "message"), [("complete", False, "is not finished"), ("format_version", 9, "in format 9")]
)
def test_an_unfinished_or_newer_folder_is_refused(tmp_path: Path, key: str, value: object, message: str) -> None:
    _, out = prepare_small("gta5", tmp_path)
    manifest = json.loads((out / MANIFEST).read_text())
    (out / MANIFEST).write_text(json.dumps({**manifest, key: value}))
    with pytest.raises(UserError, match=message):
        open_small("gta5", out)


def test_a_cut_off_index_never_means_fewer_images(tmp_path: Path) -> None:
    _, out = prepare_small("gta5", tmp_path)
    lines = (out / INDEX).read_text().splitlines(keepends=True)
    for text in ("".join(lines[:2]), "".join(lines)[:-30]):
        (out / INDEX).write_text(text)
        with pytest.raises(UserError, match="2 of its 3 lines can be read"):
            open_small("gta5", out)
    (out / INDEX).unlink()
    prepare_again(tmp_path)
    assert len(open_small("gta5", out).samples) == 3


# ---- running it again


def test_a_second_run_does_nothing(tmp_path: Path) -> None:
    _, out = prepare_small("gta5", tmp_path)
    before, index = times(out), (out / INDEX).stat().st_mtime_ns
    assert not make_plan(DatasetConfig(spec="gta5", resize=BOX), tmp_path / "downloaded", out).tasks
    prepare_again(tmp_path)
    assert times(out) == before and (out / INDEX).stat().st_mtime_ns == index


def test_what_tells_what_was_prepared_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut left an empty prepared.json, which the same command refused."""
    synced: set[int] = set()
    sync, replace = os.fsync, os.replace

    def note(handle: int) -> None:
        synced.add(os.fstat(handle).st_ino)
        sync(handle)

    def named(old: Path, new: Path) -> None:
        assert Path(new).parent.name in ("train", "val") or os.stat(old).st_ino in synced, new
        replace(old, new)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "replace", named)
    prepare_small("gta5", tmp_path)
    assert len(synced) >= 4


def test_what_a_kill_left_goes_when_the_folder_is_complete(tmp_path: Path) -> None:
    """Halves of files of a process that has ended; the journal where the kill came after the folder was complete."""
    _, out = prepare_small("gta5", tmp_path)
    whole = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = socket.gethostname()
    dead = [out / f".index.npz.{host}-{ended.pid}.part", out / "splits" / f".train.txt.{host}-{ended.pid}.part"]
    alive = [out / f".index.npz.{host}-{os.getpid()}.part", out / f".index.npz.other{host}-{ended.pid}.part"]
    for path in (*dead, *alive, out / JOURNAL):
        path.write_text("half")
    prepare_again(tmp_path)
    left = {path for path in out.rglob("*") if path.is_file()}
    assert left == {*whole, *alive}, "of a process that lives or another machine they may become whole"
    assert all(path.read_bytes() == body for path, body in whole.items())


@pytest.mark.parametrize("change", ["image", "label", "output", "truncated", "added", "removed"])
def test_only_what_changed_is_done_again(tmp_path: Path, change: str) -> None:
    raw, out = prepare_small("gta5", tmp_path)
    before, changed = times(out), {"00002.npy"}
    if change == "image":
        make.save_image(raw / "images" / "00002.png", make.SIZE, 77)
    elif change == "label":
        make.save_palette(raw / "labels" / "00002.png", make.random_ids(range(20), make.SIZE, 5))
    elif change == "output":
        (out / "images" / "train" / "00002.npy").unlink()
    elif change == "truncated":
        path = out / "labels" / "train" / "00002.npy"
        path.write_bytes(path.read_bytes()[:-7])
    elif change == "added":
        make.save_image(raw / "images" / "00009.png", make.SIZE, 9)
        make.save_palette(raw / "labels" / "00009.png", make.random_ids(range(20), make.SIZE, 9))
        changed = {"00009.npy"}
    else:
        (raw / "images" / "00002.png").unlink()
    prepare_again(tmp_path)
    after = times(out)
    assert {name for name in after.keys() | before.keys() if after.get(name) != before.get(name)} == changed
    expected, got = open_small("gta5", raw), open_small("gta5", out)
    assert [s.name for s in got.samples] == [s.name for s in expected.samples]
    for one, other in zip(expected.samples, got.samples, strict=True):
        label = expected.load_label(one)
        np.testing.assert_array_equal(got.load_label(other), resize_label(label, training_size(expected, label.shape)))
    assert check_prepared(out) == (len(after), [])


# ---- refusals


def _tree(root: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("foreign", "holds files that iidm.prepare did not write .holiday.jpg"),
        ("format", "with another format .raw there, jpeg now"),
        ("resize", "with another resize"),
        ("root", "with another root"),
        ("dataset", "with another dataset"),
        ("file", "is no folder"),
        ("prepared root", "is a prepared folder already"),
    ],
)
def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path, what: str, message: str) -> None:
    raw, out = prepare_small("gta5", tmp_path)
    config, image_format = DatasetConfig(spec="gta5", resize=BOX), "raw"
    if what == "foreign":
        out = tmp_path / "photos"
        out.mkdir()
        (out / "holiday.jpg").write_bytes(b"sea")
    elif what == "format":
        image_format = "jpeg"
    elif what == "resize":
        config = DatasetConfig(spec="gta5")
    elif what == "root":
        raw = raw.rename(tmp_path / "elsewhere")
    elif what == "dataset":
        raw = tmp_path / "synthia"
        make.write_synthia(raw)
        config = DatasetConfig(spec="synthia", resize=BOX)
    elif what == "file":
        out = tmp_path / "file"
        out.write_bytes(b"")
    else:
        raw, out = out, tmp_path / "new"
    before = _tree(tmp_path)
    with pytest.raises(UserError, match=message):
        prepare(make_plan(config, raw, out, image_format=image_format), jobs=1)  # type: ignore[arg-type]
    assert _tree(tmp_path) == before


def test_too_little_disk_space_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make.write_gta5(tmp_path / "raw")
    monkeypatch.setattr(preparation, "_free_bytes", lambda out: 1000)
    plan = make_plan(DatasetConfig(spec="gta5"), tmp_path / "raw", tmp_path / "out")
    with pytest.raises(UserError, match="needs 11 MB more, but only 0 MB are free.*--format jpeg"):
        prepare(plan, jobs=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("image_format", ["raw", "png"])
def test_the_disk_need_is_told_truly(tmp_path: Path, image_format: ImageFormat) -> None:
    make.write_cityscapes(tmp_path / "raw", train=6, val=3, size=(60, 104))
    config = DatasetConfig(spec="cityscapes", resize=BOX)
    plan = make_plan(config, tmp_path / "raw", tmp_path / "out", image_format=image_format)
    prepare(plan, jobs=1)
    written = sum(p.stat().st_size for kind in ("images", "labels") for p in (tmp_path / "out" / kind).rglob("*.*"))
    assert plan.need_bytes == (written if image_format == "raw" else pytest.approx(written, rel=0.3))


def test_a_second_process_is_told_to_wait(tmp_path: Path) -> None:
    make.write_gta5(tmp_path / "raw")
    plan = make_plan(DatasetConfig(spec="gta5"), tmp_path / "raw", tmp_path / "out")
    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out" / preparation.LOCK):
        message = rf"Another iidm.prepare is writing .*out \(process {os.getpid()}\)\. Wait for it, or stop it"
        with pytest.raises(UserError, match=message):
            prepare(plan, jobs=1)
    prepare(plan, jobs=1)
