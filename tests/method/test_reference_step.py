"""The reference that the benchmarks time is the same step as iidm's: same weights, same batch, same draws."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.reference_step import drawn_class_by_class, drawn_on_the_device, plain_network
from benchmarks.steps import Case, flops, iidm_step, network_of, random_batch, reference_step
from iidm.models.norm import BatchNorm2d

SMALL = Case("resnet18", (48, 64), 2)
DEFAULT = Case("mobilenet_v2", (64, 96), 2, output_stride=32, head="segformer")
HRDA = [Case(model, (64, 96), 2, output_stride=16, head="daformer", hrda=True) for model in ("resnet18", "mit_b0")]


@pytest.mark.parametrize(
    ("case", "best"),
    [
        (SMALL, False),
        (SMALL, True),
        (DEFAULT, True),
        (HRDA[0], True),
        (HRDA[1], False),
        pytest.param(HRDA[0], False, marks=pytest.mark.long),
        pytest.param(HRDA[1], True, marks=pytest.mark.long),
    ],
    ids=str,
)
def test_losses_and_weights_agree(case: Case, best: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.steps.pick_amp_dtype", lambda *_, **__: None)
    ours, our_call = iidm_step(case, "cpu")
    theirs, their_call = reference_step(case, "cpu", best=best)
    start = torch.cat([p.detach().flatten().clone() for p in ours.student.parameters()])
    for _ in range(3):
        assert float(our_call()) == pytest.approx(float(their_call()), rel=2e-3)
    for mine, other in ((ours.student, theirs.student), (ours.teacher.network, theirs.teacher)):
        moved = [torch.cat([p.detach().flatten() for p in net.parameters()]) - start for net in (mine, other)]
        # By how far, and where to. AdamW moves a weight by the rate whatever its gradient: where that is next to zero,
        # rounding chooses the direction.
        assert float(moved[0].norm()) == pytest.approx(float(moved[1].norm()), rel=1e-2)
        assert float(torch.cosine_similarity(*moved, dim=0)) > 0.98
    assert set(theirs.logged) == (set() if best else {"source", "target", "inter", "intra"})


def test_the_mixes_count_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a threshold that a random teacher passes, so that no term of the sum is zero."""
    monkeypatch.setattr("benchmarks.steps.pick_amp_dtype", lambda *_, **__: None)
    ours, our_call = iidm_step(SMALL, "cpu")
    theirs, their_call = reference_step(SMALL, "cpu", best=False)
    low = replace(ours.config.teacher, confidence_threshold=0.06)
    ours.teacher.config = low
    theirs.config = replace(theirs.config, teacher=low)
    assert float(our_call()) == pytest.approx(float(their_call()), rel=2e-3)
    assert min(theirs.logged.values()) > 0


def test_both_ways_draw_the_same_classes() -> None:
    torch.manual_seed(0)
    for classes in (1, 2, 5, 19, 256):
        label, keys = torch.randint(0, classes, (3, 8, 12)), torch.rand(3, 256)
        label[1, :4], label[2] = 255, 255  # of the last image no class is there
        assert torch.equal(drawn_on_the_device(label, keys), drawn_class_by_class(label, keys))


class Seen(TorchDispatchMode):
    """The operations that read a number of a tensor, or as many places as it says, on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = op.name()
        by_flags = name == "aten::index.Tensor" and any(i is not None and i.dtype == torch.bool for i in args[1])
        if by_flags or any(word in name for word in ("_local_scalar", "unique", "nonzero", "masked_select", "_to_cpu")):
            self.names.append(name)
        return op(*args, **(kwargs or {}))


@pytest.mark.parametrize("best", [True, False])
def test_at_its_best_it_reads_nothing_back(best: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU each read would wait for all that was asked of it before."""
    monkeypatch.setattr("benchmarks.reference_step.blur", lambda image, *_: image)  # on a CPU it asks whether it must
    _, call = reference_step(SMALL, "cpu", best=best)
    call()  # the optimiser makes its state
    with Seen() as seen:
        call()
    assert bool(seen.names) != best, seen.names


def test_at_its_best_the_optimiser_is_the_fused_one() -> None:
    groups = [reference_step(SMALL, "cpu", best=best)[0].optimizer.defaults for best in (True, False)]
    assert [(group["fused"], group["foreach"]) for group in groups] == [(True, False), (False, False)]


def test_autocast_at_its_best_is_close() -> None:
    _, our_call = iidm_step(SMALL, "cpu")
    _, their_call = reference_step(SMALL, "cpu", best=True)
    assert float(our_call()) == pytest.approx(float(their_call()), rel=2e-2)


@pytest.mark.parametrize("model", ["resnet50", "mobilenet_v2"])
def test_its_layers_are_pytorchs(model: str) -> None:
    """In bfloat16 too, where iidm computes some of them in ways of its own."""
    plain = plain_network(network_of(Case(model, (32, 48), 1)))
    convs = [module for module in plain.modules() if isinstance(module, nn.Conv2d)]
    assert {type(conv) for conv in convs} == {nn.Conv2d}
    assert not any(isinstance(module, BatchNorm2d) for module in plain.modules())
    called: list[object] = []
    for conv in convs:
        conv.register_forward_hook(lambda conv, *_: called.append(conv))
    with torch.autocast("cpu", torch.bfloat16):
        plain(torch.randn(2, 3, 32, 48))
    assert called and len(called) == len(convs)


def test_the_work_of_a_step_is_that_of_thirteen_forwards_an_image() -> None:
    """One of the teacher, four of the student, and two more for the backward of each of these."""
    found = []

    def count(conv: nn.Conv2d, _: object, out: torch.Tensor) -> None:
        found.append(2 * out.numel() * conv.in_channels // conv.groups * conv.kernel_size[0] * conv.kernel_size[1])

    network = network_of(SMALL)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    network(torch.zeros(1, 3, *SMALL.crop))
    assert flops(SMALL) == 13 * 2 * sum(found)


def test_random_batches_have_labels_and_ignored_pixels() -> None:
    batch = random_batch(SMALL, "cpu")
    assert batch.source is not None and batch.unlabeled is not None
    values = batch.source.label.unique()
    assert 255 in values and len(values) > 5
    assert batch.unlabeled.shape == (2, 48, 64, 3)
