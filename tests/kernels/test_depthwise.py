from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from iidm.kernels.depthwise import depthwise

# Not on a GPU, where it is PyTorch's convolution.
pytestmark = [
    pytest.mark.usefixtures("body"),
    pytest.mark.parametrize("body", ["reference", "fused"], indirect=True, scope="module"),
]

GEOMETRIES = [(1, 1), (2, 1), (1, 2), (1, 6), (2, 3), (3, 2), (1, 18)]
"""Stride, dilation."""
SHAPES = [(1, 1, 1, 1), (2, 24, 15, 20), (3, 65, 4, 1), (1, 130, 33, 17), (2, 3, 1, 40)]
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 4e-3, torch.float16: 1e-3, torch.float64: 1e-12}


def inputs(shape: tuple[int, ...], dtype: torch.dtype, stride: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """x, weight and the gradient of y."""
    torch.manual_seed(0)
    out = (*shape[:2], *(-(-side // stride) for side in shape[2:]))
    x, grad = (torch.randn(s).to(dtype).contiguous(memory_format=torch.channels_last) for s in (shape, out))
    return x, torch.randn(shape[1], 1, 3, 3).to(dtype), grad


def run(x: Tensor, weight: Tensor, grad: Tensor, stride: int, dilation: int) -> dict[str, Tensor]:
    x, weight = (t.clone().requires_grad_() for t in (x, weight))
    y = depthwise(x, weight, stride=stride, dilation=dilation)
    y.backward(grad)
    assert x.grad is not None and weight.grad is not None
    return {"y": y.detach(), "x": x.grad, "weight": weight.grad}


def by_loops(x: Tensor, weight: Tensor, grad: Tensor, stride: int, dilation: int) -> dict[str, Tensor]:
    """float64, tap by tap from the definition."""
    x, weight, grad = (t.double() for t in (x, weight, grad))
    found = {"y": torch.zeros_like(grad), "x": torch.zeros_like(x), "weight": torch.zeros_like(weight)}
    height, width = x.shape[2:]
    for row in range(grad.shape[2]):
        for column in range(grad.shape[3]):
            for tap in range(9):
                i = row * stride + (tap // 3 - 1) * dilation
                j = column * stride + (tap % 3 - 1) * dilation
                if not (0 <= i < height and 0 <= j < width):
                    continue
                by, out = weight[:, 0, tap // 3, tap % 3], grad[:, :, row, column]
                found["y"][:, :, row, column] += by * x[:, :, i, j]
                found["x"][:, :, i, j] += by * out
                found["weight"][:, 0, tap // 3, tap % 3] += (x[:, :, i, j] * out).sum(0)
    return found


def assert_close(ours: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    for name, want in expected.items():
        got = ours[name]
        assert got.shape == want.shape
        off = float((got.double() - want).abs().max() / (1 + want.abs().max()))
        assert off <= tolerance, (name, off)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("stride", "dilation"), GEOMETRIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_against_the_definition_in_float64(
    dtype: torch.dtype, stride: int, dilation: int, shape: tuple[int, ...], body: str
) -> None:
    data = inputs(shape, dtype, stride)
    ours = run(*data, stride, dilation)
    assert all(value.dtype is dtype for value in ours.values())
    assert all(ours[name].is_contiguous(memory_format=torch.channels_last) for name in ("y", "x"))
    assert_close(ours, by_loops(*data, stride, dilation), TOLERANCE[dtype])


@pytest.mark.parametrize(("stride", "dilation"), [(1, 2**31 - 1), (2**31 - 1, 1), (2**31 - 1, 2**31 - 1)])
def test_what_leads_far_out_of_an_image(stride: int, dilation: int, body: str) -> None:
    if body == "reference":
        pytest.skip("PyTorch fills up with that many zeros")
    data = inputs((2, 5, 7, 9), torch.float32, stride)
    assert_close(run(*data, stride, dilation), by_loops(*data, stride, dilation), TOLERANCE[torch.float32])


@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_every_dtype_of_many_blocks(dtype: torch.dtype, body: str) -> None:
    """More pixels and channels than a block of the weights' gradient holds, in rows that do not fill one."""
    x, weight, grad = inputs((3, 70, 131, 67), dtype)
    ours = run(x, weight, grad, 1, 2)
    leaves = [t.double().requires_grad_() for t in (x, weight)]
    y = F.conv2d(*leaves, padding=2, dilation=2, groups=70)
    y.backward(grad.double())
    expected = {"y": y.detach(), "x": leaves[0].grad, "weight": leaves[1].grad}
    assert_close(ours, expected, TOLERANCE[dtype])  # type: ignore[arg-type]


def test_any_layout_is_taken(body: str) -> None:
    x, weight, grad = inputs((2, 6, 9, 10), torch.float32)
    expected = run(x, weight, grad, 1, 3)
    strided = torch.empty(6, 1, 3, 6)[..., ::2].copy_(weight)
    ours = run(x.contiguous(), strided, grad.contiguous(), 1, 3)
    assert all(torch.equal(ours[name], value) for name, value in expected.items())


@pytest.mark.parametrize("wanted", ["x", "weight"])
def test_one_gradient_alone(wanted: str, body: str) -> None:
    x, weight, grad = inputs((2, 6, 9, 10), torch.float32)
    both = run(x, weight, grad, 1, 3)
    leaf = (x if wanted == "x" else weight).requires_grad_()
    depthwise(x, weight, dilation=3).backward(grad)
    assert leaf.grad is not None and torch.equal(leaf.grad, both[wanted])
    assert (weight if wanted == "x" else x).grad is None


def test_it_passes_opcheck(body: str) -> None:
    x, weight, grad = inputs((2, 6, 9, 10), torch.float32, 2)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.iidm.depthwise.default, (x, weight, 2, 3), test_utils=checks)
    for wanted in ((True, True), (True, False), (False, True)):
        arguments = (grad, x, weight, 2, 3, *wanted)
        torch.library.opcheck(torch.ops.iidm.depthwise_backward.default, arguments, test_utils=checks)


def test_wrong_arguments_are_refused(body: str) -> None:
    x, weight, _ = inputs((2, 6, 9, 10), torch.float32)
    with pytest.raises(TypeError, match="weight must be float32, not bfloat16"):
        depthwise(x, weight.bfloat16())
    with pytest.raises(ValueError, match=r"weight must have the shape \[6,1,3,3\]"):
        depthwise(x, weight[:5])
    with pytest.raises(ValueError, match=r"weight must have the shape \[6,1,3,3\]"):
        depthwise(x, torch.zeros(6, 1, 5, 5))
    with pytest.raises(ValueError, match="stride and dilation must be 1 or more, not 1 and 0"):
        depthwise(x, weight, dilation=0)
