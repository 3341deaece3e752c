"""Resizing row by row against PyTorch's resizing of the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from iidm.engine.rows import STRIP_ROWS, resized_rows, resized_strips

CPU = torch.device("cpu")
# (H, W) before and after: kept, reduced a little and a lot (support of many rows), enlarged, to one row.
SIZES = [
    ((301, 83), (301, 83)),
    ((301, 83), (202, 56)),
    ((1052, 97), (37, 11)),
    ((90, 61), (245, 163)),
    ((40, 30), (1, 7)),
]


def as_float(image: Tensor) -> Tensor:
    return (image.permute(0, 3, 1, 2).float() - 100) / 50


@pytest.mark.parametrize(("size", "new_size"), SIZES)
def test_rows_are_those_of_the_image_resized_whole(size: tuple[int, int], new_size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    whole = as_float(torch.from_numpy(image)[None])
    expected = F.interpolate(whole, size=new_size, mode="bilinear", antialias=True)
    rows = resized_rows(image, new_size, as_float, CPU)
    everything = rows(0, new_size[0])
    torch.testing.assert_close(everything, expected, rtol=0, atol=2e-6)
    # No bit of a row depends on which others are asked for with it.
    for height in (1, 17, 64):
        for top in range(0, new_size[0], height):
            bottom = min(top + height, new_size[0])
            assert torch.equal(rows(top, bottom), everything[:, :, top:bottom])


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("heights", [(50, 50), (50, 73), (30, 400), (400, 90), (300, 7), (1, 9), (9, 1)])
def test_strips_are_those_of_logits_resized_whole(heights: tuple[int, int], align_corners: bool) -> None:
    logits = torch.randn(2, 4, heights[0], 13)
    expected = F.interpolate(logits, size=(heights[1], 13), mode="bilinear", align_corners=align_corners)
    results = []
    for height in (1, 8, 1000):
        buffer = torch.empty(2, 4, min(height, heights[0]), 13)

        # Each strip overwrites the one before.
        strips = (buffer[:, :, : part.shape[2]].copy_(part) for part in logits.split(height, 2))
        found = [strip.clone() for strip in resized_strips(strips, *heights, align_corners=align_corners)]
        assert max(strip.shape[2] for strip in found) <= STRIP_ROWS
        results.append(torch.cat(found, 2))
        # Positions are float32 numbers up to 400; PyTorch may compute them with one rounding less.
        torch.testing.assert_close(results[-1], expected, rtol=0, atol=5e-5)
    assert all(torch.equal(result, results[0]) for result in results)
