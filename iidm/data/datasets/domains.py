"""The four sets of images of a run: source, labeled and unlabeled target, validation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...config import Config, DataConfig, DatasetConfig, streams_of
from ...types import ClassSet, UserError
from ..files.common import Progress, cache_folder
from ..files.walking import walk
from ..scenes import scenes_root, write_scenes
from ..specs.described import find_spec
from ..specs.known import SCENES_COUNTS, SCENES_SEED, SCENES_SIZE, SPECS
from ..specs.spec import SplitSpec
from .dataset import Dataset, Domains, fit_into, open_dataset, open_split
from .splits import labeled_split, read_list, write_list
from .subset import nearest_subset


def open_domains(config: Config, *, scenes_cache: Path | None = None, progress: Progress | None = None) -> Domains:
    """Open the images of a run and divide those of the target into labeled and unlabeled.

    A stream is opened only where a loss needs it: `labeled_count` images of the target are labeled and the
    others are unlabeled whatever the losses are, so that runs with other losses see the same images. A target
    image that is also a validation image is left out of training. An unlabeled list may hold labeled images:
    their labels are not read with it. `source_subset` reads the labels of the labeled images even where no loss
    does: who asks for it wants that, and the images are the same whatever the losses are.

    Args:
        scenes_cache: where the built-in scenes are written when no root is given; default: the cache folder.
        progress: called with (scenes written, all) while a domain of them is drawn.

    Raises:
        UserError: what `open_dataset` and `nearest_subset` raise; class names that differ between the domains; a
            needed stream without images; a source subset without labels of the target.
    """
    data = config.data
    target_root = config.target_root or builtin_root(data.target, scenes_cache, progress)
    val = open_validation(config, target_root=target_root)
    source = None
    reads = streams_of(config)
    if reads.source:
        source_root = config.source_root or builtin_root(data.source, scenes_cache, progress)
        source = open_dataset(data.source, source_root, "train")
        _require_same_classes(source, val)
        if data.source_list is not None:
            source = _listed(source, data.source_list)
    whole_source = source if data.source_subset is not None else None
    needs_labeled, needs_unlabeled = reads.labeled, reads.unlabeled
    if data.labeled_list is None and data.labeled_count == 0:  # before the labels are looked for
        if needs_labeled:
            raise UserError(_NO_LABELED)
        if whole_source is not None:
            raise UserError(_NO_LABELED_FOR_SUBSET)
    labeled = unlabeled = plain_target = None
    notes: tuple[str, ...] = (*val.notes, *(source.notes if source else ()))
    if needs_labeled or needs_unlabeled or whole_source is not None:
        target = open_dataset(data.target, target_root, "train", labels="some" if needs_labeled else "optional")
        notes += target.notes
        target = _without(target, val)
        labeled, unlabeled = _divide(target, data, needs_labeled)
        plain_target = _together(labeled, unlabeled)
        if whole_source is not None:
            source, note = nearest_subset(whole_source, _labeled_for_subset(target, data), data)
            notes += (note,)
    elif config.eval.statistics == "target":
        plain_target = open_plain_target(config, target_root=target_root)
    return Domains(
        classes=val.classes,
        source=source,
        labeled=_require_images(labeled, _NO_LABELED) if needs_labeled else None,
        unlabeled=_require_images(unlabeled, _NO_UNLABELED) if needs_unlabeled else None,
        val=val,
        plain_target=plain_target if config.eval.statistics == "target" else None,
        notes=tuple(dict.fromkeys(notes)),
    )


def open_plain_target(config: Config, *, target_root: Path | None = None) -> Dataset | None:
    """The labeled and the unlabeled target images of a run, without labels and without those that validate; None where
    there are none.

    Args:
        target_root: where the target lies, in place of the configured folder.
    """
    root = target_root or config.target_root or builtin_root(config.data.target)
    try:
        target = open_dataset(config.data.target, root, "train", labels="optional")
    except UserError:  # a target that only validates need not have a training split
        return None
    target = _without(target, open_validation(config, target_root=target_root))
    return _together(*_divide(target, config.data, needs_labeled=False))


def open_validation(config: Config, *, target_root: Path | None = None) -> Dataset:
    """The validation images of the target, or those of them that `--data.val-list` names.

    Args:
        target_root: where the target lies, in place of the configured folder.
    """
    root = target_root or config.target_root or builtin_root(config.data.target)
    val = open_dataset(config.data.target, root, "val")
    return val if config.data.val_list is None else _listed(val, config.data.val_list)


def open_folder(config: Config, images: Path, labels: Path) -> Dataset:
    """Any labeled images, their labels in the ids that the target's labels have on disk.

    Files are matched by name, without the target's suffixes (`_leftImg8bit`, ...) where an image has them
    and as they are where none has.
    """
    spec = find_spec(config.data.target)
    if not any(file.has(spec.image_suffix) for file in walk(images)[0]):
        spec = replace(spec, image_suffix="", label_suffix="")
    where = SplitSpec(str(images.absolute()), str(labels.absolute()))
    return replace(open_split(spec, where, None, str(images), resize=config.data.target.resize), name=str(images))


def target_classes(config: Config) -> ClassSet:
    """The classes of the target, without opening any folder."""
    return find_spec(config.data.target).classes


def training_size_for(config: Config, image_size: tuple[int, int]) -> tuple[int, int]:
    """The size (H, W) that a target image of (H, W) pixels has when the network sees it."""
    return fit_into(config.data.target.resize or find_spec(config.data.target).resize, image_size)


def write_splits(domains: Domains, run_dir: Path) -> None:
    """Write the names of each set to RUN/splits/<set>.txt, as `read_list` reads them."""
    folder = run_dir / "splits"
    folder.mkdir(parents=True, exist_ok=True)
    for stream in ("source", "labeled", "unlabeled", "val"):
        dataset: Dataset | None = getattr(domains, stream)
        if dataset is not None:
            write_list(folder / f"{stream}.txt", [sample.name for sample in dataset.samples])


_NO_LABELED = (
    "No target image is labeled, but L_t or L_intra needs them. Give labels (--data.labeled-count or"
    " --data.labeled-list), or train without them: --loss.target-weight 0 --loss.intra-weight 0."
)
_NO_UNLABELED = (
    "No target image is unlabeled, but L_inter or L_intra needs them. Label fewer (--data.labeled-count),"
    " name some with --data.unlabeled-list (labeled ones may be among them), or train without mixing:"
    " --loss.inter-weight 0 --loss.intra-weight 0."
)
_NO_LABELED_FOR_SUBSET = (
    "--data.source-subset keeps the source images nearest to labeled target images, but no target image is labeled."
    " Give labels (--data.labeled-count or --data.labeled-list), or leave it out; --data.source-list can name source"
    " images."
)


def _labeled_for_subset(target: Dataset, data: DataConfig) -> Dataset:
    """The labeled part of the target's training images, whether or not a loss reads it."""
    if all(sample.label is None for sample in target.samples):
        raise UserError(_NO_LABELED_FOR_SUBSET)
    return _divide(target, data, needs_labeled=True)[0]


