"""The blur in plain PyTorch: its meaning, and the oracle of its kernels."""

from __future__ import annotations

import torch
from torch import Tensor


def taps(sigma: Tensor, enabled: Tensor, radius: int) -> Tensor:
    """float32 [B,radius+1]: half of each image's normalized Gaussian; 1, 0, 0, ... where the blur is off."""
    offset = torch.arange(radius + 1, device=sigma.device, dtype=torch.float32)
    weight = torch.exp(-(offset**2) / (2 * sigma.clamp(min=1e-6)[:, None] ** 2))
    total = weight[:, :1] + 2 * weight[:, 1:].sum(1, keepdim=True)
    return torch.where(enabled[:, None], weight / total, (offset == 0).float())


def _reflected(size: int, radius: int, device: torch.device) -> Tensor:
    """int64 [size + 2 radius]: where the border finds its pixels, reflected as often as it takes."""
    index = torch.arange(-radius, size + radius, device=device)
    if size == 1:
        return torch.zeros_like(index)
    period = 2 * (size - 1)
    index = index.remainder(period)
    return torch.minimum(index, period - index)


def _along(x: Tensor, weight: Tensor, dim: int) -> Tensor:
    radius, size = weight.shape[1] - 1, x.shape[dim]
    padded = x.index_select(dim, _reflected(size, radius, x.device))
    columns = weight.view(*weight.shape, 1, 1, 1)
    out = padded.narrow(dim, radius, size) * columns[:, 0]
    for offset in range(1, radius + 1):
        pair = padded.narrow(dim, radius - offset, size) + padded.narrow(dim, radius + offset, size)
        out.addcmul_(pair, columns[:, offset])
    return out


def blur(image: Tensor, sigma: Tensor, enabled: Tensor, radius: int) -> Tensor:
    """See `iidm.kernels.blur.blur`."""
    out = torch.empty_like(image)
    # Reading a flag costs nothing on the CPU; on a device it would synchronise.
    if image.device.type == "cpu" and not bool(enabled.any()):
        return out.copy_(image)
    weight = taps(sigma, enabled, radius)
    return out.copy_(_along(_along(image.float(), weight, 2), weight, 3))
