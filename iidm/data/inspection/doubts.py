"""What is wrong with a data set's files, or looks so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ...types import IGNORE_INDEX
from ..datasets.check import SHOWN_PROBLEMS, SampleReport, turned_note
from ..datasets.palettes_differ import swapped_note
from ..datasets.problems import Problem, fault_lines
from ..files.common import first_few
from ..labels.colors import color_text
from .annotations import Annotations
from .naming import Naming
from .values import Values

_FEW_MANY = 64
"""So many ids are rarely classes: instances, or a photograph."""
KINDS = {
    "ids": "8-bit ids",
    "palette": "palette indices",
    "ids16": "16-bit ids",
    "red16": "16-bit RGB",
    "colors": "colours",
}
"""The kinds of values in words."""


def bad_files(split: str, reports: Sequence[SampleReport], unread: Mapping[Path, str]) -> list[str]:
    """A line for each kind of fault of a split's files, and one on images that are turned.

    Args:
        unread: label -> why its values cannot be read.
    """
    problems = [Problem(split, r.file, r.files, problem) for r in reports for problem in r.problems]
    told = {problem.file for problem in problems}
    problems += [Problem(split, path, (), text.rstrip(".")) for path, text in unread.items() if path not in told]
    turned = turned_note(split, reports)
    return [*fault_lines(problems, SHOWN_PROBLEMS), *([turned] if turned else [])]


def odd_values(values: Values, naming: Naming, labels: Sequence[Path]) -> list[str]:
    """Lines on what is strange in the values of label pictures."""
    lines = []
    total = max(1, sum(values.pixels.values()))
    if values.mixed:
        lines.append(f"labels are of several kinds; counted are those that are {KINDS[values.kind]}")
    if values.kind == "colors" and not naming.origin and len(values.pixels) > 1 and max(values.pixels) & 0xFFFF == 0:
        if all(c & 0xFFFF == 0 for c in values.pixels):
            lines.append("labels use their red channel alone, as CARLA writes its ids; what they mean its version says")
    if values.kind == "red16":
        lines.append("labels are 16-bit RGB, as SYNTHIA's (spec synthia); a TOML file cannot describe them")
    swapped = swapped_note("the data set", labels, values.pixels) if values.kind == "palette" else None
    if swapped:
        lines.append(swapped)
    if naming.blurred:
        lines.append(_smoothed(values, naming))
    share = values.pixels[IGNORE_INDEX] / total if values.kind != "colors" else 0.0
    if share > 0.5 and len(values.pixels) > 2:
        lines.append(f"{share:.1%} of the pixels have id 255, which is taken for ignored")
    if values.kind != "colors" and len(values.pixels) > _FEW_MANY and not naming.origin:
        lines.append(f"{len(values.pixels)} different ids are many for classes: are these instances, or images?")
    if len([c for c in naming.classes if c.scored]) < 2 and values.read:
        lines.append("the labels hold one class; training needs two, such as a background")
    return lines


def _smoothed(values: Values, naming: Naming) -> str:
    """What is said of blends at edges, and of which values are classes."""
    is_color = values.kind == "colors"
    share = sum(values.pixels[value] for value in naming.blurred) / max(1, sum(values.pixels.values()))
    kept = [(value, name) for value, name in naming.by_value(is_color).items() if value not in naming.blurred]
    seen = sorted((-values.pixels[value], value, entry.name) for value, entry in kept if value in values.pixels)
    told = [f"{color_text(value)} ({name})" if is_color else str(value) for _, value, name in seen]
    return (
        f"labels were smoothed, resized or JPEGs: {len(naming.blurred)} of {len(values.pixels)}"
        f" {'colours' if is_color else 'ids'} ({share:.1%} of the pixels) are blends at edges and no classes. Classes"
        f" seem to be {first_few(told, 12)}. Which class a blend is cannot be told, so training refuses such labels:"
        " export them again as PNG, without anti-aliasing, resized with nearest neighbour, never as JPEG"
    )


def odd_annotations(annotations: Annotations) -> list[str]:
    """Lines on what training could not read in annotation files, and on what is odd in them or labels no pixel."""
    lines = [*annotations.doubts, *annotations.problems[:SHOWN_PROBLEMS]]
    if len(annotations.problems) > SHOWN_PROBLEMS:
        lines.append(f"and {len(annotations.problems) - SHOWN_PROBLEMS} more annotated images that cannot be read")
    if annotations.no_area:
        told = ", ".join(f"{n} {what}" for what, n in annotations.no_area.items())
        lines.append(f"annotations that have no outline and label no pixel: {told}")
    return lines
