"""Denoised pseudo-labels and ProDA's terms, cell by cell and class by class."""

import math

import pytest
import torch
from tiny_steps import (
    CHANNELS,
    assert_merged_is_sequential,
    assert_trains_and_resumes,
    teacher_that_says,
    tiny_config,
    tiny_network,
)

from iidm.method.losses import Branch, Output
from iidm.method.published.proda import WARM_UP, Plain, ProDA
from iidm.recipes import with_values
from iidm.types import UserError

B, K, H, W = 2, 4, 3, 5
NAMES = tuple("abcd")
CELLS = [(b, y, x) for b in range(B) for y in range(H) for x in range(W)]


def method_of(**mixing: object) -> ProDA:
    torch.manual_seed(0)
    config = with_values(tiny_config("proda"), {"mixing": mixing, "teacher": {"confidence_threshold": 0.5}})
    method = ProDA(config, tiny_network(K), NAMES)
    method.progress.fill_(WARM_UP)
    return method


def seen() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and features that know little of each other; class 3 is never the likeliest."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(B, K, H, W, generator=generator)
    logits[:, 3] -= 9.0
    return logits, 5.0 * torch.randn(B, CHANNELS, H, W, generator=generator)


def omega_of(features: torch.Tensor, prototypes: torch.Tensor, known: list[int]) -> torch.Tensor:
    """softmax(-distance / mean distance to the nearest), float64 [B,K,H,W]; an unknown class is the farthest."""
    distance = torch.zeros(B, K, H, W, dtype=torch.float64)
    for b, y, x in CELLS:
        for k in known:
            distance[b, k, y, x] = (features[b, :, y, x].double() - prototypes[k].double()).norm()
        for k in set(range(K)) - set(known):
            distance[b, k, y, x] = max(distance[b, j, y, x] for j in known)
    unit = sum(min(distance[b, k, y, x] for k in known) for b, y, x in CELLS) / len(CELLS)
    return torch.softmax(-distance / unit, 1)


def test_prototypes_turn_the_labels_that_a_calculation_by_hand_turns() -> None:
    method = method_of()
    logits, features = seen()
    method.prototypes.mean.copy_(5.0 * torch.randn(K, CHANNELS))
    method.prototypes.updates.copy_(torch.tensor([1000.0, 1.0, 0.0, 0.0]))
    before, raw = method.prototypes.mean.clone(), logits.argmax(1)
    found = method.pseudo_label(teacher_that_says(method.config, logits, features), torch.zeros(B, H, W, 3).byte())
    # A prototype remembers 4 of the 100 steps: its update weighs 1/4, or 1/n while n is less.
    prototypes = before.clone()
    for k, step in ((0, 1 / 4), (1, 1 / 2), (2, 1.0)):
        own = torch.stack([features[b, :, y, x] for b, y, x in CELLS if raw[b, y, x] == k])
        prototypes[k] = before[k] + step * (own.mean(0) - before[k])
    torch.testing.assert_close(method.prototypes.mean, prototypes)
    weighed = omega_of(features, prototypes, [0, 1, 2]) * torch.softmax(logits.double(), 1)
    label = weighed.argmax(1)
    assert 0 < int((label != raw).sum()) < len(CELLS) / 2, "some are turned"
    assert torch.equal(found.label.long(), label)
    confidence = (weighed / weighed.sum(1, keepdim=True)).amax(1)
    torch.testing.assert_close(found.quality, (confidence > 0.5).float().mean((1, 2)))
    assert found.weight is None


def test_the_width_and_scale_of_features_change_no_label() -> None:
    labels = []
    for scale, copies in ((1.0, 1), (100.0, 1), (1.0, 8)):
        method = method_of()
        logits, features = seen()
        wide = scale * features.repeat(1, copies, 1, 1)
        method.prototypes.mean = torch.zeros(K, wide.shape[1])
        found = method.pseudo_label(teacher_that_says(method.config, logits, wide), torch.zeros(B, H, W, 3).byte())
        labels.append((found.label, found.quality))
    for label, quality in labels[1:]:
        assert torch.equal(label, labels[0][0]) and torch.equal(quality, labels[0][1])


