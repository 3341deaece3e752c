"""Preparing a data set: decode, resize and relabel every image once, on all cores; survives a kill at any moment.

Each image and label is written beside its place and renamed, then its line goes to a journal. A second run believes the
lines whose files have the right length and whose originals did not change, and does the rest. The index is written when
every image is there; only then does prepared.json say `complete`.
"""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from ...config import DatasetConfig
from ...processes import started_for_this_process
from ...types import Sample, UserError
from ..datasets.dataset import Dataset, open_dataset, training_size
from ..datasets.places import Split, has_validation, split_folders
from ..datasets.splits import write_list
from ..files.common import Progress, first_few
from ..prepared.arrays import array_bytes
from ..prepared.columns import COLUMNS, columns_of, write_columns
from ..prepared.entries import INDEX, Entry, ImageFormat, entry_paths, read_index
from ..prepared.folder import MANIFEST, PART, Manifest, is_prepared, read_manifest, write_text
from ..specs.described import find_spec
from .worker import Task, Worker, encode_sample, prepare_in_process, start_process

if sys.platform != "win32":
    import fcntl

JOURNAL = "index.part.jsonl"
LOCK = ".lock"
PROBES = 8
"""Images that are encoded to tell how much disk JPEG or PNG will need."""


@dataclass(frozen=True)
class Plan:
    """What is to be prepared, and what of it is there already."""

    out: Path
    manifest: Manifest
    datasets: Mapping[Split, Dataset]
    tasks: tuple[Task, ...]
    done: tuple[Entry, ...]
    need_bytes: int
    """Disk space that the tasks will take: exact for raw, from a few samples for JPEG and PNG."""
    free_bytes: int


