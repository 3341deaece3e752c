"""HRDA: fusion, windows and boxes against loops over cells, and what branches, recomputation and layouts ask of it."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iidm.config import SlidingWindow
from iidm.engine.windows import image_logits
from iidm.models import Network, build_network, parameter_groups, set_recompute
from iidm.models.head import Head, Level
from iidm.models.hrda import HRDANetwork, window
from iidm.models.segformer import SegFormerHead
from iidm.types import UserError

K = 3


class Pixels(nn.Module):
    """A backbone whose one level is the mean colour of each 4x4 pixels, so that logits are easy to know."""

    levels = (Level(3, 4),)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (F.avg_pool2d(x, 4),)


class Classify(Head):
    """A 1x1 convolution."""

    def __init__(self) -> None:
        super().__init__(3, 4)
        self.conv = nn.Conv2d(3, K, 1)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.conv(features)
        return logits


class Alone(nn.Module):
    """A network that is not told where its windows lie."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.network(image)
        return logits


def small(crop: tuple[int, int] = (32, 48)) -> HRDANetwork:
    torch.manual_seed(0)
    network = HRDANetwork(Pixels(), Classify(), SegFormerHead(Pixels.levels, K, 0.0), crop).double()
    for norm in (network.attention.point_norm,):  # otherwise every attention is near a half
        nn.init.normal_(norm.weight, 0.0, 2.0)
        nn.init.normal_(norm.bias, 0.0, 2.0)
    nn.init.normal_(network.attention.classify.weight, 0.0, 1.0)
    return network


def boxes(*corners: tuple[int, int]) -> list[Tensor]:
    return [torch.tensor(corner) for corner in corners]


def doubled(x: Tensor, y: int, z: int) -> Tensor:
    """[B,K,h,w] doubled bilinearly, read at one cell: at a quarter and three quarters between two cells."""

    def neighbours(place: int, size: int) -> Iterator[tuple[int, float]]:
        near, far = place // 2, place // 2 + (1 if place % 2 else -1)
        yield near, 0.75
        yield min(max(far, 0), size - 1), 0.25

    found = torch.zeros(x.shape[:2], dtype=x.dtype)
    for row, high in neighbours(y, x.shape[2]):
        for column, wide in neighbours(z, x.shape[3]):
            found += high * wide * x[:, :, row, column]
    return found


def fused_by_hand(context: Tensor, share: Tensor, detail: Tensor, corner: tuple[int, int] | None) -> Tensor:
    """Cell by cell. `corner`: of the detail in cells of the fused grid, None if it covers everything."""
    batch, classes, height, width = context.shape
    masked = share.clone()
    placed = torch.zeros(batch, classes, 2 * height, 2 * width, dtype=context.dtype)
    if corner is None:
        placed = detail
    else:
        top, left = corner
        placed[:, :, top : top + detail.shape[2], left : left + detail.shape[3]] = detail
        for y in range(height):
            for x in range(width):
                inside = top <= 2 * y < top + detail.shape[2] and left <= 2 * x < left + detail.shape[3]
                masked[:, :, y, x] *= float(inside)
    fused = torch.zeros_like(placed)
    for y in range(2 * height):
        for x in range(2 * width):
            of_context = doubled((1 - masked) * context, y, x)
            fused[:, :, y, x] = doubled(masked, y, x) * placed[:, :, y, x] + of_context
    return fused


