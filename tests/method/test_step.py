"""The whole step: which branches run, that their gradients are the paper's sum, and that nothing else moves."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from iidm.catalog import with_method
from iidm.config import Config, streams_of
from iidm.kernels import set_implementation
from iidm.method import TrainStep
from iidm.method.teacher import Teacher
from iidm.recipes import with_recipe, with_values
from iidm.types import LabeledImages, StepOutput, TrainBatch

B, H, W, K = 2, 16, 24, 4


class Net(nn.Module):
    """A network with BatchNorm at output stride 4."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8), nn.Conv2d(8, K, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.norm(self.conv(x))))


def config_of(recipe: str = "paper", **groups: dict[str, object]) -> Config:
    base = with_values(Config(), {"data": {"crop_size": (H, W)}})
    return with_values(with_recipe(base, recipe), groups)  # type: ignore[arg-type]


def make_step(config: Config, optimizer: type[torch.optim.Optimizer] = torch.optim.SGD) -> TrainStep:
    torch.manual_seed(0)
    student = Net().to(memory_format=torch.channels_last)
    unlabeled = streams_of(config)[2]
    teacher = Teacher(copy.deepcopy(student), config.teacher, labels_images=unlabeled)
    return TrainStep(
        student, teacher, optimizer(student.parameters(), lr=1e-3), config, [torch.Generator().manual_seed(1)]
    )


def batch(config: Config, seed: int = 0) -> TrainBatch:
    generator = torch.Generator().manual_seed(seed)
    doubled = 2 if config.mixing.strategy == "two-xu-two-streams" else 1

    def image(n: int) -> torch.Tensor:
        return torch.randint(0, 256, (n, H, W, 3), generator=generator, dtype=torch.uint8)

    def labeled() -> LabeledImages:
        label = torch.randint(0, K, (B, H, W), generator=generator, dtype=torch.uint8)
        label[:, :2] = 255
        return LabeledImages(image(B), label)

    source, target, unlabeled = streams_of(config)
    return TrainBatch(
        labeled() if source else None,
        labeled() if target else None,
        image(B * doubled) if unlabeled else None,
    )


def oracle_loss(net: nn.Module, config: Config, data: TrainBatch, out: StepOutput) -> torch.Tensor:
    """Eqs. 7-11 in float64 from the images and labels that the step returned."""
    from iidm.types import MEAN_RGB, STD_RGB

    total = torch.zeros((), dtype=torch.float64)
    mean, std = torch.tensor(MEAN_RGB), torch.tensor(STD_RGB)
    terms = []
    for labeled, weight in (
        (data.source, config.loss.source_weight),
        (data.target, config.loss.target_weight),
    ):
        if labeled is not None and weight:
            image = ((labeled.image.float() - mean) / std).permute(0, 3, 1, 2)
            terms.append((image, labeled.label, torch.ones(B, H, W), weight, config.loss.supervised_normalizer))
    for mixed, weight in ((out.inter, config.loss.inter_weight), (out.intra, config.loss.intra_weight)):
        if mixed is not None:
            if config.mixing.strategy == "one-xu-one-stream":
                weight = config.loss.inter_weight + config.loss.intra_weight
            terms.append((mixed.image, mixed.label, mixed.weight, weight, config.loss.mixed_normalizer))
    for image, label, pixel_weight, weight, normalizer in terms:
        logits = F.interpolate(net(image.contiguous().double()), (H, W), mode="bilinear")
        nll = F.cross_entropy(logits, label.long(), ignore_index=255, reduction="none") * pixel_weight
        count = {"sum": 1, "pixels": label.numel(), "valid": int((label != 255).sum())}[normalizer]
        total = total + weight * nll.sum() / count
    return total


ABLATIONS = {
    "L_t": (0, 1, 0, 0),
    "L_s": (1, 0, 0, 0),
    "L_s+L_t": (1, 1, 0, 0),
    "L_t+L_intra": (0, 1, 0, 2),
    "L_s+L_t+L_inter": (1, 1, 1, 0),
    "L_s+L_t+L_intra": (1, 1, 0, 2),
    "L_s+L_inter (no labels)": (1, 0, 1, 0),
    "full": (1, 1, 1, 2),
}


