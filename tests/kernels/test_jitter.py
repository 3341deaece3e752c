from __future__ import annotations

import colorsys
import itertools

import numpy as np
import pytest
import torch
from bodies import run_with

from iidm import kernels
from iidm.kernels.jitter import JitterParams, draw_jitter, jitter, normalize
from iidm.kernels.jitter.reference import jitter_by_image, jitter_by_position

pytestmark = run_with("reference", "fused", "emulated")

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
ORDERS = list(itertools.permutations(range(4)))


def clamped(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(min(max(v, 0.0), 1.0) for v in values)


def jittered_pixel(pixel: tuple[float, ...], params: JitterParams, image: int) -> tuple[float, ...]:
    """kornia 0.5.8's ColorJitter for one RGB pixel in 0..1, through a real HSV conversion."""
    if not params.enabled[image]:
        return pixel
    for step in params.order[image].tolist():
        if step == 0:
            pixel = clamped(tuple(v + float(params.brightness[image]) for v in pixel))
        elif step == 1:
            pixel = clamped(tuple(v * float(params.contrast[image]) for v in pixel))
        else:
            h, s, v = colorsys.rgb_to_hsv(*pixel)
            if step == 2:
                s = min(max(s * float(params.saturation[image]), 0.0), 1.0)
            else:
                h = (h + float(params.hue[image])) % 1.0
            pixel = colorsys.hsv_to_rgb(h, s, v)
    return pixel


def expected_jitter(image: torch.Tensor, params: JitterParams) -> np.ndarray:
    out = np.empty((image.shape[0], 3, *image.shape[1:3]))
    for b, y, x in itertools.product(*map(range, image.shape[:3])):
        pixel = tuple(v / 255 for v in image[b, y, x].tolist())
        for c, value in enumerate(jittered_pixel(pixel, params, b)):
            out[b, c, y, x] = (value * 255 - MEAN[c]) / STD[c]
    return out


def random_images(batch: int, height: int, width: int) -> torch.Tensor:
    image = torch.randint(0, 256, (batch, height, width, 3), dtype=torch.uint8)
    special = torch.tensor([[0, 0, 0], [255, 255, 255], [90, 90, 90], [255, 0, 0], [10, 200, 200], [1, 0, 0]])
    image.view(batch, -1, 3)[:, : len(special)] = special[: height * width].to(torch.uint8)
    return image


def all_orders(strength: float) -> JitterParams:
    params = draw_jitter(len(ORDERS), strength, 1.0, False, None, torch.get_default_device())
    return params._replace(order=torch.tensor(ORDERS))


@pytest.mark.parametrize("strength", [0.2, 0.5])
def test_jitter_is_the_hsv_form_in_every_order(strength: float) -> None:
    params = all_orders(strength)
    image = random_images(len(ORDERS), 4, 5)
    result = jitter(image, params, mean=MEAN, std=STD)
    np.testing.assert_allclose(result.cpu().numpy(), expected_jitter(image, params), atol=2e-5)


def test_the_form_for_devices_equals_the_form_for_the_cpu() -> None:
    params = all_orders(0.25)._replace(enabled=torch.arange(len(ORDERS)) % 3 != 0)
    x = torch.rand(len(ORDERS), 3, 6, 7)
    torch.testing.assert_close(jitter_by_position(x, params), jitter_by_image(x.clone(), params), atol=0, rtol=0)


def test_images_that_are_switched_off_are_only_normalized() -> None:
    params = all_orders(0.5)._replace(enabled=torch.zeros(len(ORDERS), dtype=torch.bool))
    image = random_images(len(ORDERS), 3, 2)
    assert torch.equal(jitter(image, params, mean=MEAN, std=STD), normalize(image, mean=MEAN, std=STD))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [(1, 1), (63, 5)])
def test_normalize_is_minus_mean_over_std(dtype: torch.dtype, size: tuple[int, int]) -> None:
    image = torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8)
    result = normalize(image, mean=MEAN, std=STD, dtype=dtype)
    expected = (image.double() - torch.tensor(MEAN).double()) / torch.tensor(STD).double()
    assert result.dtype == dtype and result.is_contiguous(memory_format=torch.channels_last)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(result.double(), expected.permute(0, 3, 1, 2), atol=tolerance, rtol=tolerance)


def test_views_with_strides_give_the_same_as_dense_images() -> None:
    whole = torch.randint(0, 256, (2, 8, 20, 3), dtype=torch.uint8)
    view = whole[:, ::2, 3:14].flip(2)
    params = draw_jitter(2, 0.3, 1.0, False, None, torch.get_default_device())
    assert torch.equal(jitter(view, params, mean=MEAN, std=STD), jitter(view.contiguous(), params, mean=MEAN, std=STD))


