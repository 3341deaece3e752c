"""`iidm.prepare --shard i/n`: parts in any order, killed or twice, make the folder of one process."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import make_datasets as make
import pytest

import iidm.prepare
from iidm.config import DatasetConfig
from iidm.data.preparation import plan as preparation
from iidm.data.preparation import shards, worker, writing
from iidm.data.preparation.check import check_prepared
from iidm.data.preparation.plan import make_plan, prepare
from iidm.data.preparation.shards import Shard
from iidm.data.preparation.worker import Worker
from iidm.data.prepared.folder import Manifest, read_manifest
from iidm.types import UserError

CONFIG = DatasetConfig(spec="cityscapes", resize=(22, 38))
THREE = [Shard(number, 3) for number in (1, 2, 3)]
"""By their names one training image is of the first, one and both validation images of the second, three of the
third."""


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    make.write_cityscapes(tmp_path / "raw", train=5, val=2)
    return tmp_path / "raw"


@pytest.fixture
def whole(raw: Path, tmp_path: Path) -> dict[str, bytes]:
    """What one process writes."""
    return _of_one_process(raw, tmp_path / "whole")


def _of_one_process(raw: Path, out: Path, **options: Any) -> dict[str, bytes]:
    prepare(make_plan(CONFIG, raw, out), jobs=1, **options)
    return _content(out)


def _content(out: Path) -> dict[str, bytes]:
    """Every file but the lock of one process, by its path."""
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != ".lock"}


def _run(raw: Path, out: Path, shard: Shard | None, **options: Any) -> Manifest:
    return prepare(make_plan(CONFIG, raw, out, shard=shard), jobs=1, **options)


@pytest.mark.parametrize("order", [THREE, THREE[::-1], [THREE[1], THREE[0], THREE[1], THREE[2]]])
def test_shards_in_any_order_or_twice_make_the_folder_of_one_process(
    raw: Path, whole: dict[str, bytes], tmp_path: Path, order: list[Shard]
) -> None:
    out = tmp_path / "out"
    for shard in order[:-1]:
        assert not _run(raw, out, shard).complete
    assert _run(raw, out, order[-1]).complete
    assert _content(out) == whole and check_prepared(out) == (7, [])
    for shard in order:
        assert _run(raw, out, shard).complete
    assert _content(out) == whole


def test_more_shards_than_images(raw: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    for number in range(1, 10):
        _run(raw, tmp_path / "out", Shard(number, 9))
    assert _content(tmp_path / "out") == whole


def test_two_machines_at_once(raw: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["cityscapes", "--root", raw, "--out", out, "--jobs", 1, "--data.resize", 22, 38, "--shard"]
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "iidm.prepare", *map(str, words), shard],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for shard in ("1/2", "2/2")
    ]
    said = [process.communicate(timeout=600) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert any(f"{out} is complete" in line for line, _ in said)
    assert _content(out) == whole


def test_a_killed_shard_goes_on_where_it_stopped(
    raw: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, count = tmp_path / "out", itertools.count()

    def killed(own_worker: Worker, task: Any, own: Any = Worker.prepare) -> Any:
        if next(count) == 1:
            raise KeyboardInterrupt
        return own(own_worker, task)

    with monkeypatch.context() as patch:
        patch.setattr(Worker, "prepare", killed)
        with pytest.raises(KeyboardInterrupt):
            _run(raw, out, THREE[2])
    journal = out / "shards" / "3-of-3.jsonl"
    journal.write_text(journal.read_text() + '{"split": "tra')  # a kill may cut off the last line
    assert shards.unfinished(out, 3) == THREE
    plan = make_plan(CONFIG, raw, out, shard=THREE[2])
    assert (len(plan.done), len(plan.tasks)) == (1, 2)
    for shard in THREE:
        _run(raw, out, shard)
    assert _content(out) == whole


def test_what_is_missing_and_what_does_not_fit_is_told_in_one_line(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _run(raw, out, THREE[1])
    before = _content(out)
    for shard, config, message in (
        (None, CONFIG, r"in 3 shards, and shards 1/3, 3/3 are not finished. Run them \(--shard 1/3\)"),
        (Shard(1, 4), CONFIG, r"in 3 shards, and --shard 1/4 is one of 4. Go on with --shard i/3"),
        (THREE[0], DatasetConfig(spec="cityscapes"), "with another resize"),
    ):
        with pytest.raises(UserError, match=message):
            make_plan(config, raw, out, shard=shard)
    assert _content(out) == before


def test_a_folder_that_one_process_began_is_not_divided(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _of_one_process(raw, out)
    (out / writing.JOURNAL).write_text("")
    writing.write_manifest(out, Manifest.from_json({**read_manifest(out).as_json(), "complete": False}))
    with pytest.raises(UserError, match="was begun without --shard and is not finished"):
        make_plan(CONFIG, raw, out, shard=THREE[0])


def test_images_that_changed_between_shards_are_told_and_done_again(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _run(raw, out, THREE[0])
    _run(raw, out, THREE[1])
    for ending in ("_leftImg8bit.png", "_gtFine_labelIds.png"):
        path = sorted(p for p in raw.rglob(f"*{ending}") if "train" in p.parts)[0]
        shutil.copy(path, path.with_name(f"aaa_000000_000019{ending}"))
    with pytest.raises(UserError, match=r"shards 1/3, 2/3 are of other images .*\(7 and 8 images\).* Run --shard 1/3 "):
        _run(raw, out, THREE[2])
    with pytest.raises(UserError, match=r"shard 2/3 is of other images .* Run --shard 2/3 again"):
        _run(raw, out, THREE[0])
    plan = make_plan(CONFIG, raw, out, shard=THREE[1])
    assert [task.sample.name for task in plan.tasks] == ["aachen/aaa_000000_000019"]  # what is done stays
    assert prepare(plan, jobs=1).complete and _content(out) == _of_one_process(raw, tmp_path / "whole")


def test_a_file_that_went_missing_is_found_before_the_folder_is_complete(
    raw: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    _run(raw, out, THREE[2])
    _run(raw, out, THREE[1])
    images = sorted(p for p in whole if p.startswith("images/train"))
    (out / images[1]).unlink()  # the second image is of the third shard
    with pytest.raises(UserError, match=r"files of shard 3/3 are missing. Run --shard 3/3 again"):
        _run(raw, out, THREE[0])
    assert not read_manifest(out).complete
    assert _run(raw, out, THREE[2]).complete and _content(out) == whole


@pytest.mark.parametrize("again", [None, THREE[0]], ids=str)
@pytest.mark.parametrize("step", ["write_columns", "write_manifest", "strangers"])
def test_a_merge_that_is_killed_is_done_by_whoever_runs_next(
    raw: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, again: Shard | None
) -> None:
    out = tmp_path / "out"
    _run(raw, out, THREE[0])
    _run(raw, out, THREE[1])

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writing, step, killed)
        with pytest.raises(KeyboardInterrupt):
            _run(raw, out, THREE[2])
    assert not read_manifest(out).complete
    assert _run(raw, out, again).complete and _content(out) == whole


@pytest.mark.parametrize(("module", "step"), [(writing, "strangers"), (shards, "_read")], ids=["writes", "reads"])
def test_two_that_merge_at_once_write_the_same(
    raw: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, step: str
) -> None:
    """The other one merges all of it while this one writes, or before it has read what the shards say."""
    out, ran, own = tmp_path / "out", [], getattr(module, step)
    for shard in THREE[:2]:
        _run(raw, out, shard)

    def and_another(*words: Any) -> Any:
        monkeypatch.setattr(module, step, own)
        ran.append(_run(raw, out, THREE[1]))
        return own(*words)

    monkeypatch.setattr(module, step, and_another)
    assert _run(raw, out, THREE[2]).complete
    assert [manifest.complete for manifest in ran] == [True] and _content(out) == whole


def test_a_shard_that_runs_twice_at_once_leaves_the_finished_folder_as_it_is(
    raw: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On two machines, whose locks do not know each other: the other one ends, and the folder with it, between two
    images of the first."""
    out = tmp_path / "out"
    monkeypatch.setattr(preparation, "locked", lambda *_: contextlib.nullcontext())
    for shard in THREE[:2]:
        _run(raw, out, shard)
    count = itertools.count()

    def meanwhile(own_worker: Worker, task: Any, own: Any = Worker.prepare) -> Any:
        if next(count) == 1:
            assert _run(raw, out, THREE[2]).complete
        return own(own_worker, task)

    monkeypatch.setattr(Worker, "prepare", meanwhile)
    assert _run(raw, out, THREE[2]).complete
    assert _content(out) == whole


