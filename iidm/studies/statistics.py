"""Means over seeds, and which differences of means these seeds can tell from chance."""

from __future__ import annotations

import math
from dataclasses import dataclass

CONFIDENCE = 0.95
RULE = (
    "Welch's t interval at 95 % for the difference of two means over seeds, with the Welch-Satterthwaite degrees of"
    " freedom; a difference whose interval holds 0 is not resolved. The many comparisons are not corrected for:"
    " about one in twenty of equal pairs will look resolved."
)


@dataclass(frozen=True)
class Sample:
    """One number of several seeds."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Of the values."""
        return math.fsum(self.values) / len(self.values)

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation (n - 1); None with one value."""
        if len(self.values) < 2:
            return None
        mean = self.mean
        return math.sqrt(math.fsum((value - mean) ** 2 for value in self.values) / (len(self.values) - 1))


@dataclass(frozen=True)
class Difference:
    """Mean of one sample less that of another."""

    value: float
    low: float
    high: float

    @property
    def is_resolved(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


def difference(a: Sample, b: Sample) -> Difference | None:
    """The difference with Welch's interval (`RULE`); None where either has one value only."""
    if a.deviation is None or b.deviation is None:
        return None
    parts = [sample.deviation**2 / len(sample.values) for sample in (a, b) if sample.deviation is not None]
    value, variance = a.mean - b.mean, math.fsum(parts)
    if variance == 0:
        return Difference(value, value, value)
    freedoms = [len(sample.values) - 1 for sample in (a, b)]
    freedom = variance**2 / math.fsum(part**2 / n for part, n in zip(parts, freedoms, strict=True))
    half = t_quantile(0.5 + CONFIDENCE / 2, freedom) * math.sqrt(variance)
    return Difference(value, value - half, value + half)


def t_quantile(probability: float, freedom: float) -> float:
    """The value that Student's t of so many (also broken) degrees of freedom stays below with a probability > 0.5."""
    low, high = 0.0, 1.0
    while _t_below(high, freedom) < probability:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_below(middle, freedom) < probability else (low, middle)
    return high


def _t_below(value: float, freedom: float, parts: int = 400) -> float:
    """P(t < value) for value >= 0. With t = sqrt(n) tan(a) the density is a power of cos(a): Simpson's rule over a."""
    end = math.atan(value / math.sqrt(freedom))
    step = end / parts
    heights = [math.cos(i * step) ** (freedom - 1) for i in range(parts + 1)]
    area = step / 3 * (heights[0] + heights[-1] + 4 * sum(heights[1:-1:2]) + 2 * sum(heights[2:-1:2]))
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    return 0.5 + scale * area
