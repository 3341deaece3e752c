"""Data sets that a TOML file describes.

Such a file, `my-camera.toml`:

    # {split} is train or val; below --target-root, or below this file's folder
    images = "images/{split}"
    # label pictures (<name>.png for each <name>.png or .jpg, subfolders are fine), a folder of LabelMe or Cityscapes
    # JSON files, a COCO .json file or a CVAT .xml file, or a folder of such files, which are read together
    labels = "labels/{split}"
    # only where the validation folders do not follow {split}
    val_images = "night/images"
    val_labels = "night/labels"
    # only where file names differ at their end: 0001_rgb.jpg, 0001_ids.png; "/image" and "/label" where each sample
    # is a folder: 0001/image.jpg, 0001/label.png
    image_suffix = "_rgb"
    label_suffix = "_ids"
    # box (H, W) that an image must fit into for training; default: size on disk
    resize = [512, 1024]
    # default: "auto", whatever lies there; else "ids", "colors", "coco", "labelme", "cvat", "cityscapes-polygons";
    # "masks": one mask a class, labels/road/x.png, labels/x/road.png or x_road.png
    label_kind = "ids"
    # what no loss and no metric counts: ids on disk (default: [255]), colours, names in annotation files
    ignore = [0, 255]
    ignore_colors = ["#000000"]
    ignore_names = ["unsure"]
    # what pixels without any annotation are; default: the class `background` where there is one, else "ignore"
    unlabeled = "ignore"
    # images that a COCO or CVAT file lists without any annotation; default: "unlabeled", as tools list those that
    # nobody has looked at yet; "labeled" where somebody has, and there is nothing but what `unlabeled` says
    empty_images = "labeled"

    [[classes]]                      # in the order of the network's outputs
    name = "road"
    color = "#804080"                # in label pictures and in ours; default: a generated one, for ours
    ids = [7, 9]                     # ids on disk that are this class; default: its position, 0 for the first
    colors = ["#804081"]             # further colours in label pictures
    names = ["road", "lane"]         # names in annotation files; default: its name

An id, a colour or a name on disk that neither a class nor what is ignored names is an error when the label is read.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...config import TEXT, TEXTS, ValueKind, check_keys, list_of, list_of_tables, parse_mistake, unknown_name
from ...text import read_text
from ...types import IGNORE_INDEX, UserError
from ..labels.encodings import ANNOTATION_KINDS, Kind
from .class_table import ClassEntry, Ignored, class_set, label_table
from .spec import DatasetSpec, SplitSpec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LABEL_KINDS: tuple[Kind, ...] = ("auto", "ids", "colors", *ANNOTATION_KINDS)

_NUMBERS = list_of("a list of whole numbers", lambda value: type(value) is int)
_KEYS: dict[str, ValueKind] = {
    "images": TEXT,
    "labels": TEXT,
    "val_images": TEXT,
    "val_labels": TEXT,
    "image_suffix": TEXT,
    "label_suffix": TEXT,
    "resize": _NUMBERS,
    "label_kind": TEXT,
    "ignore": _NUMBERS,
    "ignore_colors": TEXTS,
    "ignore_names": TEXTS,
    "unlabeled": TEXT,
    "empty_images": TEXT,
    "classes": list_of_tables("classes"),
}
_CLASS_KEYS: dict[str, ValueKind] = {
    "name": TEXT,
    "color": TEXT,
    "ids": _NUMBERS,
    "colors": TEXTS,
    "names": TEXTS,
}


def read_toml(path: Path) -> DatasetSpec:
    """The data set that a TOML file describes (form: head of this file).

    Raises:
        UserError: no such file, no TOML, an unknown or missing key, a value of another kind, an id, a colour or a name
            given twice.
    """
    table = _parse(path)
    check_keys(f"Data set file {path}", table, _KEYS)
    for key in ("images", "classes"):
        if key not in table:
            raise UserError(f"Data set file {path} lacks {key!r}.")
    for entry in table["classes"]:
        check_keys(f"Data set file {path}", entry, _CLASS_KEYS, "key of [[classes]]")
        if "name" not in entry:
            raise UserError(f"Data set file {path}: each [[classes]] needs a name.")
    try:
        entries = _entries(table["classes"])
        classes = class_set(entries)
        label_encoding = label_table(
            entries,
            _ignored(table, entries),
            _kind(table),
            table.get("unlabeled"),
            table.get("empty_images", "unlabeled"),
        )
        resize = _resize(table.get("resize"))
    except UserError as error:
        raise UserError(f"Data set file {path}: {error}") from None
    train = SplitSpec(table["images"], table.get("labels"))
    spec = DatasetSpec(
        path.stem,
        classes,
        label_encoding,
        train,
        _val(table, train),
        image_suffix=table.get("image_suffix", ""),
        label_suffix=table.get("label_suffix", ""),
        resize=resize,
        partial_labels=True,
    )
    return replace(spec, root=path.resolve().parent, file=path)


def _parse(path: Path) -> dict[str, Any]:
    text = ""
    try:
        text = read_text(path, "Data set file")
        return tomllib.loads(text)
    except FileNotFoundError:
        raise UserError(f"There is no data set file {path}.") from None
    except (OSError, ValueError, RecursionError) as error:
        hint = " In texts write / for \\." if "\\" in text else ""
        raise UserError(f"Data set file {path} cannot be read: {parse_mistake(error, text, 'classes')}{hint}") from None


def _val(table: Mapping[str, Any], train: SplitSpec) -> SplitSpec | None:
    """The validation folders: their own keys, or those of training where they follow {split}."""
    images = table.get("val_images") or (train.images if "{split}" in train.images else None)
    if images is None:
        return None
    return SplitSpec(images, table.get("val_labels") or (train.labels if "{split}" in (train.labels or "") else None))


def _entries(classes: Sequence[Mapping[str, Any]]) -> list[ClassEntry]:
    with_ids = [c["name"] for c in classes if "ids" in c]
    if with_ids and len(with_ids) < len(classes):
        without = next(c["name"] for c in classes if "ids" not in c)
        raise UserError(
            f"give `ids` to all classes or to none (then a class's id is its position): {with_ids[0]!r} has some,"
            f" {without!r} has none."
        )
    return [
        ClassEntry(
            c["name"],
            c.get("color", ""),
            tuple(c.get("ids", [k])),
            tuple(c.get("colors", ())),
            tuple(c.get("names", ())),
        )
        for k, c in enumerate(classes)
    ]


def _ignored(table: Mapping[str, Any], entries: Sequence[ClassEntry]) -> Ignored:
    ids = table.get("ignore")
    if ids is None:  # 255, as nearly everywhere, unless a class says that it is its own
        ids = [] if any(IGNORE_INDEX in entry.ids for entry in entries) else [IGNORE_INDEX]
    return Ignored(tuple(ids), tuple(table.get("ignore_colors", ())), tuple(table.get("ignore_names", ())))


def _kind(table: Mapping[str, Any]) -> Kind:
    kind = table.get("label_kind", "auto")
    if kind not in LABEL_KINDS:
        raise unknown_name("label_kind", kind, LABEL_KINDS)
    return kind


def _resize(value: list[int] | None) -> tuple[int, int] | None:
    if value is None:
        return None
    if len(value) != 2 or min(value) < 1:
        raise UserError(f"resize must be [height, width] in pixels, not {value}.")
    return value[0], value[1]
