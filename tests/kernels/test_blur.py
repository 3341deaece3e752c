from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bodies import run_with

from iidm.kernels.blur import blur

pytestmark = run_with("reference", "fused", "emulated")


def gaussian(sigma: float, radius: int) -> np.ndarray:
    weight = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    return weight / weight.sum()


def on(batch: int) -> torch.Tensor:
    return torch.ones(batch, dtype=torch.bool)


def expected_blur(image: torch.Tensor, sigma: torch.Tensor, radius: int) -> np.ndarray:
    """Every output pixel by the double sum over its window, on an image padded by numpy."""
    out = np.empty(tuple(image.shape))
    for b, planes in enumerate(image.double().cpu().numpy()):
        weight = gaussian(float(sigma[b]), radius)
        for c, plane in enumerate(planes):
            padded = np.pad(plane, radius, mode="reflect")
            for y, x in np.ndindex(*plane.shape):
                window = padded[y : y + 2 * radius + 1, x : x + 2 * radius + 1]
                out[b, c, y, x] = weight @ window @ weight
    return out


@pytest.mark.parametrize("size", [(1, 1), (1, 63), (2, 3), (3, 1), (6, 5), (17, 12)])
def test_blur_is_the_weighted_window_at_any_size(size: tuple[int, int]) -> None:
    image, sigma = torch.rand(2, 3, *size), torch.tensor([0.15, 1.15])
    result = blur(image, sigma, on(2))
    np.testing.assert_allclose(result.cpu().numpy(), expected_blur(image, sigma, 5), atol=1e-6)


@pytest.mark.parametrize("sigma", [0.15, 0.7, 1.15])
def test_blur_equals_the_dense_51x51_kernel(sigma: float) -> None:
    image = torch.rand(1, 3, 41, 52)
    weight = torch.from_numpy(np.outer(gaussian(sigma, 25), gaussian(sigma, 25))).to(image.device)
    padded = F.pad(image.double(), (25, 25, 25, 25), mode="reflect")
    dense = F.conv2d(padded, weight.expand(3, 1, 51, 51), groups=3)
    result = blur(image, torch.tensor([sigma]), on(1))
    torch.testing.assert_close(result.double(), dense, atol=1e-3, rtol=0)


def test_images_that_are_switched_off_come_back_bit_for_bit() -> None:
    image = torch.randn(3, 3, 9, 8)
    enabled = torch.tensor([False, True, False])
    result = blur(image, torch.full((3,), 1.0), enabled)
    assert torch.equal(result[0], image[0]) and torch.equal(result[2], image[2])
    assert not torch.equal(result[1], image[1])
    none = blur(image, torch.full((3,), 1.0), torch.zeros(3, dtype=torch.bool))
    assert torch.equal(none, image) and none.data_ptr() != image.data_ptr()


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layout_and_dtype_are_kept(memory_format: torch.memory_format, dtype: torch.dtype) -> None:
    image = torch.rand(2, 3, 9, 7).to(dtype).contiguous(memory_format=memory_format)
    sigma = torch.tensor([0.5, 1.0])
    result = blur(image, sigma, on(2))
    assert result.dtype == dtype and result.stride() == image.stride()
    tolerance = 1e-6 if dtype == torch.float32 else 4e-3
    np.testing.assert_allclose(result.double().cpu().numpy(), expected_blur(image, sigma, 5), atol=tolerance)


def test_a_strided_view_gives_the_same_as_a_dense_image() -> None:
    view = torch.rand(2, 3, 12, 20)[:, :, ::2, 1:15].flip(3)
    sigma = torch.tensor([0.5, 1.0])
    assert torch.equal(blur(view, sigma, on(2)), blur(view.contiguous(), sigma, on(2)))


def test_a_constant_image_stays_constant() -> None:
    image = torch.full((1, 3, 8, 8), 0.3)
    torch.testing.assert_close(blur(image, torch.tensor([1.1]), on(1)), image, atol=1e-6, rtol=0)


def test_wrong_arguments_are_named() -> None:
    image = torch.rand(2, 3, 4, 4)
    with pytest.raises(ValueError, match=r"sigma must have the shape \[2\]"):
        blur(image, torch.ones(3), on(2))
    with pytest.raises(TypeError, match="image must be float32 or bfloat16 or float16, not uint8"):
        blur(image.to(torch.uint8), torch.ones(2), on(2))
    with pytest.raises(ValueError, match="radius must be 1 to 25 pixels, not 0"):
        blur(image, torch.ones(2), on(2), radius=0)


@pytest.mark.parametrize("layout", ["channels last", "sides swapped", "three of four channels", "contiguous"])
def test_the_shape_that_is_known_before_is_that_of_the_result(layout: str) -> None:
    dense = torch.rand(2, 4, 10, 8)
    image = {
        "channels last": dense[:, :3].contiguous(memory_format=torch.channels_last),
        "sides swapped": dense[:, :3].contiguous().transpose(2, 3),
        "three of four channels": dense.contiguous(memory_format=torch.channels_last)[:, :3],
        "contiguous": dense[:, :3].contiguous(),
    }[layout]
    torch.library.opcheck(torch.ops.iidm.blur.default, (image, torch.ones(2), on(2), 5))


def test_opcheck() -> None:
    image = torch.rand(2, 3, 7, 6).contiguous(memory_format=torch.channels_last)
    torch.library.opcheck(torch.ops.iidm.blur.default, (image, torch.ones(2), on(2), 5))
