"""index.npz: the index of a prepared folder in columns is that of its lines, and is made where there is none."""

from __future__ import annotations

import pickle
import random
from pathlib import Path

import make_datasets as make
import numpy as np
import pytest

from iidm.config import DatasetConfig
from iidm.data.datasets.dataset import Dataset, open_dataset
from iidm.data.preparation.check import check_prepared
from iidm.data.preparation.plan import make_plan, prepare
from iidm.data.prepared import columns
from iidm.data.prepared.columns import COLUMNS, open_columns
from iidm.data.prepared.entries import INDEX, Entry, FileFacts, entry_paths, read_index
from iidm.data.prepared.index import Index
from iidm.data.prepared.opened import Prepared
from iidm.data.prepared.samples import PreparedSamples
from iidm.types import UserError

ODD = ["a", "a/b", "a0", "é", "e\u0301", "\udc80", "\ue000", "\U0001f600", "z" * 300, "#1", "x.jpg", " "]
"""Names that sort in another way as UTF-16 or by locale, and one that is no Unicode."""
CONFIG = DatasetConfig(spec="gta5", resize=(22, 38))


def _entry(name: str, number: int, split: str = "train") -> Entry:
    label = (number + 2, number + 3) if number % 3 else None
    facts = FileFacts(2**33 + number, 7)
    pixels = (number, 2**31 - 1 - number) if label else ()
    return Entry(split, name, (9, number), (8, number), label, pixels, facts, facts if label else None, (1, 2))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    make.write_gta5(tmp_path / "raw", count=4)
    prepare(make_plan(CONFIG, tmp_path / "raw", tmp_path / "out"), jobs=1)
    return tmp_path / "out"


def _opened(out: Path) -> Dataset:
    return open_dataset(CONFIG, out, "train")


def test_every_name_is_found_and_has_the_values_of_its_line(tmp_path: Path) -> None:
    entries = [_entry(name, number) for number, name in enumerate(ODD)]
    random.Random(0).shuffle(entries)
    index = Index.of(entries)
    prepared = Prepared(tmp_path, "png", "train", index, "images")
    assert index.names() == sorted(ODD) == [index.name(row) for row in range(len(ODD))]
    samples = PreparedSamples(prepared, np.arange(len(ODD), dtype=np.int32))
    for entry in entries:
        for _ in range(2):  # searched for, and just named
            row = Index.of(entries).row(entry.name)
            assert index.name(index.row(entry.name)) == entry.name and index.row(entry.name) == row
        sample = samples[row]
        assert (sample.image, sample.label) == entry_paths(tmp_path, "png", entry)
        assert prepared.image_size(sample) == entry.size
        assert index.disk_size[row].tolist() == list(entry.disk_size)
        assert index.label_size[row].tolist() == list(entry.label_size or (-1, -1))
        assert index.pixels[row].tolist() == list(entry.pixels or (0, 0))
        lengths = [facts.bytes for facts in (entry.image, entry.label) if facts]
        assert [length for _, length in prepared.lengths(sample)] == lengths
        assert bool(samples.has_label[row]) == (entry.label is not None)
    for name in ("", "a/", "aa", "~", "\U0001f601"):
        with pytest.raises(KeyError):
            index.row(name)


def test_some_of_the_samples_are_found_by_name_whether_searched_for_or_looked_up(tmp_path: Path) -> None:
    index = Index.of(_entry(f"{number:03d}", number) for number in range(100))
    samples = PreparedSamples(Prepared(tmp_path, "raw", "train", index, ""), np.arange(0, 100, 2, dtype=np.int32))
    dataset = Dataset("d", None, samples, None)  # type: ignore[arg-type]
    assert dataset.names == [sample.name for sample in samples] == [f"{n:03d}" for n in range(0, 100, 2)]
    places = dataset.places
    for _ in range(2):  # the first names are searched for, the others looked up
        assert [places[name] for name in dataset.names] == list(range(50))
        assert not any(f"{n:03d}" in places or f"{n:03d}" in dataset.places for n in range(1, 100, 2))
    some = dataset.take([1, 3, 4]).without_labels()
    assert [(sample.name, sample.label) for sample in some.samples] == [("002", None), ("006", None), ("008", None)]
    assert dataset.take([1, 3]).has_label.tolist() == [True, False] and not some.has_label.any()


def test_a_folder_of_before_gets_its_columns_when_it_is_first_opened(out: Path) -> None:
    written = (out / COLUMNS).read_bytes()
    first = _opened(out)
    (out / COLUMNS).unlink()
    again = _opened(out)
    assert (out / COLUMNS).read_bytes() == written
    assert list(first.samples) == list(again.samples) and len(again.samples) == 4
    assert not [path for path in out.iterdir() if path.name.endswith(".part")]


