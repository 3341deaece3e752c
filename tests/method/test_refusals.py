"""Combinations of options that a method computes, or refuses in words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_steps import batch, config_of, make_step

from iidm.method import TrainStep
from iidm.method.mixing import mix_unlabeled
from iidm.recipes import with_values
from iidm.types import LabeledImages, UserError


def step_of(method: str, recipe: str = "paper", **values: dict[str, Any]) -> TrainStep:
    return make_step(with_values(config_of(method, recipe), values), "tiny")


def test_where_nothing_is_pasted_labeled_batches_may_have_another_size() -> None:
    step = step_of("iidm", mixing={"mask": "none"}, teacher={"confidence_threshold": 0.0})
    given = batch()
    image, label = torch.cat([given.source.image] * 2), torch.cat([given.source.label] * 2)  # type: ignore[union-attr]
    losses = step([given._replace(source=LabeledImages(image, label))], 0).losses
    assert torch.isfinite(losses.total) and losses.inter > 0


def test_ass_trains_with_mixes_too() -> None:
    values = {"loss": {"inter_weight": 1.0, "intra_weight": 1.0}, "teacher": {"confidence_threshold": 0.0}}
    losses = step_of("ass", **values)([batch()], 0).losses
    assert losses.inter > 0 and losses.intra > 0 and losses.auxiliary > 0


def test_mme_trains_without_its_entropy() -> None:
    losses = step_of("mme", loss={"auxiliary_weight": 0.0})([batch()._replace(unlabeled=None)], 0).losses
    assert losses.auxiliary == 0 and losses.total > 0


@pytest.mark.parametrize(
    ("method", "values", "message"),
    [
        ("proda", {"mixing": {"strategy": "two-xu-two-streams"}}, "leave --mixing.strategy at one-xu-two-streams"),
        ("dldm", {"loss": {"intra_weight": 1.0}}, "no intra-domain mix"),
        ("iidm", {"loss": {"auxiliary_weight": 1.0}}, "iidm has no further term: .* daformer, proda"),
        ("proda", {"loss": {"class_balance": 0.5}}, "proda compares probabilities .* give --loss.class-balance 0"),
        ("dldm", {"loss": {"class_balance": 0.5}}, "give --loss.class-balance 0"),
        ("dst_cbc", {"loss": {"class_balance": 0.5}}, "give --loss.class-balance 0"),
    ],
)
def test_what_a_method_does_not_compute_is_refused(method: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        step_of(method, "adapt", **values)


@pytest.mark.parametrize(
    ("method", "values", "shares"),
    [
        ("iidm", {}, (0.5, 0.5)),
        ("iidm", {"mixing": {"intra_from": "unlabeled"}}, (0.5, 0.0)),
        ("iidm", {"mixing": {"mask": "none"}}, (0.0, 0.0)),
        ("iidm", {"mixing": {"mask": "cutmix", "cut_area": (0.1, 0.3), "mask_probability": 0.5}}, (0.1, 0.1)),
        # The source over the unlabeled image, then the labeled target over both; one of them alone is pasted as ever.
        ("iidm", {"mixing": {"strategy": "one-xu-one-stream"}}, (0.75, 0.5)),
        ("iidm", {"mixing": {"strategy": "one-xu-one-stream"}, "loss": {"intra_weight": 0.0}}, (0.5, 0.5)),
        ("complexmix", {}, (1.0, 0.0)),
    ],
)
def test_how_much_of_each_mix_has_true_labels(method: str, values: dict[str, Any], shares: tuple[float, float]) -> None:
    step = step_of(method, "adapt", **values)
    assert step.method.true_in_mixes() == pytest.approx(shares)
    assert step.method.balance is not None
    assert step.method.balance.true_labels[2:, 0].tolist() == pytest.approx(shares)


def test_unlabeled_images_are_pasted_with_margins_of_their_own() -> None:
    step, given = step_of("iidm", mixing={"intra_from": "unlabeled"}, teacher={"ignore_top_px": 4}), batch()
    assert given.unlabeled is not None
    pseudo = step.method.pseudo_label(step.teacher, given.unlabeled)._replace(quality=torch.tensor([0.25, 0.5]))
    weight = mix_unlabeled(given.unlabeled, pseudo, step.config, torch.Generator().manual_seed(0)).weight
    assert not weight[:, :4].any() and set(weight[:, 4:].unique().tolist()) <= {0.25, 0.5}
