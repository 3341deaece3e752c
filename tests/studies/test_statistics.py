"""Means, deviations and intervals against numbers from tables and by hand."""

from __future__ import annotations

import random

import pytest

from iidm.studies.statistics import Sample, difference, t_quantile


@pytest.mark.parametrize(
    ("freedom", "value"), [(1, 12.7062), (2, 4.3027), (4, 2.7764), (10, 2.2281), (30, 2.0423), (1000, 1.9623)]
)
def test_quantiles_of_students_t_are_those_of_the_tables(freedom: float, value: float) -> None:
    assert t_quantile(0.975, freedom) == pytest.approx(value, abs=1e-4)


def test_the_deviation_is_that_of_a_sample() -> None:
    assert Sample((1.0, 2.0, 6.0)).mean == 3
    assert Sample((1.0, 2.0, 6.0)).deviation == pytest.approx(7**0.5)  # (4 + 1 + 9) / 2
    assert Sample((1.0,)).deviation is None


def test_the_interval_is_welchs() -> None:
    # Means 12 and 9, variances 1 and 4, three values each: standard error sqrt(5/3), 2.94 degrees of freedom.
    found = difference(Sample((11.0, 12.0, 13.0)), Sample((7.0, 9.0, 11.0)))
    assert found is not None
    freedom = (5 / 3) ** 2 / ((1 / 3) ** 2 / 2 + (4 / 3) ** 2 / 2)
    assert freedom == pytest.approx(2.9412, abs=1e-4)
    half = t_quantile(0.975, freedom) * (5 / 3) ** 0.5
    assert (found.value, found.low, found.high) == pytest.approx((3, 3 - half, 3 + half))
    assert found.low == pytest.approx(-1.157, abs=0.01)  # t of 2.94 is 3.22
    assert not found.is_resolved


def test_a_difference_is_resolved_when_its_interval_leaves_0_out_on_either_side() -> None:
    low, high = Sample((50.0, 50.1, 50.2)), Sample((52.0, 52.1, 52.2))
    for pair, sign in (((high, low), 1), ((low, high), -1)):
        found = difference(*pair)
        assert found is not None
        assert found.is_resolved
        assert found.value == pytest.approx(2 * sign)


def test_one_seed_tells_nothing() -> None:
    assert difference(Sample((50.0,)), Sample((1.0, 2.0))) is None


def test_equal_values_have_an_interval_of_no_width() -> None:
    same, other = difference(Sample((5.0, 5.0)), Sample((5.0, 5.0))), difference(Sample((5.0, 5.0)), Sample((4.0, 4.0)))
    assert same is not None and other is not None
    assert not same.is_resolved
    assert other.is_resolved


def test_about_one_in_twenty_of_equal_pairs_looks_resolved() -> None:
    draw = random.Random(0)
    hits = 0
    for _ in range(120):
        samples = [Sample(tuple(draw.gauss(50, 1) for _ in range(3))) for _ in range(2)]
        found = difference(*samples)
        hits += found is not None and found.is_resolved
    assert 1 <= hits <= 14
