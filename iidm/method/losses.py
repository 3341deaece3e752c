"""A step is a list of branches; each is one forward of the student and one weighted cross-entropy (paper eqs. 7-11)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from iidm.config import LossConfig, Normalizer
from iidm.kernels.cross_entropy import cross_entropy


class Branch(NamedTuple):
    """One term of the loss."""

    name: str
    """The field of `Losses` that it fills: source, target, inter or intra."""
    image: Tensor
    """float [B,3,H,W] normalized, channels-last."""
    label: Tensor
    """uint8 [B,H,W]."""
    weight: Tensor | None
    """float32 [B,H,W], or None for 1."""
    loss_weight: float
    normalizer: Normalizer


def segmentation_loss(logits: Tensor, branch: Branch, *, align_corners: bool = False) -> Tensor:
    """-sum w log softmax(upsampled logits)[label] over its normaliser, float32 scalar, not yet times `loss_weight`."""
    return cross_entropy(logits, branch.label, branch.weight, normalizer=branch.normalizer, align_corners=align_corners)


def per_pixel(loss: Tensor, branch: Branch) -> Tensor:
    """The loss as it is logged: a `sum` is divided by its pixels, so that the numbers of all recipes read alike."""
    return loss / branch.label.numel() if branch.normalizer == "sum" else loss


def active_streams(config: LossConfig) -> tuple[bool, bool, bool]:
    """Which of (source, labeled target, unlabeled target) any loss reads."""
    inter, intra = config.inter_weight > 0, config.intra_weight > 0
    return config.source_weight > 0 or inter, config.target_weight > 0 or intra, inter or intra


def zero(device: torch.device) -> Tensor:
    """The value of a loss that is switched off."""
    return torch.zeros((), device=device)