def test_the_further_terms_are_those_of_a_loop() -> None:
    method = method_of()
    logits, features = seen()
    method.prototypes.mean.copy_(5.0 * torch.randn(K, CHANNELS))
    method.prototypes.updates.fill_(9.0)
    taught = torch.log_softmax(torch.randn(B, K, H, W), 1)
    label, unit = torch.randint(0, K, (B, H, W)), torch.tensor(7.0)
    method._plain = Plain(label, taught, unit)
    weight = torch.rand(B, 1, 1).expand(B, 8 * H, 8 * W).clone()
    weight[:, :8] = 0.0  # a margin of one row of cells
    image, full = torch.zeros(B, 3, 8 * H, 8 * W), label.repeat_interleave(8, 1).repeat_interleave(8, 2).byte()
    terms = method._terms(Branch("intra", image, full, weight, 0.1, "pixels"))
    features.requires_grad_(), logits.requires_grad_()
    value = terms(Output(logits, features))
    value.backward()
    structure = reverse = regularizer = 0.0
    p, target = torch.softmax(logits.detach().double(), 1), taught.double().exp()
    for b, y, x in CELLS:
        distance = [(features.detach()[b, :, y, x] - method.prototypes.mean[k]).double().norm() / 7 for k in range(K)]
        own = torch.softmax(-torch.stack(distance), 0)
        for k in range(K):
            share = float(target[b, k, y, x])
            structure += share * math.log(share / float(own[k])) / (len(CELLS) * K)
            given = 1.0 if k == label[b, y, x] else 1e-4
            reverse -= float(weight[b, 8 * y, 8 * x] * p[b, k, y, x]) * math.log(given) / len(CELLS)
            regularizer -= float(weight[b, 8 * y, 8 * x]) * math.log(float(p[b, k, y, x])) / (len(CELLS) * K)
    assert min(structure, reverse, regularizer) > 0.01
    assert float(value.detach()) == pytest.approx(10 * structure + reverse + 0.1 * regularizer, rel=1e-4)
    assert features.grad is not None and bool(features.grad.abs().sum() > 0)
    assert logits.grad is not None and bool(logits.grad.abs().sum() > 0)
    assert method.prototypes.mean.grad is None


def test_equal_views_have_no_structure_to_learn_and_without_confidence_nothing_else_counts() -> None:
    method = method_of()
    logits, features = seen()
    method.pseudo_label(teacher_that_says(method.config, logits, features), torch.zeros(B, H, W, 3).byte())
    nothing, image = torch.zeros(B, 8 * H, 8 * W), torch.zeros(B, 3, 8 * H, 8 * W)
    terms = method._terms(Branch("intra", image, nothing.byte(), nothing, 0.1, "pixels"))
    assert float(terms(Output(logits, features))) == pytest.approx(0.0, abs=1e-6)
    assert float(terms(Output(logits, features.flip(0)))) > 0.01


def test_the_warm_up_teaches_the_source_alone_and_prototypes_begin() -> None:
    method = method_of()
    method.progress.fill_(WARM_UP - 0.01)
    logits, features = seen()
    found = method.pseudo_label(teacher_that_says(method.config, logits, features), torch.zeros(B, H, W, 3).byte())
    assert float(found.quality.max()) == 0 and float(method.prototypes.updates.max()) == 1
    weight, image = found.quality[:, None, None].expand(B, 8 * H, 8 * W), torch.zeros(B, 3, 8 * H, 8 * W)
    terms = method._terms(Branch("intra", image, found.label, weight, 0.1, "pixels"))
    assert float(terms(Output(logits, features.flip(0)))) == 0.0


def test_what_defines_it() -> None:
    config = tiny_config("proda")
    loss = config.loss
    assert (loss.source_weight, loss.target_weight, loss.inter_weight, loss.intra_weight) == (1.0, 0.0, 0.0, 0.1)
    assert (config.teacher.ema_decay, config.mixing.mask, config.mixing.intra_from) == (0.999, "none", "unlabeled")


def test_nothing_may_be_pasted_between_two_views() -> None:
    with pytest.raises(UserError, match="--mixing.mask must be none, not cutmix"):
        method_of(mask="cutmix")


def test_merged_branches_are_sequential_ones_early_and_late() -> None:
    assert_merged_is_sequential("proda")


def test_it_trains_and_goes_on_from_its_state() -> None:
    assert_trains_and_resumes("proda")
