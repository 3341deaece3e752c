"""What the tests of the ops share: an oracle from the definition, and the choice of implementation."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from iidm import kernels

Upsample = Callable[[torch.Tensor, int, int, bool], np.ndarray]


def _interpolation_matrix(out_size: int, in_size: int, align_corners: bool) -> np.ndarray:
    """float64 [out,in]: row i holds the weights with which the cells make output i."""
    matrix = np.zeros((out_size, in_size))
    for i in range(out_size):
        if align_corners:
            position = i * (in_size - 1) / (out_size - 1) if out_size > 1 else 0.0
        else:
            position = max((i + 0.5) * in_size / out_size - 0.5, 0.0)
        first = min(int(position), in_size - 1)
        second = min(first + 1, in_size - 1)
        matrix[i, first] += 1 - (position - first)
        matrix[i, second] += position - first
    return matrix


@pytest.fixture(scope="session")
def upsample64() -> Upsample:
    """logits [B,K,h,w] -> float64 [B,K,H,W], bilinear by definition."""

    def upsample(logits: torch.Tensor, height: int, width: int, align_corners: bool) -> np.ndarray:
        values = logits.detach().double().numpy()
        rows = _interpolation_matrix(height, values.shape[2], align_corners)
        columns = _interpolation_matrix(width, values.shape[3], align_corners)
        return np.einsum("yi,bkij,xj->bkyx", rows, values, columns)

    return upsample


@pytest.fixture
def implementation() -> Iterator[Callable[..., str]]:
    """kernels.set_implementation, undone after the test."""
    yield kernels.set_implementation
    kernels.set_implementation("auto", "cpu")