def make_plan(
    config: DatasetConfig,
    root: Path | None,
    out: Path,
    *,
    image_format: ImageFormat = "raw",
    splits: Sequence[Split] | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Find out what is to be done; writes nothing but, in the cache, labels drawn from annotation files.

    Args:
        config: the data set, as a run names it.
        root: its folder as it was downloaded.
        out: the folder to write, new, empty, or an earlier preparation of the same data set.
        image_format: `raw`, `jpeg` or `png`.
        splits: which; None: all that the data set has.
        progress: called with (labels drawn from annotations, all).

    Raises:
        UserError: what `open_dataset` raises; `out` holds something else, or a preparation with other settings.
    """
    spec = find_spec(config)
    wanted: Sequence[Split] = splits or (("train", "val") if has_validation(config) else ("train",))
    if is_prepared(root):
        raise UserError(f"{root} is a prepared folder already. Give --root the data set as it was downloaded.")
    labels = {split: "optional" if spec.partial_labels and split == "train" else "all" for split in wanted}
    datasets = {
        split: open_dataset(config, root, split, labels=labels[split], progress=progress)  # type: ignore[arg-type]
        for split in wanted
    }
    first = datasets[wanted[0]]
    manifest = Manifest(
        dataset=spec.name,
        classes=first.classes.names,
        train_ids=first.encoding.keys,
        resize=first.resize,
        format=image_format,
        splits={split: split_folders(spec, config, split) for split in wanted},
        root=str((root or spec.root or Path()).expanduser().absolute()),
    )
    before = _earlier_entries(out, manifest)
    tasks, done = [], []
    for split, dataset in datasets.items():
        for sample in dataset.samples:
            task = Task(split, sample, _source_facts(sample))
            entry = before.get((split, sample.name))
            if entry is not None and entry.source == task.source and _is_there(out, image_format, entry):
                done.append(entry)
            else:
                tasks.append(task)
    need = _needed_bytes(tasks, datasets, image_format)
    return Plan(out, manifest, datasets, tuple(tasks), tuple(done), need, _free_bytes(out))


def prepare(
    plan: Plan, *, jobs: int | None = None, skip_damaged: bool = False, progress: Progress | None = None
) -> Manifest:
    """Do what a plan says. A folder that is complete is left as it is.

    Args:
        jobs: processes; None: one a core.
        skip_damaged: leave damaged images out, and name them in prepared.json.
        progress: called with (images done, all).

    Raises:
        UserError: not enough disk space, another process writes the folder, damaged files (all of them are tried and
            the first few named; what could be prepared stays), nothing that is not damaged.
    """
    if not plan.tasks and _is_complete(plan):
        return read_manifest(plan.out)
    if plan.need_bytes > plan.free_bytes:
        smaller = ", or --format jpeg, which takes a tenth of raw" if plan.manifest.format == "raw" else ""
        raise UserError(
            f"{plan.out} needs {megabytes(plan.need_bytes)} more, but only {megabytes(plan.free_bytes)} are free there."
            f" Give another --out{smaller}."
        )
    plan.out.mkdir(parents=True, exist_ok=True)
    with _lock(plan.out):
        _write_manifest(plan.out, plan.manifest)
        write_text(plan.out / JOURNAL, "".join(entry.line() for entry in plan.done))
        with (plan.out / JOURNAL).open("a", encoding="utf-8") as journal:
            entries, problems = _run(plan, journal, jobs or _cores(), progress)
        if problems and not skip_damaged:
            raise UserError(
                f"{len(problems)} of {len(plan.tasks) + len(plan.done)} images could not be prepared:"
                f" {first_few([p.removesuffix('.') for p in problems], 5)}."
                " Mend them and run the same command again (what is done stays), or leave them out: --skip-damaged."
            )
        left = Counter(entry.split for entry in (*plan.done, *entries))
        lost = [split for split in plan.datasets if not left[split]]
        if problems and lost:
            raise UserError(
                f"All {lost[0]} images are damaged, so --skip-damaged leaves none:"
                f" {first_few([p.removesuffix('.') for p in problems], 5)}. Copy or download them again."
            )
        return _finish(plan, sorted([*plan.done, *entries], key=lambda e: (e.split, e.name)), problems)


def megabytes(count: int) -> str:
    """Bytes for people."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _earlier_entries(out: Path, manifest: Manifest) -> dict[tuple[str, str], Entry]:
    """What an earlier run left in `out`. Raises UserError where the folder is not an earlier run of the same."""
    if not out.exists():
        return {}
    if not out.is_dir():
        raise UserError(f"{out} is no folder. Give --out a new one.")
    if not (out / MANIFEST).exists():
        foreign = [p.name for p in out.iterdir() if p.name != LOCK and not p.name.endswith(PART)]
        if foreign:
            raise UserError(
                f"{out} holds files that iidm.prepare did not write ({first_few(sorted(foreign), 3)})."
                " Give --out a new or empty folder."
            )
        return {}
    earlier = read_manifest(out)
    for name in ("dataset", "root", "format", "resize", "classes", "train_ids", "splits"):
        old, new = getattr(earlier, name), getattr(manifest, name)
        if old != new:
            shown = f" ({old} there, {new} now)" if len(f"{old}{new}") < 200 else ""
            raise UserError(
                f"{out} was prepared with another {name}{shown}. Give --out a new folder, or the same settings."
            )
    lines = read_index(out / JOURNAL) or read_index(out / INDEX)
    return {(entry.split, entry.name): entry for entry in lines}


def _source_facts(sample: Sample) -> tuple[int, ...]:
    facts: list[int] = []
    for path in (sample.image, sample.label):
        if path is not None:
            try:
                stat = path.stat()
            except OSError:
                facts += [0, 0]  # the worker names it
            else:
                facts += [stat.st_size, stat.st_mtime_ns]
    return tuple(facts)


def _is_there(out: Path, image_format: ImageFormat, entry: Entry) -> bool:
    """Whether an entry's files have the right length."""
    for path, facts in zip(entry_paths(out, image_format, entry), (entry.image, entry.label), strict=True):
        if path is not None and facts is not None:
            try:
                if path.stat().st_size != facts.bytes:
                    return False
            except OSError:
                return False
    return True


def _is_complete(plan: Plan) -> bool:
    """Whether the folder holds what the plan wants and no more."""
    if not (plan.out / MANIFEST).exists() or not read_manifest(plan.out).complete:
        return False
    return len(read_index(plan.out / INDEX)) == len(plan.done)


def _needed_bytes(tasks: Sequence[Task], datasets: Mapping[Split, Dataset], image_format: ImageFormat) -> int:
    """Disk space. Images whose header cannot be read count nothing: the run itself names them."""

    def size_of(task: Task) -> tuple[int, int] | None:
        try:
            return datasets[task.split].image_size(task.sample)
        except UserError:
            return None

    if image_format == "raw":
        with ThreadPoolExecutor(4 * _cores()) as pool:
            sizes = pool.map(size_of, tasks)
            return sum(_raw_bytes(datasets[t.split], t, size) for t, size in zip(tasks, sizes, strict=True) if size)
    probes = tasks[:: max(1, -(-len(tasks) // PROBES))]
    lengths = []
    for task in probes:
        try:
            bodies = encode_sample(datasets[task.split], task, image_format)[1:]
        except UserError:
            continue
        lengths.append(sum(len(body) for body in bodies if body))
    return sum(lengths) * len(tasks) // len(lengths) if lengths else 0


def _raw_bytes(dataset: Dataset, task: Task, size: tuple[int, int]) -> int:
    small = training_size(dataset, size)
    label = array_bytes(size if task.split == "val" else small) if task.sample.label is not None else 0
    return array_bytes((*small, 3)) + label


def _run(plan: Plan, journal: IO[str], jobs: int, progress: Progress | None) -> tuple[list[Entry], list[str]]:
    """Prepare every task; returns the entries, and what is wrong with the others."""
    entries: list[Entry] = []
    problems: list[str] = []
    total = len(plan.done) + len(plan.tasks)
    for result in _results(plan, min(jobs, max(1, len(plan.tasks)))):
        if isinstance(result, Entry):
            journal.write(result.line())
            journal.flush()
            entries.append(result)
        else:
            problems.append(result)
        if progress is not None:
            progress(len(plan.done) + len(entries) + len(problems), total)
    return entries, sorted(problems)


def _results(plan: Plan, jobs: int) -> Iterator[Entry | str]:
    """Entries, or what is wrong, in the order in which they are done."""
    small = {split: replace(dataset, samples=()) for split, dataset in plan.datasets.items()}
    arguments = (plan.out, plan.manifest.format, small)
    if jobs == 1:
        worker = Worker(*arguments)
        yield from map(worker.prepare, plan.tasks)
        return
    # Spawned, as a fork would copy the threads of torch and DALI.
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), start_process, arguments)
    try:
        waiting: set[Future[Entry | str]] = set()
        for task in plan.tasks:
            with started_for_this_process():  # the pool starts its processes as tasks come
                waiting.add(pool.submit(prepare_in_process, task))
            if len(waiting) >= 4 * jobs:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    except KeyboardInterrupt:
        for process in multiprocessing.active_children():  # they may still import for seconds; no file is left half
            process.kill()
        raise
    except BrokenProcessPool:
        raise UserError(
            "A process that prepares images was ended from outside, perhaps for want of memory. Run the same command"
            f" again, it goes on where it stopped; --jobs {max(1, jobs // 2)} needs half of the memory."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _write_manifest(out: Path, manifest: Manifest) -> None:
    write_text(out / MANIFEST, json.dumps(manifest.as_json(), indent=2) + "\n")


def _finish(plan: Plan, entries: Sequence[Entry], problems: Sequence[str]) -> Manifest:
    """Write index and splits, remove what no entry names, and say that the folder is complete."""
    out = plan.out
    write_text(out / INDEX, "".join(entry.line() for entry in entries))
    size = (out / INDEX).stat().st_size
    write_columns(out / COLUMNS, columns_of(entries, len(plan.manifest.classes), size))
    (out / "splits").mkdir(exist_ok=True)
    for split in plan.datasets:
        write_list(out / "splits" / f"{split}.txt", [entry.name for entry in entries if entry.split == split])
    for path in strangers(out, plan.manifest.format, entries):
        path.unlink()
    manifest = replace(plan.manifest, complete=True, images=len(entries), skipped=tuple(problems))
    _write_manifest(out, manifest)
    (out / JOURNAL).unlink()
    return manifest


def strangers(out: Path, image_format: ImageFormat, entries: Iterable[Entry]) -> list[Path]:
    """Files below images/ and labels/ that no entry names: halves of a killed run, images that were removed since."""
    known = {path for entry in entries for path in entry_paths(out, image_format, entry) if path is not None}
    found = []
    for folder in (out / "images", out / "labels"):
        for parent, _, files in os.walk(folder):
            found += [path for name in files if (path := Path(parent, name)) not in known]
    return sorted(found)


def _free_bytes(out: Path) -> int:
    folder = out.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


@contextmanager
def _lock(out: Path) -> Iterator[None]:
    """Keep a second process from writing the same folder; the lock ends with its process."""
    with (out / LOCK).open("w") as file:
        if sys.platform != "win32":
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    raise UserError(f"Another iidm.prepare is writing {out}. Wait for it, or stop it.") from None
                # a file system without locks
        yield


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