def with_weights(config: Config, weights: tuple[float, ...]) -> Config:
    names = ("source_weight", "target_weight", "inter_weight", "intra_weight")
    return with_values(config, {"loss": dict(zip(names, weights, strict=True))})


@pytest.mark.parametrize("recipe", ["paper", "daformer"])
@pytest.mark.parametrize("weights", ABLATIONS.values(), ids=ABLATIONS.keys())
def test_the_gradient_is_that_of_the_papers_sum(recipe: str, weights: tuple[float, ...]) -> None:
    config = with_weights(config_of(recipe), weights)
    step, data = make_step(config), batch(config)
    before = copy.deepcopy(step.student).double().train()
    start = [p.detach().clone() for p in step.student.parameters()]
    out = step([data], 0)
    oracle_loss(before, config, data, out).backward()
    for old, new, truth in zip(start, step.student.parameters(), before.parameters(), strict=True):
        moved = (old - new.detach()).double() / 1e-3
        torch.testing.assert_close(moved, truth.grad, rtol=5e-3, atol=5e-3 * float(truth.grad.abs().max()) + 1e-4)


@pytest.mark.parametrize("strategy", ["one-xu-two-streams", "two-xu-two-streams", "one-xu-one-stream"])
def test_the_logged_total_is_the_weighted_sum_in_every_strategy(strategy: str) -> None:
    config = config_of("daformer", mixing={"strategy": strategy})
    step, data = make_step(config), batch(config)
    before = copy.deepcopy(step.student).double().train()
    out = step([data], 0)
    assert float(out.losses.total) == pytest.approx(float(oracle_loss(before, config, data, out).detach()), rel=1e-4)


@pytest.mark.parametrize("weights", ABLATIONS.values(), ids=ABLATIONS.keys())
def test_a_loss_of_weight_zero_runs_no_branch_and_reads_zero(weights: tuple[float, ...]) -> None:
    config = with_weights(config_of(), weights)
    out = make_step(config)([batch(config)], 0)
    for name, weight in zip(("source", "target", "inter", "intra"), weights, strict=True):
        assert (float(getattr(out.losses, name)) > 0) == (
            weight > 0 and (name not in ("inter", "intra") or quality(out))
        )


def quality(out: StepOutput) -> bool:
    """Whether the teacher was sure of any pixel; without, the mixed losses of the paper's recipe are 0."""
    return float(out.quality) > 0


def test_two_xu_gives_each_stream_unlabeled_crops_of_its_own() -> None:
    plain = {"jitter_probability": 0.0, "blur_probability": 0.0}
    config = config_of("daformer", mixing={"strategy": "two-xu-two-streams"}, augment=plain)
    data = batch(config)
    assert data.unlabeled is not None
    data.unlabeled[:B], data.unlabeled[B:] = 0, 255
    out = make_step(config)([data], 0)
    assert out.inter is not None and out.intra is not None
    low, high = (torch.tensor([v, v, v]) for v in (0.0, 255.0))
    from iidm.types import MEAN_RGB, STD_RGB

    mean, std = torch.tensor(MEAN_RGB), torch.tensor(STD_RGB)
    for image, own, other in ((out.inter.image, low, high), (out.intra.image, high, low)):
        values = image.permute(0, 2, 3, 1)
        assert bool((values - (own - mean) / std).abs().lt(1e-4).all(-1).any())
        assert not bool((values - (other - mean) / std).abs().lt(1e-4).all(-1).any())


def test_one_xu_two_streams_shares_image_and_pseudo_label() -> None:
    config = config_of("daformer", augment={"jitter_probability": 0.0, "blur_probability": 0.0})
    data = batch(config)
    assert data.source is not None and data.target is not None and data.unlabeled is not None
    out = make_step(config)([data], 0)
    assert out.inter is not None and out.intra is not None and out.pseudo_label is not None
    for mixed, labeled in ((out.inter, data.source), (out.intra, data.target)):
        own = mixed.label == out.pseudo_label.label
        assert bool((own | (mixed.label == labeled.label)).all())


