"""Data sets that a user describes: by command line fields, or by a TOML file.

Such a file, `my-camera.toml`:

    images = "images/{split}"        # {split} is train or val; below --target-root, or below this file's
    folder labels = "labels/{split}"        # <name>.png for each <name>.png, .jpg or .jpeg; subfolders are
    fine val_images = "night/images"      # only where the validation folders do not follow {split}
    val_labels = "night/labels"
    image_suffix = "_rgb"            # only where file names differ at their end: 0001_rgb.jpg, 0001_ids.png
    label_suffix = "_ids"
    resize = [512, 1024]             # box (H, W) that an image must fit into for training; default: size on
    disk ignore = [0, 255]                # ids on disk that no loss and no metric counts; default: [255]

    [[classes]]                      # in the order of the network's outputs
    name = "road"
    color = "#804080"                # default: a generated colour
    ids = [7, 9]                     # ids on disk that are this class; default: its position, 0 for the first

An id on disk that neither a class nor `ignore` names is an error when the label is read.
"""

from __future__ import annotations

import colorsys
import re
import sys
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...config import DatasetConfig, unknown_name
from ...types import IGNORE_INDEX, ClassSet, UserError
from ..labels.encodings import LabelEncoding, encoding
from .known import SPECS
from .spec import DatasetSpec, SplitSpec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RGB = tuple[int, int, int]

_KEYS: dict[str, str] = {
    "images": "text",
    "labels": "text",
    "val_images": "text",
    "val_labels": "text",
    "image_suffix": "text",
    "label_suffix": "text",
    "resize": "a list of whole numbers",
    "ignore": "a list of whole numbers",
    "classes": "[[classes]] tables",
}
_CLASS_KEYS: dict[str, str] = {"name": "text", "color": "text", "ids": "a list of whole numbers"}


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
    classes = class_set(config.class_names, config.palette or ("",) * len(config.class_names))
    if config.id_map:
        label_encoding = encoding("auto", parse_id_map(config.id_map, len(classes)))
    else:
        label_encoding = encoding("auto", {i: i for i in range(len(classes))}, ignored=(IGNORE_INDEX,))
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


def class_set(names: tuple[str, ...], colors: tuple[str, ...]) -> ClassSet:
    """Classes with their colours; an empty colour is generated."""
    if len(names) != len(colors):
        raise UserError(f"A palette needs one colour per class: {len(names)} classes, {len(colors)} colours.")
    return ClassSet(names, tuple(parse_color(c) if c else generated_color(k) for k, c in enumerate(colors)))


def parse_color(text: str) -> RGB:
    """#rrggbb as RGB 0..255."""
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        raise UserError(f"A colour must be #rrggbb such as #804080, not {text!r}.")
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def generated_color(index: int) -> RGB:
    """A colour unlike its neighbours': hues a golden ratio apart, in three brightnesses."""
    red, green, blue = colorsys.hsv_to_rgb(index * 0.618034 % 1.0, 0.75, (0.95, 0.7, 0.5)[index % 3])
    return round(red * 255), round(green * 255), round(blue * 255)


def read_toml(path: Path) -> DatasetSpec:
    """The data set that a TOML file describes (form: head of this file).

    Raises:
        UserError: no such file, no TOML, an unknown or missing key, a value of another kind, an id named
            twice.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"There is no data set file {path}.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"Data set file {path} cannot be read: {error}.") from None
    _check_keys(path, table, _KEYS, "key")
    for key in ("images", "classes"):
        if key not in table:
            raise UserError(f"Data set file {path} lacks {key!r}.")
    for entry in table["classes"]:
        _check_keys(path, entry, _CLASS_KEYS, "key of [[classes]]")
        if "name" not in entry:
            raise UserError(f"Data set file {path}: each [[classes]] needs a name.")
    try:
        classes = class_set(
            tuple(c["name"] for c in table["classes"]), tuple(c.get("color", "") for c in table["classes"])
        )
        label_encoding = _toml_encoding(table)
        resize = _toml_resize(table.get("resize"))
    except UserError as error:
        raise UserError(f"Data set file {path}: {error}") from None
    train = SplitSpec(table["images"], table.get("labels"))
    spec = DatasetSpec(
        path.stem,
        classes,
        label_encoding,
        train,
        _toml_val(table, train),
        image_suffix=table.get("image_suffix", ""),
        label_suffix=table.get("label_suffix", ""),
        resize=resize,
        partial_labels=True,
    )
    return replace(spec, root=path.resolve().parent)


def _toml_val(table: Mapping[str, Any], train: SplitSpec) -> SplitSpec | None:
    """The validation folders: their own keys, or those of training where they follow {split}."""
    images = table.get("val_images") or (train.images if "{split}" in train.images else None)
    if images is None:
        return None
    return SplitSpec(images, table.get("val_labels") or (train.labels if "{split}" in (train.labels or "") else None))


def _toml_encoding(table: Mapping[str, Any]) -> LabelEncoding:
    ignored = table.get("ignore", [])
    train_ids: dict[int, int] = {}
    with_ids = [c["name"] for c in table["classes"] if "ids" in c]
    if with_ids and len(with_ids) < len(table["classes"]):
        raise UserError("give `ids` to all classes or to none (then a class's id is its position).")
    for k, entry in enumerate(table["classes"]):
        for i in entry.get("ids", [k]):
            if i in train_ids or i in ignored:
                raise UserError(f"id {i} of class {entry['name']!r} is named more than once.")
            train_ids[i] = k
    return encoding("auto", train_ids, ignored if "ignore" in table else [IGNORE_INDEX])


def _toml_resize(value: list[int] | None) -> tuple[int, int] | None:
    if value is None:
        return None
    if len(value) != 2 or min(value) < 1:
        raise UserError(f"resize must be [height, width] in pixels, not {value}.")
    return value[0], value[1]


def _check_keys(path: Path, table: Mapping[str, Any], kinds: Mapping[str, str], what: str) -> None:
    for key, value in table.items():
        if key not in kinds:
            raise UserError(f"Data set file {path}: {_without_stop(unknown_name(what, key, kinds))}.")
        if not _is_kind(value, kinds[key]):
            raise UserError(f"Data set file {path}: {key} must be {kinds[key]}, not {value!r}.")


def _is_kind(value: object, kind: str) -> bool:
    if kind == "text":
        return isinstance(value, str)
    inner: type = int if kind == "a list of whole numbers" else dict
    return isinstance(value, Collection) and not isinstance(value, (str, dict)) and all(type(v) is inner for v in value)


def _without_stop(error: UserError) -> str:
    return str(error).removesuffix(".")
