"""Sliding windows against a plain loop over them, and what is held while they slide."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iidm.config import SlidingWindow
from iidm.engine.windows import image_logits, slide_strips, window_offsets

CLASSES = 5


class Cells(nn.Module):
    """Logits at an output stride of 8, ceil(H / 8) cells; a pixel far away in the window matters."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 5, stride=4, padding=2)
        self.second = nn.Conv2d(8, CLASSES, 7, stride=2, padding=3)
        self.batches: list[tuple[int, ...]] = []

    def forward(self, image: Tensor) -> Tensor:
        self.batches.append(tuple(image.shape))
        features = self.first(image).relu()
        logits: Tensor = self.second(features + features.mean((2, 3), keepdim=True))
        return logits


def plain_loop(network: nn.Module, image: Tensor, windows: SlidingWindow, align_corners: bool) -> Tensor:
    """Written as mmsegmentation's `slide_inference`."""
    (stride_h, stride_w), (crop_h, crop_w) = windows.stride, windows.size
    batch, _, height, width = image.shape
    rows = max(height - crop_h + stride_h - 1, 0) // stride_h + 1
    columns = max(width - crop_w + stride_w - 1, 0) // stride_w + 1
    total, count = image.new_zeros((batch, CLASSES, height, width)), image.new_zeros((1, 1, height, width))
    for row in range(rows):
        for column in range(columns):
            y2, x2 = min(row * stride_h + crop_h, height), min(column * stride_w + crop_w, width)
            y1, x1 = max(y2 - crop_h, 0), max(x2 - crop_w, 0)
            crop = image[:, :, y1:y2, x1:x2].contiguous(memory_format=torch.channels_last)
            logits = network(crop).float()
            logits = F.interpolate(logits, size=(y2 - y1, x2 - x1), mode="bilinear", align_corners=align_corners)
            total += F.pad(logits, (x1, width - x2, y1, height - y2))
            count[:, :, y1:y2, x1:x2] += 1
    assert count.min() > 0
    return total / count


# Image (H, W), window, stride: none divides the other; a last window moved back by one; an image lower, narrower or
# smaller than the window; windows side by side; a stride of one row.
CASES = [
    ((61, 83), (24, 30), (11, 17)),
    ((49, 64), (24, 32), (24, 32)),
    ((20, 83), (24, 30), (12, 15)),
    ((61, 21), (24, 30), (12, 15)),
    ((20, 21), (24, 30), (12, 15)),
    ((48, 60), (24, 30), (24, 30)),
    ((26, 40), (24, 30), (1, 30)),
]


@torch.inference_mode()
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("size", "window", "stride"), CASES)
def test_windows_give_what_a_plain_loop_gives(
    size: tuple[int, int], window: tuple[int, int], stride: tuple[int, int], align_corners: bool
) -> None:
    network, image = Cells(), torch.randn(2, 3, *size)
    expected = plain_loop(network, image, SlidingWindow(window, stride, 1), align_corners)
    for batch in (1, 3, 100):
        found = image_logits(network, image, SlidingWindow(window, stride, batch), align_corners=align_corners)
        assert found.shape == (2, CLASSES, *size) and found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    one = image[:1]
    same_batches = image_logits(network, one, SlidingWindow(window, stride, 1), align_corners=align_corners)
    assert torch.equal(same_batches, plain_loop(network, one, SlidingWindow(window, stride, 1), align_corners))


@torch.inference_mode()
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("window", [(45, 67), (200, 300)])
def test_one_window_over_everything_is_the_whole_image(window: tuple[int, int], align_corners: bool) -> None:
    network, image = Cells(), torch.randn(2, 3, 45, 67)  # no multiples of the output stride
    whole = image_logits(network, image, None)
    assert whole.shape == (2, CLASSES, 6, 9)
    found = image_logits(network, image, SlidingWindow(window, window, 2), align_corners=align_corners)
    expected = F.interpolate(whole, size=(45, 67), mode="bilinear", align_corners=align_corners)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@torch.inference_mode()
def test_windows_of_one_row_share_calls_of_the_network() -> None:
    network = Cells()
    image_logits(network, torch.randn(2, 3, 36, 60), SlidingWindow((24, 30), (12, 15), 4))
    # Two images times three windows in each of two rows.
    assert network.batches == [(4, 3, 24, 30), (2, 3, 24, 30)] * 2


@torch.inference_mode()
def test_half_precision_is_the_networks_alone() -> None:
    network, image, windows = Cells(), torch.randn(1, 3, 61, 83), SlidingWindow((24, 30), (12, 15), 1)
    with torch.autocast("cpu", torch.bfloat16):
        found = image_logits(network, image, windows)

    def half(crop: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(crop)
        assert logits.dtype == torch.bfloat16
        return logits.float()

    assert found.dtype == torch.float32
    assert torch.equal(found, plain_loop(half, image, windows, False))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "window", "stride", "offsets"),
    [
        (10, 4, 2, [0, 2, 4, 6]),
        (11, 4, 2, [0, 2, 4, 6, 7]),
        (11, 4, 4, [0, 4, 7]),
        (4, 4, 2, [0]),
        (3, 4, 2, [0]),
    ],
)
def test_the_last_window_is_moved_back_to_the_border(size: int, window: int, stride: int, offsets: list[int]) -> None:
    assert window_offsets(size, window, stride) == offsets


@torch.inference_mode()
def test_rows_are_asked_for_and_done_with_from_top_to_bottom() -> None:
    network, windows, tall = Cells(), SlidingWindow((24, 30), (10, 15), 4), torch.randn(1, 3, 605, 60)
    asked: list[tuple[int, int]] = []

    def rows(top: int, bottom: int) -> Tensor:
        asked.append((top, bottom))
        return tall[:, :, top:bottom]

    heights, expected = [], image_logits(network, tall, windows)
    for strip in slide_strips(network, rows, (605, 60), windows, False):
        done = sum(heights)
        heights.append(strip.shape[2])
        # Final before the next rows are read; the next strip will overwrite it.
        assert torch.equal(strip, expected[:, :, done : done + heights[-1]])
    assert asked == [(top, top + 24) for top in (*range(0, 581, 10), 581)]
    assert heights == [*[10] * 58, 1, 24]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@torch.inference_mode()
def test_a_gpu_gives_what_the_cpu_gives() -> None:
    network, image, windows = Cells(), torch.randn(2, 3, 61, 83), SlidingWindow((24, 30), (11, 17), 4)
    expected = image_logits(network, image, windows)
    found = image_logits(network.cuda(), image.cuda(), windows)
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=5e-3)  # TF32 convolutions
