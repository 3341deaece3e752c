"""Mix Transformers: sizes, what a block computes, stochastic depth, layouts, and equality to other implementations.

`python tests/models/test_mit.py` writes golden_mit.npz, where timm and transformers are installed: what they compute
with numbers from a formula, so that equality is checked without them too.
"""

from __future__ import annotations

import importlib.util
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import mit_namings
import numpy as np
import pytest
import torch
from mit_namings import fill, image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from iidm.models import BACKBONES, build_network, parameter_groups, set_recompute
from iidm.models.mit import EPS, SIZES, Attention, Block, MixTransformer, Size, TokenNorm, attention, mix_transformer
from iidm.models.stochastic import draw_from
from iidm.types import UserError

GOLDEN = Path(__file__).with_name("golden_mit.npz")
SMALL = Size((12, 24, 60, 96), (2, 1, 2, 1))
TINY = Size((8, 16, 40, 64), (1, 2, 2, 1))
EVERY = 7
"""Of the large network's outputs the file holds every seventh number."""


def channels_last(x: Any) -> Any:
    """A tensor or a network."""
    if isinstance(x, Tensor):
        return x.contiguous(memory_format=torch.channels_last)
    return x.to(memory_format=torch.channels_last)


def network(size: Size = SMALL, drop_path: float = 0.0) -> MixTransformer:
    """In float64, so that nothing but a mistake moves results apart, with numbers of a trained network's size."""
    backbone = MixTransformer(size, drop_path=drop_path).double()
    fill(backbone)
    return channels_last(backbone)  # type: ignore[no-any-return]


def gradients(backbone: MixTransformer, *images: Tensor) -> dict[str, Tensor]:
    """Of a sum over all outputs, image by image with other weights: outputs, and each parameter's gradient."""
    backbone.zero_grad()
    found = [torch.cat(level) for level in zip(*(backbone(x) for x in images), strict=True)]
    loss = torch.zeros((), dtype=torch.float64)
    for level in found:
        loss = loss + (level * torch.linspace(-1, 1, level.numel(), dtype=level.dtype).view(level.shape)).sum()
    loss.backward()
    results = {name: p.grad for name, p in backbone.named_parameters() if p.grad is not None}
    assert len(results) == len(list(backbone.parameters()))
    return {**results, **{f"level {i}": level.detach() for i, level in enumerate(found)}}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-9 * float(value.abs().max()), msg=name)


