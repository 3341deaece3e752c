"""Mix Transformers: stochastic depth, in one pass, in several and recomputed."""

from __future__ import annotations

import pytest
import torch
from mit_namings import fill, image
from mit_networks import SMALL, channels_last
from torch import Tensor, nn

from iidm.models import BACKBONES, set_recompute
from iidm.models.mit import Attention, Block, MixTransformer, Size, mix_transformer
from iidm.models.stochastic import draw_from


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
