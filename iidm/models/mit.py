"""Mix Transformer (MiT, SegFormer's encoder; arXiv 2105.15203) as a backbone, in the original parameter names.

The public MiT weights are for research and evaluation only (NVIDIA Source Code License). PVTv2-B5 (arXiv 2106.13797)
is the same graph as MiT-B5, trained by others; its weights are Apache-2.0.

Tokens are kept as [B,h,w,C], which is a channels-last map [B,C,h,w] read in another order: no layer has to copy from
one layout to the other.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..types import UserError
from .head import Level
from .norm import Stage
from .stochastic import StochasticDepth

STRIDES = (4, 8, 16, 32)
HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)
"""Of each stage: stride of its map, attention heads, and cells behind each key and value in both directions."""

EPS = 1e-6
"""Of the blocks' and stages' LayerNorm; those after a convolution have PyTorch's 1e-5."""

MIN_SIZE_PX = 29
"""Images with a shorter side have fewer cells in the first stage than one key stands for."""


class Size(NamedTuple):
    """Channels and blocks of the four stages."""

    dims: tuple[int, ...]
    depths: tuple[int, ...]


_WIDE = (64, 128, 320, 512)

SIZES: dict[str, Size] = {
    "mit_b0": Size((32, 64, 160, 256), (2, 2, 2, 2)),
    "mit_b1": Size(_WIDE, (2, 2, 2, 2)),
    "mit_b2": Size(_WIDE, (3, 4, 6, 3)),
    "mit_b3": Size(_WIDE, (3, 4, 18, 3)),
    "mit_b4": Size(_WIDE, (3, 8, 27, 3)),
    "mit_b5": Size(_WIDE, (3, 6, 40, 3)),
    "pvt_v2_b5": Size(_WIDE, (3, 6, 40, 3)),
}
"""Backbone name -> its size."""


class TokenNorm(nn.LayerNorm):
    """LayerNorm whose output has autocast's type.

    On CUDA autocast returns float32 here, which each of the layers that read it would cast for itself.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[B,h,w,C] -> the same."""
        y = super().forward(x)
        device = x.device.type
        if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
            return y
        return y.to(torch.get_autocast_dtype(device))


class PatchEmbed(nn.Module):
    """Overlapping patches: a convolution with a stride, and LayerNorm."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2)
        self.norm = nn.LayerNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[B,C_in,H,W] -> tokens [B,ceil(H/stride),ceil(W/stride),C_out]."""
        y: Tensor = self.norm(self.proj(x).permute(0, 2, 3, 1))
        return y


