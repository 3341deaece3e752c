"""CONFETI's contrast against loops, its colours against their definition, and what its prototypes follow."""

import math

import pytest
import torch
import torch.nn.functional as F
from small_steps import batch
from tiny_steps import CHANNELS, assert_merged_is_sequential, assert_trains_and_resumes, tiny_config, tiny_network

from iidm.method.base import Mixes, Scene, normalized
from iidm.method.losses import Branch, Output
from iidm.method.published.confeti import Confeti, info_nce
from iidm.recipes import with_values
from iidm.types import LabeledImages, Mixed, PseudoLabel, TrainBatch

B, K, H, W = 2, 4, 4, 6
NAMES = tuple("abcd")
CELLS = [(b, y, x) for b in range(B) for y in range(H) for x in range(W)]


def method_of() -> Confeti:
    torch.manual_seed(0)
    return Confeti(tiny_config("confeti"), tiny_network(K), NAMES)


def contrast_by_loop(
    unit: torch.Tensor, cells: torch.Tensor, weight: torch.Tensor, prototypes: torch.Tensor, known: list[int]
) -> float:
    total, count = 0.0, 0
    for b, y, x in CELLS:
        k = int(cells[b, y, x])
        if k in known:
            likeness = {j: math.exp(float(unit[b, :, y, x] @ prototypes[j]) / 0.1) for j in known}
            total -= float(weight[b, y, x]) * math.log(likeness[k] / sum(likeness.values()))
            count += 1
    assert 0 < count < len(CELLS)
    return total / count


def test_the_contrast_is_that_of_a_loop() -> None:
    torch.manual_seed(1)
    unit, prototypes = F.normalize(torch.randn(B, 5, H, W), dim=1), F.normalize(torch.randn(K, 5), dim=1)
    cells, weight = torch.randint(0, K, (B, H, W)), torch.rand(B, H, W)
    cells[:, 0] = 255
    known = torch.tensor([True, True, False, True])
    value = info_nce(unit, cells, weight, prototypes, known)
    assert float(value) == pytest.approx(contrast_by_loop(unit, cells, weight, prototypes, [0, 1, 3]), rel=1e-4)
    nothing = info_nce(unit, cells, weight, torch.zeros(K, 5), torch.zeros(K, dtype=torch.bool))
    assert float(nothing) == 0, "no class has a prototype"


def test_features_move_towards_their_own_prototype_and_away_from_the_others() -> None:
    unit = F.normalize(torch.tensor([1.0, 1.0, 0.0]), dim=0).view(1, 3, 1, 1).requires_grad_()
    known = torch.ones(3, dtype=torch.bool)
    info_nce(unit, torch.zeros(1, 1, 1, dtype=torch.int64), torch.ones(()), torch.eye(3), known).backward()
    assert unit.grad is not None
    own, other, far = (-unit.grad).flatten().tolist()
    assert own > 0 > other and far < 0 and abs(other) > abs(far)


def test_the_source_takes_the_colours_of_the_target() -> None:
    method = method_of()
    generator = torch.Generator().manual_seed(2)
    sources = [torch.randint(40, 200, (B, 8, 8, 3), generator=generator).byte() for _ in range(2)]
    targets = [torch.randint(90, 130, (B, 8, 8, 3), generator=generator).byte() for _ in range(2)]
    for source, target in zip(sources, targets, strict=True):
        method._observe(source, target)
    both = torch.stack([torch.cat(sources), torch.cat(targets)]).double().reshape(2, -1, 3)
    mean, deviation = both.mean(1), both.std(1, correction=0)
    label = torch.zeros(B, 8, 8, dtype=torch.uint8)
    found = method._recoloured(TrainBatch(LabeledImages(sources[1], label), None, targets[1])).source
    assert found is not None and found.label is label
    expected = (sources[1].double() - mean[0]) / deviation[0] * deviation[1] + mean[1]
    assert float((found.image.double() - expected).abs().max()) <= 0.501  # rounding
    assert float((found.image.double() - sources[1]).abs().max()) > 20


