"""A pytest plugin: a process whose GPU is in an error gives up its place to a new one.

After an access outside of its memory a kernel leaves a process's GPU unusable, and every later test in it fails with
the same words. Where pytest-xdist runs the tests (`--dist load`; other ways would begin with the faulty test again), it
starts another process for those that are left.
"""

from __future__ import annotations

import os

import pytest
import torch

_failed = False


def is_lost() -> bool:
    """Whether the GPU of this process answers nothing but an error."""
    if not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember that the test has failed."""
    global _failed
    _failed = _failed or report.failed


@pytest.hookimpl(trylast=True)
def pytest_runtest_logfinish() -> None:
    """End this process, once the test's report is on its way, if the GPU is lost. One without xdist goes on."""
    global _failed
    if _failed and "PYTEST_XDIST_WORKER" in os.environ and is_lost():
        os._exit(1)
    _failed = False
