"""What methods compute on the grid of a network's output: labels of cells, class means, prototypes; reversed
gradients."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iidm.types import IGNORE_INDEX


def nearest_cells(label: Tensor, size: tuple[int, int]) -> Tensor:
    """The label at the centre of each cell: uint8 [B,H,W] -> int64 [B,h,w]."""
    return F.interpolate(label[:, None].float(), size=size, mode="nearest-exact")[:, 0].long()


def dominant_cells(label: Tensor, size: tuple[int, int], classes: int, min_share: float) -> Tensor:
    """The class that holds `min_share` of a cell's pixels or more, else 255: uint8 [B,H,W] -> int64 [B,h,w].

    DAFormer's `downscale_label_ratio`. Class by class, so that no one-hot label of all classes exists.
    """
    best = torch.full((len(label), *size), min_share, device=label.device)
    found = torch.full((len(label), *size), IGNORE_INDEX, dtype=torch.int64, device=label.device)
    for k in range(classes):
        share = F.adaptive_avg_pool2d((label == k).float(), size)
        wins = share >= best
        best = torch.where(wins, share, best)
        found = torch.where(wins, k, found)
    return found


def on_the_grid_of(features: Tensor, logits: Tensor) -> Tensor:
    """Logits [B,K,h',w'] in the cells of features [B,C,h,w], which an HRDA network has on a coarser grid."""
    if logits.shape[2:] == features.shape[2:]:
        return logits
    return F.adaptive_avg_pool2d(logits.float(), (features.shape[2], features.shape[3]))


def class_means(features: Tensor, cells: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Mean feature of each class, float32 [K,C], and how many cells it has, float32 [K]; 0 for a class without any.

    Args:
        features: float32 [B,C,h,w].
        cells: int64 [B,h,w]; values >= K count nothing.
    """
    rows = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])
    # Not one_hot, which looks for values out of range and so reads some on the host.
    member = (cells.reshape(-1, 1) == torch.arange(classes, device=cells.device)).to(rows.dtype)
    count = member.sum(0)
    return member.T @ rows / count.clamp(min=1.0)[:, None], count


class Prototypes(nn.Module):
    """A running mean feature of each class, kept in buffers.

    Args:
        classes, channels: K and C.
        momentum: of the running mean, at the end: a class's n-th update weighs 1/n until it reaches 1 - momentum, so
            that the first features, of an untrained network, do not stay.
    """

    mean: Tensor
    updates: Tensor

    def __init__(self, classes: int, channels: int, momentum: float, device: torch.device) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(classes, channels, device=device))
        self.register_buffer("updates", torch.zeros(classes, device=device))

    @torch.no_grad()
    def update(self, features: Tensor, cells: Tensor) -> None:
        """Move the prototype of each class that `cells` int64 [B,h,w] holds towards its mean in features [B,C,h,w]."""
        means, count = class_means(features.float(), cells, len(self.mean))
        present = count > 0
        self.updates += present
        step = (1.0 / self.updates.clamp(min=1.0)).clamp(min=1.0 - self.momentum)
        self.mean += torch.where(present, step, 0.0)[:, None] * (means - self.mean)

    def distances(self, features: Tensor) -> Tensor:
        """Euclidean distance of each cell to each prototype: [B,C,h,w] -> float32 [B,K,h,w].

        A class without a prototype yet is as far as the farthest one, so it is never the nearest.
        """
        rows = features.float().permute(0, 2, 3, 1)
        distance = torch.cdist(rows.reshape(len(rows), -1, rows.shape[3]), self.mean.expand(len(rows), -1, -1))
        distance = torch.where(self.updates > 0, distance, distance.amax(2, keepdim=True))
        return distance.reshape(*rows.shape[:3], -1).permute(0, 3, 1, 2)


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.factor * gradients[0], None


def reversed_gradient(x: Tensor, factor: float = 1.0) -> Tensor:
    """x, whose gradient comes back times -factor (arXiv 1409.7495): what follows minimises, what came before
    maximises."""
    result: Tensor = _Reversed.apply(x, factor)
    return result
