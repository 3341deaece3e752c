"""The four sets of images of a run: source, labeled and unlabeled target, validation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...config import Config, DataConfig, DatasetConfig, streams_of
from ...types import ClassSet, UserError
from ..files.common import Progress, counted, first_few
from ..files.walking import walk
from ..scenes.builtin import builtin_root
from ..specs.described import find_spec
from ..specs.known import SPECS
from ..specs.own_ids import own_ids
from ..specs.spec import OTHER_SOURCE, SplitSpec
from .dataset import Dataset, Domains, fit_into, open_dataset, open_split
from .places import Need
from .splits import NoneUnlabeled, labeled_places, list_text, read_list, write_list
from .subset import nearest_subset
from .validation import listed, listed_places, open_validation, validation_notes


def open_domains(config: Config, *, scenes_cache: Path | None = None, progress: Progress | None = None) -> Domains:
    """Open the images of a run and divide those of the target into labeled and unlabeled.

    A stream is opened only where a loss needs it: `labeled_count` images of the target are labeled and the
    others are unlabeled whatever the losses are, so that runs with other losses see the same images. An image
    that is also a validation image is left out of training, of the source too. An unlabeled list may hold labeled
    images: their labels are not read with it. `source_subset` reads the labels of the labeled images even where no loss
    does: who asks for it wants that, and the images are the same whatever the losses are.

    Args:
        scenes_cache: where the built-in scenes are written when no root is given; default: the cache folder.
        progress: called with (drawn, all) while scenes, or labels of annotation files, are drawn.

    Raises:
        UserError: what `open_dataset` and `nearest_subset` raise; source and target have classes that the other
            lacks; a needed stream without images; a source subset without labels of the target.
    """
    data = config.data
    target_root = config.target_root or builtin_root(data.target, scenes_cache, progress)
    classes = target_classes(config)
    val = open_validation(config, target_root=target_root, progress=progress)
    notes: list[str] = []
    source = None
    reads = streams_of(config)
    if reads.source:
        if data.source == DatasetConfig():
            raise UserError(_NO_SOURCE)
        source_root = config.source_root or builtin_root(data.source, scenes_cache, progress)
        notes += _class_notes(data, find_spec(data.source).classes, classes)
        source = open_dataset(data.source, source_root, "train", classes=classes, progress=progress)
        if data.source_list is not None:
            source = listed(source, data.source_list)
        count = len(source.samples)
        source = _require_images(source.without(val), _NO_SOURCE_LEFT)
        if len(source.samples) < count:
            notes.append(f"source: left out, as validation reads them: {counted(count - len(source.samples), 'image')}")
    elif config.source_root or (data.source != DatasetConfig() and data.source.spec not in SPECS):  # no preset's own
        notes.append(f"source: it is given, and not read: {config.method} learns from the target alone")
    whole_source = source if data.source_subset is not None else None
    needs_labeled, needs_unlabeled = reads.labeled, reads.unlabeled
    if data.labeled_list is None and data.labeled_count == 0:  # before the labels are looked for
        if needs_labeled:
            raise UserError(_NO_LABELED)
        if whole_source is not None:
            raise UserError(_NO_LABELED_FOR_SUBSET)
    labeled = unlabeled = plain_target = None
    if needs_labeled or needs_unlabeled or whole_source is not None:
        need: Need = "some" if needs_labeled else "optional"
        target = open_dataset(data.target, target_root, "train", labels=need, progress=progress)
        target = target.without(val)
        labeled, unlabeled, plain_target = _divide(target, data, needs_labeled)
        if whole_source is not None:
            source, note = nearest_subset(whole_source, _labeled_for_subset(target, data), data)
            notes.append(note)
    elif config.eval.statistics == "target":
        plain_target = open_plain_target(config, target_root=target_root)
    if needs_labeled:
        labeled = _require_images(labeled, _NO_LABELED_LEFT if data.val_count else _NO_LABELED)
    if needs_unlabeled and not (unlabeled and unlabeled.samples):
        raise NoneUnlabeled
    opened = [dataset for dataset in (source, labeled, val) if dataset is not None]
    notes += tuple(dict.fromkeys(note for dataset in opened for note in dataset.notes))
    return Domains(
        classes=classes,
        source=source,
        labeled=labeled if needs_labeled else None,
        unlabeled=unlabeled if needs_unlabeled else None,
        val=val,
        plain_target=plain_target if config.eval.statistics == "target" else None,
        notes=tuple(dict.fromkeys([*notes, *validation_notes(data, val)])),
    )


def open_plain_target(config: Config, *, target_root: Path | None = None) -> Dataset | None:
    """The labeled and the unlabeled target images of a run, without labels and without those that validate; None where
    there are none.

    Args:
        target_root: where the target lies, in place of the configured folder.
    """
    try:
        target = _open_training(config, target_root)
    except UserError:  # a target that only validates need not have a training split
        return None
    target = target.without(open_validation(config, target_root=target_root))
    return _divide(target, config.data, needs_labeled=False).together


def open_training_target(config: Config, *, target_root: Path | None = None) -> Dataset:
    """The training images of a run's target with the labels that are there, without those that validate; those of them
    alone that the run may read, where it has a list of unlabeled images.

    Args:
        target_root: where the target lies, in place of the configured folder.

    Raises:
        UserError: what `open_dataset` raises; no image is left.
    """
    target = _open_training(config, target_root).without(open_validation(config, target_root=target_root))
    if config.data.unlabeled_list is not None:
        parts = _divide(target, config.data, needs_labeled=False)
        names = set() if parts.together is None else set(parts.together.names)
        target = target.take([place for place, name in enumerate(target.names) if name in names])
    return _require_images(target, "The run's target has no training image beside those that validate.")


def _open_training(config: Config, target_root: Path | None) -> Dataset:
    root = target_root or config.target_root or builtin_root(config.data.target)
    return open_dataset(config.data.target, root, "train", labels="optional")


def open_folder(config: Config, images: Path, labels: Path) -> Dataset:
    """Any labeled images, their labels in the ids, colours or names that the target's labels have on disk.

    `labels` is a folder or an annotation file, of another kind than the run's perhaps.

    Files are matched by name, without the target's suffixes (`_leftImg8bit`, ...) where an image has them
    and as they are where none has.
    """
    spec = find_spec(config.data.target)
    spec = replace(spec, encoding=spec.encoding.of_any_place())
    if not any(file.has(spec.image_suffix) for file in walk(images)[0]):
        spec = replace(spec, image_suffix="", label_suffix="")
    where = SplitSpec(str(images.absolute()), str(labels.absolute()))
    return replace(open_split(spec, where, None, str(images), resize=config.data.target.resize), name=str(images))


def target_classes(config: Config) -> ClassSet:
    """The classes of the target, without opening any folder."""
    return find_spec(config.data.target).classes


def target_unlabeled(config: Config) -> int | None:
    """Train id of what the target's annotation files leave without an outline; None where that is ignored."""
    return find_spec(config.data.target).encoding.unlabeled_class


