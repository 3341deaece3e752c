"""What is said of the files that were written."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan
from pathlib import Path

import torch

from iidm.text import padded, shown_width
from iidm.types import ClassSet, UserError

from .check import TIE, Measured
from .images import Images


def table(paths: Mapping[str, Path], own: Measured, found: Mapping[str, Measured], classes: ClassSet) -> str:
    """A row for the network and one for each file (precision -> path)."""
    rows = [("file", "MB", "ms/image", "equal %", "mIoU")]
    rows.append(("iidm predict", "", _ms(own), "", _miou(own, classes)))
    for precision, path in paths.items():
        measured = found[precision]
        size = f"{path.stat().st_size / 1e6:.1f}"
        rows.append((path.name, size, _ms(measured), measured.share, _miou(measured, classes)))
    widths = [max(shown_width(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        padded(row[0], widths[0])
        + "".join(cell.rjust(width + 3) for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def remarks(
    paths: Mapping[str, Path], own: Measured, found: Mapping[str, Measured], classes: ClassSet, images: Images
) -> list[str]:
    """Sentences below the table: what was compared, where, and what is lost."""
    count, threads = len(images), torch.get_num_threads()
    what = "validation or given images" if images.dataset is not None else "given images, which have no labels"
    lines = [
        f"Checked on {count} {what}; `equal`: pixels with the label of iidm predict --precision float32. Times: this"
        f" machine now, one image at a time, threads: {threads}."
    ]
    if images.resized:
        assert images.size is not None
        lines.append(f"{images.resized} of them were resized to {images.size[0]}x{images.size[1]} (HxW) first.")
    for precision, path in paths.items():
        measured = found[precision]
        other = measured.pixels - measured.equal
        if precision == "fp32" and other:
            lines.append(
                f"{path.name}: {other} of {measured.pixels} pixels differ, all of them ties: the two logits are at most"
                f" {measured.gap:.1g} apart (a tie: {TIE:g})."
            )
        before, after = own.miou(classes), measured.miou(classes)
        if before is not None and after is not None and round(100 * (before - after), 1) > 0:
            lines.append(f"{path.name} loses {100 * (before - after):.1f} mIoU to {precision}.")
    return lines


def require_equal(path: Path, measured: Measured) -> None:
    """Raise UserError where a float32 file says something else than the network."""
    if measured.all_ties:
        return
    raise UserError(
        f"{path} was not written: {measured.pixels - measured.equal} of {measured.pixels} pixels have another label"
        f" than iidm predict gives them, with logits up to {measured.gap:.2g} apart (ties are at most {TIE:g}). This is"
        " a fault of iidm or of the libraries that write and run the file: try another version of torch, onnxscript or"
        " onnxruntime, or the other --format."
    )


def _ms(measured: Measured) -> str:
    return "-" if isnan(measured.median_ms) else f"{measured.median_ms:.0f}"


def _miou(measured: Measured, classes: ClassSet) -> str:
    miou = measured.miou(classes)
    return "-" if miou is None else f"{100 * miou:.1f}"
