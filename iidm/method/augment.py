"""Draws of the strong augmentation. All randomness of a step comes from one generator, on the device."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from iidm.config import AugmentConfig
from iidm.kernels.jitter import JitterParams, draw_jitter


class StrongAugmentation(NamedTuple):
    """One draw for a batch of mixed images."""

    jitter: JitterParams
    sigma: Tensor
    """float32 [B], pixels."""
    blurred: Tensor
    """bool [B]."""


def draw_strong(batch: int, config: AugmentConfig, generator: torch.Generator) -> StrongAugmentation:
    """Colour jitter and blur for `batch` images, as the public code draws them (see AugmentConfig.draw_per)."""
    device = generator.device
    jitter = draw_jitter(
        batch,
        config.jitter_strength,
        config.jitter_probability,
        per_batch=config.draw_per == "batch",
        generator=generator,
        device=device,
    )
    low, high = config.blur_sigma
    sigma = low + (high - low) * torch.rand(batch, generator=generator, device=device)
    draws = torch.rand(1 if config.draw_per == "batch" else batch, generator=generator, device=device)
    return StrongAugmentation(jitter, sigma, (draws < config.blur_probability).expand(batch))
