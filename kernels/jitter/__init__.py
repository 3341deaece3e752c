"""Colour jitter and normalization of uint8 images: kornia 0.5.8's forms, as in DACS and DAFormer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _checks as check
from .._dispatch import use_fused
from .._extension import FORMATS, extension, place
from . import reference
from .reference import JitterParams

__all__ = ["JitterParams", "check_params", "draw_jitter", "jitter", "normalize"]


@torch.library.custom_op("iidm::jitter", mutates_args=("out",), device_types=("cpu", "cuda"))
def _jitter(image: Tensor, params: Sequence[Tensor], mean: Sequence[float], std: Sequence[float], out: Tensor) -> None:
    if not use_fused("jitter", image.device):
        reference.jitter(image, JitterParams(*params) if params else None, mean, std, out)
        return
    assert extension is not None
    image, dense = image.contiguous(), [p.contiguous() for p in params]
    extension.jitter(
        image.data_ptr(),
        addresses(dense),
        *scale_and_shift(mean, std),
        tuple(image.shape[:3]),
        out.data_ptr(),
        FORMATS[out.dtype],
        *place(image),
    )


def addresses(params: Sequence[Tensor]) -> list[int]:
    """The pointers of the extension's `JitterAddresses`; zeros for no jitter."""
    return [p.data_ptr() for p in params] or [0] * len(JitterParams._fields)


def scale_and_shift(mean: Sequence[float], std: Sequence[float]) -> tuple[list[float], list[float]]:
    """Normalization of pixels in 0..1 as x * scale - shift."""
    return [255 / s for s in std], [m / s for m, s in zip(mean, std, strict=True)]


def empty_images(batch: int, height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[B,3,H,W] in channels-last memory."""
    return torch.empty((batch, 3, height, width), dtype=dtype, device=device, memory_format=torch.channels_last)


def check_out(name: str, out: Tensor, dtypes: Sequence[torch.dtype], shape: Sequence[int]) -> None:
    """Raise unless `out` can be written: its dtype and shape, dense ([B,3,H,W]: in channels-last memory)."""
    check.tensor(name, out, dtypes, shape)
    images = len(shape) == 4
    if not (out.permute(0, 2, 3, 1) if images else out).is_contiguous():
        layout = "dense in channels-last memory" if images else "dense"
        raise ValueError(f"{name} must be {layout}, for example a slice of a batch along its first dimension.")


def jitter(
    image: Tensor,
    params: JitterParams | None,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype = torch.float32,
    out: Tensor | None = None,
) -> Tensor:
    """Colour jitter, then normalization.

    A pixelwise map, so one pass over the image can do all of it. The forms are kornia 0.5.8's
    (`ColorJitter`), not torchvision's: brightness is added, contrast multiplies about zero, saturation
    multiplies S in HSV, hue is added to H; after each the pixel is clamped to 0..1.

    Args:
        image: uint8 [B,H,W,3] RGB.
        params: one jitter for each image; None: normalization alone.
        mean: 3 numbers in pixel values 0..255.
        std: 3 numbers in pixel values 0..255.
        dtype: of the result: float32, bfloat16 or float16.
        out: where the result is written, [B,3,H,W] in channels-last memory, for example a slice of the network's
            batch; its dtype counts then. None: a new tensor.

    Returns:
        [B,3,H,W] of `dtype` in channels-last memory: (jittered pixel value - mean) / std.

    Raises:
        TypeError, ValueError: an argument of another dtype, shape or device.
    """
    check.tensor("image", image, (torch.uint8,), ("B", "H", "W", 3))
    batch, height, width, _ = image.shape
    check_image_output(mean, std, dtype)
    if out is None:
        out = empty_images(batch, height, width, dtype, image.device)
    check_out("out", out, check.FLOATS, (batch, 3, height, width))
    check.same_device(("image", image), {"out": out})
    if params is not None:
        check_params(params, ("image", image))
    _jitter(image, [] if params is None else list(params), list(mean), list(std), out)
    return out


def normalize(
    image: Tensor, *, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype = torch.float32
) -> Tensor:
    """(image - mean) / std of uint8 [B,H,W,3], as `dtype` [B,3,H,W] in channels-last memory. See `jitter`."""
    return jitter(image, None, mean=mean, std=std, dtype=dtype)


def check_image_output(mean: Sequence[float], std: Sequence[float], dtype: torch.dtype) -> None:
    """Raise unless normalization with these values to this dtype is possible."""
    check.pixel_statistics(mean, std)
    if dtype not in check.FLOATS:
        raise TypeError(f"dtype must be float32, bfloat16 or float16, not {dtype}.")


def check_params(params: JitterParams, images: tuple[str, Tensor]) -> None:
    """Raise TypeError or ValueError unless `params` holds a jitter for each of `images` (name, tensor), beside them."""
    batch = len(images[1])
    check.tensor("params.enabled", params.enabled, (torch.bool,), (batch,))
    for name in ("brightness", "contrast", "saturation", "hue"):
        check.tensor(f"params.{name}", getattr(params, name), (torch.float32,), (batch,))
    check.tensor("params.order", params.order, (torch.int64,), (batch, 4))
    check.same_device(images, {f"params.{n}": getattr(params, n) for n in JitterParams._fields})


def draw_jitter(
    batch: int,
    strength: float,
    probability: float,
    per_batch: bool,
    generator: torch.Generator | None,
    device: torch.device | str,
) -> JitterParams:
    """Draw the jitter of a batch on the device, without a host synchronisation.

    kornia 0.5.8's ranges for `ColorJitter(strength, strength, strength, strength)`.

    Args:
        batch: how many images.
        strength: s; brightness U(-s,s), contrast and saturation U(1-s,1+s), hue U(-s,s) turns.
        probability: chance that an image is jittered.
        per_batch: one on/off draw for all images (DAFormer), or one for each. Values and order are each
            image's own.
        generator: on `device`; None: the device's default one.
        device: where the result lies.

    Returns:
        JitterParams on `device`.

    Raises:
        ValueError: a batch below 1, a probability outside 0..1, a strength outside 0..1, a generator of
            another device.
    """
    device = torch.device(device)
    if batch < 1:
        raise ValueError(f"batch must be at least 1, not {batch}.")
    if not (0 <= probability <= 1 and 0 <= strength <= 1):
        raise ValueError(f"probability and strength must lie in 0..1, not {probability} and {strength}.")
    if generator is not None and generator.device.type != device.type:
        raise ValueError(f"The generator lies on {generator.device}, the jitter is drawn on {device}: give one there.")
    # One row of uniform numbers an image: on/off, the four values, the four keys of the order.
    draw = torch.rand((batch, 9), generator=generator, device=device)
    enabled = (draw[:1, 0] if per_batch else draw[:, 0]) < probability
    values = (draw[:, 1:5] * 2 - 1) * strength
    return JitterParams(
        enabled=enabled.expand(batch).contiguous(),
        brightness=values[:, 0].contiguous(),
        contrast=values[:, 1] + 1,
        saturation=values[:, 2] + 1,
        hue=values[:, 3].contiguous(),
        order=draw[:, 5:].argsort(dim=1),
    )
