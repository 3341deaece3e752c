"""DLDM: what is mixed with what, the distillation by hand, which loss moves which network, and the rounds."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from small_steps import B, H, K, W, batch, config_of, make_step, trained
from torch import Tensor, nn

from iidm.config import Config, Streams, streams_of
from iidm.engine.optim import build_optimizer
from iidm.method.base import Mixes, Scene
from iidm.method.losses import Branch, Output
from iidm.method.published.dldm import FIRST_ROUND, PSEUDO_SHARE, DualLevelMixing
from iidm.method.step import TrainStep
from iidm.models import optimizer_groups
from iidm.recipes import with_values
from iidm.types import MEAN_RGB, STD_RGB, Mixed, PseudoLabel, TrainBatch, UserError

LATE = 39_000
"""A step of a run of 40,000, after the first round."""


def given(branches: str = "auto") -> Config:
    return with_values(config_of("dldm", branches=branches), {"teacher": {"confidence_threshold": 0.3}})


def step_of(branches: str = "auto") -> TrainStep:
    return make_step(given(branches), "tiny")


def method_of(config: Config | None = None) -> DualLevelMixing:
    method = make_step(config or given(), "tiny").method
    assert isinstance(method, DualLevelMixing)
    return method


def said(data: TrainBatch) -> PseudoLabel:
    """Pseudo-labels of a value that no true label has, of which the left half counts."""
    label = torch.full((B, H, W), 4, dtype=torch.uint8)
    weight = torch.zeros(B, H, W)
    weight[:, :, : W // 2] = 1
    return PseudoLabel(label, torch.full((B,), 0.5), weight)


def plain(image: Tensor) -> Tensor:
    """uint8 [B,H,W,3] as the networks read it."""
    return ((image - torch.tensor(MEAN_RGB)) / torch.tensor(STD_RGB)).permute(0, 3, 1, 2)


def same(image: Tensor, read: Tensor) -> Tensor:
    """bool [B,H,W]: which pixels of a network's image are those of uint8 images."""
    return (image - plain(read)).abs().amax(1) < 1e-5


def test_each_pixel_of_the_region_mix_and_its_label_are_the_source_s_in_a_box_and_the_target_s_around_it() -> None:
    method, data = method_of(), batch()
    mixes = method.mixes(data, said(data), torch.Generator().manual_seed(3))
    assert mixes.inter is not None and not mixes.intra
    image, label, weight = mixes.inter
    assert torch.equal(weight, torch.ones(B, H, W))  # true labels on both sides
    assert data.source is not None and data.target is not None
    mixed, of_each = label.tolist(), {True: data.source.label.tolist(), False: data.target.label.tolist()}
    of_source, of_target = same(image, data.source.image).tolist(), same(image, data.target.image).tolist()
    for b in range(B):
        inside = []
        for y in range(H):
            for x in range(W):
                assert of_source[b][y][x] != of_target[b][y][x]
                assert mixed[b][y][x] == of_each[of_source[b][y][x]][b][y][x]
                if of_source[b][y][x]:
                    inside.append((y, x))
        rows, columns = [y for y, _ in inside], [x for _, x in inside]
        box = (max(rows) - min(rows) + 1) * (max(columns) - min(columns) + 1)
        assert len(inside) == box  # nothing but a box
        assert box == pytest.approx(H * W / 2, rel=0.05)