def test_both_branches_see_the_recoloured_source() -> None:
    torch.manual_seed(0)
    plain = with_values(tiny_config("confeti"), {"augment": {"jitter_probability": 0.0, "blur_probability": 0.0}})
    method = Confeti(plain, tiny_network(K), NAMES)
    data = batch()._replace(target=None)
    assert data.source is not None and data.unlabeled is not None
    dark = data._replace(unlabeled=data.unlabeled // 4)
    assert dark.unlabeled is not None
    pseudo = PseudoLabel(torch.zeros(B, 8 * H, 8 * W, dtype=torch.uint8), torch.ones(B))
    mixes = method.mixes(dark, pseudo, torch.Generator().manual_seed(1))
    source, inter = method.branches(Scene(dark, pseudo, mixes, None, None, torch.Generator()))  # type: ignore[arg-type]
    given, target = normalized(data.source.image), normalized(dark.unlabeled)
    assert float(source.image.mean()) < float(given.mean()) - 1 and float(source.image.std()) < float(given.std()) / 2
    pasted, kept = ((inter.image - image).abs().amax(1) < 1e-4 for image in (source.image, target))
    assert bool((pasted | kept).all()) and bool((pasted & ~kept).any()) and bool((kept & ~pasted).any())


def mixed_branch(method: Confeti) -> tuple[Branch, torch.Tensor, torch.Tensor]:
    """A mix whose left half is pasted, the rest of quality 0.3; its labels and which cells are pasted."""
    cells = torch.randint(0, K, (B, H, W))
    cells[:, 1] = 255
    pasted = (torch.arange(W) < 3).expand(B, H, W)
    label = cells.repeat_interleave(8, 1).repeat_interleave(8, 2).byte()
    weight = torch.where(pasted, 1.0, 0.3).repeat_interleave(8, 1).repeat_interleave(8, 2)
    mixed = Mixed(torch.zeros(B, 3, 8 * H, 8 * W), label, weight)
    scene = Scene(TrainBatch(None, None, None), None, Mixes(mixed, ()), None, None, torch.Generator())  # type: ignore[arg-type]
    (branch,) = method.branches(scene)
    assert branch.objective is not None and branch.objective_weight == 0.5
    return branch, cells, pasted


@pytest.mark.parametrize("progress", [0.0, 0.5])
def test_prototypes_follow_the_mix_after_the_contrast_and_at_first_where_it_is_pasted(progress: float) -> None:
    method = method_of()
    before = F.normalize(torch.randn(K, 512), dim=1) * torch.rand(K, 1)
    method.prototypes.mean.copy_(before)
    method.prototypes.updates.copy_(torch.tensor([1.0, 1.0, 1.0, 0.0]))
    method.progress.fill_(progress)
    branch, cells, pasted = mixed_branch(method)
    features = torch.randn(B, CHANNELS, H, W, requires_grad=True)
    assert branch.objective is not None
    value = branch.objective(Output(torch.zeros(B, K, H, W), features))
    value.backward()
    projected = torch.einsum("oc,bchw->bohw", method.project.weight[:, :, 0, 0], features).detach()
    unit = projected / projected.norm(dim=1, keepdim=True)
    weight = torch.where(pasted, 1.0, 0.3)
    old = before / before.norm(dim=1, keepdim=True)
    assert float(value.detach()) == pytest.approx(contrast_by_loop(unit, cells, weight, old, [0, 1, 2]), rel=1e-4)
    for k in range(K):
        own = [c for c in CELLS if cells[c] == k and (progress > 0 or bool(pasted[c]))]
        mean = torch.stack([unit[b, :, y, x] for b, y, x in own]).mean(0)
        # A prototype remembers 1/80 of the 100 steps, 1.25 of them: an update weighs 1/1.25, the first one 1.
        step = 1.0 if k == 3 else 0.8
        torch.testing.assert_close(method.prototypes.mean[k], before[k] + step * (mean - before[k]))
    assert features.grad is not None and bool(features.grad.any())
    assert method.project.weight.grad is not None and bool(method.project.weight.grad.any())


def test_the_projection_learns_at_the_rate_of_the_head() -> None:
    method = method_of()
    (group,) = method.parameter_groups(method.config.optim)
    assert [p.shape for p in group["params"]] == [(512, CHANNELS, 1, 1)]
    assert group["lr"] == method.config.optim.lr * method.config.optim.head_lr_mult


def test_what_defines_it() -> None:
    config = tiny_config("confeti")
    loss = config.loss
    assert (loss.source_weight, loss.target_weight, loss.inter_weight, loss.intra_weight) == (1.0, 0.0, 1.0, 0.0)
    assert (loss.auxiliary_weight, config.teacher.ema_decay, config.mixing.pasted_weight) == (0.5, 0.999, "one")


def test_merged_branches_are_sequential_ones_early_and_late() -> None:
    assert_merged_is_sequential("confeti")


def test_it_trains_and_goes_on_from_its_state() -> None:
    assert_trains_and_resumes("confeti")
