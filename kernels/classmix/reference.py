"""ClassMix in plain PyTorch: its meaning, and the oracle of its kernels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..jitter.reference import JitterParams
from ..jitter.reference import jitter as jitter_and_normalize

VALUES = 256
"""Values of a uint8 label."""
IGNORED = 255


def draw_classes(label: Tensor, keys: Tensor, from_batch: bool, rounding: str, include_ignored: bool) -> Tensor:
    """See `iidm.kernels.classmix.draw_classes`."""
    batch = label.shape[0]
    present = torch.zeros((batch, VALUES), dtype=torch.bool, device=label.device)
    present.scatter_(1, label.reshape(batch, -1).long(), True)
    if not include_ignored:
        present[:, IGNORED] = False
    if from_batch:
        present = present.any(0, keepdim=True).expand_as(present)
    count = present.sum(1, keepdim=True)
    half = (count + 1) // 2 if rounding == "ceil" else torch.maximum(count // 2, count.clamp(max=1))
    # The place of each value in the order of the keys, present values first; equal keys: lower value first.
    order = torch.where(present, keys, torch.inf).argsort(dim=1, stable=True)
    rank = order.argsort(dim=1)
    return present & (rank < half)


def _mixed_weight(base_weight: Tensor, pasted: Tensor, pasted_weight: float | None, margins: Sequence[int]) -> Tensor:
    base = base_weight if base_weight.dim() == 3 else base_weight.view(-1, 1, 1).expand(pasted.shape)
    height = pasted.shape[1]
    row = torch.arange(height, device=pasted.device).view(1, -1, 1)
    trusted = (row >= margins[0]) & (row < height - margins[1])
    return torch.where(pasted, base if pasted_weight is None else pasted_weight, torch.where(trusted, base, 0.0))


def classmix(
    image: Tensor,
    label: Tensor,
    base_image: Tensor,
    base_label: Tensor,
    base_weight: Tensor,
    selected: Tensor,
    params: JitterParams | None,
    pasted_weight: float | None,
    mean: Sequence[float],
    std: Sequence[float],
    margins: Sequence[int],
    out_image: Tensor,
    out_label: Tensor,
    out_weight: Tensor,
) -> None:
    """See `iidm.kernels.classmix.classmix`."""
    batch = label.shape[0]
    pasted = selected.gather(1, label.reshape(batch, -1).long()).view(label.shape)
    mixed = torch.where(pasted.unsqueeze(-1), image, base_image)
    jitter_and_normalize(mixed, params, mean, std, out_image)
    out_label.copy_(torch.where(pasted, label, base_label))
    out_weight.copy_(_mixed_weight(base_weight, pasted, pasted_weight, margins))
