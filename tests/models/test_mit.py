"""Mix Transformers: sizes, parameters, their random start, and layouts in memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mit_namings import image
from mit_networks import SMALL, channels_last
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from iidm.models import BACKBONES, build_network, parameter_groups
from iidm.models.mit import EPS, SIZES, MixTransformer, Size
from iidm.types import UserError

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