def test_drawn_values_lie_in_their_ranges_and_fill_them() -> None:
    s = 0.2
    p = draw_jitter(
        4000, s, 0.8, False, torch.Generator(torch.get_default_device()).manual_seed(3), torch.get_default_device()
    )
    for value, centre in ((p.brightness, 0.0), (p.contrast, 1.0), (p.saturation, 1.0), (p.hue, 0.0)):
        assert centre - s <= value.min() < centre - 0.95 * s and centre + 0.95 * s < value.max() <= centre + s
        # The standard error of the mean is 0.2 / sqrt(3 * 4000) = 0.0018.
        assert abs(float(value.mean()) - centre) < 0.008
    assert abs(float(p.enabled.float().mean()) - 0.8) < 0.03
    counts = torch.unique(p.order, dim=0, return_counts=True)[1].double()
    assert len(counts) == 24
    # Chi-square, 23 degrees of freedom: 49.7 is exceeded once in a thousand.
    assert float(((counts - 4000 / 24) ** 2 / (4000 / 24)).sum()) < 49.7


def test_one_switch_for_the_batch_leaves_each_image_its_own_values() -> None:
    generator = torch.Generator(torch.get_default_device()).manual_seed(0)
    draws = [draw_jitter(5, 0.2, 0.5, True, generator, torch.get_default_device()) for _ in range(40)]
    states = {bool(d.enabled[0]) for d in draws}
    assert states == {True, False} and all(len(d.enabled.unique()) == 1 for d in draws)
    assert all(len(d.brightness.unique()) == 5 for d in draws)


def test_the_same_seed_draws_the_same_jitter() -> None:
    first, second = (
        draw_jitter(
            3, 0.2, 0.8, False, torch.Generator(torch.get_default_device()).manual_seed(7), torch.get_default_device()
        )
        for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"order": torch.zeros(2, 3, dtype=torch.int64)},
            ValueError,
            r"params.order must have the shape \[2,4\]",
        ),
        ({"hue": torch.zeros(2, dtype=torch.float64)}, TypeError, "params.hue must be float32, not float64"),
        (
            {"enabled": torch.zeros(3, dtype=torch.bool)},
            ValueError,
            r"params.enabled must have the shape \[2\]",
        ),
    ],
)
def test_wrong_parameters_are_named(change: dict[str, torch.Tensor], error: type[Exception], message: str) -> None:
    params = draw_jitter(2, 0.2, 1.0, False, None, torch.get_default_device())._replace(**change)
    with pytest.raises(error, match=message):
        jitter(torch.zeros(2, 4, 4, 3, dtype=torch.uint8), params, mean=MEAN, std=STD)


def test_wrong_images_and_statistics_are_named() -> None:
    with pytest.raises(ValueError, match=r"image must have the shape \[B,H,W,3\]"):
        normalize(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), mean=MEAN, std=STD)
    with pytest.raises(TypeError, match="image must be uint8, not float32"):
        normalize(torch.zeros(2, 4, 4, 3), mean=MEAN, std=STD)
    with pytest.raises(ValueError, match="std > 0"):
        normalize(torch.zeros(2, 4, 4, 3, dtype=torch.uint8), mean=MEAN, std=(1.0, 1.0, 0.0))
    with pytest.raises(ValueError, match="probability and strength must lie in 0..1"):
        draw_jitter(2, 0.2, 1.5, False, None, torch.get_default_device())


def test_opcheck() -> None:
    params = list(draw_jitter(2, 0.2, 1.0, False, None, torch.get_default_device()))
    image = random_images(2, 5, 4)
    for arguments in ((image, params), (image, [])):
        out = torch.empty((2, 3, 5, 4), dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
        torch.library.opcheck(torch.ops.iidm.jitter.default, (*arguments, list(MEAN), list(STD), out))


@pytest.mark.skipif(not kernels.build_info()["extension"], reason="the extension is not built")
def test_a_wrong_order_reads_nothing_beside_the_values() -> None:
    """A step of 2^20 ended the process."""
    params = all_orders(0.25)
    wrong = params._replace(order=params.order + 4 * torch.tensor([1 << 20, -1, 7, 1 << 40]))
    image = torch.randint(0, 256, (len(ORDERS), 3, 5, 3), dtype=torch.uint8)
    kernels.set_implementation("fused", "cpu")
    found, expected = (jitter(image, one, mean=MEAN, std=STD) for one in (wrong, params))
    assert torch.equal(found, expected)
