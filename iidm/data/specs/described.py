"""Data sets that a user describes: by command line fields here, by a TOML file in toml_file.py."""

from __future__ import annotations

import re
from pathlib import Path

from ...config import DatasetConfig, unknown_name
from ...types import IGNORE_INDEX, UserError
from .class_table import ClassEntry, Ignored, class_set, generated_color, label_table
from .known import SPECS
from .spec import DatasetSpec, SplitSpec
from .toml_file import read_toml

__all__ = ["find_spec", "folder_spec", "generated_color", "parse_id_map"]


def find_spec(config: DatasetConfig) -> DatasetSpec:
    """The data set that a configuration names: a known one, `folder`, or the path of a TOML file.

    Raises:
        UserError: an unknown name (with the nearest), a mistake in the TOML file, or class fields given for a
            data set that has classes of its own.
    """
    if config.spec == "folder":
        return folder_spec(config)
    given = [f for f in ("class_names", "palette", "id_map") if getattr(config, f)]
    if given:
        raise UserError(
            f"{', '.join(given)} belong to folder data sets; {config.spec} has classes of its own."
            " Remove them, or set spec to folder."
        )
    if config.spec.endswith(".toml"):
        return read_toml(Path(config.spec).expanduser())
    if config.spec not in SPECS:
        if Path(config.spec).expanduser().exists():
            raise UserError(
                f"{config.spec} does not end with .toml, and a data set is described by such a file. Of a folder,"
                " iidm inspect FOLDER --write FILE.toml writes one."
            )
        raise unknown_name("data set", config.spec, [*SPECS, "folder"])
    return SPECS[config.spec]


def folder_spec(config: DatasetConfig) -> DatasetSpec:
    """The data set of the command line fields."""
    if not config.class_names:
        raise UserError(
            "A folder data set needs its classes: give --data.source.class-names and"
            " --data.target.class-names in the order of the train ids, or a TOML file as spec"
            " (see docs/own-data.md)."
        )
    if not config.images:
        raise UserError("A folder data set needs an image folder: give --data.source.images and --data.target.images.")
    names, palette = config.class_names, config.palette or ("",) * len(config.class_names)
    if len(palette) != len(names):
        raise UserError(
            f"A palette needs one colour per class: {len(names)} classes, {len(palette)} colours. Give as many with"
            " --data.source.palette and --data.target.palette, or none."
        )
    if config.id_map:
        train_ids = parse_id_map(config.id_map, len(names))
    else:
        train_ids = {**{i: i for i in range(len(names))}, IGNORE_INDEX: IGNORE_INDEX}
    entries = [
        ClassEntry(name, palette[k], tuple(i for i, train_id in train_ids.items() if train_id == k))
        for k, name in enumerate(names)
    ]
    classes = class_set(entries)
    ignored = Ignored(ids=tuple(i for i, train_id in train_ids.items() if train_id == IGNORE_INDEX))
    label_encoding = label_table(entries, ignored)
    train = SplitSpec(config.images, config.labels)
    val = train if "{split}" in train.images else None
    return DatasetSpec("folder", classes, label_encoding, train, val, partial_labels=True)


def parse_id_map(pairs: tuple[str, ...], class_count: int) -> dict[int, int]:
    """`id:train_id` pairs as a dict. Raises UserError for a bad pair or a train id without a class."""
    train_ids: dict[int, int] = {}
    for pair in pairs:
        match = re.fullmatch(r"(\d+):(\d+)", pair.strip())
        if match is None:
            raise UserError(f"The id map needs pairs id:train_id such as 7:0, not {pair!r}.")
        i, train_id = int(match[1]), int(match[2])
        if train_id >= class_count and train_id != IGNORE_INDEX:
            raise UserError(
                f"The id map's {pair!r} names train id {train_id}; there are {class_count} classes (0 to"
                f" {class_count - 1}, or 255 to ignore)."
            )
        if i in train_ids:
            raise UserError(f"The id map names id {i} more than once.")
        train_ids[i] = train_id
    return train_ids
