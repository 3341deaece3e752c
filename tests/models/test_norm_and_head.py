"""BatchNorm against PyTorch's own, the DeepLabV2 head against its formula."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from convolutions import gradients, images
from torch import Tensor, nn

from iidm.kernels.batch_norm import Activation
from iidm.models.deeplab import DeepLabV2Head
from iidm.models.norm import BatchNorm2d


def pair(channels: int) -> tuple[BatchNorm2d, nn.BatchNorm2d]:
    """Ours and PyTorch's with the same random state."""
    ours, theirs = BatchNorm2d(channels), nn.BatchNorm2d(channels)
    for tensor in (theirs.weight, theirs.bias, theirs.running_mean, theirs.running_var):
        assert tensor is not None
        tensor.data.uniform_(0.2, 2.0)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize("channels_last", (False, True))
@pytest.mark.parametrize("amp", (False, True))
@pytest.mark.parametrize("training", (False, True))
def test_batchnorm_equals_pytorchs(training: bool, amp: bool, channels_last: bool) -> None:
    ours, theirs = pair(7)
    images = [torch.randn(3, 7, 5, 9) * 3 + 1 for _ in range(2)]
    results = []
    for norm in (ours.train(training), theirs.train(training)):
        kept: list[Tensor] = []
        for image in images:
            leaf = image.clone()
            if channels_last:
                leaf = leaf.contiguous(memory_format=torch.channels_last)
            leaf.requires_grad_()
            with torch.autocast("cpu", torch.bfloat16, enabled=amp):
                out = norm(leaf.bfloat16() if amp else leaf)
            assert out.dtype == (torch.bfloat16 if amp else torch.float32)
            out.float().square().sum().backward()
            assert leaf.grad is not None
            kept += [out, leaf.grad]
        grads = [norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var]
        results.append(kept + [g.clone() for g in grads if g is not None])
    assert len(results[0]) == len(results[1]) == 8
    for mine, other in zip(*results, strict=True):
        assert mine.dtype == other.dtype
        torch.testing.assert_close(
            mine, other, **({"rtol": 2e-2, "atol": 2e-2} if amp else {"rtol": 1e-4, "atol": 1e-5})
        )


@pytest.mark.parametrize("activation", ("none", "relu", "relu6"))
@pytest.mark.parametrize("training", (False, True))
def test_residual_and_activation_follow_it(training: bool, activation: Activation) -> None:
    ours, theirs = pair(7)
    ours.activation = activation
    image, residual = torch.randn(2, 7, 6, 5) * 4, torch.randn(2, 7, 6, 5)
    expected = theirs.train(training)(image) + residual
    expected = {"none": expected, "relu": expected.relu(), "relu6": expected.clamp(0, 6)}[activation]
    torch.testing.assert_close(ours.train(training)(image, residual), expected, rtol=1e-4, atol=1e-5)


def test_running_statistics_stay_float32_under_autocast() -> None:
    norm = BatchNorm2d(4)
    with torch.autocast("cpu", torch.bfloat16):
        norm(torch.randn(2, 4, 8, 8).bfloat16())
    assert norm.running_mean is not None and norm.running_mean.dtype == torch.float32
    assert not torch.equal(norm.running_mean, torch.zeros(4))


def test_nothing_counts_batches() -> None:
    norm = BatchNorm2d(4)
    norm(torch.randn(2, 4, 3, 3))
    assert set(norm.state_dict()) == {"weight", "bias", "running_mean", "running_var"}
    assert all(buffer.is_floating_point() for buffer in norm.buffers())


def test_checkpoints_with_and_without_the_counter_load() -> None:
    theirs = nn.BatchNorm2d(4)
    theirs(torch.randn(2, 4, 3, 3))
    net = nn.Sequential(BatchNorm2d(4))
    with_counter = {f"0.{key}": value for key, value in theirs.state_dict().items()}
    assert "0.num_batches_tracked" in with_counter
    before = dict(with_counter)
    net.load_state_dict(with_counter, strict=True)
    assert with_counter.keys() == before.keys()
    net.load_state_dict(net.state_dict(), strict=True)
    with pytest.raises(RuntimeError, match="0.running_mean"):
        net.load_state_dict({k: v for k, v in with_counter.items() if k != "0.running_mean"})