def target_ids(config: Config) -> tuple[NDArray[np.uint8] | NDArray[np.uint16], list[str]]:
    """The target's own id of each train id, and notes, as `own_ids` of it."""
    return own_ids(find_spec(config.data.target))


def training_size_for(config: Config, image_size: tuple[int, int]) -> tuple[int, int]:
    """The size (H, W) that a target image of (H, W) pixels has when the network sees it."""
    return fit_into(config.data.target.resize or find_spec(config.data.target).resize, image_size)


def write_splits(domains: Domains, run_dir: Path) -> None:
    """Write the names of each set to RUN/splits/<set>.txt, as `read_list` reads them."""
    folder = run_dir / "splits"
    folder.mkdir(parents=True, exist_ok=True)
    for stream in STREAMS:
        dataset: Dataset | None = getattr(domains, stream)
        if dataset is not None:
            write_list(folder / f"{stream}.txt", dataset.names)


def with_kept_validation(config: Config, run_dir: Path | None) -> Config:
    """The configuration of a run with the validation images that it began with, where they are labeled ones that were
    kept out: among labels that have come since other ones would be drawn, such as it has trained on.

    Args:
        run_dir: None for a run that begins.
    """
    if run_dir is None or config.data.val_count is None or config.data.val_list is not None:
        return config
    kept = run_dir / "splits" / "val.txt"
    if not kept.is_file():
        return config
    return replace(config, data=replace(config.data, val_list=kept))


def changes_since(domains: Domains, run_dir: Path) -> list[str]:
    """How the images differ from those in RUN/splits, a line for each set that does."""
    lines = []
    for stream in STREAMS:
        dataset: Dataset | None = getattr(domains, stream)
        path = run_dir / "splits" / f"{stream}.txt"
        names = [] if dataset is None else dataset.names
        if names and path.is_file() and path.read_bytes() == list_text(names).encode():
            continue
        now = set(names)
        before = set(read_list(path)) if path.is_file() else set()
        gone, new = sorted(before - now), sorted(now - before)
        said = [f"lacks {first_few(gone, 3)}"] if gone else []
        said += [f"has also {first_few(new, 3)}"] if new else []
        if said:
            lines.append(f"{stream} {' and '.join(said)}")
    return lines


