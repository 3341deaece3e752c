"""`python -m iidm.prepare` as a user runs it: killed, stopped, given nonsense, and then run again."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import make_datasets as make
import pytest
import small_runs

import iidm.prepare
from iidm.config import DatasetConfig
from iidm.data import check_prepared
from iidm.data.datasets.dataset import open_dataset

IMAGES = 100
SIZE = (540, 720)


def _command(*options: object) -> list[str]:
    return [sys.executable, "-m", "iidm.prepare", *map(str, options)]


def _run(*options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_command(*options), capture_output=True, text=True, timeout=600)


def _start(*options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        _command(*options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell starts its background jobs with Ctrl-C ignored, and these tests may be one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gta5")
    make.write_gta5(folder, IMAGES, SIZE)
    return folder


@pytest.fixture(scope="module")
def options(raw: Path) -> tuple[object, ...]:
    return "gta5", "--root", raw, "--jobs", 2, "--data.resize", 270, 360


@pytest.fixture(scope="module")
def whole(options: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared without an interruption. Tests that change it change a copy."""
    out = tmp_path_factory.mktemp("whole") / "out"
    done = _run(*options, "--out", out)
    assert done.returncode == 0, done.stderr
    assert f"{out} is complete" in done.stdout
    assert f"{IMAGES} images to prepare, 0 are there" in done.stderr and "needed" in done.stderr
    return out


@pytest.fixture(scope="module")
def uninterrupted(whole: Path) -> dict[str, bytes]:
    return _content(whole)


def _content(out: Path) -> dict[str, bytes]:
    """Every file but the lock, by its path in the folder."""
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != ".lock"}


def _times(out: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in out.rglob("*.npy")}


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _wait_for(process: subprocess.Popen[str], holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 600
    while not holds():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.005)


def _images(out: Path) -> int:
    return len(list((out / "images").rglob("*.npy")))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads Linux's /proc")
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "whole_group",
    [pytest.param(True, marks=pytest.mark.long), False],
    ids=["all-processes", "the-main-process-alone"],
)
def test_a_killed_run_goes_on_where_it_stopped(
    options: tuple[object, ...], uninterrupted: dict[str, bytes], tmp_path: Path, whole_group: bool
) -> None:
    out = tmp_path / "out"
    rng = random.Random(int(whole_group))
    reached = 0
    for moment in sorted(rng.sample(range(1, IMAGES // 2), 2)):
        if reached > IMAGES * 3 // 4:
            break
        process = _start(*options, "--out", out)
        _wait_for(process, lambda: _images(out) >= max(moment, reached + 1))  # noqa: B023
        time.sleep(rng.random() * 0.05)
        workers = _children(process.pid)
        assert len(workers) >= 2
        before = _times(out)
        if whole_group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.communicate()
        until = time.monotonic() + 600
        while any(_is_running(pid) for pid in workers):
            assert time.monotonic() < until, "worker processes outlive the main process"
            time.sleep(0.05)
        reached = len(_times(out))
    done = _run(*options, "--out", out)
    assert done.returncode == 0, done.stderr
    after = _times(out)
    # What stood in the journal is not done again; the last few images may not have come to it.
    again = [path for path, when in before.items() if after[path] != when]
    assert len(again) <= 2 * 2 * 8, f"{len(again)} of {len(before)} files were done again"
    assert _content(out) == uninterrupted


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads Linux's /proc")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("images", [0, 5], ids=["while-a-process-starts", "amid-the-images"])
def test_ctrl_c_ends_it_with_one_line_and_keeps_what_is_done(
    options: tuple[object, ...], uninterrupted: dict[str, bytes], tmp_path: Path, images: int
) -> None:
    out = tmp_path / "out"
    process = _start(*options, "--out", out)
    _wait_for(process, lambda: len(_children(process.pid)) >= 2)  # one of them is multiprocessing's resource tracker
    if images:
        _wait_for(process, lambda: _images(out) >= images)
    else:
        for _ in range(10):  # as they import: at some moments a library would swallow it
            time.sleep(0.1)
            for worker in _children(process.pid):
                os.kill(worker, signal.SIGINT)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 2 and "Traceback" not in said
    assert f"iidm: Stopped; {out} keeps what is done. Run the same command again to go on." in said
    assert _run(*options, "--out", out).returncode == 0
    assert _content(out) == uninterrupted


def test_a_run_after_a_finished_one_does_nothing(options: tuple[object, ...], whole: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    before = _times(out)
    done = _run(*options, "--out", out)
    assert done.returncode == 0 and f"0 images to prepare, {IMAGES} are there" in done.stderr
    assert _times(out) == before
    clean = _run("--check", out)
    assert clean.returncode == 0 and f"{IMAGES} images, every checksum right" in clean.stdout
    next(iter(before)).write_bytes(b"")
    bad = _run("--check", out)
    assert bad.returncode == 2 and "is damaged: it has 0 bytes" in bad.stdout and "1 problems" in bad.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Give the data set and where it goes"),
        (("gta5",), "Give the data set and where it goes"),
        (("gta", "--root", "R", "--out", "O"), "There is no data set 'gta'. Did you mean 'gta5'?"),
        (("gta5", "--root", "nowhere", "--out", "O"), "The folder of gta5 (train) does not exist: nowhere"),
        (("gta5", "--out", "O"), "needs the folder of the data set"),
        (("gta5", "--root", "R", "--out", "O", "--jobs", "0"), "--jobs must be at least 1, not 0"),
        (("folder", "--root", "R", "--out", "O"), "A folder data set needs its classes"),
        (("--check", "nowhere"), "nowhere is no prepared folder"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    words: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in small_runs.refusal("prepare", words)
    assert not list(tmp_path.iterdir())


def test_help_tells_the_formats(tmp_path: Path) -> None:
    done = _run("--help")
    assert done.returncode == 0 and "{raw,jpeg,png}" in done.stdout


def test_odd_names_and_files_are_prepared_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    names = ["#1", "x", "e\u0301"]
    make.write_folder(raw, names, range(2), (20, 30))
    make.save_image(raw / "images" / "x.png", (20, 30), 5)
    make.save_gray(raw / "labels" / "left.png", make.random_ids(range(2), (20, 30), 0))
    for junk in ("._x.jpg", "more.heic"):
        (raw / "images" / junk).write_bytes(b"")
    fields = ["--data.images", "images", "--data.labels", "labels", "--data.class-names", "a", "b"]
    iidm.prepare.main(["folder", "--root", str(raw), "--out", str(out), "--jobs", "1", *fields])
    said = capsys.readouterr().err
    assert "1 .heic, 1 hidden file left aside" in said and "1 label has no image and is not read: left" in said
    assert "2 images share their name" in said
    config = DatasetConfig(images="images", labels="labels", class_names=("a", "b"))
    prepared = open_dataset(config, out, "train")
    assert [sample.name for sample in prepared.samples] == ["#1", "x.jpg", "x.png", "\u00e9"]
    assert check_prepared(out) == (4, [])
