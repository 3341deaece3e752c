"""Which images validate: those of a split, labeled ones that are kept out, those that a list names, or none."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...config import Config, DataConfig
from ...types import UserError
from ..files.common import Progress
from ..scenes.builtin import builtin_root
from .dataset import Dataset, open_dataset
from .places import has_validation
from .splits import read_list


def open_validation(
    config: Config, *, target_root: Path | None = None, progress: Progress | None = None
) -> Dataset | None:
    """The validation images of the target; labeled training images where `data.val_count` asks for them or there is no
    validation split. Of these those that `data.val_list` names. None: nothing validates.

    Args:
        target_root: where the target lies, in place of the configured folder.
        progress: called with (labels drawn from annotations, all).
    """
    data = config.data
    root = target_root or config.target_root or builtin_root(data.target)
    if data.val_count is None and has_validation(data.target):
        val = open_dataset(data.target, root, "val", progress=progress)
        return val if data.val_list is None else listed(val, data.val_list)
    if data.val_count is None and data.val_list is None:
        return None
    target = open_dataset(data.target, root, "train", labels="some", progress=progress)
    target = target.take(np.flatnonzero(target.has_label))
    if data.val_list is None:
        return _held_out(target, data)
    val = listed(target, data.val_list)
    if data.val_count not in (None, len(val.samples)):
        raise UserError(
            f"--data.val-count is {data.val_count}, and {data.val_list} names {len(val.samples)} images; give one of"
            " the two."
        )
    return val


def require_validation(config: Config, target_root: Path | None = None) -> Dataset:
    """`open_validation`; raises UserError where nothing validates."""
    val = open_validation(config, target_root=target_root)
    if val is None:
        raise UserError(
            "There are no validation images. Name labeled ones: --images and --labels (iidm.evaluate),"
            " --data.target.val-images and --data.target.val-labels, or --data.val-count N (iidm.train)."
        )
    return val


def validation_notes(data: DataConfig, val: Dataset | None) -> list[str]:
    """Lines on what validates."""
    if val is None:
        return [
            "no validation images: nothing is scored, and the pictures show unlabeled images (--data.val-count N keeps"
            " labeled images out, --data.target.val-images and --data.target.val-labels name a folder)"
        ]
    notes = []
    if data.val_count is not None:
        other = "; the validation split is not read" if has_validation(data.target) else ""
        kept = "1 labeled image that does" if data.val_count == 1 else f"{data.val_count} labeled images that do"
        notes.append(f"validation: {kept} not train (--data.val-count){other}")
    if val.prepared is not None and val.prepared.has_reduced(val.samples):
        notes.append("validation: labels of prepared training images, so pixels are scored at training resolution")
    return notes


def listed(dataset: Dataset, path: Path) -> Dataset:
    """The images that a list names, sorted by name. Raises UserError as `read_list`."""
    return dataset.take(listed_places(dataset, path))


def listed_places(dataset: Dataset, path: Path) -> NDArray[np.int64]:
    """int64 [N]: where the images that a list names stand in a data set, increasing."""
    places = dataset.places
    return np.sort(np.array([places[name] for name in read_list(path, places)], np.int64))


def _held_out(labeled: Dataset, data: DataConfig) -> Dataset:
    """`data.val_count` labeled training images; none that `data.labeled_list` wants to train on.

    The order is by a hash of seed and name, not a shuffle of places: further labels would shuffle all anew.
    """
    assert data.val_count is not None
    is_free = np.ones(len(labeled.samples), np.bool_)
    if data.labeled_list is not None:
        is_free[listed_places(labeled, data.labeled_list)] = False
    free = np.flatnonzero(is_free)
    if data.val_count > len(free):
        listed = (
            f", {len(is_free) - len(free)} of which --data.labeled-list trains on" if len(free) < len(is_free) else ""
        )
        raise UserError(
            f"--data.val-count is {data.val_count}, but {len(is_free)} target images have a label{listed}. Give at most"
            f" {len(free)}, or label more."
        )
    names = labeled.names

    def key(place: int) -> bytes:  # names of files may be no Unicode
        return sha256(f"{data.split_seed}\n{names[place]}".encode(errors="surrogateescape")).digest()

    return labeled.take(sorted(sorted(free.tolist(), key=key)[: data.val_count]))
