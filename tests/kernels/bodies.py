"""Names the bodies of the ops that a module's tests run against (the fixture `body`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest

Test = TypeVar("Test", bound=Callable[..., None])


def run_with(*names: str) -> list[pytest.MarkDecorator]:
    """The `pytestmark` of a module whose tests run against these bodies, and on a GPU."""
    params = [*names, pytest.param("gpu", marks=pytest.mark.gpu)]
    return [pytest.mark.usefixtures("body"), pytest.mark.parametrize("body", params, indirect=True, scope="module")]


def tested_with(*names: str) -> Callable[[Test], Test]:
    """The same for one test, where the tests of a module run against different bodies."""

    def mark(test: Test) -> Test:
        for each in run_with(*names):
            test = each(test)
        return test

    return mark