def scales_of(network: HRDANetwork, image: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and attention of the image at half its resolution."""
    (level,) = network.backbone(F.interpolate(image, scale_factor=0.5, mode="bilinear"))
    attention = network.attention(network.attention.fuse([level]))
    return network.head(level), torch.sigmoid(attention)


@pytest.mark.parametrize("corner", [(0, 0), (8, 16), (16, 24)])
def test_a_window_is_fused_as_a_loop_over_cells_fuses_it(corner: tuple[int, int]) -> None:
    """Cells just inside and just outside of the window's edge included."""
    network, image = small(), torch.randn(2, 3, 32, 48, dtype=torch.float64)
    look = network.look(image, boxes(corner))
    top, left = corner
    (level,) = network.backbone(image[:, :, top : top + 16, left : left + 24])
    detail = network.head(level)
    context, share = scales_of(network, image)
    assert look.detail is not None
    torch.testing.assert_close(look.detail, detail)
    expected = fused_by_hand(context, share, detail, (top // 4, left // 4))
    torch.testing.assert_close(look.logits.double(), expected, rtol=1e-5, atol=1e-5)
    assert look.logits.shape == (2, K, 8, 12)
    assert look.features.shape == look.deepest.shape == (2, 3, 4, 6), "those of the context"


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [(32, 48), (40, 56), (16, 24), (37, 50), (8, 100)])
def test_an_image_is_covered_by_windows_whose_logits_are_averaged(size: tuple[int, int], training: bool) -> None:
    """Windows of 16x24, 8 and 8 pixels apart (half a window in multiples of 8), the last at the border; all at once for
    a teacher in training, a few at a time otherwise."""
    network, image = small().train(training), torch.randn(2, 3, *size, dtype=torch.float64)
    padded = F.pad(image, (0, max(-size[1] % 8, 48 - size[1]), 0, max(-size[0] % 8, 32 - size[0])))
    height, width = padded.shape[2:]
    high, wide = 16, 24
    total, count = torch.zeros(2, K, height // 4, width // 4, dtype=torch.float64), torch.zeros(height // 4, width // 4)
    for top in sorted({*range(0, height - high + 1, 8), height - high}):
        for left in sorted({*range(0, width - wide + 1, 8), width - wide}):
            (level,) = network.backbone(padded[:, :, top : top + high, left : left + wide])
            rows, columns = slice(top // 4, (top + high) // 4), slice(left // 4, (left + wide) // 4)
            total[:, :, rows, columns] += network.head(level)
            count[rows, columns] += 1
    context, share = scales_of(network, padded)
    expected = fused_by_hand(context, share, total / count, None)[:, :, : -(-size[0] // 4), : -(-size[1] // 4)]
    torch.testing.assert_close(network(image).double(), expected, rtol=1e-5, atol=1e-5)


# Of images of 80x100 and crops of 32x48, whose details of 16x24 lie every 8. Images that the backbone sees: contexts,
# and rows times columns of distinct details, of two images each.
@pytest.mark.parametrize(
    ("size", "stride", "training", "calls"),
    [
        ((32, 48), (16, 24), False, 2 * (4 * 4 + 9 * 14)),  # the last column is moved back, to where it shares none
        ((32, 48), (13, 24), False, 2 * (5 * 4 + 15 * 14)),  # rows share none
        ((40, 56), (8, 8), False, 2 * (6 * 7 + 9 * 15)),
        ((30, 48), (15, 24), False, 2 * (5 * 4) * (1 + 12)),  # filled up: each alone
        ((32, 48), (16, 24), True, 2 * (4 * 4) * (1 + 12)),  # batch statistics: each alone
    ],
)
@torch.inference_mode()
def test_sliding_windows_share_details_and_say_what_each_says_alone(
    size: tuple[int, int], stride: tuple[int, int], training: bool, calls: int
) -> None:
    network, image = small().train(training), torch.randn(2, 3, 80, 100, dtype=torch.float64)
    seen: list[int] = []
    network.backbone.register_forward_hook(lambda _, given, out: seen.append(len(given[0])))
    for batch in (1, 4):
        windows = SlidingWindow(size, stride, batch)
        seen.clear()
        found = image_logits(network, image, windows)
        assert sum(seen) == calls
        torch.testing.assert_close(found, image_logits(Alone(network), image, windows), rtol=1e-5, atol=1e-5)


def test_boxes_are_multiples_of_a_cell_and_never_at_the_far_border() -> None:
    """As the public code draws them: 8 * randint(0, (512 + 1) // 8) of 512."""
    network = small()
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([network.draw_box((32, 48), generator) for _ in range(400)])
    assert drawn[:, 0].unique().tolist() == [0, 8] and drawn[:, 1].unique().tolist() == [0, 8, 16]
    _, counts = drawn[:, 1].unique(return_counts=True)
    assert counts.min() > 90, "all alike"


def test_a_window_of_labels_and_images_lies_where_it_should() -> None:
    label = torch.arange(8 * 9, dtype=torch.uint8).reshape(1, 8, 9)
    assert torch.equal(window(label, torch.tensor([2, 3]), (4, 5)), label[:, 2:6, 3:8])
    image = torch.randn(2, 3, 8, 9).contiguous(memory_format=torch.channels_last)
    cut = window(image, torch.tensor([4, 0]), (4, 5))
    assert torch.equal(cut, image[:, :, 4:, :5]) and cut.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("backbone", "head"), [("resnet18", "deeplabv2"), ("mobilenet_v2", "daformer")])
def test_branches_in_one_pass_are_branches_one_after_the_other(backbone: str, head: str) -> None:
    torch.manual_seed(0)
    merged = build_network(backbone, K, output_stride=16, head=head, hrda=True, crop_size=(64, 128)).double()
    assert isinstance(merged, HRDANetwork)
    apart = copy.deepcopy(merged)
    image, corners = torch.randn(3, 3, 64, 128, dtype=torch.float64), boxes((32, 0), (0, 64))
    with merged.branches([1, 2]):
        one = merged.look(image, corners)
    two = [apart.look(part, [corner]) for part, corner in zip(image.split([1, 2]), corners, strict=True)]
    for together, parts in zip(one, zip(*two, strict=True), strict=True):
        torch.testing.assert_close(together, torch.cat(parts))  # type: ignore[arg-type]
    # The backbone and the head see the context of a branch, then its detail, then the next branch.
    for ours, theirs in zip(merged.buffers(), apart.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_recomputed_gradients_are_the_same() -> None:
    torch.manual_seed(0)
    network = build_network("resnet18", K, head="daformer", hrda=True, crop_size=(64, 64))
    other = copy.deepcopy(network)
    set_recompute(other, True)
    image = torch.randn(2, 3, 64, 64)
    for own in (network, other):
        look = own.look(image, boxes((16, 32)))  # type: ignore[call-arg]
        (look.logits.square().mean() + look.detail.square().mean()).backward()  # type: ignore[union-attr]
    for (name, ours), theirs in zip(network.named_parameters(), other.parameters(), strict=True):
        assert ours.grad is not None and theirs.grad is not None and bool(ours.grad.abs().sum() > 0), name
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_images_stay_channels_last_and_no_place_is_read_on_the_host() -> None:
    network = build_network("resnet18", K, head="segformer", hrda=True, crop_size=(64, 64))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    seen: list[Tensor] = []
    network.backbone.register_forward_hook(lambda _, given, out: seen.extend([given[0], *out]))
    image = torch.randn(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    network.look(image, boxes((0, 0)))
    network(image)
    assert all(part.is_contiguous(memory_format=torch.channels_last) for part in seen)
    with torch.device("meta"):  # a value that is read there raises
        on_meta = build_network("resnet18", K, head="segformer", hrda=True, crop_size=(64, 64))
        look = on_meta.look(torch.empty(2, 3, 64, 64), [torch.empty(2, dtype=torch.int64)])  # type: ignore[call-arg]
    assert look.logits.shape == (2, K, 16, 16)


def test_the_attention_learns_at_the_rate_of_the_head() -> None:
    network = build_network("resnet18", K, hrda=True, crop_size=(64, 64))
    assert isinstance(network, HRDANetwork)
    groups = parameter_groups(network, 1e-3, 10.0, 0.0)
    assert {id(p) for p in groups[-1]["params"]} >= {id(p) for p in network.attention.parameters()}
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))


def test_a_crop_that_does_not_divide_into_cells_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"multiples of 32, not 100 130: give --data.crop-size 96 128"):
        build_network("resnet18", K, output_stride=8, hrda=True, crop_size=(100, 130))
    assert isinstance(build_network("resnet18", K, hrda=True, crop_size=(96, 128)), Network)


class Coarse(Pixels):
    """A backbone that divides images into cells of 32 pixels too, and resizes those that it cannot."""

    multiple = 32

    def forward(self, x: Tensor) -> tuple[Tensor]:
        assert not any(side % 32 for side in x.shape[2:]), "what HRDA shows it fits"
        return super().forward(x)


def test_context_and_windows_fit_a_backbone_with_larger_cells() -> None:
    attention = SegFormerHead(Pixels.levels, K, 0.0)
    with pytest.raises(UserError, match=r"multiples of 64, not 96 128: give --data.crop-size 128 128"):
        HRDANetwork(Coarse(), Classify(), attention, (96, 128))
    network = HRDANetwork(Coarse(), Classify(), attention, (128, 128)).eval()
    assert network(torch.randn(1, 3, 180, 240)).shape == (1, K, 45, 60)
    assert network.look(torch.randn(1, 3, 128, 128), boxes((8, 24))).logits.shape == (1, K, 32, 32)
