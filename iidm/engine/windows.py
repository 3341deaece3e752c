"""Logits of an image that the network sees in overlapping windows.

The convention of mmsegmentation's `slide_inference`, which HRDA and MIC evaluate with: windows begin at 0, stride,
2 stride, ..., and the last one is moved back so that it ends at the border; the logits of each are upsampled to its
size and averaged where windows overlap. The sum is kept for one row of windows at a time, so an image of any height
needs no more than that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import SlidingWindow
from ..types import Place

Rows = Callable[[int, int], Tensor]
"""(top, bottom) -> float [B,3,bottom-top,W], those rows of the normalized images."""


@runtime_checkable
class Sliding(Protocol):
    """A network that computes what neighbouring windows have in common once."""

    def sliding(self) -> Callable[[Tensor, Sequence[Place]], Tensor]:
        """For one image or batch of them: called from top to bottom with windows float [N,3,h,w] and where they lie, it
        returns what the network says of them, logits [N,K,h',w']."""


def image_logits(
    network: nn.Module, image: Tensor, windows: SlidingWindow | None, *, align_corners: bool = False
) -> Tensor:
    """Logits of images that are seen whole (`windows` None) or in windows.

    Args:
        network: float [B,3,H,W] -> logits [B,K,h,w] of any h and w.
        image: float [B,3,H,W], normalized.
        windows: how they lie; the caller's autocast holds for the network alone.
        align_corners: convention of the upsampling of a window's logits.

    Returns:
        The network's own logits [B,K,h,w], or float32 [B,K,H,W], means over the windows that cover a pixel.
    """
    if windows is None:
        logits: Tensor = network(image)
        return logits
    size = (image.shape[2], image.shape[3])
    strips = slide_strips(network, lambda top, bottom: image[:, :, top:bottom], size, windows, align_corners)
    return torch.cat([strip.clone() for strip in strips], 2)


def slide_strips(
    network: nn.Module, rows: Rows, size: tuple[int, int], windows: SlidingWindow, align_corners: bool
) -> Iterator[Tensor]:
    """The logits of `image_logits` from top to bottom, each strip as soon as no further window covers it.

    Args:
        rows: asked for the rows of one row of windows after the other.
        size: (H, W) of the images.

    Yields:
        float32 [B,K,n,W] with n <= the stride (the last: the window's height); the next one takes its memory.
    """
    (height, width), (window_h, window_w) = size, (min(pair) for pair in zip(size, windows.size, strict=True))
    tops = window_offsets(height, window_h, windows.stride[0])
    lefts = window_offsets(width, window_w, windows.stride[1])
    covering_y, covering_x = _coverage(tops, window_h, height), _coverage(lefts, window_w, width)
    look = network.sliding() if isinstance(network, Sliding) else lambda windows, places: network(windows)
    total: Tensor | None = None
    for top, next_top in zip(tops, [*tops[1:], height], strict=True):
        image = rows(top, top + window_h)
        places = [Place(b, top, left) for b in range(len(image)) for left in lefts]
        for begin in range(0, len(places), windows.batch):
            batch = places[begin : begin + windows.batch]
            crops = torch.stack([image[b, :, :, left : left + window_w] for b, _, left in batch])
            logits = look(crops.contiguous(memory_format=torch.channels_last), batch).float()
            if total is None:
                total = logits.new_zeros((len(image), logits.shape[1], window_h, width))
            # One by one: the upsampled logits of a batch may be larger than the sum they go to.
            for (b, _, left), low in zip(batch, logits, strict=True):
                full = F.interpolate(low[None], size=crops.shape[2:], mode="bilinear", align_corners=align_corners)
                total[b, :, :, left : left + window_w] += full[0]
        assert total is not None
        final, kept = next_top - top, window_h - (next_top - top)
        covering = covering_y[top:next_top, None] * covering_x
        yield total[:, :, :final].div_(covering.to(total.device))
        # What the next row of windows covers too moves up, in steps that do not overlap, for they need no copy.
        for begin in range(0, kept, final):
            end = min(begin + final, kept)
            total[:, :, begin:end] = total[:, :, begin + final : end + final]
        total[:, :, kept:] = 0


def window_offsets(size: int, window: int, stride: int) -> list[int]:
    """Where the windows of one axis begin: 0, stride, 2 stride, ..., the last one so that it ends at the border."""
    count = -(-max(size - window, 0) // stride) + 1
    return [min(i * stride, max(size - window, 0)) for i in range(count)]


def _coverage(offsets: Sequence[int], window: int, size: int) -> Tensor:
    """float32 [size]: how many windows cover each pixel of one axis."""
    count = torch.zeros(size)
    for offset in offsets:
        count[offset : offset + window] += 1
    return count