def test_statistics_can_be_reset_and_copied() -> None:
    norm = BatchNorm2d(4)
    norm(torch.randn(2, 4, 3, 3))
    copied = copy.deepcopy(norm)
    norm.reset_parameters()
    assert norm.running_mean is not None and norm.running_var is not None
    assert torch.equal(norm.running_mean, torch.zeros(4)) and torch.equal(norm.running_var, torch.ones(4))
    assert copied.running_mean is not None and copied.running_mean.abs().sum() > 0


def test_the_head_is_the_sum_over_its_dilations() -> None:
    head = DeepLabV2Head(6, 8, 3, (1, 2, 5), dropout=0.0).double()
    for conv in head.convs:
        nn.init.normal_(conv.bias)  # type: ignore[arg-type]
    features = torch.randn(2, 6, 7, 8, dtype=torch.float64)
    expected = torch.zeros(2, 3, 7, 8, dtype=torch.float64)
    for conv, dilation in zip(head.convs, (1, 2, 5), strict=True):
        assert isinstance(conv, nn.Conv2d) and conv.bias is not None
        padded = F.pad(features, (dilation,) * 4)
        for row in range(3):
            for column in range(3):
                window = padded[:, :, row * dilation :, column * dilation :][:, :, :7, :8]
                expected += torch.einsum("kc,bchw->bkhw", conv.weight[:, :, row, column], window)
        expected += conv.bias[:, None, None]
    torch.testing.assert_close(head(features), expected)


def test_wide_features_are_convolved_by_taps(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16 on a CPU: no further from float64 than the convolutions, in output and gradients."""
    torch.manual_seed(0)
    head = DeepLabV2Head(64, 8, 5, (2, 3), dropout=0.0).to(memory_format=torch.channels_last)
    for conv in head.convs:
        nn.init.normal_(conv.bias)  # type: ignore[arg-type]
    x, grad = images(64, (9, 11)), images(5, (9, 11))
    exact = copy.deepcopy(head).bfloat16().double()
    weight, bias = "convs.1.weight", "convs.0.bias"
    for name in (weight, bias):
        truth = gradients(exact, exact.get_parameter(name), x.double(), grad.double())
        found = []
        for by_taps in (False, True):
            monkeypatch.setattr(head, "wide_to_few", by_taps)
            found.append(gradients(head, head.get_parameter(name), x, grad))
        assert not torch.equal(found[0].y, found[1].y), "both are the convolutions"
        assert found[1].y.is_contiguous(memory_format=torch.channels_last) and found[1].y.dtype is torch.bfloat16
        for usual, ours, true in zip(*found, truth, strict=True):
            error, allowed = ((of.double() - true).pow(2).mean().sqrt() for of in (ours, usual))
            assert error <= 1.2 * allowed + 1e-4


@pytest.mark.parametrize(
    ("channels", "classes", "by_taps"), [(2048, 19, True), (1024, 31, True), (512, 19, False), (2048, 32, False)]
)
def test_taps_are_taken_from_many_channels_to_few_classes(channels: int, classes: int, by_taps: bool) -> None:
    assert DeepLabV2Head(channels, 8, classes, (6,), dropout=0.0).wide_to_few == by_taps


def test_the_head_starts_small_and_without_bias() -> None:
    torch.manual_seed(0)
    head = DeepLabV2Head(512, 8, 19, (6, 12), dropout=0.0)
    assert len(head.convs) == 2
    for conv in head.convs:
        assert isinstance(conv, nn.Conv2d) and conv.bias is not None
        assert conv.weight.std().item() == pytest.approx(0.01, rel=0.02)
        assert abs(conv.weight.mean().item()) < 2e-4
        assert not conv.bias.any()


def test_dropout_drops_whole_channels_in_training_alone() -> None:
    torch.manual_seed(0)
    head = DeepLabV2Head(64, 8, 2, (1,), dropout=0.5)
    features = torch.ones(4, 64, 3, 3)
    dropped = head.dropout(features)
    share = (dropped == 0).flatten(2)
    assert torch.equal(share.all(-1), share.any(-1)) and 0.3 < share.float().mean() < 0.7
    assert not torch.equal(head(features), head(features))
    head.eval()
    assert torch.equal(head(features), head(features))
