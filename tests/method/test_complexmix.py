"""Both mixes pixel by pixel, and what each of the two steps learns from."""

from __future__ import annotations

import pytest
import torch
from small_steps import B, H, K, W, assert_close, batch, config_of, gradients, make_step
from torch import Tensor

from iidm.config import Config, Streams, streams_of
from iidm.method.published import complexmix
from iidm.method.published.complexmix import FIRST_STEP, ComplexMix
from iidm.recipes import with_values
from iidm.types import MEAN_RGB, STD_RGB, LabeledImages, PseudoLabel, TrainBatch, UserError

PLAIN = {"jitter_probability": 0.0, "blur_probability": 0.0}
EARLY, LATE = 1, 39_000
"""Steps of a run of 40,000."""


def given(branches: str = "auto", **groups: dict[str, object]) -> Config:
    teacher = {"confidence_threshold": 0.2}
    return with_values(config_of("complexmix", branches=branches), {"augment": PLAIN, "teacher": teacher, **groups})


def method_of(config: Config) -> ComplexMix:
    method = make_step(config, "tiny").method
    assert isinstance(method, ComplexMix)
    return method


def same(image: Tensor, read: Tensor) -> list[list[list[bool]]]:
    """[B,H,W]: which pixels of a network's image are those of uint8 images [B,H,W,3]."""
    plain = ((read - torch.tensor(MEAN_RGB)) / torch.tensor(STD_RGB)).permute(0, 3, 1, 2)
    found: list[list[list[bool]]] = ((image - plain).abs().amax(1) < 1e-5).tolist()
    return found


def said(data: TrainBatch) -> PseudoLabel:
    """Pseudo-labels in squares, whose quality tells the images apart."""
    assert data.target is not None
    label = torch.where(data.target.label == 255, 0, data.target.label)
    return PseudoLabel(label, torch.tensor([0.25, 0.75]))


def test_the_first_mix_is_a_box_of_the_source_on_the_labeled_target_with_true_labels_that_count_in_full() -> None:
    margins = {"ignore_top_px": 5, "ignore_bottom_px": 7, "confidence_threshold": 0.2}
    data = batch()
    assert data.source is not None and data.target is not None
    mixed = method_of(given(teacher=margins)).mixes(data, None, torch.Generator().manual_seed(1)).inter
    assert mixed is not None and torch.equal(mixed.weight, torch.ones(B, H, W))
    label, of_each = mixed.label.tolist(), {True: data.source.label.tolist(), False: data.target.label.tolist()}
    of_source, of_target = same(mixed.image, data.source.image), same(mixed.image, data.target.image)
    for b in range(B):
        inside = [(y, x) for y in range(H) for x in range(W) if of_source[b][y][x]]
        for y in range(H):
            for x in range(W):
                assert of_source[b][y][x] != of_target[b][y][x]
                assert label[b][y][x] == of_each[of_source[b][y][x]][b][y][x]
        rows, columns = [y for y, _ in inside], [x for _, x in inside]
        box = (max(rows) - min(rows) + 1) * (max(columns) - min(columns) + 1)
        assert len(inside) == box and box == pytest.approx(H * W / 2, rel=0.05)


@pytest.mark.parametrize(("progress", "factor"), [(0.0, 0.0), (FIRST_STEP - 1e-3, 0.0), (FIRST_STEP, 1.0), (0.9, 1.0)])
def test_the_second_mix_pastes_whole_predicted_classes_of_unlabeled_images_onto_each_other(
    progress: float, factor: float
) -> None:
    data = batch()
    assert data.unlabeled is not None
    pseudo, method = said(data), method_of(given())
    method.progress.fill_(progress)
    (mixed,) = method.mixes(data, pseudo, torch.Generator().manual_seed(2)).intra
    own, other = same(mixed.image, data.unlabeled), same(mixed.image, data.unlabeled.roll(1, 0))
    for b in range(B):
        before = (b - 1) % B
        pasted: dict[int, set[bool]] = {}
        for y in range(H):
            for x in range(W):
                assert own[b][y][x] != other[b][y][x]
                origin = b if own[b][y][x] else before
                assert mixed.label[b, y, x] == pseudo.label[origin, y, x]
                assert float(mixed.weight[b, y, x]) == factor * float(pseudo.quality[origin])
                pasted.setdefault(int(pseudo.label[before, y, x]), set()).add(other[b][y][x])
        # Borders of predicted objects are kept: a class is pasted as a whole or not at all, and half of them are.
        assert all(len(whether) == 1 for whether in pasted.values())
        assert sum(True in whether for whether in pasted.values()) == len(pasted) // 2


def test_the_first_step_learns_nothing_from_unlabeled_images_and_the_second_does() -> None:
    data = batch()
    assert data.unlabeled is not None
    moved = {}
    for number in (EARLY, LATE):
        weights = []
        for unlabeled in (data.unlabeled, 255 - data.unlabeled):
            step = make_step(given(), "tiny")
            losses = step([data._replace(unlabeled=unlabeled)], number).losses
            weights.append(torch.cat([p.detach().flatten() for p in step.student.parameters()]))
            assert all(float(value) > 0 for value in (losses.source, losses.target, losses.inter))
            assert (float(losses.intra) > 0) == (number == LATE)
            expected = losses.source + losses.target + losses.inter + losses.intra
            torch.testing.assert_close(losses.total, expected)
        moved[number] = not torch.equal(*weights)
    assert moved == {EARLY: False, LATE: True}


def test_the_labels_of_source_and_target_reach_the_student_in_both_steps() -> None:
    for number in (EARLY, LATE):
        weights = []
        for change in (None, "source", "target"):
            data = batch()
            if change:
                kept = getattr(data, change)
                data = data._replace(**{change: LabeledImages(kept.image, (kept.label + 1) % K)})
            step = make_step(given(), "tiny")
            step([data], number)
            weights.append(torch.cat([p.detach().flatten() for p in step.student.parameters()]))
        assert not torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_merged_branches_are_sequential_ones_in_the_second_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(complexmix, "FIRST_STEP", 0.0)
    results = [gradients(make_step(given(branches), "tiny"), [batch()]) for branches in ("merged", "sequential")]
    assert results[0][2][4] > 0  # the intra-domain loss
    assert_close(*results, tolerance=2e-4)


def test_what_it_reads_and_refuses() -> None:
    config = given()
    assert streams_of(config) == Streams(source=True, labeled=True, unlabeled=True)
    assert method_of(config).labels_images
    first_alone = with_values(config, {"loss": {"intra_weight": 0.0}})
    assert not method_of(first_alone).labels_images
    mixes = method_of(first_alone).mixes(batch(), None, torch.Generator())
    assert mixes.inter is not None and mixes.intra == ()
    with pytest.raises(UserError, match="--data.source-batch is 2, --data.target-batch is 3"):
        method_of(with_values(config, {"data": {"target_batch": 3}}))
    with pytest.raises(UserError, match="leave --mixing.intra-from at unlabeled"):
        method_of(with_values(config, {"mixing": {"intra_from": "labeled"}}))