def test_the_first_round_has_true_labels_alone_and_the_next_ones_pseudo_labels_in_half_of_the_images() -> None:
    method, data = method_of(), batch()
    assert data.target is not None and data.unlabeled is not None
    pseudo, generator = said(data), torch.Generator().manual_seed(0)
    method.progress.fill_(FIRST_ROUND - 1e-3)
    for _ in range(20):
        target = method.target_images(data, pseudo, generator)
        assert torch.equal(target.image, data.target.image) and torch.equal(target.label, data.target.label)
    method.progress.fill_(FIRST_ROUND)
    count = 0
    for _ in range(200):
        target = method.target_images(data, pseudo, generator)
        for b in range(B):
            if torch.equal(target.image[b], data.unlabeled[b]):
                assert bool((target.label[b, :, : W // 2] == 4).all())
                assert bool((target.label[b, :, W // 2 :] == 255).all())  # not sure enough
                count += 1
            else:
                assert torch.equal(target.image[b], data.target.image[b])
                assert torch.equal(target.label[b], data.target.label[b])
    assert count / (200 * B) == pytest.approx(PSEUDO_SHARE, abs=0.08)
    assert target.label.dtype == torch.uint8


@pytest.mark.parametrize("progress", [0.0, 0.1, 0.25, 0.9])
def test_the_distillation_is_the_divergence_from_the_mean_of_both_teachers_by_hand(progress: float) -> None:
    method, image = method_of(), torch.randn(B, 3, H, W)
    with torch.no_grad():
        for teacher in (method.region, method.sample):
            for norm in (m for m in teacher.modules() if isinstance(m, nn.BatchNorm2d)):
                norm.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            teacher.head.convs[0].bias.normal_(0, 1)  # type: ignore[union-attr,index]
    method.progress.fill_(progress)
    logits = torch.randn(B, K, 4, 6, requires_grad=True)
    value = method.distillation(image)(Output(logits, None))
    value.backward()
    with torch.no_grad():
        taught = [copy.deepcopy(t).double().eval()(image.double()) for t in (method.region, method.sample)]
    expected, gradient = 0.0, torch.zeros_like(logits, dtype=torch.float64)
    for b in range(B):
        for y in range(4):
            for x in range(6):
                p = sum(t[b, :, y, x].exp() / t[b, :, y, x].exp().sum() for t in taught) / 2
                q = logits[b, :, y, x].detach().double().exp()
                q /= q.sum()
                expected += float((p * (p / q).log()).sum())
                gradient[b, :, y, x] = q - p
    factor = min(progress / 0.25, 1.0) / (B * 4 * 6)
    assert float(value.detach()) == pytest.approx(expected * factor, rel=1e-4, abs=1e-12)
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad.double(), gradient * factor, rtol=1e-3, atol=1e-7)
    assert all(p.grad is None for p in method.parameters())
    assert method.region.training and method.sample.training


def scene_of(step: TrainStep, data: TrainBatch) -> Scene:
    assert data.unlabeled is not None
    pseudo = step.method.pseudo_label(step.teacher, data.unlabeled)
    step.student.train()
    mixes = step.method.mixes(data, pseudo, step.generator)
    return Scene(data, pseudo, mixes, step.student, step.teacher, step.generator)


@pytest.mark.parametrize("branches", ["merged", "sequential"])
def test_each_branch_moves_its_own_network_and_no_other(branches: str) -> None:
    step = step_of(branches)
    method = step.method
    assert isinstance(method, DualLevelMixing)
    method.progress.fill_(0.5)
    scene = scene_of(step, batch())
    networks = {"student": step.student, "region": method.region, "sample": method.sample}
    owners = {"source": "sample", "inter": "region", "target": "student", "auxiliary": "student"}
    found = method.branches(scene)
    assert [b.name for b in found] == list(owners)
    for branch in found:
        step.forward_backward([branch])
        for name, network in networks.items():
            moved = [p.grad is not None and bool(p.grad.any()) for p in network.parameters()]
            assert all(moved) if name == owners[branch.name] else not any(moved), (branch.name, name)
            network.zero_grad(set_to_none=True)
    assert all(p.grad is None for p in step.teacher.network.parameters())


def test_the_sample_level_teacher_sees_both_domains_as_they_are_and_the_student_no_source() -> None:
    step, data = step_of(), batch()
    by_name = {b.name: b for b in step.method.branches(scene_of(step, data))}
    assert data.source is not None and data.target is not None and data.unlabeled is not None
    image, label = by_name["source"].image, by_name["source"].label
    assert bool(same(image, torch.cat([data.source.image, data.target.image])).all()) and label is not None
    assert torch.equal(label, torch.cat([data.source.label, data.target.label]))
    own = [b.image for b in by_name.values() if b.network is None]
    for image, read in zip(own, (data.target.image, data.unlabeled), strict=True):
        assert bool(same(image, read).all())
    assert (by_name["auxiliary"].objective_weight, by_name["target"].loss_weight) == (0.5, 1.0)  # eq. 4


def networks_after(step: TrainStep, numbers: tuple[int, ...]) -> dict[str, Tensor]:
    for number in numbers:
        step([batch(number)], number)
    both = {**dict(step.student.named_parameters()), **dict(step.method.named_parameters())}
    return {name: value.detach().clone() for name, value in both.items()}


def test_merged_branches_give_all_three_networks_the_gradients_of_sequential_ones() -> None:
    merged, sequential = (trained(step_of(b), [batch()], LATE)[0] for b in ("merged", "sequential"))
    assert merged.keys() == sequential.keys() and len(merged) == 3 * 10
    for name, value in merged.items():
        scale = 1e-3 + float(value.abs().max())
        torch.testing.assert_close(value, sequential[name], rtol=0, atol=2e-3 * scale, msg=name)


def test_weights_that_autocast_casts_without_gradient_stay_in_no_cache() -> None:
    """Or the teachers' own branches would get them (PyTorch 2.9)."""
    method, cached = method_of(), []
    method.sample.register_forward_hook(lambda *_: cached.append(torch.is_autocast_cache_enabled()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        taught = method.ensemble(torch.randn(B, 3, H, W))
        assert torch.is_autocast_cache_enabled()
        loss = method.sample(torch.randn(B, 3, H, W)).sum()
    loss.backward()
    assert cached == [False, True] and taught.dtype == torch.float32
    assert all(p.grad is not None for p in method.sample.parameters())


def test_two_steps_train_every_parameter_of_the_three_networks() -> None:
    step = step_of()
    before = networks_after(step, ())
    after = networks_after(step, (0, LATE))
    assert all(not torch.equal(before[name], after[name]) for name in before)
    region, sample = (dict(getattr(step.method, who).named_parameters()) for who in ("region", "sample"))
    assert all(not torch.equal(region[n], sample[n]) for n in region)  # each is taught in its own way


def test_every_parameter_is_in_the_optimiser_once_at_the_rate_of_its_part() -> None:
    step = step_of()
    student, method, optim = step.student, step.method, step.config.optim
    assert isinstance(method, DualLevelMixing)
    groups = optimizer_groups({"": student, **method.networks}, optim)
    assert [group["name"] for group in groups][-2:] == ["sample-level backbone", "sample-level head"]
    optimizer = build_optimizer(groups, optim, torch.device("cpu"))
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(rates)
    for network in (student, method.region, method.sample):
        for part, lr in ((network.backbone, optim.lr), (network.head, optim.lr * 10)):
            assert {rates.pop(id(p)) for p in part.parameters()} == {lr}  # type: ignore[union-attr]
    assert not rates
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.01}


def test_both_teachers_are_in_the_checkpoint() -> None:
    first, second = step_of(), step_of()
    networks_after(first, (0,))
    second.modules["method"].load_state_dict(first.modules["method"].state_dict())
    image = torch.randn(B, 3, H, W)
    for who in ("region", "sample"):
        assert torch.equal(getattr(first.method, who).eval()(image), getattr(second.method, who).eval()(image))


def test_what_it_reads_and_refuses() -> None:
    config = given()
    assert streams_of(config) == Streams(source=True, labeled=True, unlabeled=True)
    with pytest.raises(UserError, match=r"--loss.\{source,target,inter\}-weight: none may be 0"):
        method_of(with_values(config, {"loss": {"source_weight": 0.0}}))
    with pytest.raises(UserError, match=r"one number, not \(2, 3, 2\)"):
        method_of(with_values(config, {"data": {"target_batch": 3}}))
    without = method_of(with_values(config, {"loss": {"auxiliary_weight": 0.0}}))
    mixed = Mixed(torch.zeros(B, 3, H, W), torch.zeros(B, H, W, dtype=torch.uint8), torch.ones(B, H, W))
    nothing: Any = None
    scene = Scene(batch(), said(batch()), Mixes(mixed, ()), nothing, nothing, torch.Generator())
    found: list[Branch] = without.branches(scene)
    assert [b.name for b in found] == ["source", "inter", "target"]
