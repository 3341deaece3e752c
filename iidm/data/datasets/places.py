"""Where the images and labels of a split lie."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from ...config import DatasetConfig
from ...types import UserError
from ..files.common import first_few
from ..specs.described import find_spec
from ..specs.spec import DatasetSpec, SplitSpec

Split = Literal["train", "val"]
Need = Literal["all", "some", "optional"]
"""Which images must have a label. `all`: each; `some`: each of a known data set, one of a folder data set;
`optional`: none, those that are there are found."""


def has_validation(config: DatasetConfig) -> bool:
    """Whether a data set has a validation split of its own."""
    return config.val_images is not None or find_spec(config).val is not None


def split_folders(spec: DatasetSpec, config: DatasetConfig, split: Split) -> SplitSpec:
    """The spec's folders of a split, or those that the user named in their place."""
    images, labels = (config.images, config.labels) if split == "train" else (config.val_images, config.val_labels)
    where = spec.train if split == "train" else spec.val
    if where is None and not images:
        raise UserError(
            f"Data set {spec.name} has no {split} split: give --data.target.val-images and --data.target.val-labels."
        )
    if images or where is None:  # a spec's sequences and frames are about its own folder
        where = SplitSpec(images or "", where.labels if where else None)
    folders = [f and f.replace("{split}", split) for f in (where.images, labels or where.labels)]
    return replace(where, images=folders[0] or "", labels=folders[1])


def label_place(spec: DatasetSpec, where: SplitSpec, root: Path | None, name: str, need: Need) -> Path | None:
    """The folder or file of the labels; None where there is none and none is needed."""
    try:
        if not where.labels:
            described = f" `labels` in {spec.file}," if spec.file is not None else ""
            raise UserError(
                f"{name} needs a label folder: give{described} --data.*.labels or --data.target.val-labels."
            )
        return data_folder(name, "label", where.labels, root)
    except UserError:
        if need != "optional":
            raise
        return None


def data_folder(name: str, what: str, folder: str, root: Path | None) -> Path:
    """The folder (or file, of labels) that a data set names.

    Args:
        name: what errors call the data set.
        what: `image` or `label`.
        folder: absolute, or below `root`.

    Raises:
        UserError: there is none, or no root to look below.
    """
    path = Path(folder).expanduser()
    if not path.is_absolute():
        if root is None:
            raise UserError(
                f"{name} needs the folder of the data set: give --target-root DIR, of a source --source-root DIR"
                " (iidm.prepare: --root DIR)."
            )
        path = root.expanduser() / path
    if path.is_dir() or (what == "label" and path.is_file()):
        return path
    if root is not None and not root.expanduser().is_dir():
        raise UserError(
            f"The folder of {name} does not exist: {root}. Where it is now is told by --target-root or --source-root"
            " (iidm.prepare: --root)."
        )
    raise UserError(
        f"{name} has no {what} folder {path}{_instead(path)}."
        f" Check the root folder, or name the {what} folder yourself. Images of your own need a file that describes"
        " them first: iidm inspect IMAGES LABELS --write FILE.toml."
    )


def _instead(path: Path) -> str:
    """What is there in place of a missing folder: `valid` where `val` is asked for, or a name with backslashes."""
    if "\\" in str(path):
        return " (write / between folders, not \\)"
    there = next(parent for parent in path.parents if parent.is_dir())
    try:
        names = sorted(child.name for child in there.iterdir() if child.is_dir() and not child.name.startswith("."))
    except OSError:
        return ""
    return f" ({there} holds {first_few(names)})" if names else ""
