"""Every CUDA kernel under the sanitizers at awkward sizes: nothing out of bounds or misaligned, no race, no misuse."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import on_cpu  # noqa: E402

pytestmark = pytest.mark.skipif(bool(on_cpu.why_not()), reason=on_cpu.why_not())


def check(sanitizer: str, sizes: str, order: int) -> None:
    run = on_cpu.run_program(on_cpu.Build().program(sanitizer), sizes, order=order)
    assert run.returncode == 0, f"{run.stdout}{run.stderr[:3000]}"
    assert "0 errors" in run.stdout


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_the_kernels_pass(sanitizer: str) -> None:
    check(sanitizer, "few", 0)


@pytest.mark.long
@pytest.mark.parametrize("order", range(6))
@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_the_kernels_pass_at_more_sizes_in_any_order_of_threads_and_blocks(sanitizer: str, order: int) -> None:
    check(sanitizer, "many", order)
