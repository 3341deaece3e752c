"""The labels of a split: which belongs to which image, by name, and what is said where one has no other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ...types import UserError
from ..files.common import Progress, counted, first_few
from ..files.headers import image_header
from ..files.listing import Listing
from ..labels.annotations import Drawn, draw_labels
from ..labels.discovery import Found
from ..labels.encodings import LabelEncoding, drawn
from ..labels.masks import group_masks
from ..labels.pictures import is_color_picture
from ..specs.spec import DatasetSpec
from .places import Need


def pair(images: Listing, labels: Mapping[str, Path], folder: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """The label of each image that has one, by the image's name, and lines on labels without an image.

    Images that share a name but for their ending share its label.

    Args:
        labels: name -> file.
        folder: where the labels lie, for the lines.
    """
    stems = {name: images.stems.get(name, name) for name in images.paths}
    found = {name: labels[stem] for name, stem in stems.items() if stem in labels}
    used = set(stems.values())
    left = [name for name in labels if name not in used]
    if not left:
        return found, ()
    rest = "has no image and is not read" if len(left) == 1 else "have no image and are not read"
    notes = [f"{folder}: {counted(len(left), 'label')} {rest}: {first_few(left)}"]
    if near := differing_in_case(images, labels):
        notes.append(f"{folder}: {_case_words(near, images, labels)}")
    return found, tuple(notes)


def differing_in_case(images: Listing, labels: Mapping[str, Path]) -> dict[str, str]:
    """Label without an image -> the image without a label whose name is the same but for upper and lower case."""
    stems = {images.stems.get(name, name): name for name in images.paths}
    without = {stem.casefold(): name for stem, name in stems.items() if stem not in labels}
    return {name: without[name.casefold()] for name in labels if name not in stems and name.casefold() in without}


def refuse_other_case(images: Listing, labels: Mapping[str, Path], folder: Path, what: str) -> None:
    """Raise UserError for labels that are an image's but for upper and lower case: it would count as unlabeled."""
    if near := differing_in_case(images, labels):
        raise UserError(f"{what}: {_case_words(near, images, labels)} ({folder}).")


def _case_words(near: Mapping[str, str], images: Listing, labels: Mapping[str, Path]) -> str:
    pairs = [f"{labels[label].name} and {images.paths[image].name}" for label, image in near.items()]
    have = "1 label has its image's name" if len(near) == 1 else f"{len(near)} labels have their images' names"
    return (
        f"{have} but for upper and lower case: {first_few(pairs, 3)}. Rename the labels like the images; move those"
        " of other images away"
    )


def read_labels(
    found: Found, spec: DatasetSpec, every: Listing, images: Listing, progress: Progress | None
) -> tuple[dict[str, Path], LabelEncoding, tuple[str, ...]]:
    """Image's name -> label picture, how they are read, and notes on labels that belong to none of `every` image of the
    folder, of which `images` are wanted."""
    encoding, files, notes = spec.encoding, found.files, found.notes
    if found.annotations == "masks":
        assert isinstance(files, Listing)
        drawn_labels = draw_masks(files, spec, found.place, every, images, progress)
        return drawn_labels.paths, drawn(encoding), (*notes, *drawn_labels.notes)
    if isinstance(files, Listing):
        paired, alone = pair(every, files.paths, found.place)
        notes += (*files.notes, *alone)
    if found.annotations is None:
        assert isinstance(files, Listing)
        if not paired and group_masks(files.paths, set(every.paths), ())[0]:
            notes += (f'{found.place}: these look like one mask a class, which label_kind = "masks" reads',)
        if encoding.kind == "auto" and encoding.colors and paired:
            encoding = replace(encoding, by="colors" if is_color_picture(next(iter(paired.values()))) else "ids")
        return paired, encoding, notes
    if not encoding.class_names:  # a data set known by name
        names = spec.classes.names
        encoding = replace(encoding, names=tuple((n, k) for k, n in enumerate(names)), class_names=names)
    drawn_labels = draw_labels(
        found.annotations,
        paired if isinstance(files, Listing) else files,
        images.paths,
        encoding,
        lambda path: image_header(path).size,
        progress=progress,
    )
    return drawn_labels.paths, drawn(encoding), (*notes, *drawn_labels.notes)


def draw_masks(
    files: Listing, spec: DatasetSpec, place: Path, every: Listing, images: Listing, progress: Progress | None
) -> Drawn:
    """The labels that are drawn from one mask a class, and notes on masks that belong to none of `every` image."""
    stems = {every.stems.get(name, name) for name in every.paths}
    masks, alone = group_masks(files.paths, stems, dict(spec.encoding.names))
    own = {name: masks[stem] for name in images.paths if (stem := every.stems.get(name, name)) in masks}
    found = draw_labels(
        "masks", own, images.paths, spec.encoding, lambda path: image_header(path).size, progress=progress
    )
    notes = [f"{place}: {counted(len(alone), 'mask')} of no image: {first_few(alone)}"] if alone else []
    return found._replace(notes=(*files.notes, *notes, *found.notes))


def require_labels(
    spec: DatasetSpec,
    place: Path,
    name: str,
    images: Listing,
    labels: Mapping[str, Path],
    need: Need,
    notes: tuple[str, ...],
) -> None:
    """Raise UserError where images lack the label that they need; `notes` on labels without an image are told then."""
    missing = [n for n in images.paths if n not in labels]
    if missing and not may_lack(spec, need, len(missing), len(images.paths)):
        replaced = f" in place of {spec.image_suffix!r}" if spec.image_suffix else " before its ending"
        suffixes = f" with {spec.label_suffix!r}{replaced}" if spec.label_suffix else " (and `label_suffix`, if any)"
        seen = f" ({'; '.join(note.removesuffix('.') for note in notes[:3])})" if notes else ""
        remedy = (
            " Label them too, or move them to another folder: the training images of the target alone may lack labels."
            if len(missing) < len(images.paths)
            else ""
        )
        raise UserError(
            f"{len(missing)} of {len(images.paths)} images of {name} have no label in {place}:"
            f" {first_few(missing)}. A label has its image's name{suffixes} and ends with .png; annotation files name"
            f" the image{seen}.{remedy}"
        )


def may_lack(spec: DatasetSpec, need: Need, missing: int, count: int) -> bool:
    """Whether so many of `count` images may lack a label."""
    return need == "optional" or (need == "some" and spec.partial_labels and missing < count)
