"""Which labels lie at the place that a data set names: pictures, or annotation files of which tool."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, TypeGuard

from ...types import UserError
from ..files.common import first_few
from ..files.listing import LABEL_ENDINGS, Beside, Listing, list_files
from ..files.walking import walk
from .annotations import is_of_kind, kind_of_json, read_json
from .coco import is_coco
from .encodings import ANNOTATION_KINDS, AnnotationKind, LabelEncoding

_FILE_KINDS: dict[str, tuple[AnnotationKind, ...]] = {".json": ("coco",), ".xml": ("cvat",)}
_ENDINGS: dict[Literal["coco", "cvat"], str] = {"coco": ".json", "cvat": ".xml"}


class Found(NamedTuple):
    """Where labels are, not read yet."""

    place: Path
    """The folder or the annotation file."""
    files: tuple[Path, ...] | Listing
    """Annotation files of many images each, or a file for each image; those without an image are among them."""
    annotations: AnnotationKind | None = None
    """Which tool's annotation files they are; None: pictures."""
    notes: tuple[str, ...] = ()
    """Lines on files that are none of them."""


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
        return Found(place, (place,), _kind_of_file(place, encoding))
    beside = Beside(images.folder, image_suffix, mask_names(encoding))

    def listed(endings: tuple[str, ...]) -> Listing:
        return list_files(place, endings, suffix, what, images=beside)

    if kind == "coco" or kind == "cvat":
        if (found := _together(place, kind)) is None:
            ending = _ENDINGS[kind]
            there = f" There is {first_few(files, 3)}." if (files := _below(place, ending)) else ""
            raise UserError(
                f'{what}: label_kind = "{kind}" needs a {ending} file of {kind.upper()}, and {place} holds none.{there}'
            )
        return found

    if kind in ("labelme", "cityscapes-polygons"):
        return Found(place, listed((".json",)), kind)
    if kind == "masks":
        return Found(place, listed(LABEL_ENDINGS), kind)
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
        if not _pairs(outlines, images) and (found := _together(place, "coco")):
            return found
        return _outlines(place, outlines, images)
    if kind == "auto" and not _listed_or_none(listed, LABEL_ENDINGS):
        if found := _together(place, "cvat"):
            return found
        if files := _below(place, ".xml"):
            raise UserError(
                f"{what}: {place} holds no label pictures but .xml files that are none of CVAT ({first_few(files, 3)})."
                " Pascal VOC: boxes are no labels; name its folder SegmentationClass."
            )
    return Found(place, listed(LABEL_ENDINGS))


def mask_names(encoding: LabelEncoding) -> frozenset[str]:
    """The names by which pictures among images are known as masks of a class; empty for other kinds of labels."""
    return frozenset(name for name, _ in encoding.names) if encoding.kind == "masks" else frozenset()


def _together(place: Path, kind: Literal["coco", "cvat"]) -> Found | None:
    """All COCO or CVAT files below a folder, one for each round of labeling; None where there is none."""
    files = _below(place, _ENDINGS[kind])
    chosen = tuple(path for path in files if is_of_kind(path, kind))
    if not chosen:
        return None
    others = [path for path in files if path not in chosen]
    notes = [f"{place}: not read, as they are no annotations of {kind.upper()}: {first_few(others, 3)}."]
    return Found(place, chosen, kind, tuple(notes if others else ()))


def _below(place: Path, ending: str) -> list[Path]:
    return [file.path for file in walk(place)[0] if file.ending == ending]


def _listed_or_none(listed: Callable[[tuple[str, ...]], Listing], endings: tuple[str, ...]) -> Listing | None:
    try:
        return listed(endings)
    except UserError:
        return None


def _pairs(labels: Listing | None, images: Listing) -> TypeGuard[Listing]:
    """Whether any of the labels has an image."""
    stems = {images.stems.get(name, name) for name in images.paths}
    return labels is not None and not stems.isdisjoint(labels.paths)


def _outlines(place: Path, listing: Listing, images: Listing) -> Found:
    """JSON files of one tool; those of images decide which."""
    stems = {images.stems.get(name, name) for name in images.paths}
    first = next((path for name, path in listing.paths.items() if name in stems), next(iter(listing.paths.values())))
    return Found(place, listing, kind_of_json(first))


def _kind_of_file(path: Path, encoding: LabelEncoding) -> AnnotationKind:
    kinds = _FILE_KINDS.get(path.suffix.lower())
    if kinds is None or encoding.kind in ("labelme", "cityscapes-polygons", "masks", "ids", "colors"):
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