class Attention(nn.Module):
    """Multi-head attention of all tokens to a coarser grid of them.

    Args:
        channels: C.
        heads: divides C.
        reduction: cells behind each key and value, in both directions.
    """

    def __init__(self, channels: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.kv = nn.Linear(channels, channels), nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        self.sr = nn.Conv2d(channels, channels, reduction, stride=reduction) if reduction > 1 else None
        self.norm = TokenNorm(channels) if reduction > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """[B,h,w,C] -> the same."""
        read = x
        if self.sr is not None and self.norm is not None:
            read = self.norm(self.sr(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        q = self.q(x).flatten(1, 2).unflatten(-1, (self.heads, -1))
        k, v = self.kv(read).flatten(1, 2).unflatten(-1, (2, self.heads, -1)).unbind(2)
        y = attention(*(part.transpose(1, 2) for part in (q, k, v)))
        mixed: Tensor = self.proj(y.transpose(1, 2).reshape(x.shape))
        return mixed


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v of each head.

    On a CPU in bfloat16 PyTorch's fused kernel takes 1.4 to 2.7 times as long as the products that it is made of
    (benchmarks/NOTES.md), which are taken there. They round the scores to bfloat16: the output is 0.4 to 0.9 % from
    that of float64, that of the fused kernel 0.2 %.

    Args:
        q: [B,heads,N,d]; k, v: [B,heads,M,d]. M is small (256 of an image of 512 x 512 px), so that the scores are.

    Returns: [B,heads,N,d].
    """
    if q.device.type == "cpu" and q.dtype is torch.bfloat16:
        return (q @ (k * k.shape[-1] ** -0.5).transpose(2, 3)).softmax(3) @ v
    return F.scaled_dot_product_attention(q, k, v)


class DepthwiseTokens(nn.Module):
    """Depthwise 3x3 convolution of tokens."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B,h,w,C] -> the same."""
        y: Tensor = self.dwconv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return y


class MixFFN(nn.Module):
    """Feed-forward network with a depthwise convolution, from which the tokens learn where they are."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.dwconv = DepthwiseTokens(4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B,h,w,C] -> the same."""
        y: Tensor = self.fc2(F.gelu(self.dwconv(self.fc1(x))))
        return y


class Block(nn.Module):
    """Attention and feed-forward network, each with a shortcut and a norm in front."""

    def __init__(self, channels: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.norm1, self.attn = TokenNorm(channels, eps=EPS), Attention(channels, heads, reduction)
        self.norm2, self.mlp = TokenNorm(channels, eps=EPS), MixFFN(channels)

    def forward(self, x: Tensor, attn_factor: Tensor | None = None, mlp_factor: Tensor | None = None) -> Tensor:
        """Tokens [B,h,w,C], and of each image what the two branches are multiplied by, [B] -> tokens."""
        x = _added(x, self.attn(self.norm1(x)), attn_factor)
        return _added(x, self.mlp(self.norm2(x)), mlp_factor)


def _added(x: Tensor, branch: Tensor, factor: Tensor | None) -> Tensor:
    return x + (branch if factor is None else branch * factor.to(branch.dtype)[:, None, None, None])


class MixTransformer(nn.Module):
    """Four stages of patch embedding, blocks and LayerNorm.

    Args:
        size: channels, of which each stage's heads take equal parts, and blocks.
        drop_path: chance that a residual branch of the last block is dropped in training, 0 <= drop_path < 1; it grows
            linearly from 0 at the first. SegFormer: 0.1.
    """

    decays_norms = False
    """Norm layers get no weight decay, as in SegFormer's and DAFormer's recipes (see `groups.parameter_groups`)."""

    def __init__(self, size: Size, *, drop_path: float = 0.1) -> None:
        super().__init__()
        self.levels = tuple(Level(*level) for level in zip(size.dims, STRIDES, strict=True))
        last = sum(size.depths) - 1
        self.drop_path = StochasticDepth([drop_path * block / last for block in range(last + 1) for _ in range(2)])
        patches = ((7, 4), (3, 2), (3, 2), (3, 2))
        for i, (inputs, channels) in enumerate(pairwise((3, *size.dims))):
            blocks = (Block(channels, HEADS[i], REDUCTIONS[i]) for _ in range(size.depths[i]))
            self.add_module(f"patch_embed{i + 1}", PatchEmbed(inputs, channels, *patches[i]))
            self.add_module(f"block{i + 1}", Stage(*blocks))
            self.add_module(f"norm{i + 1}", TokenNorm(channels, eps=EPS))
        initialize(self)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """float [B,3,H,W] -> the four stages' outputs, as `levels` says: [B,C,ceil(H/stride),ceil(W/stride)],
        channels-last.

        Raises:
            UserError: a side under 29 px.
        """
        if min(x.shape[2:]) < MIN_SIZE_PX:
            raise UserError(
                f"A Mix Transformer needs images of {MIN_SIZE_PX} px or more on each side, not {x.shape[2]} x"
                f" {x.shape[3]}; give it larger images or crops."
            )
        factors = iter(self.drop_path(x.shape[0], x.device))  # not len(), which makes a constant of it in a graph
        found = []
        for i in range(1, len(STRIDES) + 1):
            tokens, stage = self.get_submodule(f"patch_embed{i}")(x), cast(Stage, self.get_submodule(f"block{i}"))
            for block in stage:
                tokens = stage.through(block, tokens, next(factors), next(factors))
            x = self.get_submodule(f"norm{i}")(tokens).permute(0, 3, 1, 2)
            found.append(x)
        return tuple(found)


def initialize(module: nn.Module) -> None:
    """SegFormer's random start: linear maps 0.02, convolutions He's normal (fan out), no biases; LayerNorm as it is."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Conv2d) and part.bias is not None:
            fan_out = part.weight[0, 0].numel() * part.out_channels // part.groups
            nn.init.normal_(part.weight, std=math.sqrt(2 / fan_out))
            nn.init.zeros_(part.bias)


def mix_transformer(name: str, output_stride: int, drop_path: float = 0.1) -> MixTransformer:
    """The backbone of a name in SIZES; its levels have strides 4, 8, 16 and 32, whatever the output stride."""
    return MixTransformer(SIZES[name], drop_path=drop_path)
