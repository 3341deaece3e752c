"""Logit adjustment: shares of the classes by branch, and what a network learns under them."""

from __future__ import annotations

import math

import pytest
import torch
from small_steps import batch, config_of, gradients, make_step
from torch import Tensor

from iidm.config import LossConfig
from iidm.method.balance import BRANCHES, DECAY, LEAST_SHARE, STRIDE, ClassBalance
from iidm.method.losses import Branch, Output, branch_terms
from iidm.recipes import with_values
from iidm.types import IGNORE_INDEX, UserError

CPU = torch.device("cpu")


def branch(name: str, label: Tensor, weight: Tensor | None = None) -> Branch:
    return Branch(name, torch.zeros(len(label), 3, 1, 1), label, weight, 1.0, "pixels")


def columns(*classes: int) -> Tensor:
    """uint8 [1,8,4n]: a column of pixels that are counted for each class."""
    label = torch.tensor(classes, dtype=torch.uint8).repeat_interleave(STRIDE)
    return label.expand(1, 2 * STRIDE, -1).contiguous()


def test_the_bias_is_the_logarithm_of_the_share_of_each_branch_times_the_strength() -> None:
    balance = ClassBalance(0.5, CPU)
    source, target = balance([branch("source", columns(0, 0, 0, 1)), branch("target", columns(1, 2))])
    assert source.logit_bias is not None and target.logit_bias is not None
    shares = [0.75, 0.25, LEAST_SHARE]
    assert source.logit_bias[:3].tolist() == pytest.approx([0.5 * math.log(s) for s in shares])
    assert target.logit_bias[:3].tolist() == pytest.approx([0.5 * math.log(s) for s in (LEAST_SHARE, 0.5, 0.5)])


def test_shares_follow_the_labels_over_many_steps() -> None:
    balance = ClassBalance(1.0, CPU)
    for label in (columns(0), columns(1), columns(1)):
        (found,) = balance([branch("target", label)])
    assert found.logit_bias is not None
    first, others = DECAY**2, DECAY + 1
    assert found.logit_bias[:2].exp().tolist() == pytest.approx([first / (first + others), others / (first + others)])


def bias_of(balance: ClassBalance, *branches: Branch) -> list[list[float]]:
    """Of two classes, of each branch."""
    found = balance(list(branches))
    return [one.logit_bias[:2].tolist() for one in found if one.logit_bias is not None]


def test_a_mix_has_the_mean_of_the_bias_of_its_true_and_of_its_pseudo_labels() -> None:
    """The labels of three quarters and one quarter: two pixels are of one class with 0.75**2 + 0.25**2."""
    label, balance = columns(0, 0, 0, 1), ClassBalance(0.8, CPU)
    logs = [0.8 * math.log(0.75), 0.8 * math.log(0.25)]
    branches = [branch(name, label) for name in (*BRANCHES, "mask")]
    for part in (0.0, 0.625):  # nothing is known of the labels before the first step
        expected = [[factor * log for log in logs] for factor in (1.0, 1.0, (1 + part) / 2, (1 + part) / 2, part)]
        for found, one in zip(bias_of(balance, *branches), expected, strict=True):
            assert found == pytest.approx(one)
    assert BRANCHES == ("source", "target", "inter", "intra")


@pytest.mark.parametrize(("inter", "intra"), [(0.5, 0.0), (0.75, 0.5), (0.0, 0.0), (1.0, 0.5)])
def test_how_much_of_a_mix_has_true_labels_is_said(inter: float, intra: float) -> None:
    label, balance = columns(0, 0, 0, 1), ClassBalance(1.0, CPU, (inter, intra))
    for part in (0.0, 0.625):
        found = bias_of(balance, branch("source", label), branch("inter", label), branch("intra", label))
        for bias, share in zip(found[1:], (inter, intra), strict=True):
            assert bias == pytest.approx([(share + (1 - share) * part) * math.log(s) for s in (0.75, 0.25)])


def put_back(strength: float, *branches: Branch) -> list[float]:
    """What the prior adds to the logits of three classes after a step with these branches; the largest is 0."""
    balance = ClassBalance(strength, CPU)
    balance(list(branches))
    added = balance.prior(torch.zeros(1, 3, 2, 2))
    assert bool((added == added[:, :, :1, :1]).all())
    return (added[0, :, 0, 0] - added.max()).tolist()


