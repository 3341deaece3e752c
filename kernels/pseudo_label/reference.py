"""Pseudo-labels in plain PyTorch: their meaning, and the oracle of their kernels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pseudo_label(
    logits: Tensor,
    size: tuple[int, int],
    threshold: float,
    align_corners: bool,
    inclusive: bool,
    per_batch: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `iidm.kernels.pseudo_label.pseudo_label`; the confidence is always returned."""
    batch = logits.shape[0]
    label = torch.empty((batch, *size), dtype=torch.uint8, device=logits.device)
    confidence = torch.empty((batch, *size), dtype=torch.float32, device=logits.device)
    low = logits.float().contiguous()
    # Image by image: full-size logits are the largest tensor of a step.
    for image in range(batch):
        full = F.interpolate(low[image : image + 1], size=size, mode="bilinear", align_corners=align_corners)[0]
        largest, index = full.max(0)
        label[image] = index
        # The largest softmax value is exp(0) over the sum of exponentials shifted by the largest logit.
        confidence[image] = full.sub_(largest).exp_().sum(0).reciprocal_()
    confident = confidence >= threshold if inclusive else confidence > threshold
    return label, quality(confident.sum((1, 2)), size, per_batch), confidence


def quality(confident: Tensor, size: tuple[int, int], per_batch: bool) -> Tensor:
    """float32 [B]: the share of confident pixels, from their count [B], of each image or of the whole batch."""
    share = confident.float() / (size[0] * size[1])
    return share.mean().expand(len(share)).contiguous() if per_batch else share
