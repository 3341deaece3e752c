"""Scores of a segmentation: a confusion matrix and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from iidm.kernels.confusion_matrix import confusion_matrix

from ..config import SlidingWindow
from ..text import padded, shown_width
from ..types import ClassSet, EvalBatch
from .windows import image_logits


@dataclass(frozen=True)
class Scores:
    """What a network achieved."""

    confusion: Tensor
    """int64 [K,K] on the CPU: rows truth, columns prediction, pixels."""
    classes: ClassSet

    @property
    def iou_per_class(self) -> list[float]:
        """Intersection over union of each class, 0..1; NaN for a class that no label holds (its IoU would only tell
        whether it was predicted somewhere)."""
        hit = self.confusion.diagonal()
        truth, predicted = self.confusion.sum(1), self.confusion.sum(0)
        iou = hit.double() / (truth + predicted - hit).double()
        return torch.where(truth > 0, iou, torch.nan).tolist()

    @property
    def subsets(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """The class ids that each mean is over: the reported subsets, or all classes where there is none."""
        return self.classes.report or (("all classes", tuple(range(len(self.classes)))),)

    @property
    def absent(self) -> list[str]:
        """Classes that a mean would be over and that no label holds. mmsegmentation counts such a class as 0 where it
        is predicted somewhere, and leaves it out elsewhere; here it is left out of every mean."""
        averaged = {i for _, ids in self.subsets for i in ids}
        held = (self.confusion.sum(1) > 0).tolist()
        return [name for i, name in enumerate(self.classes.names) if i in averaged and not held[i]]

    @property
    def means(self) -> dict[str, float]:
        """Mean IoU over each of `subsets`; absent classes are left out."""
        iou = self.iou_per_class
        found = {}
        for name, ids in self.subsets:
            values = [iou[i] for i in ids if not math.isnan(iou[i])]
            found[name] = sum(values) / len(values) if values else math.nan
        return found

    @property
    def miou(self) -> float:
        """The headline: the first of `means`, 0..1."""
        return next(iter(self.means.values()))

    @property
    def pixel_accuracy(self) -> float:
        """Share of the labeled pixels that are right, 0..1."""
        total = int(self.confusion.sum())
        return int(self.confusion.diagonal().sum()) / total if total else math.nan

    def as_json(self) -> dict[str, Any]:
        """miou, iou of each class (null where absent), absent classes, pixel_accuracy; and means where subsets are
        reported."""
        iou = {n: _or_none(v) for n, v in zip(self.classes.names, self.iou_per_class, strict=True)}
        out: dict[str, Any] = {
            "miou": _or_none(self.miou),
            "iou": iou,
            "absent": self.absent,
            "pixel_accuracy": _or_none(self.pixel_accuracy),
        }
        if self.classes.report:
            out["means"] = {name: _or_none(value) for name, value in self.means.items()}
        return out


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def evaluate(
    networks: Mapping[str, nn.Module],
    batches: Iterable[EvalBatch],
    classes: ClassSet,
    *,
    device: torch.device,
    amp_dtype: torch.dtype | None,
    normalize: Callable[[Tensor], Tensor],
    align_corners: bool = False,
    windows: SlidingWindow | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Scores]:
    """Score networks on the same batches, in evaluation mode; their modes are put back afterwards.

    Logits go at low resolution, those of windows at the image's, into the confusion matrix against labels at their full
    size; counts stay on the device until the end.

    Args:
        networks: float [B,3,H,W] -> logits [B,K,h,w], by name.
        batches: uint8 images and labels.
        amp_dtype: of autocast; None: float32.
        normalize: uint8 [B,H,W,3] -> float [B,3,H,W].
        align_corners: convention of the upsampling.
        windows: in which the networks see an image; None: whole.
        progress: called with the number of images done after each batch.
    """
    counts = {name: torch.zeros(len(classes), len(classes), dtype=torch.int64, device=device) for name in networks}
    # Of each module: dropout may be off in a network that is otherwise in training mode.
    modes = [(module, module.training) for network in networks.values() for module in network.modules()]
    done = 0
    for network in networks.values():
        network.eval()
    try:
        with torch.inference_mode():
            for batch in batches:
                image = normalize(batch.image)
                for name, network in networks.items():
                    with torch.autocast(device.type, dtype=amp_dtype, enabled=amp_dtype is not None):
                        logits = image_logits(network, image, windows, align_corners=align_corners)
                    counts[name] += confusion_matrix(logits, batch.label, align_corners=align_corners)
                done += len(image)
                if progress is not None:
                    progress(done)
    finally:
        for module, training in modes:
            module.training = training
    return {name: Scores(count.cpu(), classes) for name, count in counts.items()}


def score_table(scores: Mapping[str, Scores]) -> str:
    """IoU per class, means and pixel accuracy in percent, one column a network, as aligned plain text. A line at its
    foot names the classes that no label holds."""
    first = next(iter(scores.values()))
    rows = [("class", list(scores))]
    per_class = [value.iou_per_class for value in scores.values()]
    rows += [(name, [_percent(iou[i]) for iou in per_class]) for i, name in enumerate(first.classes.names)]
    for name in first.means:
        title = "mIoU" if len(first.means) == 1 else f"mIoU, {name}"
        rows.append((title, [_percent(value.means[name]) for value in scores.values()]))
    rows.append(("pixel accuracy", [_percent(value.pixel_accuracy) for value in scores.values()]))
    left = max(shown_width(title) for title, _ in rows)
    widths = [max(10, len(name) + 2) for name in scores]
    lines = [
        padded(title, left) + "".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        for title, cells in rows
    ]
    rule = "-" * len(lines[0])
    count = len(first.classes)
    return "\n".join([lines[0], rule, *lines[1 : count + 1], rule, *lines[count + 1 :], *_absent_lines(first)])


def _absent_lines(scores: Scores) -> list[str]:
    if not scores.absent:
        return []
    whether = "whether or not it is" if len(scores.absent) == 1 else "whether or not they are"
    return [f"- no label here holds {', '.join(scores.absent)}: left out of the mIoU, {whether} predicted"]


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"
