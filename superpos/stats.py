"""Intervals, correlations and slopes: thin words around scipy and NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import scipy.special
import scipy.stats
from numpy.typing import ArrayLike

from .ledger import Estimate


def mean_interval(values: ArrayLike, level: float = 0.95) -> Estimate:
    """Mean with its t interval over independent repeats.

    Args:
        values: one number per repeat, `[repeats]`; at least two.
        level: coverage.

    Raises:
        ValueError: fewer than two values: one repeat has no interval.
    """
    values = np.asarray(values, dtype=float)
    if values.size < 2:
        raise ValueError(f"{values.size} value(s) have no interval; give at least two repeats.")
    error = values.std(ddof=1) / math.sqrt(values.size)
    half = scipy.special.stdtrit(values.size - 1, 0.5 + level / 2) * error
    mean = values.mean()
    return _estimate(mean, mean - half, mean + half)


def difference(first: ArrayLike, second: ArrayLike, level: float = 0.95) -> Estimate | None:
    """Difference of two groups' means with Welch's interval.

    Args:
        first: one number per repeat, `[repeats]`.
        second: those it is compared with.
        level: coverage.

    Returns:
        Mean of the first minus mean of the second; None if a group has fewer than two values.
    """
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if min(first.size, second.size) < 2:
        return None
    found = scipy.stats.ttest_ind(first, second, equal_var=False).confidence_interval(level)
    return _estimate(first.mean() - second.mean(), found.low, found.high)


def correlation(x: ArrayLike, y: ArrayLike, level: float = 0.95) -> Estimate:
    """Pearson correlation with Fisher's interval.

    Args:
        x: `[pairs]`.
        y: `[pairs]`.
        level: coverage.

    Raises:
        ValueError: fewer than four pairs, or one side does not vary.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.size < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
        raise ValueError("a correlation needs at least four pairs that vary on both sides.")
    result = scipy.stats.pearsonr(x, y)
    low, high = result.confidence_interval(level)
    return Estimate(float(result.statistic), float(low), float(high))


def bootstrap(
    columns: Sequence[ArrayLike],
    statistic: Callable[..., float],
    *,
    seed: int = 0,
    resamples: int = 2000,
    level: float = 0.95,
) -> Estimate:
    """A statistic of paired rows with its percentile interval over resampled rows.

    Args:
        columns: arrays of equal length whose rows belong together, each `[rows]`.
        statistic: takes the columns, returns a number.
        seed: of the resampling.
        resamples: number of resampled data sets.
        level: coverage.
    """
    columns = [np.asarray(column) for column in columns]
    generator = np.random.default_rng(seed)
    value = float(statistic(*columns))
    draws = generator.integers(0, len(columns[0]), (resamples, len(columns[0])))
    results = np.array([statistic(*(column[rows] for column in columns)) for rows in draws])
    low, high = np.nanquantile(results, [(1 - level) / 2, (1 + level) / 2])
    return _estimate(value, min(value, low), max(value, high))


def normalized_slope(epsilon: ArrayLike, features: ArrayLike) -> float:
    """Slope of F over training epsilon divided by F at epsilon 0 (paper section 7).

    Clean and adversarial observations go in together; F at epsilon 0 is their mean there.

    Args:
        epsilon: training epsilon of every observation, `[observations]`.
        features: F of every observation, `[observations]`.

    Returns:
        The slope, per unit of epsilon.

    Raises:
        ValueError: no observation at epsilon 0, or none elsewhere.
    """
    epsilon, features = np.asarray(epsilon, dtype=float), np.asarray(features, dtype=float)
    base = features[epsilon == 0]
    if base.size == 0 or base.size == epsilon.size:
        raise ValueError("a normalized slope needs observations at epsilon 0 and at others.")
    return float(scipy.stats.linregress(epsilon, features).slope / base.mean())


def _estimate(value: float, low: float, high: float) -> Estimate:
    """An estimate of plain floats, which says so when repeats that agree leave no interval."""
    note = "all repeats agree" if low == high else ""
    return Estimate(float(value), float(low), float(high), note)
