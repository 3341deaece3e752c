"""The images and labels of a layout, as training will list and pair them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ...types import Sample, UserError
from ..datasets.pairing import pair
from ..files.common import counted, first_few
from ..files.listing import LABEL_ENDINGS, Beside, Listing, list_files, list_images
from ..labels.encodings import AnnotationKind
from ..labels.masks import Mask, group_masks
from ..labels.matching import case_words, match, match_but_for_case
from .annotations import Annotations
from .layout import Layout


class Pairs(NamedTuple):
    """The images of one split and their labels, by name."""

    images: dict[str, Path]
    labels: dict[str, Path]
    """Of the images that have one: a picture or an annotation file."""
    doubts: tuple[str, ...] = ()
    """Lines on names that do not fit together."""
    empty: int = 0
    """How many of the images a COCO or CVAT file lists without any annotation."""
    masks: tuple[tuple[Mask, ...], ...] = ()
    """Of each image that has any, where the labels are one mask a class."""

    @property
    def samples(self) -> list[Sample]:
        """The images with their label pictures."""
        pictures = {name: path for name, path in self.labels.items() if path.suffix.lower() in LABEL_ENDINGS}
        return [Sample(name, path, pictures.get(name)) for name, path in self.images.items()]


def open_pairs(
    layout: Layout, spelling: str, kind: AnnotationKind | None, documents: Mapping[Path, Annotations]
) -> Pairs | None:
    """The pairs of one split; None where it has no image.

    Args:
        spelling: how the folders spell the split; empty without one.
        kind: of the annotation files; None: the labels are pictures.
        documents: annotation files that were read.
    """
    place = None if layout.label_root is None else layout.place("labels", spelling)
    beside = Beside(place, layout.label_suffix, frozenset(layout.classes)) if place is not None else None
    folder = layout.place("images", spelling)
    try:
        images = list_images(folder, layout.image_suffix, what=str(folder), labels=beside)
    except UserError:
        return None
    labels: dict[str, Path] = {}
    doubts, empty = _doubles(images), 0
    if place is not None and place.exists():
        try:
            if kind == "masks":
                masks, notes = _masks(layout, place, images)
                labels = {name: own[0].path for name, own in masks.items()}
                return Pairs(images.paths, labels, (*doubts, *notes), masks=tuple(masks.values()))
            labels, notes, empty = _labels(layout, place, kind, images, documents)
            doubts += notes
        except UserError as error:
            doubts += (str(error),)
    return Pairs(images.paths, labels, doubts, empty)


def _labels(
    layout: Layout, place: Path, kind: AnnotationKind | None, images: Listing, documents: Mapping[Path, Annotations]
) -> tuple[dict[str, Path], tuple[str, ...], int]:
    """The labels, lines on what is odd about them, and how many images are listed without any annotation."""
    if kind in ("coco", "cvat"):
        labels, known, unmatched = dict[str, Path](), set[str](), list[str]()
        for path, content in documents.items():
            if content.kind == kind and (path == place or place in path.parents):
                found = match(content.images, images.paths, f"Annotation file {path}")
                known |= found.keys()
                used = set(found.values())
                unmatched += [entry for at, entry in enumerate(content.images) if at not in used]
                labels |= {name: path for name, at in found.items() if at not in content.empty}
        empty = known - labels.keys()
        rest = {name: path for name, path in images.paths.items() if name not in known}
        return labels, (*_other_case(place, unmatched, rest), *_empty_note(place, empty)), len(empty)
    beside = Beside(images.folder, layout.image_suffix)
    endings = (".json",) if kind else LABEL_ENDINGS
    listed = list_files(place, endings, layout.label_suffix, str(images.folder), images=beside)
    return (*pair(images, listed.paths, place), 0)


def _masks(layout: Layout, place: Path, images: Listing) -> tuple[dict[str, tuple[Mask, ...]], tuple[str, ...]]:
    """The masks of each image that has any, and lines on those of no image."""
    beside = Beside(images.folder, layout.image_suffix, frozenset(layout.classes))
    listed = list_files(place, LABEL_ENDINGS, layout.label_suffix, str(images.folder), images=beside)
    stems = {name: images.stems.get(name, name) for name in images.paths}
    masks, alone = group_masks(listed.paths, set(stems.values()), layout.classes)
    notes = (f"{place}: {counted(len(alone), 'mask')} of no image: {first_few(alone)}",) if alone else ()
    return {name: masks[stem] for name, stem in stems.items() if stem in masks}, notes


def _other_case(place: Path, entries: Sequence[str], images: Mapping[str, Path]) -> tuple[str, ...]:
    near = match_but_for_case(entries, images)
    if not near:
        return ()
    return (f"{place}: {case_words([entries[at] for at in near.values()], [images[name] for name in near])}",)


def _empty_note(place: Path, empty: Collection[str]) -> tuple[str, ...]:
    if not empty:
        return ()
    return (
        f"{place}: {counted(len(empty), 'image')} without any annotation: unlabeled ({first_few(sorted(empty), 3)})."
        ' If somebody has looked and there is nothing, write empty_images = "labeled" into the TOML file',
    )


def _doubles(images: Listing) -> tuple[str, ...]:
    names = sorted(set(images.stems.values()))
    if not names:
        return ()
    return (
        f"{images.folder}: {len(names)} names stand for several images, which are called by their ending too:"
        f" {first_few(names, 3)}",
    )
