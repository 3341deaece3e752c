"""The option of tests and benchmarks for what takes minutes, and the order of test files."""

from __future__ import annotations

import gc
from collections.abc import Generator

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--long`: what is marked `long`, too."""
    parser.addoption("--long", action="store_true", help="run what takes minutes too")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is there once all tests have been read stays to the end: a search for garbage need not go over it each time,
    and before that there is next to none."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_unconfigure() -> None:
    """Give it back: Triton tells at the end of a process what nobody has thrown away."""
    gc.unfreeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what is marked `long` unless it was asked for; begin with the files that hold slow tests.

    A slow file at the end would keep one core busy while the others have nothing left (--no-loadscope-reorder).
    """
    slow = {item.path for item in items if "slow" in item.keywords}
    items.sort(key=lambda item: item.path not in slow)
    if not config.getoption("--long"):
        for item in items:
            if "long" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="takes minutes: runs with --long"))
