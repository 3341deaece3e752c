"""Damaged files of a raw or prepared folder are named, left out where that is allowed, and found by the check."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import make_datasets as make
import numpy as np
import pytest
from PIL import Image
from prepared_folders import BOX, open_small, prepare_again, prepare_small, times

from iidm.config import DatasetConfig
from iidm.data.preparation.check import check_prepared
from iidm.data.preparation.plan import make_plan, prepare
from iidm.data.prepared.entries import INDEX, Entry, FileFacts, read_index
from iidm.data.prepared.folder import read_manifest
from iidm.types import UserError

# ---- damaged files


def _damage(raw: Path) -> None:
    path = raw / "images" / "00001.png"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    make.save_palette(raw / "labels" / "00002.png", make.random_ids(range(20), (20, 20), 1))
    make.save_palette(raw / "labels" / "00003.png", make.random_ids((0, 77), make.SIZE, 1))


def test_damaged_files_are_all_named_and_the_others_stay(tmp_path: Path) -> None:
    raw, out = tmp_path / "downloaded", tmp_path / "prepared"
    make.write_gta5(raw, count=5)
    _damage(raw)
    with pytest.raises(UserError) as error:
        prepare_again(tmp_path)
    for words in (
        "3 of 5 images",
        "00001.png",
        "20x20",
        "holds ids that its data set does not name: 77",
        "--skip-damaged",
    ):
        assert words in str(error.value)
    with pytest.raises(UserError, match="is not finished"):
        open_small("gta5", out)
    kept = times(out)
    assert len(kept) == 2
    make.write_gta5(raw, count=5)  # mended
    prepare_again(tmp_path)
    after = times(out)
    assert len(after) == 5 and len(open_small("gta5", out).samples) == 5


def test_damaged_files_are_left_out_where_that_is_allowed(tmp_path: Path) -> None:
    raw, out = tmp_path / "downloaded", tmp_path / "prepared"
    make.write_gta5(raw, count=5)
    _damage(raw)
    plan = make_plan(DatasetConfig(spec="gta5", resize=BOX), raw, out)
    manifest = prepare(plan, jobs=1, skip_damaged=True)
    assert len(manifest.skipped) == 3 and read_manifest(out).skipped == manifest.skipped
    assert [s.name for s in open_small("gta5", out).samples] == ["00004", "00005"]
    assert (out / "splits" / "train.txt").read_text() == "00004\n00005\n"
    assert check_prepared(out) == (2, [])


# ---- the check


def _edit_index(out: Path, edit: Callable[[Entry], Entry]) -> None:
    entries = read_index(out / INDEX)
    (out / INDEX).write_text("".join(e.line() for e in [edit(entries[0]), *entries[1:]]))


def _flip(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[-1] ^= 1
    path.write_bytes(bytes(body))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda out: _flip(out / "images" / "train" / "00001.npy"), "00001.npy is damaged: its checksum"),
        (lambda out: _flip(out / "labels" / "train" / "00002.npy"), "00002.npy is damaged: its checksum"),
        (lambda out: (out / "images" / "train" / "00001.npy").write_bytes(b"x"), "it has 1 bytes, the index says"),
        (lambda out: (out / "labels" / "train" / "00003.npy").unlink(), "00003.npy does not exist"),
        (lambda out: (out / "images" / "train" / "cat.npy").write_bytes(b"x"), "cat.npy belongs to no image"),
        (lambda out: (out / INDEX).write_text((out / INDEX).read_text()[:-9]), "2 of its 3 lines can be read"),
        (lambda out: (out / "splits" / "train.txt").write_text("00001\n"), "does not name every image"),
        (lambda out: _edit_index(out, lambda e: e._replace(size=(9, 9))), "is no image of 9x9"),
    ],
)
def test_the_check_names_what_is_wrong(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    _, out = prepare_small("gta5", tmp_path)
    assert check_prepared(out) == (3, [])
    damage(out)
    _, problems = check_prepared(out)
    assert any(message in line for line in problems), problems


def test_what_the_check_found_is_mended_by_removing_it_and_preparing_again(tmp_path: Path) -> None:
    _, out = prepare_small("gta5", tmp_path)
    _flip(out / "images" / "train" / "00001.npy")
    (out / "images" / "train" / "00001.npy").unlink()
    prepare_again(tmp_path)
    assert check_prepared(out) == (3, [])


def test_the_check_finds_a_label_beyond_the_classes(tmp_path: Path) -> None:
    _, out = prepare_small("gta5", tmp_path, "png")
    path = out / "labels" / "train" / "00001.png"
    label = np.asarray(Image.open(path)).copy()
    label[0, 0] = 19
    Image.fromarray(label).save(path)
    body = path.read_bytes()
    _edit_index(out, lambda e: e._replace(label=FileFacts(len(body), zlib.crc32(body))))
    _, problems = check_prepared(out)
    assert any("holds train id 19; there are 19 classes" in line for line in problems)


def test_a_folder_that_was_not_prepared_is_no_subject_of_the_check(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no prepared folder"):
        check_prepared(tmp_path)


def test_a_split_of_which_every_image_is_damaged_is_not_called_complete(tmp_path: Path) -> None:
    make.write_gta5(tmp_path / "raw", count=2)
    for path in (tmp_path / "raw" / "images").glob("*.png"):
        path.write_bytes(b"")
    plan = make_plan(DatasetConfig(spec="gta5"), tmp_path / "raw", tmp_path / "out")
    with pytest.raises(UserError, match=r"All train images are damaged, so --skip-damaged leaves none: .* is empty"):
        prepare(plan, jobs=1, skip_damaged=True)
    assert not read_manifest(tmp_path / "out").complete