def test_the_prior_is_the_part_of_the_rarity_that_pseudo_labels_have() -> None:
    source, target = branch("source", columns(0, 1, 2, 2)), branch("target", columns(0, 0, 0, 1))
    mixed = branch("inter", columns(1, 1, 1, 1))
    half = 0.5**2 + 0.25**2 + 0.25**2  # source and target together
    assert put_back(1.0, source, target, mixed) == pytest.approx([0.0, half * math.log(0.5), half * math.log(0.5)])
    assert put_back(0.5, source, target)[1] == pytest.approx(0.5 * half * math.log(0.5))
    assert put_back(1.0, target)[1] == pytest.approx(0.625 * math.log(1 / 3))
    assert put_back(1.0, source)[0] == pytest.approx(0.375 * math.log(0.5))
    assert put_back(1.0, mixed) == [0.0, 0.0, 0.0], "nothing is known yet"


def test_where_nearly_all_pixels_are_of_one_class_labels_have_nearly_its_odds() -> None:
    label = columns(*[0] * 99, 1)
    assert put_back(1.0, branch("target", label))[1] == pytest.approx(0.98 * math.log(1 / 99), rel=1e-3)


def test_ignored_pixels_count_for_nothing_and_weights_count() -> None:
    label = columns(0, 1, 1, IGNORE_INDEX)
    weight = torch.ones(label.shape)
    weight[..., STRIDE : 2 * STRIDE] = 0.5
    weight[..., 2 * STRIDE : 3 * STRIDE] = 0.0
    (found,) = ClassBalance(1.0, CPU)([branch("source", label, weight)])
    assert found.logit_bias is not None
    assert found.logit_bias[:2].exp().tolist() == pytest.approx([2 / 3, 1 / 3])
    nothing = torch.full((1, 8, 8), IGNORE_INDEX, dtype=torch.uint8)
    (found,) = ClassBalance(1.0, CPU)([branch("target", nothing)])
    assert found.logit_bias is not None and bool(torch.isfinite(found.logit_bias).all())


def test_branches_without_a_label_and_of_other_networks_stay_as_they_are() -> None:
    unlabeled = Branch("auxiliary", torch.zeros(1, 3, 1, 1), None, None, 0.0, "pixels")
    foreign = branch("source", columns(0))._replace(network=torch.nn.Identity())
    assert [b.logit_bias for b in ClassBalance(1.0, CPU)([unlabeled, foreign])] == [None, None]


def test_the_loss_is_that_of_the_logits_with_the_bias() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 3, 2, 4, generator=generator)
    label = columns(0, 1, 2, 2)
    (found,) = ClassBalance(0.7, CPU)([branch("target", label)])
    terms = branch_terms(Output(logits, None), found)
    assert found.logit_bias is not None and terms.cross_entropy is not None
    fine = torch.nn.functional.interpolate(logits.double(), size=label.shape[1:], mode="bilinear")
    log_p = (fine + found.logit_bias[:3, None, None].double()).log_softmax(1)
    expected = -log_p.gather(1, label.long()[:, None]).mean()
    assert float(terms.cross_entropy) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(("strength", "odds"), [(0.0, math.log(15)), (0.5, 0.5 * math.log(15)), (1.0, 0.0)])
def test_what_a_network_learns_of_an_image_that_shows_nothing(strength: float, odds: float) -> None:
    """One pixel of class 1 to fifteen of class 0, the same input for all: with strength 1 it cannot tell them apart."""
    label = columns(*[0] * 15, 1)
    balance = ClassBalance(strength, CPU)
    logits = torch.zeros(1, 2, 1, 1, requires_grad=True)
    optimizer = torch.optim.SGD([logits], lr=4.0)
    for _ in range(300):
        (found,) = balance([branch("target", label)])
        terms = branch_terms(Output(logits, None), found)
        assert terms.cross_entropy is not None
        optimizer.zero_grad()
        terms.cross_entropy.backward()
        optimizer.step()
    difference = float(logits.detach()[0, :, 0, 0].diff().neg())
    assert difference == pytest.approx(odds, abs=1e-2)


def test_merged_branches_are_sequential_ones_and_a_strength_of_zero_is_none() -> None:
    results = {}
    for strength in (0.0, 0.5):
        for branches in ("merged", "sequential"):
            config = with_values(config_of(branches=branches), {"loss": {"class_balance": strength}})
            step = make_step(with_values(config, {"model": {"weights": "given"}}), "tiny")
            assert ("method" in step.modules) == (strength > 0), "its counts are in the checkpoint"
            results[strength, branches] = gradients(step, [batch()])[2]
    assert results[0.5, "merged"] == pytest.approx(results[0.5, "sequential"], rel=2e-3)
    assert results[0.5, "merged"] != pytest.approx(results[0.0, "merged"], rel=1e-2)


def test_a_negative_strength_is_refused() -> None:
    with pytest.raises(UserError, match="class-balance must be >= 0"):
        LossConfig(class_balance=-0.1)
