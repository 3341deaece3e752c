"""The colour jitter in plain PyTorch: its meaning, and the oracle of its kernels.

Saturation and hue are defined in HSV. With V = max, C = max - min over RGB, a channel is V - C * k(hue), so
scaling S by f scales C by min(f, V / C), and turning the hue changes k alone: no conversion there and back is
needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

EPS = 1e-8
"""Added to V where S = C / V, as kornia does."""


class JitterParams(NamedTuple):
    """One colour jitter for each image of a batch."""

    enabled: Tensor
    """bool [B]: images for which it is False stay as they are."""
    brightness: Tensor
    """float32 [B], added to every channel (pixel range 0..1)."""
    contrast: Tensor
    """float32 [B], factor of every channel (about zero, not about the mean)."""
    saturation: Tensor
    """float32 [B], factor of S in HSV."""
    hue: Tensor
    """float32 [B], added to H in HSV, in full turns (1 is 360 degrees)."""
    order: Tensor
    """int64 [B,4], the order of the four: 0 brightness, 1 contrast, 2 saturation, 3 hue."""


def _brightness(x: Tensor, value: Tensor) -> Tensor:
    return (x + value).clamp_(0, 1)


def _contrast(x: Tensor, value: Tensor) -> Tensor:
    return (x * value).clamp_(0, 1)


def _saturation(x: Tensor, value: Tensor) -> Tensor:
    largest = x.amax(-3, keepdim=True)
    chroma = largest - x.amin(-3, keepdim=True)
    # Grey pixels have C = 0: V / C is inf there, or NaN for black without EPS; the factor has no effect on
    # them.
    factor = torch.minimum((largest + EPS) / chroma, value.clamp(min=0))
    return (largest - (largest - x) * factor).clamp_(0, 1)


def _hue(x: Tensor, value: Tensor) -> Tensor:
    red, green, blue = x.unbind(-3)
    value = value.squeeze(-3)
    largest = x.amax(-3)
    chroma = largest - x.amin(-3)
    divisor = torch.where(chroma == 0, 1.0, chroma)
    sextant = torch.where(
        red == largest,
        (green - blue) / divisor,
        torch.where(green == largest, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    sextant += 6 * value
    channels = []
    for phase in (5.0, 3.0, 1.0):
        k = (sextant + phase).remainder_(6)
        channels.append(largest - chroma * torch.minimum(k, 4 - k).clamp_(0, 1))
    return torch.stack(channels, -3).clamp_(0, 1)


_STEPS = (_brightness, _contrast, _saturation, _hue)


def jitter_by_image(x: Tensor, params: JitterParams) -> Tensor:
    """The jitter of float32 [B,3,H,W] in 0..1, image by image; reads `params` on the host, writes `x`."""
    values = (params.brightness, params.contrast, params.saturation, params.hue)
    enabled, orders = params.enabled.tolist(), params.order.tolist()
    for image in (b for b, on in enumerate(enabled) if on):
        picture = x[image]
        for step in orders[image]:
            picture = _STEPS[step](picture, values[step][image].view(1, 1, 1))
        x[image] = picture
    return x


def jitter_by_position(x: Tensor, params: JitterParams) -> Tensor:
    """The same without reading on the host: each position runs all four steps, each image keeps its own."""
    values = (params.brightness, params.contrast, params.saturation, params.hue)
    for position in range(4):
        here = params.order[:, position]
        result = x
        for step, function in enumerate(_STEPS):
            wanted = (params.enabled & (here == step)).view(-1, 1, 1, 1)
            result = torch.where(wanted, function(x, values[step].view(-1, 1, 1, 1)), result)
        x = result
    return x


def normalize_unit(x: Tensor, mean: Sequence[float], std: Sequence[float], out: Tensor) -> None:
    """out <- (255 x - mean) / std of float32 [B,3,H,W] in 0..1; writes `x` too."""
    # Channel by channel with Python numbers: a tensor of constants would be a copy from the host in each
    # call.
    for channel in range(3):
        out[:, channel] = x[:, channel].mul_(255 / std[channel]).sub_(mean[channel] / std[channel])


def jitter(
    image: Tensor, params: JitterParams | None, mean: Sequence[float], std: Sequence[float], out: Tensor
) -> None:
    """See `iidm.kernels.jitter.jitter`."""
    x = torch.empty((image.shape[0], 3, *image.shape[1:3]), dtype=torch.float32, device=image.device)
    x.copy_(image.permute(0, 3, 1, 2)).div_(255)
    if params is not None:
        # Four steps an image instead of sixteen, where reading the order costs nothing.
        x = (jitter_by_image if x.device.type == "cpu" else jitter_by_position)(x, params)
    normalize_unit(x, mean, std, out)