def test_beyond_the_end_of_an_unlabeled_image_nothing_is_learned() -> None:
    """What a mix shows there has no label, unless something with one was pasted onto it; else all is as without."""
    config = config_of("adapt")
    data, beyond = batch(config), torch.zeros(B, H, W, dtype=torch.uint8)
    beyond[:, -4:] = 255
    step, plain = make_step(config), make_step(config)
    out, before = step([data._replace(beyond=beyond)], 0), plain([data], 0)
    assert out.pseudo_label is not None and before.pseudo_label is not None
    assert torch.equal(out.pseudo_label.label, before.pseudo_label.label | beyond)
    for mixed, other, source in ((out.inter, before.inter, data.source), (out.intra, before.intra, data.target)):
        assert mixed is not None and other is not None and source is not None
        ends = (beyond == 255) & (mixed.label == 255)
        assert torch.equal(mixed.label[~ends], other.label[~ends]) and 0 < int(ends.sum()) < int((beyond == 255).sum())


def test_each_branch_is_a_forward_of_its_own_in_batch_norm() -> None:
    config = config_of()
    step, data = make_step(config), batch(config)
    manual = copy.deepcopy(step.student).train()
    out = step([data], 0)
    assert data.source is not None and data.target is not None and out.inter is not None and out.intra is not None
    from iidm.types import MEAN_RGB, STD_RGB

    mean, std = torch.tensor(MEAN_RGB), torch.tensor(STD_RGB)
    for image in (data.source.image, data.target.image):
        manual(((image.float() - mean) / std).permute(0, 3, 1, 2))
    manual(out.inter.image)
    manual(out.intra.image)
    torch.testing.assert_close(manual.norm.running_mean, step.student.norm.running_mean, rtol=1e-4, atol=1e-5)


def test_the_teacher_moves_after_the_optimizer_by_the_decay() -> None:
    config = config_of(teacher={"ema_decay": 0.9})
    step = make_step(config)
    old = step.teacher.network.head.weight.clone()  # type: ignore[union-attr]
    step([batch(config)], 0)
    expected = 0.9 * old + 0.1 * step.student.head.weight.detach()  # type: ignore[union-attr]
    torch.testing.assert_close(step.teacher.network.head.weight, expected)  # type: ignore[union-attr]


def test_the_same_seed_gives_the_same_steps_bit_for_bit() -> None:
    config = config_of("daformer")
    runs = []
    for _ in range(2):
        step = make_step(config, torch.optim.AdamW)
        runs.append([float(step([batch(config, seed=i)], i).losses.total) for i in range(4)])
    assert runs[0] == runs[1]


@pytest.mark.parametrize("recipe", ["paper", "daformer"])
def test_fused_kernels_follow_the_reference_for_50_steps(recipe: str) -> None:
    config = config_of(recipe, teacher={"confidence_threshold": 0.4})
    losses: dict[str, list[float]] = {}
    for choice in ("reference", "fused"):
        try:
            set_implementation(choice, "cpu")  # type: ignore[arg-type]
        except RuntimeError as error:
            pytest.skip(str(error))
        step = make_step(config, torch.optim.AdamW)
        try:
            losses[choice] = [step([batch(config, seed=i % 5)], i).losses.total.item() for i in range(50)]
        finally:
            set_implementation("auto", "cpu")
    # Rounding of 1e-7 a step; a pixel whose best two classes tie within it, or whose confidence ties with the
    # threshold, moves a label or the quality by 1/384.
    torch.testing.assert_close(torch.tensor(losses["fused"]), torch.tensor(losses["reference"]), rtol=2e-3, atol=0)
    assert losses["fused"][45] < losses["fused"][0]  # the same batch


def test_bf16_follows_float32() -> None:
    config = config_of("daformer")
    losses = []
    for dtype in (None, torch.bfloat16):
        step = make_step(config)
        step.amp_dtype = dtype
        losses.append(float(step([batch(config)], 0).losses.total))
    assert losses[1] == pytest.approx(losses[0], rel=0.03)


def test_every_method_name_is_a_choice_of_losses() -> None:
    weights = {
        name: (c := with_method(Config(), name).loss)
        and (c.source_weight, c.target_weight, c.inter_weight, c.intra_weight)
        for name in ("iidm", "source_only", "target_only", "source_target")
    }
    assert weights == {
        "iidm": (1.0, 1.0, 1.0, 2.0),
        "source_only": (1.0, 0.0, 0.0, 0.0),
        "target_only": (0.0, 1.0, 0.0, 0.0),
        "source_target": (1.0, 1.0, 0.0, 0.0),
    }
    assert replace(Config(), method="iidm") == with_method(Config(), "iidm")