def _divide(target: Dataset, data: DataConfig, needs_labeled: bool) -> tuple[Dataset, Dataset]:
    """The labeled and the unlabeled part of the target's training images, sorted by name."""
    by_name = {sample.name: sample for sample in target.samples}
    with_label = [sample.name for sample in target.samples if sample.label is not None]
    if data.labeled_list is not None:
        labeled = sorted(read_list(data.labeled_list, with_label if needs_labeled else list(by_name)))
    elif data.labeled_count is not None:
        count = data.labeled_count if needs_labeled else min(data.labeled_count, len(with_label))
        labeled = list(labeled_split(with_label, count, data.labeled_choice, data.split_seed)[0])
    else:
        labeled = with_label if needs_labeled else []
    if data.unlabeled_list is not None:
        unlabeled = sorted(read_list(data.unlabeled_list, list(by_name)))
    else:
        taken = set(labeled)
        unlabeled = [n for n in by_name if n not in taken]
    without_labels = [by_name[n]._replace(label=None) for n in unlabeled]
    return target.with_samples(by_name[n] for n in labeled), target.with_samples(without_labels)


def _together(labeled: Dataset, unlabeled: Dataset) -> Dataset | None:
    """The images of both, sorted by name, without labels."""
    by_name = {sample.name: sample._replace(label=None) for sample in (*labeled.samples, *unlabeled.samples)}
    return labeled.with_samples(by_name[n] for n in sorted(by_name)) if by_name else None


def _listed(dataset: Dataset, path: Path) -> Dataset:
    by_name = {sample.name: sample for sample in dataset.samples}
    return dataset.with_samples(by_name[n] for n in sorted(read_list(path, list(by_name))))


def _without(target: Dataset, val: Dataset) -> Dataset:
    """The target's training images that do not validate."""
    held_out = {val.origin(sample) for sample in val.samples}
    return target.with_samples(s for s in target.samples if target.origin(s) not in held_out)


def _require_images(dataset: Dataset | None, message: str) -> Dataset:
    if dataset is None or not dataset.samples:
        raise UserError(message)
    return dataset


def _require_same_classes(source: Dataset, target: Dataset) -> None:
    if source.classes.names != target.classes.names:
        raise UserError(
            "Source and target need the same classes in the same order."
            f" Source {source.name}: {', '.join(source.classes.names)}."
            f" Target {target.name}: {', '.join(target.classes.names)}."
        )


def builtin_root(config: DatasetConfig, cache: Path | None = None, progress: Progress | None = None) -> Path | None:
    """The folder of the built-in scenes, written where it is not there yet; None for other data sets."""
    counts = {key: n for key, n in SCENES_COUNTS.items() if config.spec.startswith(f"streetscenes-{key[0]}")}
    if not counts or config.spec not in SPECS:
        return None
    root = scenes_root(cache or cache_folder(), seed=SCENES_SEED, size=SCENES_SIZE, counts=counts)
    return write_scenes(root, seed=SCENES_SEED, size=SCENES_SIZE, counts=counts, progress=progress)
