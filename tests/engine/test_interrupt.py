"""Ctrl-C, SIGTERM, SIGHUP: a wish at first, an order the second time, and nobody's business afterwards."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from iidm.engine.interrupt import STOPS, InterruptFlag, Stopped, stops_raise


@pytest.fixture(autouse=True)
def handlers() -> Iterator[list[int]]:
    """Handlers of our own for both signals, so that no test can end the test run; the signals they got."""
    got: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        got.append(number)

    before = {number: signal.signal(number, note) for number in STOPS}
    yield got
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STOPS)
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


@pytest.mark.parametrize("number", (signal.SIGTERM, signal.SIGHUP))
def test_outside_the_loop_a_termination_ends_a_run_as_ctrl_c_does(number: int, handlers: list[int]) -> None:
    with pytest.raises(KeyboardInterrupt) as stop, stops_raise():
        os.kill(os.getpid(), number)
        signal.pause()
    assert isinstance(stop.value, Stopped) and stop.value.number == number
    os.kill(os.getpid(), number)
    assert handlers == [number], "the handlers from before are back"


@pytest.mark.parametrize("number", STOPS)
def test_what_nohup_or_a_script_has_the_process_ignore_stays_ignored(number: int) -> None:
    signal.signal(number, signal.SIG_IGN)
    with stops_raise(), InterruptFlag() as flag:
        os.kill(os.getpid(), number)
        assert not flag.set
