"""The EMA teacher: decay, ramp, BatchNorm and pseudo-labels, against hand-computed values."""

import copy
import math

import pytest
import torch
from torch import nn

from iidm.config import TeacherConfig
from iidm.method.teacher import Teacher, ema_decay_at
from iidm.types import PseudoLabel


def labels_of(teacher: Teacher, image: torch.Tensor) -> PseudoLabel:
    return teacher.read(teacher.look(image).logits, (image.shape[2], image.shape[3]))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout2d(0.5), nn.Conv2d(4, 3, 1))


def test_the_decay_is_alpha_at_every_step_in_the_paper() -> None:
    assert [ema_decay_at(t, TeacherConfig(ema_decay=0.99)) for t in (0, 1, 1000)] == [0.99] * 3


def test_the_ramp_is_that_of_dacs() -> None:
    config = TeacherConfig(ema_decay=0.99, ema_ramp=True)
    # DACS: alpha = min(1 - 1/(iteration + 1), alpha) at the start of iteration 1, 2, ...
    expected = [1 / 2, 2 / 3, 3 / 4, 0.99]
    assert [ema_decay_at(t, config) for t in (0, 1, 2, 500)] == pytest.approx(expected)


def test_parameters_follow_the_student_by_the_decay() -> None:
    student = network()
    teacher = Teacher(copy.deepcopy(student), TeacherConfig(ema_decay=0.75), labels_images=True)
    with torch.no_grad():
        student[0].weight.fill_(1.0)
        teacher.network[0].weight.fill_(3.0)
    teacher.follow(student, teacher.config.ema_decay)
    assert torch.equal(teacher.network[0].weight, torch.full_like(student[0].weight, 0.75 * 3 + 0.25 * 1))


def test_the_teacher_never_gets_a_gradient() -> None:
    teacher = Teacher(network(), TeacherConfig(), labels_images=True)
    teacher.look(torch.randn(2, 3, 8, 8))
    assert all(not p.requires_grad and p.grad is None for p in teacher.network.parameters())


def test_batch_statistics_make_the_label_independent_of_the_running_ones() -> None:
    image = torch.randn(2, 3, 8, 8)
    labels = []
    for shift in (0.0, 100.0):
        net = network()
        net[1].running_mean.fill_(shift)
        teacher = Teacher(net, TeacherConfig(batchnorm="batch"), labels_images=True)
        labels.append(labels_of(teacher, image).label)
    assert torch.equal(*labels)


def test_running_statistics_are_used_and_averaged_when_asked_for() -> None:
    student = network()
    student[1].running_mean.fill_(2.0)
    teacher = Teacher(network(), TeacherConfig(batchnorm="running", ema_decay=0.5), labels_images=True)
    before = teacher.network[1].running_mean.clone()
    teacher.look(torch.randn(2, 3, 8, 8) + 5)
    assert torch.equal(teacher.network[1].running_mean, before)
    teacher.follow(student, teacher.config.ema_decay)
    assert torch.equal(teacher.network[1].running_mean, torch.full((4,), 1.0))


def test_batch_statistics_keep_running_ones_of_their_own() -> None:
    student, teacher = network(), Teacher(network(), TeacherConfig(batchnorm="batch"), labels_images=True)
    student[1].running_mean.fill_(50.0)
    teacher.look(torch.randn(2, 3, 8, 8) + 5)
    own = teacher.network[1].running_mean.clone()
    teacher.follow(student, teacher.config.ema_decay)
    assert own.abs().sum() > 0
    assert torch.equal(teacher.network[1].running_mean, own)


def test_a_teacher_that_labels_nothing_takes_the_students_statistics() -> None:
    student, teacher = network(), Teacher(network(), TeacherConfig(ema_decay=0.0), labels_images=False)
    student[1].running_mean.fill_(7.0)
    teacher.follow(student, teacher.config.ema_decay)
    assert torch.equal(teacher.network[1].running_mean, torch.full((4,), 7.0))


def test_dropout_is_off_in_the_teacher() -> None:
    teacher = Teacher(network(), TeacherConfig(), labels_images=True)
    image = torch.randn(2, 3, 8, 8)
    first, second = (labels_of(teacher, image) for _ in range(2))
    assert torch.equal(first.label, second.label)
    assert torch.equal(first.quality, second.quality)


class Constant(nn.Module):
    """A network whose logits are given."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.logits


def logits_with_confidence(rows: list[list[float]]) -> torch.Tensor:
    """Two classes; class 1 has the given confidence in each pixel of a [1, n] image."""
    p = torch.tensor(rows, dtype=torch.float64)[:, None, None, :]
    return torch.cat([(1 - p).log(), p.log()], dim=1).float()


@pytest.mark.parametrize(
    ("comparison", "expected"), [(">", [0.25, 0.5]), (">=", [0.75, 0.5])], ids=["paper", "daformer"]
)
def test_quality_counts_confident_pixels_per_image(comparison: str, expected: list[float]) -> None:
    logits = torch.tensor([[2.0, 2.0, 3.0, 0.0], [0.0, 0.5, 5.0, 5.0]])
    logits = torch.stack([torch.zeros_like(logits), logits], dim=1)[:, :, None, :]
    tau = float(torch.softmax(torch.tensor([0.0, 2.0]), 0)[1])
    config = TeacherConfig(confidence_threshold=tau, comparison=comparison)  # type: ignore[arg-type]
    pseudo = labels_of(Teacher(Constant(logits), config, labels_images=True), torch.zeros(2, 3, 1, 4))
    assert pseudo.quality.tolist() == expected


def test_quality_per_batch_is_one_value_for_all_images() -> None:
    logits = logits_with_confidence([[0.99, 0.99, 0.6, 0.6], [0.99, 0.6, 0.6, 0.6]])
    config = TeacherConfig(quality_per="batch")
    pseudo = labels_of(Teacher(Constant(logits), config, labels_images=True), torch.zeros(2, 3, 1, 4))
    assert pseudo.quality.tolist() == [3 / 8, 3 / 8]


def test_each_pixel_may_weigh_as_much_as_the_teacher_is_sure_of_it() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 0.0]]).T[None, :, None, :]  # two pixels: p = 0.88 and 0.5
    teacher = Teacher(network(), TeacherConfig(weighting="confidence"), labels_images=True)
    weight = teacher.read(logits, (1, 2)).weight
    assert weight is not None and weight.shape == (1, 1, 2)
    assert weight.flatten().tolist() == pytest.approx([1 / (1 + math.exp(-2)), 0.5], abs=1e-5)
    sure = Teacher(network(), TeacherConfig(weighting="confident", confidence_threshold=0.8), labels_images=True)
    assert sure.read(logits, (1, 2)).weight.flatten().tolist() == [1.0, 0.0]
