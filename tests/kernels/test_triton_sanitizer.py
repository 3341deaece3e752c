"""The Triton kernels touch their own numbers alone, no two programs meet, and all that they return was written."""

from __future__ import annotations

import importlib
import importlib.util

import pytest
import torch

if torch.cuda.is_available() or importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed, or compiles for the GPU at hand", allow_module_level=True)

import triton  # noqa: E402
import triton.language as tl  # noqa: E402
from triton_launches import KERNELS, LAUNCHES, unwritten  # noqa: E402
from triton_sanitizer import sanitized  # noqa: E402


@pytest.mark.parametrize("op", LAUNCHES)
def test_no_access_out_of_bounds_no_meeting_of_programs_nothing_unwritten(op: str) -> None:
    module = importlib.import_module(f"iidm.kernels.{op}.fused_triton")
    with sanitized() as findings:
        assert sum(unwritten(op, module)) == 0
    assert not findings.found
    assert set(findings.launches) == KERNELS[op]


@triton.jit
def shift_kernel(x, out, size, FROM: tl.constexpr, TO: tl.constexpr, ADD: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at + FROM, mask=at < size, other=0.0)
    if ADD:
        tl.atomic_add(out + at // TO, value, mask=at < size)
    else:
        tl.store(out + at // TO, value, mask=at < size)


@pytest.mark.parametrize(
    ("call", "found"),
    [
        ({}, set()),
        ({"FROM": 1}, {"read out of bounds"}),
        ({"size": 9}, {"read out of bounds", "written out of bounds"}),
        ({"TO": 8}, {"written by two programs", "written with different values by lanes of one program"}),
        ({"TO": 8, "ADD": True}, set()),
        ({"in_place": True}, set()),
        ({"in_place": True, "FROM": -1}, {"read by one program, written by another", "read out of bounds"}),
    ],
)
def test_what_it_finds(call: dict[str, int], found: set[str]) -> None:
    x = torch.arange(8.0)
    out = x if call.get("in_place") else torch.zeros(8)
    with sanitized() as findings:
        shift_kernel[(3,)](
            x, out, call.get("size", 8), FROM=call.get("FROM", 0), TO=call.get("TO", 1), ADD=call.get("ADD", False),
            BLOCK=4,
        )  # fmt: skip
    assert {what for _, what in findings.found} == found
