"""Prepared folders of any number of images, few of which exist: what the start of a run costs.

    python -m benchmarks.many_images 1000 10000 100000 1000000 [OPTION of iidm.train...]

For each number a run is started in a process of its own, on a source and a target of so many images together, and ends
where it would ask for its first batch. Printed are the seconds of each part on the clock and of the processor
(which other processes disturb less), and the most memory of the process.

A folder has an index of its own and FRAMES files: its subfolders are links to one of them, in which each file is a link
to one of the twelve images of `street_data`.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from iidm.data.files.common import cache_folder
from iidm.data.prepared.entries import INDEX, Entry, entry_paths, read_index
from iidm.data.prepared.folder import MANIFEST, read_manifest

from . import street_data

FRAMES = 1000
"""Files of a folder."""


def roots(count: int) -> street_data.Roots:
    """A source and a target of `count` images together, besides two validation images."""
    small = street_data.prepared("raw")
    folder = cache_folder() / f"benchmark-data-v{street_data.VERSION}" / f"many-images-{count}"
    half = count // 2
    return street_data.Roots(
        repeated(small.gta5, folder / "gta5", half), repeated(small.cityscapes, folder / "cityscapes", count - half)
    )


def repeated(root: Path, out: Path, count: int) -> Path:
    """A prepared folder with `count` training images, those of `root` over and over, and its validation images."""
    if (out / MANIFEST).exists():
        return out
    shutil.rmtree(out, ignore_errors=True)
    manifest, known = read_manifest(root), read_index(root / INDEX)
    train = [entry for entry in known if entry.split == "train"]
    others = [entry for entry in known if entry.split != "train"]
    for number, entry in enumerate(itertools.islice(itertools.cycle(train), FRAMES)):
        _link(root, out, manifest.format, entry, entry._replace(name=f"drive_0000/{number:03d}"))
    for entry in others:
        _link(root, out, manifest.format, entry, entry)
    drives = -(-count // FRAMES)
    for kind in ("images", "labels"):
        for drive in range(1, drives):
            (out / kind / "train" / f"drive_{drive:04d}").symlink_to("drive_0000")
    with (out / INDEX).open("w") as file:
        for number in range(count):
            drive, frame = divmod(number, FRAMES)
            file.write(train[frame % len(train)]._replace(name=f"drive_{drive:04d}/{frame:03d}").line())
        file.writelines(entry.line() for entry in others)
    (out / MANIFEST).write_text(json.dumps(replace(manifest, images=count + len(others)).as_json()))
    return out


def _link(root: Path, out: Path, image_format: Any, old: Entry, new: Entry) -> None:
    for path, link in zip(entry_paths(root, image_format, old), entry_paths(out, image_format, new), strict=True):
        if path is not None and link is not None:
            link.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, link)


def start(count: int, *options: str) -> dict[str, Any]:
    """Of a start: `s`, seconds of each part on the clock and of the processor; `peak_mb` of the process before the
    first batch, and after some."""
    where = roots(count)
    with tempfile.TemporaryDirectory() as folder:
        words = ["--preset", "gta5-cityscapes-100", "--source-root", str(where.gta5), "--target-root"]
        words += [str(where.cityscapes), "--run-dir", f"{folder}/run", "--model.weights", "none", "--model.backbone"]
        words += ["resnet18", "--device", "cpu", "--log.no-tensorboard", *options]
        run = subprocess.run(
            [sys.executable, "-m", __spec__.name, "--start", *words], stdout=subprocess.PIPE, text=True, check=True
        )
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def start_here(words: list[str]) -> None:
    """Start a run in this process and print what `start` returns, as JSON."""
    found: dict[str, tuple[float, float]] = {}

    @contextmanager
    def part(name: str) -> Iterator[None]:
        before, cpu = time.perf_counter(), time.process_time()
        yield
        found[name] = time.perf_counter() - before, time.process_time() - cpu

    with part("import"):
        import iidm.train as train
        from iidm.cli import parse_config
    began, cpu = time.perf_counter(), time.process_time()

    def timed(name: str, function: Any, *args: Any, **kwargs: Any) -> Any:
        with part(name):
            return function(*args, **kwargs)

    for name in ("open_domains", "check_data", "build_step", "target_statistics", "prepare_run_dir", "TrainLoader"):
        setattr(train, name, partial(timed, name, getattr(train, name)))

    def first_batch(step: Any, loader: Any, *_: Any) -> None:
        found["start"] = time.perf_counter() - began, time.process_time() - cpu
        peak = peak_mb()
        with part("first batch"):
            next(iter(loader))
        found["a batch"] = _seconds_a_batch(loader)
        print(json.dumps({"s": found, "peak_mb": peak, "peak_after_batches_mb": peak_mb()}), flush=True)
        loader.close()
        os._exit(0)

    train.train = first_batch
    train.run(*parse_config(words))


def _seconds_a_batch(loader: Any, count: int = 100) -> tuple[float, float]:
    for _ in itertools.islice(loader, 20):
        pass
    before, cpu = time.perf_counter(), time.process_time()
    for _ in itertools.islice(loader, count):
        pass
    return (time.perf_counter() - before) / count, (time.process_time() - cpu) / count


def peak_mb() -> float:
    """The most memory that this process has had, files that it maps included."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e3


if __name__ == "__main__":
    if sys.argv[1] == "--start":
        start_here(sys.argv[2:])
    else:
        counts = list(itertools.takewhile(str.isdigit, sys.argv[1:]))
        for word in counts:
            result = start(int(word), "--quiet", *sys.argv[1 + len(counts) :])
            print(f"{word} images: {result['peak_mb']:.0f} MB, {result['peak_after_batches_mb']:.0f} with batches")
            for name, (clock, cpu) in result["s"].items():
                print(f"    {name:18} {clock:8.4f} s, {cpu:8.4f} of the processor", flush=True)