STREAMS = ("source", "labeled", "unlabeled", "val")
"""The sets of images whose names a run writes down."""

_NO_SOURCE = (
    "The method reads a labeled source domain, and none is given. Name one (--data.source.spec FILE.toml), or train on"
    " the target alone: --method target_intra."
)
_NO_SOURCE_LEFT = "All images of the source validate, and none is left to train on. Name other ones for either."
_NO_LABELED = (
    "No target image is labeled, but L_t or L_intra needs them. Give labels (--data.labeled-count or"
    " --data.labeled-list), or train without them: --loss.target-weight 0 --loss.intra-weight 0."
)
_NO_LABELED_LEFT = (
    "--data.val-count keeps all labeled target images out, and none is left to train on. Give a smaller number."
)
_NO_LABELED_FOR_SUBSET = (
    "--data.source-subset keeps the source images nearest to labeled target images, but no target image is labeled."
    " Give labels (--data.labeled-count or --data.labeled-list), or leave it out; --data.source-list can name source"
    " images."
)


def _labeled_for_subset(target: Dataset, data: DataConfig) -> Dataset:
    """The labeled part of the target's training images, whether or not a loss reads it."""
    if not target.has_label.any():
        raise UserError(_NO_LABELED_FOR_SUBSET)
    return _divide(target, data, needs_labeled=True).labeled


class _Parts(NamedTuple):
    """The training images of the target."""

    labeled: Dataset
    unlabeled: Dataset
    """Without labels."""
    together: Dataset | None
    """Both, without labels; None where there is none."""


def _divide(target: Dataset, data: DataConfig, needs_labeled: bool) -> _Parts:
    """The labeled and the unlabeled part of the target's training images, sorted by name."""
    has_label = target.has_label
    labeled, unlabeled = np.zeros((2, len(has_label)), np.bool_)
    if data.labeled_list is not None:
        labeled[listed_places(target, data.labeled_list)] = True
        bare = np.flatnonzero(labeled & ~has_label)
        if len(bare) and needs_labeled:
            names = first_few(target.take(bare).names)
            raise UserError(f"{data.labeled_list} names images that have no label: {names}.")
    elif data.labeled_count is not None:
        with_label = np.flatnonzero(has_label)
        count = data.labeled_count if needs_labeled else min(data.labeled_count, len(with_label))
        labeled[with_label[labeled_places(len(with_label), count, data.labeled_choice, data.split_seed)]] = True
    elif needs_labeled:
        labeled[:] = has_label
    if data.unlabeled_list is not None:
        unlabeled[listed_places(target, data.unlabeled_list)] = True
    else:
        unlabeled[:] = ~labeled
    together = target.take(np.flatnonzero(labeled | unlabeled)).without_labels()
    return _Parts(
        target.take(np.flatnonzero(labeled)),
        target.take(np.flatnonzero(unlabeled)).without_labels(),
        together if together.samples else None,
    )


def _require_images(dataset: Dataset | None, message: str) -> Dataset:
    if dataset is None or not dataset.samples:
        raise UserError(message)
    return dataset


def _class_notes(data: DataConfig, source: ClassSet, target: ClassSet) -> list[str]:
    """What matching the classes by name leaves out. Raises UserError where both sides have classes of their own: their
    names are likely to be spelled in two ways."""
    names = [{name.strip().casefold() for name in classes.names} for classes in (source, target)]
    only_source = [name for name in source.names if name.strip().casefold() not in names[1]]
    only_target = [name for name in target.names if name.strip().casefold() not in names[0]]
    if only_source and only_target and len(only_source) < len(source) and "class-names" not in data.accept:
        # A preset brings a known source, which nobody has named then.
        is_known = data.source.spec in SPECS and data.target.spec not in SPECS
        other = f" The source is {data.source.spec}, the preset's unless an option names it. {OTHER_SOURCE}"
        raise UserError(
            f"Classes are matched by name. The source alone has {', '.join(only_source)}; the target alone has"
            f" {', '.join(only_target)}. Give those that mean the same one name, in either TOML file: `name` is what is"
            " compared; `ids`, `colors` and `names` are what its labels hold, of several classes where one stands for"
            " them all. If none do, --data.accept class-names ignores the source's and learns the target's from its own"
            f" labels.{other if is_known else ''}"
        )
    notes = (
        [f"source: pixels of {', '.join(only_source)} are ignored, the target has no such class"] if only_source else []
    )
    if only_target:
        notes.append(f"source: it has no {', '.join(only_target)}")
    return notes
