"""HRDA (arXiv 2204.13132): a network that sees a crop at half its resolution, and windows of it at the full one.

Both are seen by one backbone and one head. Where the detail counts more than the context, class by class, is learned:
scale attention a, in

    fused = up(a) * detail + up((1 - a) * context)

where up doubles the grid. In training the detail is one window of the crop, outside of which a is 0; in evaluation and
for pseudo-labels it is the mean of overlapping windows that cover the image. What is masked and resized in which order
is that of the public code: just inside the window's edge a is less than what was learned, and just outside neither part
counts in full.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..types import Place, UserError
from . import norm
from .head import Head
from .network import Look, Network
from .segformer import SegFormerHead

WINDOWS_AT_ONCE = 4
"""Of an image that is scored or labeled."""


class HRDANetwork(Network):
    """Two scales of an image through one backbone and one head.

    Args:
        backbone, head: of a plain network.
        attention: a head with the same classes on the levels that `head` reads.
        crop_size: (H, W) of training crops; windows of the detail are half of it in both directions.

    Raises:
        UserError: a crop that cannot be divided into whole cells of both scales.
    """

    def __init__(self, backbone: nn.Module, head: Head, attention: SegFormerHead, crop_size: tuple[int, int]) -> None:
        super().__init__(backbone, head)
        self.attention = attention
        self.unit = 2 * head.stride
        """Image pixels behind a cell of the context's logits: windows start at multiples of it."""
        # Context and windows are seen as they are, so backbones that divide into larger cells (timm's) set the step.
        self.whole = math.lcm(self.unit, 2 * int(getattr(backbone, "multiple", 1)))
        """Pixels that both sides of an image are multiples of."""
        step = math.lcm(2 * self.unit, self.whole)
        if any(side % step for side in crop_size):
            fitting = " ".join(str(max(round(side / step), 1) * step) for side in crop_size)
            raise UserError(
                f"HRDA on this network (logits every {head.stride} pixels) needs crops whose sides are multiples of"
                f" {step}, not {crop_size[0]} {crop_size[1]}: give --data.crop-size {fitting}."
            )
        self.crop_size, self.detail_size = crop_size, (crop_size[0] // 2, crop_size[1] // 2)
        self._branch_sizes: tuple[int, ...] | None = None
        self._mixes_images = any(isinstance(module, _BatchNorm) for module in backbone.modules())

    @property
    def title(self) -> str:
        """As the parent's."""
        return f"HRDA, {super().title}"

    @contextmanager
    def branches(self, sizes: Sequence[int]) -> Iterator[None]:
        """See `Network.branches`. In the backbone and the head each branch has two batches: context, then detail."""
        self._branch_sizes = tuple(sizes)
        try:
            yield
        finally:
            self._branch_sizes = None

    def draw_box(self, crop_size: Sequence[int], generator: torch.Generator) -> Tensor:
        """Where a branch's detail lies in its crops: int64 [2], top and left, multiples of `unit` (as the public code,
        one for all images of a forward)."""
        draws = torch.rand(2, generator=generator, device=generator.device)
        places = []
        for draw, side, own in zip(draws.unbind(), crop_size, self.detail_size, strict=True):
            count = max((side - own + 1) // self.unit, 1)  # never at the far border, as there
            places.append((draw * count).long().clamp(max=count - 1))
        return torch.stack(places) * self.unit

    def look_as_in_training(self, image: Tensor, generator: torch.Generator) -> None:
        """Crops [B,3,H,W] with one detail each, at a drawn place, each scale by itself."""
        context = self.backbone(self.context_of(image))
        self.head(self.head.fuse(context))
        self._attention(context)
        detail = window(image, self.draw_box(image.shape[2:], generator), self.detail_size)
        self.head(self.head.fuse(self.backbone(detail)))

    def detail_of(self, x: Tensor, box: Tensor) -> Tensor:
        """The window of [B,H,W] at a box."""
        return window(x, box, self.detail_size)

    def context_of(self, image: Tensor) -> Tensor:
        """[B,3,H,W] -> the same at half its resolution, the mean of four pixels each."""
        return F.avg_pool2d(image, 2)

    def look(self, image: Tensor, boxes: Sequence[Tensor] | None = None) -> Look:
        """See `Network.look`. In training each branch gives where its detail lies.

        Args:
            image: float [B,3,H,W], whose sides are multiples of 2 * unit where boxes are given.
            boxes: int64 [2] of each branch (see `branches`; without that there is one). None: windows that cover all.
        """
        return self._covered(image) if boxes is None else self._boxed(image, boxes)

    def _boxed(self, image: Tensor, boxes: Sequence[Tensor]) -> Look:
        """Each branch with one window, all in one call of the backbone."""
        sizes = list(self._branch_sizes or (len(image),))
        crops: list[Tensor] = []
        for part, box in zip(image.split(sizes), boxes, strict=True):
            crops += [self.context_of(part), window(part, box, self.detail_size)]
        doubled = [size for size in sizes for _ in range(2)]
        with norm.branches(self.backbone, doubled), norm.branches(self.head, doubled):
            levels = self.backbone(torch.cat(crops))
            features = self.head.fuse(levels)
            context, detail = _every_second(self.head(features), doubled)
        of_context = [_every_second(level, doubled)[0] for level in levels]
        with norm.branches(self.attention, sizes):
            share = torch.sigmoid(self._attention(of_context).float())
        grid = (context.shape[2], context.shape[3])
        inside, placed = [], []
        for own, box in zip(detail.split(sizes), boxes, strict=True):
            inside.append(_inside(box // self.unit, [side // self.unit for side in self.detail_size], grid))
            placed.append(_placed(own, box // self.head.stride, (2 * grid[0], 2 * grid[1])))
        masked = [part * own for part, own in zip(share.split(sizes), inside, strict=True)]
        fused = _fused(context, torch.cat(masked), torch.cat(placed))
        return Look(fused, _every_second(features, doubled)[0], of_context[-1], detail)

    def _covered(self, image: Tensor) -> Look:
        """Images of any size; the detail's logits are the mean of windows half a window apart. What is smaller than a
        training crop, or no multiple of whole cells, is filled up with the mean colour."""
        grid = [-(-side // self.head.stride) for side in image.shape[2:]]
        missing = self._missing(image.shape[2:])
        image = F.pad(image, (0, missing[1], 0, missing[0]))
        corners = self._corners(image.shape[2:])
        high, wide = self.detail_size
        windows = [image[:, :, y : y + high, x : x + wide] for y, x in corners]
        context, details = self._encode(self.context_of(image), windows)
        look = self._averaged(context, zip(corners, details, strict=True), image.shape[2:])
        return look._replace(logits=look.logits[:, :, : grid[0], : grid[1]])

    def _missing(self, size: Sequence[int]) -> list[int]:
        """Rows and columns that an image of a size (H, W) is filled up by."""
        return [max(-side % self.whole, crop - side) for side, crop in zip(size, self.crop_size, strict=True)]

    def _corners(self, size: Sequence[int]) -> list[tuple[int, int]]:
        """(top, left) of the windows that cover an image of a size (H, W)."""
        rows, columns = (_starts(side, own, self.unit) for side, own in zip(size, self.detail_size, strict=True))
        return [(top, left) for top in rows for left in columns]

    def _averaged(
        self, context: Sequence[Tensor], details: Iterable[tuple[tuple[int, int], Tensor]], size: Sequence[int]
    ) -> Look:
        """The levels of the context of images of a size (H, W), with the logits of windows at (top, left)."""
        features = self.head.fuse(context)
        logits, share = self.head(features), torch.sigmoid(self._attention(context).float())
        stride = self.head.stride
        grid = (size[0] // stride, size[1] // stride)
        total, count = logits.new_zeros(*logits.shape[:2], *grid, dtype=torch.float32), share.new_zeros(grid)
        for (top, left), part in details:
            y, x = top // stride, left // stride
            total[:, :, y : y + part.shape[2], x : x + part.shape[3]] += part
            count[y : y + part.shape[2], x : x + part.shape[3]] += 1
        return Look(_fused(logits, share, total / count), features, context[-1])

    def sliding(self) -> Callable[[Tensor, Sequence[Place]], Tensor]:
        """See `iidm.engine.windows.Sliding`. A detail that neighbouring windows have in common is seen once, and kept
        until all windows are below it: half a window apart, 4 of a window's 9 are new, in the first row 6."""
        seen: dict[tuple[int, int, int], Tensor] = {}
        high, wide = self.detail_size

        def look(windows: Tensor, places: Sequence[Place]) -> Tensor:
            size = windows.shape[2:]
            # What is filled up is no neighbour's, and in training BatchNorm has the statistics of each call.
            if any(self._missing(size)) or self.training:
                return self.look(windows).logits
            for key in [key for key in seen if key[1] < places[0].top]:
                del seen[key]
            corners = self._corners(size)
            new: dict[tuple[int, int, int], Tensor] = {}
            for image, (b, top, left) in zip(windows.split(1), places, strict=True):
                for y, x in corners:
                    if (key := (b, top + y, left + x)) not in seen:
                        new.setdefault(key, image[:, :, y : y + high, x : x + wide])
            if new:
                logits = self._details(list(new.values()), WINDOWS_AT_ONCE * len(windows))
                seen.update(zip(new, logits, strict=True))
            details = (((y, x), torch.cat([seen[b, top + y, left + x] for b, top, left in places])) for y, x in corners)
            return self._averaged(self.backbone(self.context_of(windows)), details, size).logits

        return look

    def _attention(self, levels: Sequence[Tensor]) -> Tensor:
        """Its logits, of the levels that the head reads too."""
        read = levels[-len(self.attention.embeds) :]
        logits: Tensor = self.attention(self.attention.fuse(read))
        return logits

    def _encode(self, context: Tensor, windows: list[Tensor]) -> tuple[Sequence[Tensor], Iterator[Tensor]]:
        """The levels of the context, and the logits of each window.

        In training all windows are one batch, as their BatchNorm statistics are, and share a call of the backbone with
        the context where images of a batch do not change each other. In evaluation a few at a time, so that an image
        of any size needs no more memory than that.
        """
        count = windows[0].shape[0]  # not len(), which makes a constant of it in a graph
        if self.training and not self._mixes_images and context.shape[2:] == windows[0].shape[2:]:
            levels = self.backbone(torch.cat([context, *windows]))
            detail = self.head(self.head.fuse([level[count:] for level in levels]))
            return [level[:count] for level in levels], iter(detail.split(count))
        return self.backbone(context), self._details(windows, len(windows) if self.training else WINDOWS_AT_ONCE)

    def _details(self, windows: list[Tensor], at_once: int) -> Iterator[Tensor]:
        """The logits of each window, so many in one call of the network."""
        # A graph that is exported has the network in it once for each call, and of any batch does not know how many
        # parts split(count) makes.
        count, exporting = windows[0].shape[0], torch.compiler.is_exporting()
        if exporting:
            at_once = len(windows)
        batches = (torch.cat(windows[i : i + at_once]) for i in range(0, len(windows), at_once))
        logits = (self.head(self.head.fuse(self.backbone(batch))) for batch in batches)
        parts = (batch.unflatten(0, (-1, count)).unbind(0) if exporting else batch.split(count) for batch in logits)
        return (part for batch in parts for part in batch)


def window(x: Tensor, corner: Tensor, size: Sequence[int]) -> Tensor:
    """The window of [B,C,H,W], or of [B,H,W], at `corner` int64 [2] (top, left), `size` high and wide. The place is
    read on the device alone. Images stay channels-last."""
    rows, columns = (corner[i] + torch.arange(size[i], device=x.device) for i in range(2))
    if x.dim() == 3:
        return x.index_select(1, rows).index_select(2, columns)
    return x.permute(0, 2, 3, 1).index_select(1, rows).index_select(2, columns).permute(0, 3, 1, 2)


def _placed(detail: Tensor, corner: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits [B,K,h,w] at `corner` of a grid of zeros [B,K,*size]."""
    indices, known = [], []
    for i in range(2):
        own = detail.shape[2 + i]
        index = torch.arange(size[i], device=detail.device) - corner[i]
        indices.append(index.clamp(0, own - 1))
        known.append((index >= 0) & (index < own))
    spread = detail.index_select(2, indices[0]).index_select(3, indices[1])
    return spread * (known[0][:, None] & known[1])


def _inside(corner: Tensor, size: Sequence[int], grid: tuple[int, int]) -> Tensor:
    """bool [*grid]: cells of the window of `size` cells at `corner`."""
    rows, columns = (torch.arange(grid[i], device=corner.device) - corner[i] for i in range(2))
    return ((rows >= 0) & (rows < size[0]))[:, None] & ((columns >= 0) & (columns < size[1]))


def _starts(side: int, window: int, unit: int) -> list[int]:
    """Where windows start: half a window apart, in multiples of `unit`, the last at the border."""
    step = max(window // 2 // unit, 1) * unit
    return [*range(0, side - window, step), side - window]


def _fused(context: Tensor, share: Tensor, detail: Tensor) -> Tensor:
    """float32 [B,K,2h,2w] of logits [B,K,h,w], a [B,K,h,w] and logits [B,K,2h,2w]."""
    return torch.addcmul(_doubled((1 - share) * context.float()), _doubled(share), detail.float())


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def _every_second(x: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The first and the second of each two groups of a batch [B,C,h,w], channels-last.

    Split as [B,h,w,C]: the backward of `split` fills up with zeros, which would make a gradient of another layout.
    """
    parts = x.permute(0, 2, 3, 1).split(list(sizes))
    return torch.cat(parts[::2]).permute(0, 3, 1, 2), torch.cat(parts[1::2]).permute(0, 3, 1, 2)
