"""Which labels lie at the place that a data set names: pictures, or annotation files of which tool."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ...types import UserError
from ..files.common import first_few
from ..files.listing import list_files
from .annotations import kind_of_json, read_json
from .coco import is_coco
from .encodings import ANNOTATION_KINDS, AnnotationKind, LabelEncoding
from .pictures import PICTURE_ENDINGS

_FILE_KINDS: dict[str, tuple[AnnotationKind, ...]] = {".json": ("coco",), ".xml": ("cvat",)}
_LOSSY_ENDINGS = (".jpg", ".jpeg")


class Found(NamedTuple):
    """Where labels are, not read yet."""

    place: Path
    """The folder or the annotation file."""
    files: Path | dict[str, Path]
    """One annotation file of all images, or sample name -> file; those without an image are among them."""
    annotations: AnnotationKind | None = None
    """Which tool's annotation files they are; None: pictures."""


def find_labels(place: Path, encoding: LabelEncoding, images: Mapping[str, Path], suffix: str, what: str) -> Found:
    """Find the labels of some images.

    Args:
        place: a folder or an annotation file.
        encoding: its kind says what is looked for; `auto`: whatever is there.
        images: sample name -> image.
        suffix: end of a label's file name before its ending.
        what: the data set, for messages.

    Raises:
        UserError: there is nothing of the kind, or more than one kind.
    """
    kind = encoding.kind
    if place.is_file():
        return Found(place, place, _kind_of_file(place, encoding))
    if kind in ("coco", "cvat"):
        raise UserError(_name_the_file(place, kind))
    if kind in ("labelme", "cityscapes-polygons"):
        return Found(place, list_files(place, (".json",), suffix, what).paths, kind)
    if kind not in ("auto", "ids", "colors"):
        return Found(place, list_files(place, (".png",), suffix, what).paths)
    endings = _endings(place, suffix)
    has_pictures, has_json = any(e in endings for e in PICTURE_ENDINGS), ".json" in endings and kind == "auto"
    if has_pictures and has_json:
        has_pictures, has_json = _which(place, images, suffix, what)
    if has_json:
        return _find_json(place, images, suffix, what)
    if not has_pictures:
        _require_other_kind(place, endings, images, suffix, what)
    return Found(place, list_files(place, PICTURE_ENDINGS, suffix, what).paths)


def _kind_of_file(path: Path, encoding: LabelEncoding) -> AnnotationKind:
    kinds = _FILE_KINDS.get(path.suffix.lower())
    if kinds is None or encoding.kind in ("labelme", "cityscapes-polygons", "ids", "colors"):
        raise UserError(
            f"Labels are a folder of pictures or of LabelMe or Cityscapes JSON files, a COCO .json file, or a CVAT .xml"
            f" file; {path} is none"
            + (f' with label_kind = "{encoding.kind}".' if kinds is not None else ". Unpack it where it is an archive.")
        )
    if encoding.kind in ANNOTATION_KINDS and encoding.kind not in kinds:
        raise UserError(f'label_kind = "{encoding.kind}" is no kind of {path.suffix} file, but labels is {path}.')
    if kinds == ("coco",) and not is_coco(read_json(path)):
        found = kind_of_json(path)
        raise UserError(f"{path} is one file of {found}: name the folder that holds such files as labels.")
    return kinds[0]


def _name_the_file(place: Path, kind: str) -> str:
    ending = ".json" if kind == "coco" else ".xml"
    found = sorted(str(path) for path in place.glob(f"*{ending}"))
    there = f" There is {first_few(found, 3)}." if found else ""
    return f'label_kind = "{kind}" needs a {ending} file as labels, and {place} is a folder.{there}'


def _endings(place: Path, suffix: str) -> Counter[str]:
    """How many files with the suffix have each ending."""
    found: Counter[str] = Counter()
    seen: set[str] = set()
    for parent, folders, files in os.walk(place, followlinks=True):
        real = os.path.realpath(parent)
        folders[:] = [f for f in folders if not f.startswith(".") and real not in seen]
        if real in seen:  # a link back to where we come from
            continue
        seen.add(real)
        for file in files:
            stem, ending = os.path.splitext(file)
            if not file.startswith(".") and stem.endswith(suffix):
                found[ending.lower()] += 1
    return found


def _which(place: Path, images: Mapping[str, Path], suffix: str, what: str) -> tuple[bool, bool]:
    """Whether pictures or JSON files are the labels of images, in a folder with both."""
    own = set(images.values())
    listed = list_files(place, PICTURE_ENDINGS, suffix, what).paths
    pictures = [n for n, path in listed.items() if n in images and path not in own]
    outlines = [n for n in list_files(place, (".json",), suffix, what).paths if n in images]
    if pictures and outlines:
        raise UserError(
            f"{what}: {place} holds label pictures ({first_few(pictures, 2)}) and JSON files"
            f" ({first_few(outlines, 2)})."
            ' Say which are the labels: label_kind = "ids", "colors", "labelme" or "cityscapes-polygons".'
        )
    return not outlines, bool(outlines)


def _find_json(place: Path, images: Mapping[str, Path], suffix: str, what: str) -> Found:
    paths = list_files(place, (".json",), suffix, what).paths
    ours = [path for name, path in paths.items() if name in images] or list(paths.values())
    kind = kind_of_json(ours[0])
    if kind == "coco":
        raise UserError(f"{what}: {ours[0]} is a COCO file: name the file itself as labels, not its folder {place}.")
    return Found(place, paths, kind)


def _require_other_kind(
    place: Path, endings: Mapping[str, int], images: Mapping[str, Path], suffix: str, what: str
) -> None:
    """Raise UserError where there are files that are often taken for labels."""
    own = set(images.values())
    lossy = [e for e in _LOSSY_ENDINGS if e in endings]
    if lossy:
        paths = [p for p in list_files(place, tuple(lossy), suffix, what).paths.values() if p not in own]
        if paths:
            raise UserError(
                f"The labels of {what} in {place} are JPEGs ({len(paths)}: {first_few(paths, 2)}), which change ids and"
                " colours when they are saved. Export the labels as PNG; from these files they cannot be told again."
            )
    if ".xml" in endings:
        xml = sorted(place.glob("*.xml"))
        raise UserError(
            f"{what}: {place} holds no label pictures but .xml files. CVAT for images: name the file itself as labels"
            + (f" ({xml[0]})." if xml else ".")
            + " Pascal VOC: boxes are no labels; name its folder SegmentationClass."
        )
