"""Gaussian blur with a sigma and an on/off switch for each image."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _checks as check
from .._dispatch import use_fused
from .._extension import FORMATS, extension, place
from . import reference

__all__ = ["blur"]


MAX_RADIUS = 25
"""Taps on each side: with the 51 of the dense form that DACS and DAFormer use, a GPU's block holds its tile."""


@torch.library.custom_op("iidm::blur", mutates_args=(), device_types=("cpu", "cuda"))
def _blur(image: Tensor, sigma: Tensor, enabled: Tensor, radius: int) -> Tensor:
    nhwc = _is_nhwc(image)
    image = image if nhwc else image.contiguous()
    if not use_fused("blur", image.device):
        return reference.blur(image, sigma, enabled, radius)
    assert extension is not None
    batch, channels, height, width = image.shape
    out = torch.empty_like(image)
    taps, enabled = reference.taps(sigma, enabled, radius), enabled.contiguous()
    extension.blur(
        image.data_ptr(),
        taps.data_ptr(),
        enabled.data_ptr(),
        (batch, 1, height, width, channels) if nhwc else (batch, channels, height, width, 1),
        radius,
        out.data_ptr(),
        FORMATS[image.dtype],
        *place(image),
    )
    return out


@_blur.register_fake
def _(image: Tensor, sigma: Tensor, enabled: Tensor, radius: int) -> Tensor:
    return torch.empty_like(image if _is_nhwc(image) else image.contiguous())


def _is_nhwc(image: Tensor) -> bool:
    return image.permute(0, 2, 3, 1).is_contiguous()


def blur(image: Tensor, sigma: Tensor, enabled: Tensor, *, radius: int = 5) -> Tensor:
    """Separable Gaussian blur with reflected borders.

    DACS and DAFormer blur with a dense 51x51 kernel at sigma <= 1.15; two passes of 2 radius + 1 taps are the
    same within 1e-3 of the pixel range as long as the radius reaches 4 sigma, for a hundredth of the work.

    Args:
        image: float32, bfloat16 or float16 [B,3,H,W], any H and W (the border reflects as often as it must).
        sigma: float32 [B], pixels, > 0; at most radius / 4 for the accuracy above.
        enabled: bool [B]; images for which it is False come back unchanged.
        radius: taps on each side of the centre, 1 to 25.

    Returns:
        A new tensor of the image's shape and dtype, channels-last where it is, else contiguous; the sums are float32.

    Raises:
        TypeError, ValueError: an argument of another dtype, shape or device, a radius outside 1..25.
    """
    check.tensor("image", image, check.FLOATS, ("B", 3, "H", "W"))
    check.tensor("sigma", sigma, (torch.float32,), (image.shape[0],))
    check.tensor("enabled", enabled, (torch.bool,), (image.shape[0],))
    check.same_device(("image", image), {"sigma": sigma, "enabled": enabled})
    if not 1 <= radius <= MAX_RADIUS:
        raise ValueError(f"radius must be 1 to {MAX_RADIUS} pixels, not {radius}.")
    return _blur(image, sigma, enabled, radius)
