"""The training step on an HRDA network in plain PyTorch, as the public code writes it: see reference_step.py.

Each branch calls the network twice, for its context and for its detail; heads stack the resized levels and convolve
them; the teacher sees all windows of its images in one batch. `best=False` keeps the attention's matrices in memory and
blurs with one dense kernel, `best=True` takes scaled_dot_product_attention and separable taps. Both read the places of
the details on the host, once a step: slices are of numbers there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iidm.models.daformer import DAFormerHead, SeparableConv2d
from iidm.models.hrda import HRDANetwork
from iidm.models.mit import Attention, TokenNorm
from iidm.models.segformer import SegFormerHead
from iidm.types import TrainBatch

from .reference_step import IGNORED, ReferenceStep

BLUR_SHARE = 0.1
"""Side of the dense blur's kernel, of the image's."""


class StackedSegFormer(SegFormerHead):
    """The levels resized and stacked, then convolved."""

    def pointwise(self, embedded: Sequence[Tensor]) -> Tensor:
        size = embedded[0].shape[2:]
        wide = torch.cat([F.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in embedded], 1)
        y: Tensor = self.point_norm(self.point(wide))
        return y


class StackedDAFormer(DAFormerHead):
    """The same of DAFormer's head."""

    pointwise = StackedSegFormer.pointwise


class ExplicitAttention(Attention):
    """Attention whose matrices are tensors, as SegFormer's code has it."""

    def forward(self, x: Tensor) -> Tensor:
        read = x
        if self.sr is not None and self.norm is not None:
            read = self.norm(self.sr(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        batch, size = len(x), x.shape[3] // self.heads
        q = self.q(x).reshape(batch, -1, self.heads, size).permute(0, 2, 1, 3)
        k, v = self.kv(read).reshape(batch, -1, 2, self.heads, size).permute(2, 0, 3, 1, 4)
        mixed: Tensor = self.proj(self._read(q, k, v).transpose(1, 2).reshape(x.shape))
        return mixed

    def _read(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1) @ v


class FusedAttention(ExplicitAttention):
    """Attention by PyTorch's scaled_dot_product_attention."""

    def _read(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)


class ReferenceHRDAStep(ReferenceStep):
    """Trains a copy of an HRDA network."""

    def _adopt(self, network: nn.Module) -> None:
        """Put plain layers in place of those of iidm, beside what `plain_network` has replaced."""
        for module in network.modules():
            if isinstance(module, Attention):
                module.__class__ = FusedAttention if self.best else ExplicitAttention
            elif isinstance(module, TokenNorm):
                module.__class__ = nn.LayerNorm  # type: ignore[assignment]
            elif isinstance(module, DAFormerHead):
                module.__class__ = StackedDAFormer
            elif isinstance(module, SegFormerHead):
                module.__class__ = StackedSegFormer
            assert not isinstance(module, SeparableConv2d) or type(module.pointwise) is nn.Conv2d

    def _boxes(self, batch: TrainBatch) -> Iterator[tuple[int, int]]:
        """Where the details of the four branches lie, drawn as iidm draws them."""
        assert batch.unlabeled is not None
        size = (batch.unlabeled.shape[1], batch.unlabeled.shape[2])
        student: HRDANetwork = self.student  # type: ignore[assignment]
        boxes = [student.draw_box(size, self.generator) for _ in range(4)]
        return iter([(int(box[0]), int(box[1])) for box in boxes])

    def __call__(self, batch: TrainBatch) -> Tensor:
        """Train one step."""
        self._batch, self._places = batch, None
        return super().__call__(batch)

    def _loss(self, image: Tensor, label: Tensor, weight: Tensor | None) -> Tensor:
        self._places = self._places or self._boxes(self._batch)
        top, left = next(self._places)
        student: HRDANetwork = self.student  # type: ignore[assignment]
        height, width = student.detail_size
        rows, columns = slice(top, top + height), slice(left, left + width)
        with self._autocast():
            small = F.interpolate(image, scale_factor=0.5, mode="bilinear", align_corners=False)
            context, attention = self._scale(small)
            detail, _ = self._scale(image[:, :, rows, columns])
        share = torch.sigmoid(attention.float())
        mask = torch.zeros_like(share[:1, :1])
        unit, stride = student.unit, student.head.stride
        mask[:, :, top // unit : (top + height) // unit, left // unit : (left + width) // unit] = 1
        share = share * mask
        placed = torch.zeros(*share.shape[:2], 2 * share.shape[2], 2 * share.shape[3], device=image.device)
        placed[:, :, top // stride : (top + height) // stride, left // stride : (left + width) // stride] = (
            detail.float()
        )
        of_context = F.interpolate((1 - share) * context.float(), scale_factor=2, mode="bilinear", align_corners=False)
        fused = F.interpolate(share, scale_factor=2, mode="bilinear", align_corners=False) * placed + of_context
        part = None if weight is None else weight[:, rows, columns]
        whole, window = self._summed(fused, label, weight), self._summed(detail, label[:, rows, columns], part)
        own = self.config.loss.detail_weight
        return (1 - own) * whole + own * window * (label.numel() / label[:, rows, columns].numel())

    def _scale(self, image: Tensor) -> tuple[Tensor, Tensor]:
        student: HRDANetwork = self.student  # type: ignore[assignment]
        levels = list(student.backbone(image))
        attention = student.attention(student.attention.fuse(levels[-len(student.attention.embeds) :]))
        return student.head(student.head.fuse(levels)), attention

    def _summed(self, logits: Tensor, label: Tensor, weight: Tensor | None) -> Tensor:
        full = F.interpolate(logits.float(), size=label.shape[1:], mode="bilinear", align_corners=False)
        pixels = F.cross_entropy(full, label.long(), ignore_index=IGNORED, reduction="none")
        return (pixels if weight is None else pixels * weight).sum()

    def _blurred(self, image: Tensor, sigma: Tensor, enabled: Tensor) -> Tensor:
        if self.best:
            return super()._blurred(image, sigma, enabled)
        radius = max(int(BLUR_SHARE * min(image.shape[2:])) // 2, 5)
        found = []
        for one, own, on in zip(image, sigma, enabled, strict=True):
            offsets = torch.arange(-radius, radius + 1, device=image.device)
            line = torch.exp(-(offsets**2) / (2 * own**2)) if on else (offsets == 0).float()
            kernel = (line[:, None] * line / line.sum() ** 2).expand(3, 1, -1, -1)
            padded = F.pad(one[None], [radius] * 4, mode="reflect")
            found.append(F.conv2d(padded, kernel, groups=3))
        return torch.cat(found)