def test_a_finished_shard_that_begins_again_is_not_finished_until_it_ends(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    _run(raw, out, THREE[2])
    next((out / "images").rglob("*.npy")).unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Worker, "prepare", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            _run(raw, out, THREE[2])
    assert shards.unfinished(out, 3) == THREE
    _run(raw, out, THREE[2])
    assert shards.unfinished(out, 3) == THREE[:2]


def test_an_image_whose_half_is_swept_away_is_there_or_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever finishes a folder removes the halves that another process of the same shard is writing."""

    def swept(half: Path, path: Path, own: Any = os.replace) -> None:
        half.unlink()
        own(half, path)

    monkeypatch.setattr(worker.os, "replace", swept)
    with pytest.raises(FileNotFoundError):
        worker._publish(tmp_path / "a.npy", b"1")
    (tmp_path / "a.npy").write_bytes(b"1")
    worker._publish(tmp_path / "a.npy", b"1")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_damaged_images_are_left_out_as_by_one_process(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    image = sorted((raw / "leftImg8bit" / "train").rglob("*.png"))[1]
    image.write_bytes(b"")
    for shard in THREE[:2]:
        _run(raw, out, shard)
    with pytest.raises(UserError, match="1 of 3 images could not be prepared"):
        _run(raw, out, THREE[2])
    assert shards.unfinished(out, 3) == THREE[2:]
    assert _run(raw, out, THREE[2], skip_damaged=True).complete
    whole = _of_one_process(raw, tmp_path / "whole", skip_damaged=True)
    assert _content(out) == whole and len(read_manifest(out).skipped) == 1
    for shard in THREE:
        assert _run(raw, out, shard, skip_damaged=True).complete
    assert _content(out) == whole


def test_a_finished_folder_goes_on_when_an_image_changes(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for shard in THREE:
        _run(raw, out, shard)
    image = sorted((raw / "leftImg8bit" / "train").rglob("*.png"))[0]
    make.save_image(image, make.SIZE, 99)
    os.utime(image, ns=(1, 1))
    assert not _run(raw, out, THREE[1]).complete
    assert not _run(raw, out, THREE[0]).complete
    assert _run(raw, out, THREE[2]).complete
    assert _content(out) == _of_one_process(raw, tmp_path / "whole")


@pytest.mark.parametrize("text", ["0/4", "5/4", "2", "2/0", "a/b", "2/4/6", "-1/4"])
def test_a_shard_that_is_none_is_told(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--shard .* is none: give i/n with i from 1 to n"):
        iidm.prepare.main(["gta5", "--root", str(tmp_path), "--out", str(tmp_path / "o"), f"--shard={text}"])


def test_the_command_says_which_shards_are_not_done(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["cityscapes", "--root", str(raw), "--out", str(out), "--jobs", "1", "--shard"]
    iidm.prepare.main([*words, "2/3"])
    said = capsys.readouterr()
    assert "cityscapes, shard 2/3: 3 images to prepare, 0 are there" in said.err
    assert f"shard 2/3 of {out} is done, 1/3, 3/3 not yet; the last one that ends completes the folder" in said.out
    iidm.prepare.main([*words, "1/3"])
    iidm.prepare.main([*words, "3/3"])
    assert f"{out} is complete" in capsys.readouterr().out
