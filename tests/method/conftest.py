"""So that the tests can `import small_steps` and `tape`; and CUDA graphs on the CPU."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from iidm.method.graph import StepGraph

sys.path.insert(0, str(Path(__file__).parent))
if TYPE_CHECKING:
    from tape import Tape


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch) -> list[Tape]:
    """The part of torch.cuda that iidm.method.graph uses, with tapes as graphs; returns those made so far."""
    from tape import Tape

    made: list[Tape] = []

    class Stream:
        device_index = 0

        def __init__(self, _: object = None) -> None:
            pass

        def wait_stream(self, _: object) -> None:
            pass

    def graph() -> Tape:
        made.append(Tape())
        return made[-1]

    @contextmanager
    def nothing(*_: object) -> Iterator[None]:
        yield

    @contextmanager
    def capture(tape: Tape, *_: object, **__: object) -> Iterator[None]:
        with tape:
            yield

    for name, value in {
        "Stream": Stream, "stream": nothing, "CUDAGraph": graph, "graph": capture, "current_stream": Stream,
        "graph_pool_handle": lambda: (0, 1),
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(StepGraph, "_leave", lambda *_: None)  # test_failed_capture.py
    return made
