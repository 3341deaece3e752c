"""What benchmarks/bench_step.py times is what it says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import bench_step
from benchmarks.steps import Case

HEADLINE = ("resnet101-v1c", (512, 512), 2)


def test_what_has_to_do_with_8_gb_is_the_headlines_network(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, ...]] = []
    card = SimpleNamespace(total_memory=80e9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share: seen.append((share,)))
    monkeypatch.setattr(bench_step, "iidm_step", lambda case, *_: case)
    monkeypatch.setattr(bench_step, "_measure", lambda *given, **_: seen.append(given[3:5]))
    bench_step.bench_step_on_8_gb(None, {}, {"cuda": 1.0}, "sequential")
    (first,), (case, made), (last,) = seen
    assert case == made and case[:3] == HEADLINE
    assert (first, last) == (0.1, 1.0)


def test_options_are_timed_of_the_cases_that_the_pages_name() -> None:
    marks: list[pytest.Mark] = bench_step.bench_step_options.pytestmark
    (marked,) = (mark for mark in marks if mark.args[:1] == (("device", "case"),))
    found: dict[str, Case] = dict(entry.values for entry in marked.args[1])
    assert found["cuda"][:3] == HEADLINE and found["cpu"][:3] == ("resnet18", (240, 320), 2)
    assert found["cuda"] in bench_step.GPU_CASES and found["cpu"] in bench_step.CPU_CASES
