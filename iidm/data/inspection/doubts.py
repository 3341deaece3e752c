"""What is wrong with a data set's files, or looks so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from ...types import IGNORE_INDEX
from ..files.common import first_few
from ..files.listing import IMAGE_ENDINGS, LABEL_ENDINGS
from .annotations import Annotations
from .layout import Pairs
from .naming import Naming
from .pictures import Header, Values

_DEEP = ("I", "F", "RGB16")
_FEW_MANY = 64
"""So many ids are rarely classes: instances, or a photograph."""


def doubtful(
    splits: dict[str, Pairs],
    headers: dict[Path, Header],
    values: Values | None,
    annotations: Annotations | None,
    naming: Naming,
) -> list[str]:
    """One line for each kind of doubt, with how many files it is about and the first of them."""
    images = [f.path for pairs in splits.values() for f in pairs.images.values()]
    lines = _bad_files("image", images, headers, IMAGE_ENDINGS)
    lines += _turned(images, headers)
    for split, pairs in splits.items():
        if pairs.doubles:
            lines.append(
                f"{split}: {len(pairs.doubles)} names stand for several images, which are called by their ending too:"
                f" {first_few(pairs.doubles, 3)}"
            )
        if pairs.strays:
            lines.append(f"{split}: {len(pairs.strays)} labels have no image: {first_few(pairs.strays, 3)}")
    if values is not None:
        labels = [f.path for pairs in splits.values() for f in pairs.labels.values()]
        lines += _bad_files("label", labels, headers, LABEL_ENDINGS)
        lines += _unlike_sizes(splits, headers)
        lines += _odd_values(values, naming)
        lossy = [p for p in labels if headers[p].format in ("JPEG", "WEBP")]
        if lossy:
            lines.append(
                f"{len(lossy)} labels are {headers[lossy[0]].format}, which changes values when it is saved; export"
                f" them as PNG: {first_few([p.name for p in lossy], 3)}"
            )
    if annotations is not None and annotations.no_area:
        told = ", ".join(f"{n} {what}" for what, n in annotations.no_area.items())
        lines.append(f"annotations that have no outline and label no pixel: {told}")
    return lines


def _bad_files(what: str, paths: Sequence[Path], headers: dict[Path, Header], endings: tuple[str, ...]) -> list[str]:
    by_problem: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        header = headers[path]
        if path.suffix.lower() not in endings and header.format != "JPEG":
            by_problem[f"{path.suffix.lower()}, which is not read (read are {', '.join(endings)})"].append(path.name)
        elif header.problem:
            by_problem[header.problem].append(path.name)
        elif what == "image" and header.mode.startswith(_DEEP):
            by_problem["16-bit (training reads 8 bits a channel)"].append(path.name)
    lines = []
    for problem, names in by_problem.items():
        verb = "" if problem.startswith("cannot") else "is " if len(names) == 1 else "are "
        lines.append(f"{len(names)} {what}{'' if len(names) == 1 else 's'} {verb}{problem}: {first_few(names, 3)}")
    return lines


def _turned(images: Sequence[Path], headers: dict[Path, Header]) -> list[str]:
    turned = [p.name for p in images if headers[p].turned != 1]
    if not turned:
        return []
    return [
        f"{len(turned)} images are stored turned (EXIF orientation); sizes are those of the upright image:"
        f" {first_few(turned, 3)}"
    ]


def _unlike_sizes(splits: dict[str, Pairs], headers: dict[Path, Header]) -> list[str]:
    unlike = []
    for pairs in splits.values():
        for name in pairs.names:
            image, label = headers[pairs.images[name].path], headers[pairs.labels[name].path]
            if not (image.problem or label.problem) and image.size != label.size:
                text = f"{name} (image {_size(image)}, label {_size(label)}"
                if image.turned != 1 and image.size == label.size[::-1]:
                    text += f"; the label fits the image as it is stored, EXIF orientation {image.turned}"
                unlike.append(text + ")")
    if not unlike:
        return []
    return [f"{len(unlike)} labels have another size than their image: {first_few(unlike, 2)}"]


def _size(header: Header) -> str:
    return f"{header.size[0]}x{header.size[1]}"


def _odd_values(values: Values, naming: Naming) -> list[str]:
    lines = []
    total = max(1, sum(values.pixels.values()))
    if values.mixed:
        lines.append(f"labels are of several kinds; counted are those that are {describe_kind(values.kind)}")
    if values.kind == "colors" and not naming.origin and len(values.pixels) > 1 and max(values.pixels) & 0xFFFF == 0:
        if all(c & 0xFFFF == 0 for c in values.pixels):
            lines.append("labels use their red channel alone, as CARLA writes its ids; what they mean its version says")
    if values.kind == "red16":
        lines.append("labels are 16-bit RGB, as SYNTHIA's (spec synthia); a TOML file cannot describe them")
    if values.differing:
        lines.append(f"{values.differing} palette labels have other colours than the first one for the same ids")
    if naming.blurred:
        lines.append(
            f"{naming.blurred} further values are rare and taken for blurred edges: export labels without smoothing"
        )
    share = values.pixels[IGNORE_INDEX] / total if values.kind != "colors" else 0.0
    if share > 0.5 and len(values.pixels) > 2:
        lines.append(f"{share:.1%} of the pixels have id 255, which is taken for ignored")
    if values.kind != "colors" and len(values.pixels) > _FEW_MANY and not naming.origin:
        lines.append(f"{len(values.pixels)} different ids are many for classes: are these instances, or images?")
    if len([c for c in naming.classes if c.scored]) < 2 and values.read:
        lines.append("the labels hold one class; training needs two, such as a background")
    return lines


def describe_kind(kind: str) -> str:
    """The kind of values in words."""
    return {
        "ids": "8-bit ids",
        "palette": "palette indices",
        "ids16": "16-bit ids",
        "red16": "16-bit RGB",
        "colors": "colours",
    }[kind]
