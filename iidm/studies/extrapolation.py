"""How a score goes on with more labels: a power law through all runs, and how far it can be trusted.

The mean over draws is taken to be a - b n^-c of n labels, as learning curves are found to be (Hestness et al., arXiv
1712.00409). Given c the law is linear in a and b, so the uncertainty is exact: for each c of a grid the least squares
with its t distribution, and every c weighs by how well its law fits (a posterior with flat priors on a, b and log c).
What all runs of a seed share, such as the images that it labels first, does not average out over the counts: it is
estimated apart and added. A bootstrap over three seeds would draw from ten distinct samples, and its intervals are too
narrow; tests/studies/test_extrapolation.py holds these to generated curves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EXPONENTS = np.geomspace(0.1, 2.0, 40)
"""The grid of c."""
REACH = 4
"""Times the largest count beyond which nothing is said."""
LEAST_COUNTS = 4
"""Different counts below which a law of three unknowns is not fitted."""
DRAWS = 8000
"""Curves drawn from the posterior."""
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Expected:
    """A mean over draws, or a gain of it, in per cent, that has not been measured."""

    labels: int
    middle: float
    """Median."""
    low: float
    high: float
    """It lies between them with a probability of 95 %."""


@dataclass(frozen=True)
class Curve:
    """What a fit says."""

    counts: tuple[int, ...]
    """Those that were measured, increasing."""
    draws: NDArray[np.float64]
    """float64 [DRAWS,3] a, b and c of curves that fit, a with its share of what seeds have in common."""

    @property
    def farthest(self) -> int:
        """The largest number of labels of which something is said."""
        return REACH * self.counts[-1]

    def at(self, labels: int) -> Expected:
        """The mean score with so many labels, up to `farthest`."""
        assert labels <= self.farthest
        a, b, c = self.draws.T
        return _expected(labels, a - b * float(labels) ** -c)

    def gain(self, labels: int) -> Expected:
        """How much more that is than the law has for the largest count."""
        _, b, c = self.draws.T
        return _expected(labels, b * (float(self.counts[-1]) ** -c - float(labels) ** -c))


def _expected(labels: int, values: NDArray[np.float64]) -> Expected:
    edge = (1 - CONFIDENCE) / 2
    low, middle, high = np.quantile(values, [edge, 0.5, 1 - edge])
    return Expected(labels, float(middle), float(low), float(high))


def fit(scores: Mapping[int, Sequence[tuple[int, float]]]) -> Curve | str:
    """Fit the law to all runs.

    Args:
        scores: number of labels -> (seed, mIoU in per cent) of each run.

    Returns: the curve, or why it cannot be told, as the end of a sentence.
    """
    counts = sorted(scores)
    if len(counts) < LEAST_COUNTS:
        return f"that takes {LEAST_COUNTS} different numbers of labels, and {len(counts)} are done"
    points = np.array([(n, seed, score) for n in counts for seed, score in scores[n]], np.float64)
    if len(points) < LEAST_COUNTS + 1:
        return f"that takes {LEAST_COUNTS + 1} runs, and {len(points)} are done; add seeds or numbers of labels"
    n, seeds, y = points.T
    shared = _shared_variance(n, seeds, y)
    draws = _draws(n, y, shared, len(set(seeds.tolist())))
    if draws is None:
        return "more labels bring nothing that these runs can tell from chance"
    curve = Curve(tuple(counts), draws)
    means = [float(np.mean([score for _, score in scores[count]])) for count in counts]
    doubled = curve.at(2 * counts[-1])
    seen = max(means) - min(means)
    if doubled.high - doubled.low > max(seen, 2.0):
        width = f"{doubled.low:.1f} to {doubled.high:.1f} with {doubled.labels} labels"
        return f"the runs differ too much for it ({width} would all fit); add seeds"
    return curve


def _draws(n: NDArray[np.float64], y: NDArray[np.float64], shared: float, seeds: int) -> NDArray[np.float64] | None:
    """float64 [DRAWS,3] from the posterior; None where most of it does not rise."""
    rng = np.random.default_rng(0)
    freedom = len(y) - 2
    log_weights, fits = [], []
    for c in EXPONENTS:
        x = np.stack([np.ones_like(n), -(n**-c)], 1)
        covariance = np.linalg.inv(x.T @ x)
        best = covariance @ x.T @ y
        rest = max(float(((y - x @ best) ** 2).sum()), 1e-9)
        log_weights.append(-freedom / 2 * math.log(rest) + 0.5 * np.linalg.slogdet(covariance)[1] - _log_scale(n, c))
        fits.append((best, np.linalg.cholesky(covariance), rest))
    weights = np.exp(np.array(log_weights) - max(log_weights))
    chosen = rng.choice(len(EXPONENTS), DRAWS, p=weights / weights.sum())
    found = np.empty((DRAWS, 3))
    for number in np.unique(chosen):
        best, root, rest = fits[number]
        rows = np.flatnonzero(chosen == number)
        noise = np.sqrt(rest / rng.chisquare(freedom, len(rows)))
        found[rows, :2] = best + noise[:, None] * (rng.standard_normal((len(rows), 2)) @ root.T)
        found[rows, 2] = EXPONENTS[number]
    if shared:
        found[:, 0] += rng.standard_t(seeds - 1, DRAWS) * math.sqrt(shared / seeds)
    rises = (found[:, 1] > 0) & (found[:, 0] <= 100)
    if rises.mean() < 0.5:
        return None
    return found[rises]


def _log_scale(n: NDArray[np.float64], c: float) -> float:
    """The prior of b is flat in what the law rises between the least and the largest count, whatever c is."""
    return -math.log(float(n.min() ** -c - n.max() ** -c))


def _shared_variance(n: NDArray[np.float64], seeds: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Variance of what all runs of a seed have in common: of the seeds' means beyond what single runs explain."""
    left = y - np.array([y[n == count].mean() for count in n])
    names = sorted(set(seeds.tolist()))
    if len(names) < 2:
        return 0.0
    means = np.array([left[seeds == seed].mean() for seed in names])
    sizes = np.array([(seeds == seed).sum() for seed in names])
    own = left - means[[names.index(seed) for seed in seeds]]
    freedom = len(y) - len(set(n.tolist())) - len(names) + 1
    single = float((own**2).sum()) / max(freedom, 1)
    return max(float((means**2).sum()) / (len(names) - 1) - single / float(sizes.mean()), 0.0)
