"""The whole step of every method on a GPU that is not there: forward, backward, optimiser, EMA."""

from __future__ import annotations

import itertools
import os

import pytest
import torch
from fake_steps import AMP, MEANT, key_of, not_meant, step_of, watched
from torch import Tensor
from torch.utils._pytree import tree_leaves

from iidm.catalog import METHODS

WAYS = [
    {"branches": "sequential", "amp": "float32"},
    {"branches": "sequential", "amp": "float16"},
    {"branches": "merged", "amp": "float32", "accumulate": 2},
    {"branches": "merged", "amp": "float16", "recompute": True},
    {"branches": "sequential", "amp": "bfloat16", "accumulate": 2, "recompute": True},
]
CASES = [(method, {"branches": "merged", "amp": "bfloat16"}) for method in METHODS]
if os.environ.get("IIDM_REHEARSAL") == "all":
    every = itertools.product(METHODS, ("merged", "sequential"), AMP, (1, 2), (False, True))
    CASES = [(m, {"branches": b, "amp": a, "accumulate": n, "recompute": r}) for m, b, a, n, r in every]
else:
    # Each method in one more way, and each way with several methods.
    CASES += [(method, WAYS[number % len(WAYS)]) for number, method in enumerate(METHODS)]
seen: set[tuple[str, str, str]] = set()


def name(value: str | dict[str, object]) -> str:
    return value if isinstance(value, str) else "-".join(map(str, value.values()))


@pytest.mark.parametrize(("method", "way"), CASES, ids=name)
def test_a_step_stays_on_the_device(method: str, way: dict[str, object]) -> None:
    step = step_of(method, **way)  # type: ignore[arg-type]
    watch, output = watched(step)
    seen.update(map(key_of, watch.findings))
    assert not_meant(watch) == []
    assert all(leaf.is_cuda for leaf in tree_leaves(output) if isinstance(leaf, Tensor))
    for module in step.modules.values():
        for name, value in module.state_dict().items():
            assert value.is_cuda and value.dtype in (torch.float32, torch.int64, torch.bool), name
    assert watch.calls["_fused_adamw_"] > 0 and watch.calls["_foreach_lerp_"] > 0


@pytest.mark.parametrize(
    ("backbone", "recipe", "step"),
    [
        ("resnet18", "paper", {"recompute": True}),
        ("mobilenet_v2", "adapt", {"branches": "sequential"}),
        ("mit_b0", "daformer", {"recompute": True}),
    ],
)
def test_a_step_of_a_whole_network_stays_on_the_device(backbone: str, recipe: str, step: dict[str, object]) -> None:
    watch, _ = watched(step_of("iidm", "bfloat16", backbone, recipe=recipe, **step), [0])
    seen.update(map(key_of, watch.findings))
    assert not_meant(watch) == []


def test_what_is_meant_is_still_there() -> None:
    """After the tests above: an entry whose reason is gone goes too."""
    assert seen >= MEANT.keys()
