"""MIC and HRDA in a training step: hidden blocks, the detail's share of a loss, the feature distance of the context."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_steps import CLASSES, H, W, batch, config_of, make_step
from torch import Tensor
from torch.nn import functional as F

from iidm.catalog import METHODS, with_method
from iidm.catalog.hrda import DISTANCE_WEIGHT
from iidm.config import Config
from iidm.method import TrainStep
from iidm.method.base import Scene
from iidm.method.losses import Branch, Output, branch_terms
from iidm.method.published.daformer import FeatureDistance
from iidm.method.published.mic import MIC, hide_blocks
from iidm.models.hrda import HRDANetwork, window
from iidm.presets import preset_config
from iidm.recipes import with_values
from iidm.types import PseudoLabel, UserError

HRDA = [name for name in METHODS if name.endswith("hrda")]


def step_of(method: str, **values: Any) -> TrainStep:
    config = with_values(config_of(method), {"model": {"weights": "given"}})
    return make_step(with_values(config, values), "tiny")


def test_blocks_are_hidden_whole_and_seven_in_ten() -> None:
    image = torch.rand(64, 3, 64, 96) + 1
    hidden = hide_blocks(image, 16, 0.7, torch.Generator().manual_seed(0))
    blocks = hidden.unfold(2, 16, 16).unfold(3, 16, 16).flatten(4)  # [B,3,4,6,256]
    whole = (blocks == 0).all(-1)
    assert torch.equal(whole, (blocks == 0).any(-1))
    assert torch.equal(whole[:, 0], whole[:, 1]) and torch.equal(whole[:, 0], whole[:, 2])
    assert whole[:, 0].float().mean().item() == pytest.approx(0.7, abs=0.04)
    assert not torch.equal(whole[0], whole[1]), "each image has its own"
    assert torch.equal(hidden[~whole.repeat_interleave(16, 2).repeat_interleave(16, 3)], image[hidden != 0])


def test_an_image_that_is_no_multiple_of_the_blocks_has_as_many_as_fit_best() -> None:
    hidden = hide_blocks(torch.ones(1, 3, 40, 60), 16, 0.5, torch.Generator().manual_seed(1))
    draws = torch.rand(1, 1, 2, 4, generator=torch.Generator().manual_seed(1)) > 0.5
    expected = F.interpolate(draws.float(), size=(40, 60), mode="nearest").expand_as(hidden)
    assert torch.equal(hidden, expected)


def test_masked_images_have_the_label_and_the_weight_of_the_mixes_and_augmentation_of_their_own() -> None:
    step = step_of("iidm_mic", teacher={"ignore_top_px": 4, "ignore_bottom_px": 0})
    assert isinstance(step.method, MIC)
    images, label = batch(), torch.randint(0, 5, (2, H, W), dtype=torch.uint8)
    pseudo = PseudoLabel(label, torch.tensor([0.25, 0.5]), None)
    mixes = step.method.mixes(images, pseudo, step.generator)
    scene = Scene(images, pseudo, mixes, step.student, step.teacher, step.generator)
    branches = {branch.name: branch for branch in step.method.branches(scene)}
    assert list(branches) == ["source", "target", "inter", "intra", "mask"]
    mask = branches["mask"]
    assert mask.loss_weight == 1.0 and mask.label is not None and mask.weight is not None
    assert torch.equal(mask.label, label)
    expected = torch.tensor([0.25, 0.5])[:, None, None].expand(2, H, W).clone()
    expected[:, :4] = 0
    assert torch.equal(mask.weight, expected)
    shown = mask.image != 0
    share = shown.float().mean().item()
    assert 0.1 < share < 0.6, "about 30 % is shown"


def test_a_method_that_hides_nothing_refuses_a_weight_for_it() -> None:
    with pytest.raises(UserError, match="iidm hides nothing: --loss.mask-weight is for the methods mic, mic_hrda"):
        step_of("iidm", loss={"mask_weight": 1.0})


def test_what_a_masked_image_teaches_is_logged() -> None:
    losses = step_of("iidm_mic", teacher={"confidence_threshold": 0.0})([batch()], 0).losses
    assert float(losses.mask) > 0
    assert float(step_of("iidm")([batch()], 0).losses.mask) == 0


@pytest.mark.parametrize("normalizer", ["pixels", "sum"])
def test_the_detail_has_a_tenth_of_the_loss(normalizer: str) -> None:
    """A sum over the window's pixels counts as much as one over all of them would."""
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 5, (2, H, W), generator=generator, dtype=torch.uint8)
    weight, box = torch.rand(2, H, W, generator=generator), torch.tensor([8, 16])
    out = Output(torch.randn(2, 5, 8, 12, generator=generator), detail=torch.randn(2, 5, 4, 6, generator=generator))
    branch = Branch("intra", torch.zeros(2, 3, 1, 1), label, weight, 1.0, normalizer, box=box)  # type: ignore[arg-type]
    part = branch._replace(label=window(label, box, (16, 24)), weight=window(weight, box, (16, 24)))
    found = branch_terms(out, branch, detail=part, detail_weight=0.1).cross_entropy

    def plain(logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
        fine = F.interpolate(logits, size=label.shape[1:], mode="bilinear", align_corners=False)
        return (F.cross_entropy(fine, label.long(), reduction="none") * weight).mean()

    assert part.label is not None and part.weight is not None and out.detail is not None
    expected = 0.9 * plain(out.logits, label, weight) + 0.1 * plain(out.detail, part.label, part.weight)
    pixels = 1 if normalizer == "pixels" else label.numel()
    assert found is not None and float(found) == pytest.approx(float(expected) * pixels, rel=1e-5)


def test_a_step_trains_on_the_labels_within_each_branchs_box(monkeypatch: pytest.MonkeyPatch) -> None:
    """Branch by branch, the loss of the window is that of the labels that lie there."""
    step = step_of("iidm_hrda", step={"branches": "merged"})
    seen: list[tuple[Branch, Branch]] = []

    def watched(out: Output, branch: Branch, **options: Any) -> Any:
        seen.append((branch, options["detail"]))
        assert options["detail_weight"] == 0.1
        return branch_terms(out, branch, **options)

    monkeypatch.setattr("iidm.method.step.branch_terms", watched)
    step([batch()], 0)
    assert [branch.name for branch, _ in seen] == ["source", "target", "inter", "intra"]
    boxes = {tuple(branch.box.tolist()) for branch, _ in seen if branch.box is not None}
    assert len(boxes) > 1, "each branch has a box of its own"
    for branch, detail in seen:
        assert branch.box is not None and branch.label is not None and detail.label is not None
        top, left = branch.box.tolist()
        assert torch.equal(detail.label, branch.label[:, top : top + H // 2, left : left + W // 2])


def test_the_feature_distance_is_that_of_the_context() -> None:
    step = step_of("hrda")
    student = step.student
    assert isinstance(student, HRDANetwork)
    config = with_values(config_of("hrda"), {"model": {"weights": "given"}})
    distance = FeatureDistance(config, student, CLASSES)
    labeled = batch().source
    assert labeled is not None
    image = torch.randn(2, 3, H, W)
    look = student.look(image, [torch.tensor([0, 0])])
    with torch.no_grad():
        kept = distance.imagenet(F.interpolate(image, scale_factor=0.5, mode="bilinear"))[-1]
    same = distance.to(labeled, image, student)(Output(look.logits, look.features, kept))
    moved = distance.to(labeled, image, student)(Output(look.logits, look.features, kept + 2.0))
    assert float(same) == pytest.approx(0.0, abs=1e-5)
    assert float(moved.detach()) == pytest.approx(2.0 * kept.shape[1] ** 0.5, rel=1e-4)


@pytest.mark.parametrize("name", HRDA)
def test_hrda_changes_the_network_and_leaves_the_losses(name: str) -> None:
    config = with_method(preset_config("gta5-cityscapes-100"), name)
    assert config.model.hrda and config.loss.detail_weight == 0.1
    assert config.loss.mask_weight == ("mic" in name)
    assert (config.loss.target_weight, config.loss.intra_weight) == ((1.0, 2.0) if "iidm" in name else (0.0, 0.0))
    assert config.teacher.ema_decay == 0.999 and config.teacher.ema_ramp and config.data.rare_class_sampling
    assert config.teacher.ignore_bottom_px == 120 and config.teacher.ignore_top_px == 15
    assert (config.mixing.classes_from, config.mixing.rounding) == ("image" if "iidm" in name else "batch", "ceil")


def test_the_distance_beside_the_distillation_has_its_own_weight() -> None:
    """In one term of weight 0.25: DiGA's distillation, and the distance of weight 0.005."""
    step = step_of("diga_hrda")
    images = batch()._replace(target=None)
    pseudo = step.method.pseudo_label(step.teacher, images.unlabeled)
    mixes = step.method.mixes(images, pseudo, step.generator)
    scene = Scene(images, pseudo, mixes, step.student, step.teacher, step.generator)
    source = step.method.branches(scene)[0]
    assert source.objective is not None and source.objective_weight == 0.25
    features = torch.randn(2, 12, 4, 6)
    logits = torch.randn(2, 5, 8, 12)

    def value(deepest: Tensor) -> float:
        assert source.objective is not None
        return float(source.objective(Output(logits, features, deepest)))

    student = step.student
    assert isinstance(student, HRDANetwork) and images.source is not None
    distance = FeatureDistance(step.config, student, CLASSES)
    of = [distance.to(images.source, source.image, student)(Output(logits, features, features + d)) for d in (0.0, 1.0)]
    difference = (value(features + 1.0) - value(features)) * 0.25
    assert difference == pytest.approx(DISTANCE_WEIGHT * float(of[1] - of[0]), rel=1e-3)


def test_the_catalog_says_where_each_is_from() -> None:
    assert all("Table 3" in METHODS[name].source for name in HRDA)
    assert "MIC" in METHODS["mic"].source and Config().loss.mask_weight == 0
