"""Items are worked on by several threads, come out in order, and nothing is left when it ends early."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
import torch

from iidm.prediction.flow import AHEAD, Budget, Cancelled, Stop, in_order, threads_shared_by

JOBS = 3


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("iidm-predict")]


def test_results_keep_the_order_of_the_items_and_few_are_ahead() -> None:
    asked = 0
    most = 0

    def items() -> Iterator[int]:
        nonlocal asked
        for number in range(1, 41):
            asked = number
            yield number

    def work(item: int) -> int:
        time.sleep(0.003 * (item % 3))
        return item

    found = []
    with closing(in_order(items(), work, JOBS, Stop())) as results:
        for result in results:
            found.append(result)
            most = max(most, asked - len(found))
            time.sleep(0.001)
    assert found == list(range(1, 41))
    assert 0 < most <= AHEAD * JOBS
    assert not threads()


def test_an_error_ends_it_and_stops_what_is_at_work() -> None:
    stop, seen = Stop(), []

    def work(item: int) -> int:
        if item == 2:
            raise OSError("disk full")
        for _ in range(2000):  # a large image, which asks between its strips
            stop.check()
            time.sleep(0.001 if item > 2 else 0)
        seen.append(item)
        return item

    found = []
    with pytest.raises(OSError, match="disk full"), closing(in_order(range(100), work, JOBS, stop)) as results:
        for result in results:
            found.append(result)
    assert found == [0, 1] and len(seen) <= 2 + AHEAD * JOBS
    assert not threads()
    with pytest.raises(Cancelled):
        stop.check()


def test_closing_ends_the_threads() -> None:
    stop = Stop()
    with closing(in_order(range(100), lambda item: item, JOBS, stop)) as results:
        assert next(results) == 0
    assert not threads()
    with pytest.raises(Cancelled):
        stop.check()


def test_a_whole_run_leaves_the_stop_unset() -> None:
    stop = Stop()
    assert list(in_order(range(9), lambda item: -item, JOBS, stop)) == [-i for i in range(9)]
    stop.check()


def test_a_large_one_is_alone() -> None:
    budget, together, most = Budget(), [], []
    lock = threading.Lock()

    def work(share: float) -> None:
        with budget.taken(share):
            with lock:
                together.append(min(share, 1.0))
                most.append(sum(together))
            time.sleep(0.005)
            with lock:
                together.remove(min(share, 1.0))

    list(in_order([0.3, 0.3, 7.0, 0.3, 0.5, 0.2, 1.0, 0.4, 0.6], work, 6, Stop()))
    assert len(most) == 9 and max(most) <= 1 + 1e-6


def test_threads_of_torch_are_shared() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        with threads_shared_by(2):
            assert torch.get_num_threads() == 2
        with threads_shared_by(9):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
