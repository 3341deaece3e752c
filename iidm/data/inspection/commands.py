"""The commands that come after an inspection."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ...config.data import LEAST_CROP
from .report import Report

VAL_SHARE = 0.2
"""Share of the labeled images that the command keeps to validate where there is no split for it."""


def next_steps(
    reports: Sequence[Report], folders: Sequence[Path], written: Sequence[Path], usual_crop: tuple[int, int]
) -> list[str]:
    """The command that trains on what was found, or that writes it down first.

    Args:
        reports: of the target, or of source and target.
        folders: that were inspected.
        written: the descriptions of the reports; empty: there are none yet.
        usual_crop: (H, W) of crops where the command says nothing.
    """
    if not any(report.naming.classes for report in reports):
        return [
            "To train, labels are needed, of some of these images or of a source domain: pictures of ids or of colours"
            " (PNG), one mask a class, COCO .json, LabelMe .json or CVAT for images .xml. YOLO's .txt files are not"
            " read (export COCO), and archives must be unpacked."
        ]
    if not written:
        files = " ".join(
            "FILE.toml" if len(reports) == 1 else name for name in ("source.toml", "target.toml")[: len(reports)]
        )
        named = shlex.join(str(folder) for folder in folders)
        return [f"Write it down:  iidm inspect {named} --write {files}"]
    target = reports[-1]
    count, labeled = target.count(target.train)
    source = len(reports) == 2
    if not labeled and not source:
        return ["To train, labels are needed: of some of these images, or of a source domain."]
    words = ["iidm", "train", "--amp"]
    if source:
        words += ["--data.source.spec", str(written[0])]
    words += ["--data.target.spec", str(written[-1])]
    kept = max(1, round(labeled * VAL_SHARE)) if target.val is None and labeled > 1 else 0
    if target.val_list is not None:
        kept = target.val_list.images
    words += ["--method", _method(source, labeled, count)]
    words += ["--data.val-count", str(kept)] if kept else []
    words += ["--data.val-list", str(target.val_list.path)] if target.val_list is not None else []
    crop = _crop(target, usual_crop)
    words += ["--data.crop-size", *map(str, crop)] if crop else []
    lines = ["Train on it:    " + shlex.join(words)]
    if any(report.doubts for report in reports):
        lines.insert(0, "First:          look at what is in doubt above; a run stops at what it cannot read.")
    if target.val_list is not None:
        lines.append(f"                --data.val-list names {kept} of the {labeled} labeled images, which validate")
    elif kept:
        lines.append(f"                --data.val-count keeps {kept} of the {labeled} labeled images out to validate")
    if crop:
        lines.append("                --data.crop-size is that of the images, which are smaller than the usual crop")
    return lines


def _crop(target: Report, usual: tuple[int, int]) -> tuple[int, int] | None:
    """The size (H, W) of crops where most images are smaller than the `usual` ones: they would be padded."""
    sizes = [file.header.size for file in target.files[target.train] if file.header is not None]
    small = [size for size in sizes if size[0] < usual[0] or size[1] < usual[1]]
    if 2 * len(small) <= len(sizes):
        return None
    height, width = Counter(small).most_common(1)[0][0]
    return max(LEAST_CROP, min(height, usual[0])), max(LEAST_CROP, min(width, usual[1]))


def _method(source: bool, labeled: int, count: int) -> str:
    if not labeled:
        return "dacs"
    if labeled == count:
        return "source_target" if source else "target_only"
    return "iidm" if source else "target_intra"
