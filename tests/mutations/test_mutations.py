"""Faults that are planted into the kernels are found."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import mutate  # noqa: E402
import on_cpu  # noqa: E402

MUTATIONS = mutate.mutations()
QUICK = [m for m in MUTATIONS if m.quick]


def skip_what_cannot_run(mutation: mutate.Mutation) -> None:
    if mutation.file.startswith("csrc/"):
        if reason := on_cpu.why_not():
            pytest.skip(reason)
    elif torch.cuda.is_available() or importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed, or compiles for the GPU at hand")


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_the_kernel_still_has_the_text_that_the_mutation_replaces(mutation: mutate.Mutation) -> None:
    assert mutation.new in mutation.source()


def test_a_text_that_is_gone_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"'x' replaces a text that stands 0 times in csrc/blur.h. Write it anew"):
        mutate.Mutation("x", "csrc/blur.h", "not in there", "").source()


@pytest.mark.parametrize("mutation", QUICK, ids=lambda m: m.name)
def test_it_is_found(mutation: mutate.Mutation) -> None:
    skip_what_cannot_run(mutation)
    assert mutate.found_by(mutation.quick, mutation)


@pytest.mark.long
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_every_one_is_found_or_known_to_be_unseen(mutation: mutate.Mutation) -> None:
    skip_what_cannot_run(mutation)
    found = any(mutate.found_by(check, mutation) for check in mutate.checks_of(mutation))
    assert found != bool(mutation.unseen)
