"""A segmentation network: a backbone and a head."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from . import norm
from .head import Head
from .stochastic import draw_from


class Look(NamedTuple):
    """What a network says of images, and what it saw."""

    logits: Tensor
    """[B,K,h,w]."""
    features: Tensor
    """[B,C,h,w], what the head classified."""
    deepest: Tensor
    """[B,C',h',w'], the backbone's deepest level."""
    detail: Tensor | None = None
    """Logits [B,K,h'',w''] of a window of each image (hrda.py)."""


class Network(nn.Module):
    """A backbone and a head. `output_stride` image pixels stand behind each cell of the logits."""

    def __init__(self, backbone: nn.Module, head: Head) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    @property
    def output_stride(self) -> int:
        """Of the logits."""
        return self.head.stride

    @property
    def title(self) -> str:
        """What is on top of the backbone, for people."""
        return f"{self.head.name} head, logits every {self.output_stride} px"

    def branches(self, sizes: Sequence[int]) -> AbstractContextManager[None]:
        """A context whose training forwards see a batch of several branches of so many images each, every one of them
        normalized by its own statistics (see iidm.models.norm.branches)."""
        return norm.branches(self, sizes)

    def draw_from(self, generator: torch.Generator | None) -> None:
        """Let dropout and stochastic depth draw from a generator of the network's device."""
        draw_from(self, generator)

    def context_of(self, image: Tensor) -> Tensor:
        """Images [B,3,H,W] as the backbone sees them for the deepest level of a `Look`."""
        return image

    def forward(self, image: Tensor) -> Tensor:
        """float [B,3,H,W] normalized -> logits [B,K,h,w], h = ceil(H / output_stride)."""
        return self.look(image).logits

    def look(self, image: Tensor) -> Look:
        """float [B,3,H,W] normalized -> logits, and what they were made of."""
        levels = self.backbone(image)
        features = self.head.fuse(levels)
        return Look(cast(Tensor, self.head(features)), features, levels[-1])
