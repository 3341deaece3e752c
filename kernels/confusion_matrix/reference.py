"""The confusion matrix in plain PyTorch: its meaning, and the oracle of its kernels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = 255


def confusion_counts(logits: Tensor, label: Tensor, align_corners: bool) -> Tensor:
    """int64 [K*K+1]: the confusion matrix row by row, then the count of labels in K..254.

    Image by image: full-size logits of an evaluation image are hundreds of megabytes.
    """
    classes = logits.shape[1]
    size = [label.shape[1], label.shape[2]]
    low = logits.float().contiguous()
    # One more slot than is returned: the ignored pixels, which nobody counts.
    counts = torch.zeros(classes * classes + 2, dtype=torch.int64, device=logits.device)
    for image in range(logits.shape[0]):
        full = F.interpolate(low[image : image + 1], size=size, mode="bilinear", align_corners=align_corners)[0]
        truth = label[image].long()
        slot = truth * classes + full.max(0).indices
        slot = torch.where(truth < classes, slot, classes * classes + (truth == IGNORED).long())
        # bincount would ask the host for the largest slot.
        counts.scatter_add_(0, slot.view(-1), counts.new_ones(()).expand(slot.numel()))
    return counts[:-1].clone()