# Without the classifier, and multiply-accumulates in 10^9 of a forward at 512 x 512: convolutions, linear maps and the
# two products of attention.
COUNTS = {
    "mit_b0": (3_319_392, 3.20),
    "mit_b1": (13_151_424, 10.43),
    "mit_b2": (24_196_288, 20.24),
    "mit_b3": (44_072_128, 36.86),
    "mit_b4": (60_842_688, 53.47),
    "mit_b5": (81_443_008, 69.41),
    "pvt_v2_b5": (81_443_008, 69.41),
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_and_arithmetic_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        backbone = BACKBONES[name](32).eval()
        with FlopCounterMode(display=False) as counter:
            levels = backbone(torch.empty(1, 3, 512, 512))
    assert sum(p.numel() for p in backbone.parameters()) == COUNTS[name][0]
    assert counter.get_total_flops() / 2e9 == pytest.approx(COUNTS[name][1], abs=0.005)
    assert [level.shape for level in levels] == [(1, c, 512 // s, 512 // s) for c, s in backbone.levels]


@pytest.mark.parametrize("name", ("mit_b0", "pvt_v2_b5"))
@pytest.mark.parametrize("size", ((29, 29), (97, 127), (64, 33)))
def test_levels_have_a_cell_per_started_stride(name: str, size: tuple[int, int]) -> None:
    with torch.device("meta"):
        backbone = BACKBONES[name](8)
        levels = backbone(torch.empty(2, 3, *size))
    assert [tuple(level) for level in backbone.levels] == list(zip(SIZES[name].dims, (4, 8, 16, 32), strict=True))
    for level, (channels, stride) in zip(levels, backbone.levels, strict=True):
        assert level.shape == (2, channels, -(-size[0] // stride), -(-size[1] // stride))


def test_the_smallest_image_has_a_real_forward_and_a_smaller_one_is_refused() -> None:
    backbone = MixTransformer(SMALL)
    assert all(torch.isfinite(level).all() for level in backbone(image(1, 3, 29, 40)))
    for shape in ((28, 40), (40, 28)):
        with pytest.raises(UserError, match=rf"29 px or more on each side, not {shape[0]} x {shape[1]}"):
            backbone(image(1, 3, *shape))


def test_parameters_come_in_the_order_of_the_forward() -> None:
    names = [name.split(".")[0] for name, _ in MixTransformer(SMALL).named_parameters()]
    parts = [f"{part}{i}" for i in range(1, 5) for part in ("patch_embed", "block", "norm")]
    assert list(dict.fromkeys(names)) == parts


def test_norm_layers_are_not_decayed_and_all_else_is() -> None:
    with torch.device("meta"):
        whole = build_network("mit_b0", 5, head="segformer")
    decays = {}
    for group in parameter_groups(whole, lr=1.0, head_lr_mult=1.0, weight_decay=0.01):
        decays |= {id(p): group["weight_decay"] for p in group["params"]}
    undecayed = {name for name, p in whole.backbone.named_parameters() if decays[id(p)] == 0}
    assert undecayed == {name for name, _ in whole.backbone.named_parameters() if "norm" in name}
    assert len(undecayed) == 2 * (4 + 4 + 8 * 2 + 6)  # patches, stages, two of each block, one behind each reduction


def test_the_random_start_is_segformers() -> None:
    torch.manual_seed(0)
    backbone = MixTransformer(Size((64, 128, 320, 512), (1, 1, 1, 1)))
    state = backbone.state_dict()
    for name, fan_out in (
        ("patch_embed1.proj", 49 * 64),
        ("block1.0.attn.sr", 64 * 64),
        ("block1.0.mlp.dwconv.dwconv", 9),
    ):
        assert state[name + ".weight"].std() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
    for name in ("block1.0.attn.q", "block3.0.attn.kv", "block4.0.mlp.fc2"):
        assert state[name + ".weight"].std() == pytest.approx(0.02, rel=0.05)
    for name, value in state.items():
        if value.dim() == 1:
            expected = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            assert (value == expected).all(), name


def test_norms_have_the_published_eps() -> None:
    eps = {name: part.eps for name, part in MixTransformer(SMALL).named_modules() if isinstance(part, nn.LayerNorm)}
    after_convolutions = {name for name in eps if name.endswith(".norm")}
    assert len(after_convolutions) == 4 + 5
    assert eps == {name: 1e-5 if name in after_convolutions else EPS for name in eps} and EPS == 1e-6


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


def test_stochastic_depth_grows_from_block_to_block_and_draws_for_each_branch() -> None:
    drop_path = MixTransformer(Size(SMALL.dims, (2, 2, 1, 1)), drop_path=0.5).drop_path
    assert drop_path.rates.tolist() == pytest.approx([rate / 10 for rate in (0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5)])
    torch.manual_seed(0)
    factors = drop_path(40_000, torch.device("cpu"))
    for rate, factor in zip(drop_path.rates, factors, strict=True):
        assert factor is not None
        assert set(factor.unique().tolist()) <= {0.0, float(1 / (1 - rate))}
        assert (factor == 0).float().mean() == pytest.approx(float(rate), abs=0.01)
    together = torch.corrcoef(torch.stack(factors[2:]))  # type: ignore[arg-type]
    assert (together - torch.eye(10)).abs().max() < 0.03


def test_a_factor_multiplies_its_branch_of_its_image() -> None:
    block = Block(6, 3, 2).double()
    for p in block.parameters():
        nn.init.normal_(p, 0.0, 0.5)
    x = torch.randn(2, 6, 6, 6, dtype=torch.float64)
    found = block(x, torch.tensor([0.0, 2.0]), torch.tensor([0.0, 0.0]))
    assert torch.equal(found[0], x[0])
    torch.testing.assert_close(found[1], (x + 2 * block.attn(block.norm1(x)))[1])
    found = block(x, torch.tensor([0.0, 0.0]), torch.tensor([3.0, 0.0]))
    torch.testing.assert_close(found[0], (x + 3 * block.mlp(block.norm2(x)))[0])
    assert torch.equal(found[1], x[1])


def test_the_default_drop_path_is_segformers_and_a_builder_takes_another() -> None:
    assert BACKBONES["mit_b0"](32).drop_path.p == 0.1
    with_more = BACKBONES["mit_b0"](32, drop_path=0.3)  # type: ignore[call-arg]
    assert with_more.drop_path.rates[-2:].tolist() == pytest.approx([0.3, 0.3])
    assert mix_transformer("mit_b1", 32, drop_path=0.0).drop_path.rates.tolist() == [0.0] * 16


def test_draws_come_from_the_generator_and_none_in_evaluation() -> None:
    backbone, x = network(drop_path=0.5), image(4, 3, 32, 32).double()

    def deepest(seed: int) -> Tensor:
        draw_from(backbone, torch.Generator().manual_seed(seed))
        return backbone(x)[-1]  # type: ignore[no-any-return]

    assert torch.equal(deepest(0), deepest(0))
    assert not torch.equal(deepest(0), deepest(1))
    backbone.eval()
    assert torch.equal(deepest(0), deepest(1))
    assert torch.equal(deepest(0), network().eval()(x)[-1])


def test_merged_images_are_separate_passes() -> None:
    """One pass draws what several draw one after the other."""
    x = channels_last(image(5, 3, 45, 70).double())
    results = []
    for parts in (x.split(5), x.split((2, 3))):
        backbone = network(drop_path=0.5)
        draw_from(backbone, torch.Generator().manual_seed(3))
        results.append(gradients(backbone, *parts))
    assert_same(*results)


def test_each_branch_of_each_block_has_its_own_factor() -> None:
    backbone = MixTransformer(SMALL, drop_path=0.5)
    drawn: list[Tensor] = []
    given: list[Tensor] = []
    backbone.drop_path.register_forward_hook(lambda _, __, factors: drawn.extend(factors))
    for part in backbone.modules():
        if isinstance(part, Block):
            part.register_forward_pre_hook(lambda _, args: given.extend(args[1:]))
    backbone(image(2, 3, 32, 32))
    assert len(drawn) == 2 * sum(SMALL.depths)
    assert [id(factor) for factor in given] == [id(factor) for factor in drawn]


@pytest.mark.parametrize("drop_path", (0.0, 0.5))
def test_recomputed_blocks_give_the_same_gradients(drop_path: float) -> None:
    x = channels_last(image(3, 3, 45, 70).double())
    results = []
    for recompute in (False, True):
        backbone = network(drop_path=drop_path)
        set_recompute(backbone, recompute)
        calls: list[nn.Module] = []
        for part in backbone.modules():
            if isinstance(part, Attention):
                part.register_forward_pre_hook(lambda part, _, calls=calls: calls.append(part))
        torch.manual_seed(0)
        results.append(gradients(backbone, x))
        assert len(calls) == (2 if recompute else 1) * sum(SMALL.depths)
    assert_same(*results)


def test_every_parameter_learns() -> None:
    backbone = MixTransformer(SMALL)
    sum(level.square().sum() for level in backbone(image(2, 3, 64, 64))).backward()  # type: ignore[union-attr]
    assert [name for name, p in backbone.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


class Copies(TorchDispatchMode):
    """What is copied, to another layout or needlessly; another type in the same layout does not count."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ("clone", "contiguous", "_to_copy", "copy_"):
            source = args[1] if name == "copy_" else args[0]
            if source.dim() > 1 and (name != "_to_copy" or source.stride() != out.stride()):
                self.seen.append(f"{name} {tuple(source.shape)} {source.stride()} {out.stride()}")
                self.shapes.append(tuple(source.shape))
        return out


@pytest.mark.parametrize("amp", (False, True))
def test_no_map_is_copied_to_another_layout(amp: bool) -> None:
    """In bfloat16 on a CPU the heads of a token are regrouped for the products of attention (see `attention`)."""
    backbone = channels_last(MixTransformer(SMALL, drop_path=0.5))
    x = channels_last(image(3, 3, 83, 107))
    with Copies() as copies:
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            levels = backbone(x)
        torch.autograd.backward(levels, [torch.ones_like(level) for level in levels])
    assert all(level.is_contiguous(memory_format=torch.channels_last) for level in levels)
    maps = [level.shape[2:] for level in levels]  # 21 x 27, 11 x 14, 6 x 7, 3 x 4: no number of heads among them
    if not amp:
        assert copies.seen == []
    assert [
        seen
        for seen, shape in zip(copies.seen, copies.shapes, strict=True)
        if shape[1:3] in maps or shape[2:] in maps or (len(shape) == 3 and shape[1] in [m.numel() for m in maps])
    ] == []


def test_the_watch_for_copies_sees_them() -> None:
    with Copies() as copies:
        torch.zeros(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
        torch.zeros(2, 20, 6).transpose(1, 2).reshape(-1)
    assert copies.shapes == [(2, 3, 4, 5), (2, 6, 20)]


def reference_timm(size: Size, state: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    from timm.models.pvt_v2 import PyramidVisionTransformerV2

    model = PyramidVisionTransformerV2(
        num_classes=0,
        depths=size.depths,
        embed_dims=size.dims,
        num_heads=(1, 2, 5, 8),
        mlp_ratios=(4, 4, 4, 4),
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
    return timm_levels(model, state, x)


def reference_timm_b5(state: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    from timm import create_model

    return timm_levels(create_model("pvt_v2_b5", num_classes=0), state, x)


def timm_levels(model: Any, state: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    model.load_state_dict(mit_namings.timm(state))
    with torch.no_grad():
        return list(model.eval().forward_intermediates(x, intermediates_only=True))


def reference_transformers(size: Size, state: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """Its LayerNorms all have eps 1e-5."""
    from transformers import SegformerConfig, SegformerModel

    with tempfile.TemporaryDirectory() as folder:
        heads = [1, 2, 5, 8]
        SegformerConfig(
            hidden_sizes=list(size.dims), depths=list(size.depths), num_attention_heads=heads
        ).save_pretrained(folder)
        save_file(mit_namings.hugging_face(state), Path(folder, "model.safetensors"), {"format": "pt"})
        model, loading = SegformerModel.from_pretrained(folder, output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    with torch.no_grad():
        return list(model.eval()(x, output_hidden_states=True).hidden_states)


def with_eps(backbone: MixTransformer, eps: float) -> MixTransformer:
    for part in backbone.modules():
        if isinstance(part, nn.LayerNorm):
            part.eps = eps
    return backbone


def tiny() -> tuple[MixTransformer, dict[str, Tensor], Tensor]:
    """A network, its parameters and an image whose maps are no multiples of the reductions."""
    backbone = MixTransformer(TINY).eval()
    return backbone, fill(backbone), image(1, 3, 75, 99)


def large() -> tuple[MixTransformer, dict[str, Tensor], Tensor]:
    """The real PVTv2-B5."""
    with torch.device("meta"):
        backbone = mix_transformer("pvt_v2_b5", 32)
    backbone = backbone.to_empty(device="cpu").eval()
    return backbone, fill(backbone), image(1, 3, 64, 64)


def thinned(levels: list[Tensor]) -> list[Tensor]:
    return [level.flatten()[::EVERY] for level in levels]


def assert_levels(found: tuple[Tensor, ...] | list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected) == 4
    for level, other in zip(found, expected, strict=True):
        assert 0.3 < other.std() < 3  # of about 1, so that the tolerance means something
        torch.testing.assert_close(level, other, rtol=0, atol=1e-5 * float(other.abs().max()))


def golden(name: str) -> list[Tensor]:
    with np.load(GOLDEN) as file:
        return [torch.from_numpy(file[f"{name}_{i}"]) for i in range(4)]


def need(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed; its stored results are compared instead (golden_mit.npz)")


@torch.no_grad()
def test_a_small_network_is_timms_pvt_v2() -> None:
    backbone, _, x = tiny()
    assert_levels(backbone(x), golden("timm"))
    assert_levels(channels_last(backbone)(channels_last(x)), golden("timm"))


@torch.no_grad()
def test_a_small_network_is_transformers_segformer() -> None:
    backbone, _, x = tiny()
    assert_levels(with_eps(backbone, 1e-5)(x), golden("transformers"))


@torch.no_grad()
def test_pvt_v2_b5_is_timms() -> None:
    backbone, _, x = large()
    assert_levels(thinned(list(backbone(x))), golden("timm_b5"))


@torch.no_grad()
def test_timm_computes_what_is_stored() -> None:
    need("timm")
    backbone, state, x = tiny()
    assert_levels(reference_timm(TINY, state, x), golden("timm"))
    backbone, state, x = large()
    reference = reference_timm_b5(state, x)
    assert_levels(backbone(x), reference)
    assert_levels(thinned(reference), golden("timm_b5"))


@torch.no_grad()
def test_transformers_computes_what_is_stored() -> None:
    need("transformers")
    _, state, x = tiny()
    assert_levels(reference_transformers(TINY, state, x), golden("transformers"))


def write_golden() -> None:
    _, state, x = tiny()
    _, large_state, large_x = large()
    results = {
        "timm": reference_timm(TINY, state, x),
        "transformers": reference_transformers(TINY, state, x),
        "timm_b5": thinned(reference_timm_b5(large_state, large_x)),
    }
    np.savez_compressed(
        GOLDEN, **{f"{name}_{i}": level.numpy() for name, levels in results.items() for i, level in enumerate(levels)}
    )


if __name__ == "__main__":
    write_golden()
