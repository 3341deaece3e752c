"""Mix Transformers: what a block computes, and in which type."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iidm.models.mit import Attention, Block, TokenNorm, attention


def normed(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    mean, var = x.mean(-1, keepdim=True), x.var(-1, correction=0, keepdim=True)
    return (x - mean) / (var + norm.eps).sqrt() * norm.weight + norm.bias


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    return torch.einsum("...i,oi->...o", x, layer.weight) + layer.bias


def attended(x: Tensor, layer: Attention) -> Tensor:
    """Token by token, head by head, as the paper says it."""
    batch, h, w, channels = x.shape
    read = x
    if layer.sr is not None and layer.norm is not None:
        size = layer.sr.kernel_size[0]
        rows = [
            [
                torch.einsum("bijc,ocij->bo", x[:, i : i + size, j : j + size], layer.sr.weight) + layer.sr.bias
                for j in range(0, w - size + 1, size)
            ]
            for i in range(0, h - size + 1, size)
        ]
        read = normed(torch.stack([torch.stack(row, 1) for row in rows], 1), layer.norm)
    q = linear(x, layer.q).view(batch, h * w, channels)
    k, v = linear(read, layer.kv).view(batch, -1, 2 * channels).split(channels, -1)
    out = torch.zeros_like(q)
    d = channels // layer.heads
    for b in range(batch):
        for head in range(layer.heads):
            own = slice(head * d, (head + 1) * d)
            for n in range(h * w):
                scores = torch.stack([q[b, n, own] @ key for key in k[b, :, own]]) / d**0.5
                share = scores.exp() / scores.exp().sum()
                out[b, n, own] = sum(share[m] * v[b, m, own] for m in range(len(share)))  # type: ignore[call-overload]
    return linear(out.view(x.shape), layer.proj)


@pytest.mark.parametrize("reduction", (1, 2))
def test_a_block_is_what_its_paper_computes(reduction: int) -> None:
    torch.manual_seed(0)
    block = Block(6, heads=3, reduction=reduction).double()
    for p in block.parameters():
        nn.init.normal_(p, 0.0, 0.5)
    x = 1e-3 * torch.randn(2, 5, 7, 6, dtype=torch.float64)  # so small that eps matters; 5 x 7 is no multiple of 2
    with torch.no_grad():
        between = x + attended(normed(x, block.norm1), block.attn)
        hidden = F.pad(linear(normed(between, block.norm2), block.mlp.fc1), (0, 0, 1, 1, 1, 1))
        kernel = block.mlp.dwconv.dwconv
        mixed = sum(hidden[:, i : i + 5, j : j + 7] * kernel.weight[:, 0, i, j] for i in range(3) for j in range(3))
        mixed = mixed + kernel.bias
        mixed = 0.5 * mixed * (1 + torch.erf(mixed / 2**0.5))
        expected = between + linear(mixed, block.mlp.fc2)
        torch.testing.assert_close(block(x), expected, rtol=1e-10, atol=1e-12)


def test_attention_in_bfloat16_is_that_of_float64() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 32).bfloat16() for n in (50, 20, 20))
    expected = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    assert (attention(q, k, v).double() - expected).norm() < 6e-3 * expected.norm()


def test_norms_give_the_type_of_autocast() -> None:
    norm, x = TokenNorm(4), torch.randn(1, 2, 2, 4)
    assert norm(x).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert norm(x).dtype == torch.bfloat16
