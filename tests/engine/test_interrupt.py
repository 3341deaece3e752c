"""Ctrl-C: a wish at first, an order the second time, and nobody's business afterwards."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from iidm.engine.interrupt import InterruptFlag


@pytest.fixture(autouse=True)
def handlers() -> Iterator[list[int]]:
    """Handlers of our own for both signals, so that no test can end the test run; the signals they got."""
    got: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        got.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    yield got
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", (signal.SIGINT, signal.SIGTERM))
def test_the_first_signal_sets_the_flag_and_interrupts_nothing(number: int, handlers: list[int]) -> None:
    with InterruptFlag() as flag:
        assert not flag.set
        os.kill(os.getpid(), number)
        assert flag.set and handlers == []


def test_a_second_ctrl_c_interrupts_as_usual(handlers: list[int]) -> None:
    with InterruptFlag() as flag:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert flag.set and handlers == [signal.SIGINT]


def test_by_default_the_second_ctrl_c_is_a_keyboard_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with InterruptFlag() as flag:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            signal.pause()  # the handler runs at the latest here
        assert flag.set


def test_a_termination_after_ctrl_c_is_still_only_a_wish(handlers: list[int]) -> None:
    with InterruptFlag() as flag:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert flag.set and handlers == []


@pytest.mark.parametrize("signals", (0, 1))
def test_the_handlers_from_before_come_back(signals: int) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(ValueError, match="ours"), InterruptFlag():
        assert signal.getsignal(signal.SIGINT) not in before
        for _ in range(signals):
            os.kill(os.getpid(), signal.SIGINT)
        raise ValueError("ours")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
