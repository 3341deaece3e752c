"""Which label belongs to which image, by name, and what is said of those that belong to none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..files.common import counted, first_few
from ..files.listing import Listing


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
    without = {stem.casefold(): name for name, stem in stems.items() if name not in found}
    near = {name: without[name.casefold()] for name in left if name.casefold() in without}
    rest = "has no image and is not read" if len(left) == 1 else "have no image and are not read"
    notes = [f"{folder}: {counted(len(left), 'label')} {rest}: {first_few(left)}"]
    if near:
        pairs = first_few([f"{labels[name].name} and {images.paths[near[name]].name}" for name in near], 3)
        notes.append(
            f"{folder}: {len(near)} of these and an image without a label differ in upper and lower case only"
            f" ({pairs}): rename one of each, if they belong together"
        )
    return found, tuple(notes)
