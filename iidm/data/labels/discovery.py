"""Which labels lie at the place that a data set names: pictures, or annotation files of which tool."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeGuard

from ...types import UserError
from ..files.common import first_few
from ..files.listing import LABEL_ENDINGS, Beside, Listing, list_files
from .annotations import kind_of_json, read_json
from .coco import is_coco
from .encodings import ANNOTATION_KINDS, AnnotationKind, LabelEncoding

_FILE_KINDS: dict[str, tuple[AnnotationKind, ...]] = {".json": ("coco",), ".xml": ("cvat",)}


class Found(NamedTuple):
    """Where labels are, not read yet."""

    place: Path
    """The folder or the annotation file."""
    files: Path | Listing
    """One annotation file of all images, or a file for each; those without an image are among them."""
    annotations: AnnotationKind | None = None
    """Which tool's annotation files they are; None: pictures."""


def find_labels(
    place: Path, encoding: LabelEncoding, images: Listing, image_suffix: str, suffix: str, what: str
) -> Found:
    """Find the labels of some images.

    Args:
        place: a folder or an annotation file.
        encoding: its kind says what is looked for; `auto`: whatever is there.
        images: the images, which may share the folder.
        image_suffix: end of an image's file name before its ending.
        suffix: the same of a label.
        what: the data set, for messages.

    Raises:
        UserError: there is nothing of the kind, or more than one kind.
    """
    kind = encoding.kind
    if place.is_file():
        return Found(place, place, _kind_of_file(place, encoding))
    if kind in ("coco", "cvat"):
        raise UserError(_name_the_file(place, kind))
    beside = Beside(images.folder, image_suffix)

    def listed(endings: tuple[str, ...]) -> Listing:
        return list_files(place, endings, suffix, what, images=beside)

    if kind in ("labelme", "cityscapes-polygons"):
        return Found(place, listed((".json",)), kind)
    if kind == "auto" and (outlines := _listed_or_none(listed, (".json",))) is not None:
        pictures = _listed_or_none(listed, LABEL_ENDINGS)
        if not _pairs(outlines, images) and _pairs(pictures, images):
            return Found(place, pictures)
        if _pairs(outlines, images) and _pairs(pictures, images):
            raise UserError(
                f"{what}: {place} holds label pictures ({first_few(list(pictures.paths), 2)}) and JSON files"
                f" ({first_few(list(outlines.paths), 2)})."
                ' Say which are the labels: label_kind = "ids", "colors", "labelme" or "cityscapes-polygons".'
            )
        return _outlines(place, outlines, images, what)
    if (xml := next(iter(sorted(place.glob("*.xml"))), None)) and not _listed_or_none(listed, LABEL_ENDINGS):
        raise UserError(
            f"{what}: {place} holds no label pictures but .xml files. CVAT for images: name the file itself as labels"
            f" ({xml}). Pascal VOC: boxes are no labels; name its folder SegmentationClass."
        )
    return Found(place, listed(LABEL_ENDINGS))


def _listed_or_none(listed: Callable[[tuple[str, ...]], Listing], endings: tuple[str, ...]) -> Listing | None:
    try:
        return listed(endings)
    except UserError:
        return None


def _pairs(labels: Listing | None, images: Listing) -> TypeGuard[Listing]:
    """Whether any of the labels has an image."""
    stems = {images.stems.get(name, name) for name in images.paths}
    return labels is not None and not stems.isdisjoint(labels.paths)


def _outlines(place: Path, listing: Listing, images: Listing, what: str) -> Found:
    """JSON files of one tool; those of images decide which."""
    stems = {images.stems.get(name, name) for name in images.paths}
    first = next((path for name, path in listing.paths.items() if name in stems), next(iter(listing.paths.values())))
    kind = kind_of_json(first)
    if kind == "coco":
        raise UserError(f"{what}: {first} is a COCO file: name the file itself as labels, not its folder {place}.")
    return Found(place, listing, kind)


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
