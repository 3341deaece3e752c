"""Which pictures are images and which are labels: by their looks, and by the words of their names."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..files.common import evenly
from ..files.headers import JPEG_FORMATS, open_picture
from ..labels.pictures import packed_colors
from .files import File, tails, words

LABEL_WORDS = frozenset(
    "label labels labelids labeltrainids trainids mask masks gt gtfine gtcoarse annot annotation annotations truth"
    " segmentation segmentationclass seg segs semantic semseg groundtruth ids l trainannot valannot testannot"
    " labelmap labelled polygons".split()
)
IMAGE_WORDS = frozenset(
    "image images img imgs rgb jpegimages leftimg8bit photo photos picture pictures frame frames input inputs".split()
)
OTHER_WORDS = frozenset(
    "instance instances instanceids segmentationobject depth disparity disp normal normals flow confidence"
    " panoptic edges preview previews overlay overlays viz visualization visualizations visualisation"
    " visualisations".split()
)
"""Pictures that pair with images and are neither images nor labels of classes."""
_LOOKED_AT = 3
_MANY_GROUPS = 200
_SMOOTHED_FLAT = 0.4
"""Of labels that were JPEGs, in a small patch: photographs are below it."""
_PATCH = 512
"""Side of the part, in pixels, by which a picture is judged."""


class Look(NamedTuple):
    """What the middle of a picture looks like."""

    colors: int
    """Different values in it."""
    flat: float
    """Share of pixels that equal their right neighbour: above 0.9 in labels, below 0.5 in photographs."""
    is_jpeg: bool
    mode: str


def look_at(path: Path) -> Look | None:
    """Decode a picture and judge its middle; None where it cannot be read."""
    try:
        with path.open("rb") as file, open_picture(file, limited=True) as image:
            left, top = max(0, (image.width - _PATCH) // 2), max(0, (image.height - _PATCH) // 2)
            patch = image.crop((left, top, min(image.width, left + _PATCH), min(image.height, top + _PATCH)))
            is_deep = image.mode.startswith(("I", "F"))
            values = np.asarray(patch) if is_deep else packed_colors(patch)
            is_jpeg = image.format in JPEG_FORMATS
    except Exception:  # Pillow's decoders raise whatever the bytes lead them to; the check of files names it
        return None
    if is_jpeg:  # its blur hides flat areas
        values = values & 0xE0E0E0
    flat = float((values[:, 1:] == values[:, :-1]).mean()) if values.shape[1] > 1 else 1.0
    return Look(len(np.unique(values)), flat, is_jpeg, image.mode)


def known_tails(files: Sequence[File]) -> frozenset[str]:
    """The suffixes that name a kind of file: those of many files, words for images and labels, and whatever a file in
    the folder of a sample is called. '' is among them."""
    counts = Counter(tail for file in files for tail in tails(file.name))
    least = max(2, len(files) // 50)
    told = LABEL_WORDS | IMAGE_WORDS | OTHER_WORDS
    return frozenset(
        tail
        for tail, count in counts.items()
        if not tail or count >= least or tail.startswith("/") or words(tail)[-1] in told
    ) | {""}


def sort_pictures(pictures: Sequence[File]) -> dict[str, list[File]]:
    """The pictures by their role: `image`, `label`, or `other` (instances, depth, ...).

    Pictures of one folder, suffix and ending have one role, judged by a few of them.
    """
    known = known_tails(pictures)
    groups: dict[tuple[Path, tuple[str, ...], str, str], list[File]] = defaultdict(list)
    for file in pictures:
        tail = next(t for t in tails(file.name) if t in known)
        groups[file.root, file.folders, tail, file.ending].append(file)
    count = _LOOKED_AT if len(groups) < _MANY_GROUPS else 1
    found: dict[str, list[File]] = {"image": [], "label": [], "other": []}
    for (_, folders, tail, _), files in groups.items():
        looks = [look_at(file.path) for file in evenly(files, count)]
        found[_role([look for look in looks if look], tail, folders)] += files
    return {role: sorted(files, key=lambda f: f.path) for role, files in found.items()}


def _role(looks: Sequence[Look], tail: str, folders: Sequence[str]) -> str:
    told, by_tail = _told(tail, folders)
    if told == "other" or not looks:
        return told or "image"
    votes = Counter(_seen(look) for look in looks)
    seen = votes.most_common(1)[0][0]
    if seen == "label" and told == "image":
        # A drawn image may be as flat as a label; only a palette outweighs a folder's name.
        return "image" if by_tail or looks[0].mode not in ("P", "1") else "label"
    if seen == "image" and told == "label" and looks[0].flat >= _SMOOTHED_FLAT and not looks[0].is_jpeg:
        return "label"
    if seen:
        return seen
    if told:
        return told
    return "label" if looks[0].colors <= 256 and looks[0].flat >= 0.5 and not looks[0].is_jpeg else "image"


def _seen(look: Look) -> str:
    """What a picture looks like; '' where that is not clear."""
    if look.flat >= 0.8 and look.colors <= 256:
        return "" if look.is_jpeg else "label"
    if look.colors > 64 and look.flat < 0.6 and (look.colors > 256 or look.is_jpeg or look.mode == "L"):
        return "image"
    return ""


def _told(tail: str, folders: Iterable[str]) -> tuple[str, bool]:
    """The role that names tell ('' for none), the nearest word first, and whether it was the suffix that told it."""
    for number, text in enumerate((tail, *reversed(tuple(folders)))):
        for word in reversed(words(text)):
            for role, known in (("other", OTHER_WORDS), ("label", LABEL_WORDS), ("image", IMAGE_WORDS)):
                if word in known:
                    return role, number == 0
    return "", False