@pytest.mark.parametrize("what", ["other lines", "older", "cut off", "empty", "another file", "other columns"])
def test_columns_that_do_not_fit_to_the_lines_are_made_anew(out: Path, what: str) -> None:
    path, written = out / COLUMNS, (out / COLUMNS).read_bytes()
    if what == "other lines":
        lines = read_index(out / INDEX)
        longer = lines[0]._replace(source=(1, 2, 3, 4, 5, 6))
        (out / INDEX).write_text("".join(entry.line() for entry in [longer._replace(size=(9, 9)), *lines[1:]]))
        columns.os.utime(out / INDEX, ns=(1, 1))  # as a copy of a folder may have it
    elif what == "older":
        text = (out / INDEX).read_text()
        (out / INDEX).write_text(text.replace('"size":[22,38]', '"size":[11,19]'))
        columns.os.utime(path, ns=(1, 1))
    elif what == "other columns":
        np.savez(path, text=np.zeros(3, np.uint8))
    else:
        path.write_bytes({"cut off": written[:-50], "empty": b"", "another file": b"PK\x03\x04" + bytes(200)}[what])
    sizes = {"other lines": (9, 9), "older": (11, 19)}
    dataset = _opened(out)
    assert dataset.image_size(dataset.samples[0]) == sizes.get(what, (22, 38))
    assert len(dataset.samples) == 4 and (what in sizes or path.read_bytes() == written)


def test_where_the_folder_cannot_be_written_the_cache_keeps_the_columns(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("IIDM_CACHE", str(tmp_path / "cache"))
    (out / COLUMNS).unlink()
    (out / COLUMNS).mkdir()  # nothing can be written there, also not by root
    first = _opened(out)
    (kept,) = (tmp_path / "cache").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(columns, "iterate_index", lambda _: pytest.fail("the lines were read"))
        assert list(_opened(out).samples) == list(first.samples)
    kept.unlink()
    kept.mkdir()
    assert list(_opened(out).samples) == list(first.samples)
    assert "is read anew at each start" in caplog.text


def test_what_another_process_wrote_meanwhile_stays(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has mapped it would die on a network file system."""
    path, own = out / COLUMNS, columns.columns_of
    path.unlink()

    def meanwhile(*words: object) -> object:
        found = own(*words)  # type: ignore[arg-type]
        columns.write_columns(path, found)
        meanwhile.file = path.stat().st_ino  # type: ignore[attr-defined]
        return found

    monkeypatch.setattr(columns, "columns_of", meanwhile)
    assert len(_opened(out).samples) == 4
    assert path.stat().st_ino == meanwhile.file  # type: ignore[attr-defined]


def test_a_worker_process_opens_the_file_itself(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "MAPPED_BYTES", 0)
    dataset = _opened(out)
    assert dataset.prepared is not None
    sent = pickle.dumps(dataset.prepared.index)
    assert len(sent) < 500
    again = pickle.loads(sent)
    assert again.names() == dataset.names
    np.testing.assert_array_equal(again.pixels, dataset.prepared.index.pixels)
    by_value = pickle.loads(pickle.dumps(Index.of(read_index(out / INDEX))))
    assert by_value.names() == dataset.names and by_value.row(dataset.names[2]) == 2


def test_the_check_compares_the_columns_with_the_lines(out: Path) -> None:
    path, body = out / COLUMNS, bytearray((out / COLUMNS).read_bytes())
    assert check_prepared(out) == (4, [])
    pixels = _opened(out).prepared.index.pixels  # type: ignore[union-attr]
    body[body.index(pixels.tobytes())] ^= 1
    path.write_bytes(bytes(body))
    (problem,) = check_prepared(out)[1]
    assert problem.startswith(f"{path} is damaged")
    entries = read_index(out / INDEX)
    others = columns.columns_of([e._replace(size=(9, 9)) for e in entries], 19, (out / INDEX).stat().st_size)
    columns.write_columns(path, others)
    assert len(check_prepared(out)[1]) == 1
    path.unlink()
    assert check_prepared(out) == (4, [])


def test_lines_of_one_name_or_of_other_classes_are_damage(tmp_path: Path) -> None:
    one = _entry("a", 1)
    for lines, message in (([one, one], "names a twice"), ([one._replace(pixels=(1, 2, 3))], "pixels of 3 classes")):
        (tmp_path / INDEX).write_text("".join(entry.line() for entry in lines))
        with pytest.raises(UserError, match=message):
            open_columns(tmp_path, len(lines), 2)
