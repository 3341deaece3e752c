"""Masks of mixing that know nothing of the image: a box (CutMix) and irregular blobs (CowMix)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from iidm.config import MixingConfig

COW_SIGMA_SHARE = (1 / 32, 1 / 8)
"""Range of CowMix's sigma, log-uniform, as a share of the image's shorter side. Its code draws 4 to 16 pixels for crops
of 32 (CIFAR) and 8 to 32 for 224 (ImageNet); the share is that of the latter, near enough."""
COW_AREA = (0.2, 0.8)
"""Range of the share of pixels that a CowMix pastes (its code)."""


def draw_region(batch: int, size: tuple[int, int], config: MixingConfig, generator: torch.Generator) -> Tensor:
    """Which pixels are pasted: bool [B,H,W], by `config.mask` (`cutmix`, `cowmix` or `none`)."""
    device = generator.device
    if config.mask == "none":
        return torch.zeros(batch, *size, dtype=torch.bool, device=device)
    draw = cut_boxes if config.mask == "cutmix" else cow_blobs
    region = draw(batch, size, config, generator)
    if config.mask_probability < 1:
        region &= (torch.rand(batch, generator=generator, device=device) < config.mask_probability)[:, None, None]
    return region


def cut_boxes(batch: int, size: tuple[int, int], config: MixingConfig, generator: torch.Generator) -> Tensor:
    """One box an image, bool [B,H,W]: its area uniform in `cut_area`, its shape random, wholly inside the image.

    As in the code of French et al. (arXiv 1906.01916): height share = area^u with u uniform in [0,1], so that both
    sides fit whatever the area is.
    """
    height, width = size
    device = generator.device
    area, u, top, left = torch.rand(4, batch, 1, generator=generator, device=device)
    low, high = config.cut_area
    area = low + (high - low) * area
    box_h = (height * area**u).round().clamp(min=1)
    box_w = (width * area ** (1 - u)).round().clamp(min=1)
    first_row = (top * (height - box_h + 1)).floor()
    first_column = (left * (width - box_w + 1)).floor()
    rows = torch.arange(height, device=device)
    columns = torch.arange(width, device=device)
    in_rows = (rows >= first_row) & (rows < first_row + box_h)
    in_columns = (columns >= first_column) & (columns < first_column + box_w)
    return in_rows[:, :, None] & in_columns[:, None, :]


def cow_blobs(batch: int, size: tuple[int, int], config: MixingConfig, generator: torch.Generator) -> Tensor:
    """Gaussian noise, smoothed and cut where a drawn share of the pixels lies above (CowMix): bool [B,H,W].

    The threshold is the quantile of a normal distribution with the smoothed noise's own mean and deviation, as in its
    code, so the share is met on average and not in each mask. The smoothing is two matrix products: exact for any
    sigma.
    """
    height, width = size
    device = generator.device
    low, high = (math.log(share * min(size)) for share in COW_SIGMA_SHARE)
    sigma = (low + (high - low) * torch.rand(batch, generator=generator, device=device)).exp()
    share = COW_AREA[0] + (COW_AREA[1] - COW_AREA[0]) * torch.rand(batch, generator=generator, device=device)
    noise = torch.randn(batch, height, width, generator=generator, device=device)
    smooth = _gaussian(height, sigma) @ noise @ _gaussian(width, sigma).mT
    mean, deviation = smooth.mean((1, 2)), smooth.std((1, 2))
    threshold = mean + deviation * math.sqrt(2) * torch.erfinv(1 - 2 * share)
    return smooth > threshold[:, None, None]


def _gaussian(length: int, sigma: Tensor) -> Tensor:
    """[B,length,length]: row i smooths onto place i; rows sum to 1, so borders are renormalized."""
    places = torch.arange(length, device=sigma.device, dtype=torch.float32)
    weights = torch.exp(-0.5 * ((places[:, None] - places) / sigma[:, None, None]) ** 2)
    return weights / weights.sum(2, keepdim=True)
