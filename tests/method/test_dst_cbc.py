"""DST-CBC: which pixels a phase labels, what they weigh by hand, and that a step does that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_steps import CLASSES, B, H, K, W, Watch, batch, config_of, make_step, trained
from torch import Tensor

from iidm.config import Config, Streams, streams_of
from iidm.kernels import build_info
from iidm.method import TrainStep
from iidm.method.base import normalized
from iidm.method.losses import Output
from iidm.method.published.dst_cbc import BINS_PER_HALVING, EVERY, GAMMA, DynamicSelfTraining
from iidm.models import build_network
from iidm.recipes import with_values
from iidm.types import Mixed, TrainBatch, UserError

PLAIN = {"augment": {"jitter_probability": 0.0, "blur_probability": 0.0}}


def method_of(config: Config | None = None, progress: float = 0.0) -> DynamicSelfTraining:
    method = DynamicSelfTraining(config or config_of("dst_cbc"), build_network("mobilenet_v2", K), CLASSES)
    method.progress.fill_(progress)
    return method


def in_bin(place: int) -> float:
    """The confidence in the middle of a bin."""
    return float(1 - 2 ** (-(place + 0.5) / BINS_PER_HALVING))


def blocks(values: list[Any], dtype: torch.dtype) -> Tensor:
    """[1,EVERY,EVERY*N]: each value in a square of which one pixel is counted."""
    return torch.tensor(values, dtype=dtype).view(1, 1, -1).repeat_interleave(EVERY, 1).repeat_interleave(EVERY, 2)


def pixels(shuffle: int = 0) -> tuple[list[int], list[int]]:
    """Classes and bins of 32 pixels: 10 of class 0, sure; 15 of class 1, unsure; 7 of class 3; none of the others."""
    found = [(0, 800 + 3 * i) for i in range(10)] + [(1, 2 * i) for i in range(15)] + [(3, 50 + i) for i in range(7)]
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(shuffle)).tolist()
    return [found[i][0] for i in order], [found[i][1] for i in order]


def test_a_broken_network_is_left_to_those_who_look_for_it() -> None:
    """An index out of range would be an error of torch, and on a GPU one that nothing in the process survives."""
    confidence = torch.tensor([torch.nan, -torch.inf, torch.inf, 0.5]).expand(1, EVERY, 4)
    kept = method_of().surest(torch.zeros(1, EVERY, 4, dtype=torch.uint8), confidence)
    assert kept.shape == confidence.shape


@pytest.mark.parametrize("phase", [1, 2, 3, 4, 5])
def test_a_phase_keeps_the_surest_share_of_each_class_and_nothing_else(phase: int) -> None:
    method = method_of(progress=(phase - 0.5) / 5)
    label, places = pixels()
    confidence = blocks([in_bin(place) for place in places], torch.float32)
    kept = method.surest(blocks(label, torch.uint8), confidence)[0, 1, 2::EVERY].tolist()
    for k, count in ((0, 10), (1, 15), (3, 7)):
        own = sorted((place for place, of in zip(places, label, strict=True) if of == k), reverse=True)
        wanted = own[: -(-count * phase // 5)]  # rounded up
        got = [p for p, of, yes in zip(places, label, kept, strict=True) if of == k and yes]
        assert sorted(got, reverse=True) == wanted, k


def test_a_phase_is_a_fifth_of_the_run() -> None:
    method, steps = method_of(), 40_000
    found = []
    for step in (0, 7_999, 8_000, 15_999, 16_000, 23_999, 24_000, 31_999, 32_000, 39_999, 40_000):
        method.progress.fill_(step / steps)
        found.append(int(method.phase()))
    assert found == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 5]


def test_the_last_phase_labels_what_is_less_sure_than_all_that_was_counted() -> None:
    for progress, expected in ((0.79, False), (0.8, True)):
        method = method_of(progress=progress)
        confidence = torch.full((1, 8, 8), in_bin(90))
        confidence[0, 1, 1] = in_bin(3)  # not counted
        kept = method.surest(torch.zeros(1, 8, 8, dtype=torch.uint8), confidence)
        assert bool(kept[0, 1, 1]) is expected
        assert int(kept.sum()) == 63 + expected


def test_older_counts_fade() -> None:
    """One class, 10 pixels of bins 0 to 9 in step 1 and 10 of bins 5 to 14 in step 2, whose weight is more."""
    method, label = method_of(progress=0.3), blocks([2] * 10, torch.uint8)
    for first in (0, 5):
        method.surest(label, blocks([in_bin(first + i) for i in range(10)], torch.float32))
    assert method.decay == pytest.approx(0.99)  # of a run of 40,000 steps
    weight = {place: 0.99 * (place < 10) + (place >= 5) for place in range(15)}
    total = sum(weight.values())
    for place in range(15):
        assert float(method.histogram[2, place]) == pytest.approx(weight[place])
    assert int(method.histogram.count_nonzero()) == 15
    threshold = max(p for p in weight if sum(weight[q] for q in weight if q >= p) >= 2 / 5 * total)
    assert int(method.lowest_bins()[2]) == threshold
    for steps, decay in ((400, 0.9), (4_000, 0.9), (10_000, 0.96)):
        assert method_of(replace(config_of("dst_cbc"), max_steps=steps)).decay == pytest.approx(decay)


def test_confidences_of_0_and_1_have_a_bin() -> None:
    method = method_of()
    kept = method.surest(blocks([0, 0, 1], torch.uint8), blocks([1.0, 0.0, 1.0], torch.float32))
    assert kept[0, 0, ::EVERY].tolist() == [True, False, True]
    assert float(method.histogram[0, 0]) == float(method.histogram[0, -1]) == float(method.histogram[1, -1]) == 1


def test_what_is_not_sure_enough_is_ignored_and_the_quality_is_the_share_that_is_kept() -> None:
    step, data = sure_step(), batch()
    assert data.unlabeled is not None
    step.method.progress.fill_(0.5)
    said = step.method.pseudo_label(step.teacher, data.unlabeled)
    assert said.weight is not None and said.label.dtype == torch.uint8
    size = (H, W)
    with torch.no_grad():
        probability = torch.softmax(
            F.interpolate(step.teacher.look(normalized(data.unlabeled)).logits, size, mode="bilinear"), 1
        )
    confidence, own = probability.max(1)
    assert set(said.weight.unique().tolist()) == {0.0, 1.0}
    for b in range(B):
        assert float(said.quality[b]) == pytest.approx(float(said.weight[b].mean()))
    for k in range(K):
        mine = own == k
        kept = mine & (said.weight > 0)
        assert torch.equal(said.label[kept], own[kept].to(torch.uint8))
        if bool(mine.any()):
            lowest = confidence[kept].min()
            assert bool((confidence[mine & ~kept] <= lowest + 1e-6).all())
            assert 0.4 < float(kept.sum() / mine.sum()) < 0.8  # 0.6 of those that are counted
    assert bool((said.label[said.weight == 0] == 255).all())


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_dynamic_loss_and_its_gradient_are_those_by_hand(share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    size, classes = (6, 8), 3
    label = torch.randint(0, classes, (2, *size), generator=generator, dtype=torch.uint8)
    label[0, :2] = 255
    pixel_weight = torch.rand(2, *size, generator=generator)
    view = Mixed(torch.zeros(2, 3, *size), label, pixel_weight)
    logits = (4 * torch.randn(2, classes, 3, 4, generator=generator)).requires_grad_()
    value = method_of().dynamic_loss(view, share)(Output(logits, None))
    value.backward()
    low = logits.detach().double().requires_grad_()
    full = F.interpolate(low, size, mode="bilinear")
    total, lost, valid, agreed = torch.zeros((), dtype=torch.float64), 0.0, 0, 0
    for b in range(2):
        for y in range(size[0]):
            for x in range(size[1]):
                k = int(label[b, y, x])
                if k == 255:
                    continue
                valid += 1
                log_p = torch.log_softmax(full[b, :, y, x], 0)
                exact = float(log_p[k].detach().exp()) ** GAMMA
                if int(log_p.argmax()) == k:
                    agreed += 1
                    total = total - exact * float(pixel_weight[b, y, x]) * log_p[k]
                else:
                    lost = max(lost, exact)
    (share * total / valid).backward()
    expected = share * float(total.detach()) / valid
    assert valid == 80 and 10 < agreed < 50 and 0 < lost <= 2.0**-GAMMA
    assert float(value.detach()) == pytest.approx(expected, rel=1e-4)
    assert logits.grad is not None and low.grad is not None
    torch.testing.assert_close(logits.grad.double(), low.grad, rtol=1e-3, atol=1e-7)


def sure_step(branches: str = "auto") -> TrainStep:
    """Networks that are sure of something: at the start of a run every weight is next to nothing."""
    found = make_step(with_values(config_of("dst_cbc", branches=branches), PLAIN), "tiny")
    with torch.no_grad():
        for network in (found.student, found.teacher.network):
            for parameter in network.head.parameters():  # type: ignore[union-attr]
                parameter.mul_(30)
    return found


def read(seed: int = 0) -> TrainBatch:
    return batch(seed)._replace(source=None)


def test_merged_branches_have_the_gradients_of_sequential_ones_and_the_dynamic_loss_has_a_part_in_them() -> None:
    merged, sequential = (
        trained(sure_step(branches=branches), [read()], 20_000)[0] for branches in ("merged", "sequential")
    )
    without = sure_step()
    without.method.config = with_values(without.config, {"loss": {"auxiliary_weight": 0.0}})
    alone = trained(without, [read()], 20_000)[0]
    assert merged.keys() == sequential.keys()
    for name, value in merged.items():
        scale = float(value.abs().max())
        torch.testing.assert_close(value, sequential[name], rtol=0, atol=2e-3 * scale, msg=name)
        assert float((value - alone[name]).abs().max()) > 0.02 * scale, name


def test_the_weights_come_from_the_student_and_the_labels_from_the_teacher() -> None:
    """A teacher of shifted classes agrees nowhere with the student, whose weights are then all 0."""
    step = sure_step()
    agreeing = float(step([read()], 39_000).losses.auxiliary)
    step = sure_step()
    with torch.no_grad():
        for parameter in step.teacher.network.head.parameters():  # type: ignore[union-attr]
            parameter.copy_(parameter.roll(1, 0))
    assert agreeing > 0 and float(step([read()], 39_000).losses.auxiliary) == 0


def test_an_unlabeled_image_is_mixed_with_no_other_one() -> None:
    step, data = sure_step(), read()
    step.method.progress.fill_(0.9)
    assert data.unlabeled is not None
    pseudo = step.method.pseudo_label(step.teacher, data.unlabeled)
    (view,) = step.method.mixes(data, pseudo, step.generator).intra
    torch.testing.assert_close(view.image, normalized(data.unlabeled))
    assert torch.equal(view.label, pseudo.label) and pseudo.weight is not None
    assert torch.equal(view.weight, pseudo.weight)


def test_two_steps_train_and_the_histogram_is_in_the_checkpoint() -> None:
    step, other = sure_step(), sure_step()
    before = [p.detach().clone() for p in step.student.parameters()]
    for number in (0, 1):
        out = step([read(number)], number)
    assert all(not torch.equal(a, b) for a, b in zip(before, step.student.parameters(), strict=True))
    assert float(out.losses.auxiliary) > 0 == float(out.losses.intra)
    state = step.modules["method"].state_dict()
    counted = B * (H // EVERY) * (W // EVERY)
    assert list(state) == ["histogram"] and float(state["histogram"].sum()) == pytest.approx(counted * 1.99)
    other.modules["method"].load_state_dict(state)
    assert isinstance(other.method, DynamicSelfTraining) and isinstance(step.method, DynamicSelfTraining)
    assert torch.equal(other.method.lowest_bins(), step.method.lowest_bins())


@pytest.mark.skipif(not build_info()["extension"], reason="the references read values")
@pytest.mark.parametrize("branches", ["merged", "sequential"])
def test_no_value_is_read_on_the_host(branches: str) -> None:
    step = sure_step(branches=branches)
    step([read()], 0)
    with Watch() as watch:
        step([read()], 20_000)
    assert watch.waits == []


def test_what_it_reads_and_refuses() -> None:
    config = config_of("dst_cbc")
    assert streams_of(config) == Streams(source=False, labeled=True, unlabeled=True)
    wrong = ({"intra_weight": 1.0}, {"inter_weight": 1.0}, {"mixed_normalizer": "sum"})
    for loss in wrong:
        with pytest.raises(UserError, match="--loss.auxiliary-weight: leave --loss.inter-weight"):
            method_of(with_values(config, {"loss": loss}))
    assert not method_of(with_values(config, {"loss": {"auxiliary_weight": 0.0}})).labels_images
