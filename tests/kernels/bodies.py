"""Names the bodies of the ops that a module's tests run against (the fixture `body`)."""

from __future__ import annotations

import pytest


def run_with(*names: str) -> list[pytest.MarkDecorator]:
    """The `pytestmark` of a module whose tests run against these bodies, and on a GPU."""
    params = [*names, pytest.param("gpu", marks=pytest.mark.gpu)]
    return [pytest.mark.usefixtures("body"), pytest.mark.parametrize("body", params, indirect=True, scope="module")]
