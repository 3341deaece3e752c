"""Preparing a data set: decode, resize and relabel every image once, on all cores; survives a kill at any moment.

Each image and label is written beside its place and renamed, then its line goes to a journal. A second run believes the
lines whose files have the right length and whose originals did not change, and does the rest. The index is written when
every image is there; only then does prepared.json say `complete`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from ...config import DatasetConfig
from ...locks import locked
from ...types import Sample, UserError
from ..datasets.dataset import Dataset, open_dataset, training_size
from ..datasets.places import Split, has_validation, split_folders
from ..files.common import Progress, counted, first_few
from ..prepared.arrays import array_bytes
from ..prepared.entries import INDEX, Entry, ImageFormat, read_index
from ..prepared.folder import MANIFEST, PART, Manifest, is_prepared, read_manifest
from ..specs.described import find_spec
from ..specs.spec import SplitSpec
from . import shards
from .pool import Folder, cores, run_tasks
from .shards import Finished, Shard
from .worker import Task, encode_sample
from .writing import JOURNAL, SHARDS, clear_up, finish, is_there, require_prepared, write_manifest

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
    shard: Shard | None
    """Which part of the images they are; None: all."""
    images: int
    """How many there are, all shards together."""
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
    shard: Shard | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Find out what is to be done; writes nothing but, in the cache, labels drawn from annotation files.

    Args:
        config: the data set, as a run names it.
        root: its folder as it was downloaded.
        out: the folder to write, new, empty, or an earlier preparation of the same data set.
        image_format: `raw`, `jpeg` or `png`.
        splits: which; None: all that the data set has.
        shard: which part of the images; None: all.
        progress: called with (labels drawn from annotations, all).

    Raises:
        UserError: what `open_dataset` raises; `out` holds something else, or a preparation with other settings or
            in other shards.
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
    folders: dict[str, SplitSpec] = {split: split_folders(spec, config, split) for split in wanted}
    if len({where.images for where in folders.values()}) == 2:  # of one folder a list will name those that validate
        datasets["train"] = _without_validation(datasets["train"], datasets["val"])
    first = datasets[wanted[0]]
    manifest = Manifest(
        dataset=spec.name,
        classes=first.classes.names,
        train_ids=first.encoding.keys,
        resize=first.resize,
        format=image_format,
        splits=folders,
        root=str((root or spec.root or Path()).expanduser().absolute()),
    )
    before = _earlier_entries(out, manifest)
    shards.require_division(out, shard)
    every = [(split, sample) for split, dataset in datasets.items() for sample in dataset.samples]
    tasks, done = [], []
    for split, sample in every:
        if shard is not None and not shard.takes(split, sample.name):
            continue
        task = Task(split, sample, _source_facts(sample))
        entry = before.get((split, sample.name))
        if entry is not None and entry.source == task.source and is_there(out, image_format, entry):
            done.append(entry)
        else:
            tasks.append(task)
    need = _needed_bytes(tasks, datasets, image_format)
    return Plan(out, manifest, datasets, tuple(tasks), tuple(done), shard, len(every), need, _free_bytes(out))


def _without_validation(train: Dataset, val: Dataset) -> Dataset:
    """The training images that do not validate. As files runs leave them out by themselves; prepared, nothing would
    tell that two are one."""
    rest = train.without(val)
    count = len(train.samples) - len(rest.samples)
    if not rest.samples:
        raise UserError(f"All training images of {train.name} validate too, and none is left to train on.")
    said = f"{counted(count, 'training image')} of {train.name} validate, and are prepared for that alone"
    return replace(rest, notes=(*rest.notes, said)) if count else train


def prepare(
    plan: Plan, *, jobs: int | None = None, skip_damaged: bool = False, progress: Progress | None = None
) -> Manifest:
    """Do what a plan says. A folder that is complete is left as it is.

    Args:
        jobs: processes; None: one a core.
        skip_damaged: leave damaged images out, and name them in prepared.json.
        progress: called with (images done, all).

    Returns: prepared.json; not complete where other shards are not finished.

    Raises:
        UserError: not enough disk space, another process writes the folder, damaged files (all of them are tried and
            the first few named; what could be prepared stays), nothing that is not damaged, shards that do not fit
            together.
    """
    if not plan.tasks and _is_complete(plan):
        clear_up(plan.out)  # of a process that was killed in its last moment
        return read_manifest(plan.out)
    if plan.need_bytes > plan.free_bytes:
        smaller = ", or --format jpeg, which takes a sixteenth of raw" if plan.manifest.format == "raw" else ""
        raise UserError(
            f"{plan.out} needs {megabytes(plan.need_bytes)} more, but only {megabytes(plan.free_bytes)} are free there."
            f" Give another --out{smaller}."
        )
    out, shard, count = plan.out, plan.shard, len(plan.done) + len(plan.tasks)
    folder = Folder(out, plan.manifest.format, plan.datasets)

    def report(done: int) -> None:
        if progress is not None:
            progress(len(plan.done) + done, count)

    out.mkdir(parents=True, exist_ok=True)
    if shard is None:
        with locked(out / LOCK, f"Another iidm.prepare is writing {out}"):
            write_manifest(out, plan.manifest)
            entries, problems = run_tasks(folder, plan.tasks, plan.done, out / JOURNAL, jobs, report)
            require_prepared(count, problems, skip_damaged)
            return finish(out, plan.manifest, entries, problems)
    shards.begin(out, shard, plan.manifest)
    lock = out / SHARDS / f"{shard.file_name}.lock"
    with locked(lock, f"Another iidm.prepare is writing shard {shard} of {out}"):
        entries, problems = run_tasks(folder, plan.tasks, plan.done, shards.journal(out, shard), jobs, report)
        require_prepared(count, problems, skip_damaged)
        if shards.is_held(out, plan.images, entries, problems):
            return read_manifest(out)
        key = shards.plan_key(plan.manifest, plan.datasets)
        shards.write_finished(out, shard, entries, Finished(key, plan.images, problems))
        wanted = [(split, name) for split, dataset in plan.datasets.items() for name in dataset.names]
        return shards.merge(out, shard, plan.manifest, wanted)


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
        foreign = [p.name for p in out.iterdir() if p.name not in (LOCK, SHARDS) and not p.name.endswith(PART)]
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
    return {(entry.split, entry.name): entry for entry in (*lines, *shards.earlier_entries(out))}


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


def _is_complete(plan: Plan) -> bool:
    """Whether the folder holds what the plan wants and no more."""
    if not (plan.out / MANIFEST).exists() or not read_manifest(plan.out).complete:
        return False
    return len(read_index(plan.out / INDEX)) + len(read_manifest(plan.out).skipped) == plan.images


def _needed_bytes(tasks: Sequence[Task], datasets: Mapping[Split, Dataset], image_format: ImageFormat) -> int:
    """Disk space. Images whose header cannot be read count nothing: the run itself names them."""

    def size_of(task: Task) -> tuple[int, int] | None:
        try:
            return datasets[task.split].image_size(task.sample)
        except UserError:
            return None

    if image_format == "raw":
        with ThreadPoolExecutor(4 * cores()) as pool:
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


def _free_bytes(out: Path) -> int:
    folder = out.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
