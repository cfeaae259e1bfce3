"""Statistics of numbers that come one after another, where neighbors are not independent."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike
from statsmodels.nonparametric.smoothers_lowess import lowess
from statsmodels.tsa.stattools import acf

from .ledger import Estimate

SPAN = 0.5  # share of the series in which the slow trend at a point is looked for
MARGIN = 5  # points before and after a change, at least
SHORTEST = 4 * MARGIN
"""Length of the shortest series in which a change is looked for."""


class Change(NamedTuple):
    """A step between two points of a series."""

    time: Estimate
    """When, halfway between the points it lies between; its interval holds both of them."""
    size: Estimate
    """How high; negative for a fall."""


def effective_pairs(x: ArrayLike, y: ArrayLike) -> float:
    """How many independent pairs say as much about a correlation as two series do.

    n / (1 + 2 sum_k (1 - k / n) a_k b_k) with the autocorrelations a and b of the series at lags k
    up to n / 4 (Bartlett 1946; Pyper and Peterman 1998); at most n.

    Args:
        x: `[times]`, evenly spaced.
        y: `[times]`.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    n = len(x)
    lags = np.arange(1, n // 4 + 1)
    shared = (acf(x, nlags=n // 4, fft=True) * acf(y, nlags=n // 4, fft=True))[1:]
    return float(n / max(1.0, 1 + 2 * ((1 - lags / n) * shared).sum()))


def series_correlation(x: ArrayLike, y: ArrayLike, level: float = 0.95) -> Estimate:
    """Pearson correlation of two series, with an interval that respects autocorrelation.

    Fisher's interval for as many pairs as `effective_pairs` finds. With three or fewer nothing is
    known, and the interval is from -1 to 1.

    Args:
        x: `[times]`, evenly spaced; at least eight.
        y: `[times]`.
        level: coverage.

    Raises:
        ValueError: series of different or too small lengths, or one that does not vary.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.shape != y.shape or x.ndim != 1 or len(x) < 8 or not np.ptp(x) > 0 or not np.ptp(y) > 0:
        raise ValueError(
            f"series have shapes {x.shape} and {y.shape}; give two of one length, at least 8, that "
            "are finite and vary."
        )
    r, pairs = float(np.corrcoef(x, y)[0, 1]), effective_pairs(x, y)
    if pairs <= 3:
        return Estimate(r, -1.0, 1.0, "too few independent pairs")
    half = scipy.stats.norm.ppf(0.5 + level / 2) / math.sqrt(pairs - 3)
    z = np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12))
    return Estimate(r, min(r, float(np.tanh(z - half))), max(r, float(np.tanh(z + half))))


def without_trend(x: ArrayLike, span: float = SPAN) -> np.ndarray:
    """A series minus its slow trend (LOWESS, Cleveland 1979, through statsmodels).

    Args:
        x: `[times]`, evenly spaced.
        span: share of the series that the trend at a point is fitted to.

    Returns:
        `[times]`.
    """
    x = np.asarray(x, dtype=float)
    return x - lowess(x, np.arange(len(x)), frac=span, return_sorted=False)


def change_point(
    times: ArrayLike,
    x: ArrayLike,
    *,
    seed: int = 0,
    resamples: int = 500,
    level: float = 0.95,
) -> Change:
    """Where a series takes a step, on top of a straight line.

    Least squares over all places; the interval comes from a moving-block bootstrap of the
    residuals (Kuensch 1989) in blocks of about the cube root of the length, times two.

    Args:
        times: rising, evenly spaced, `[times]`.
        x: the series, `[times]`, finite. A step is found in any series; its size alone is no
            evidence that there is one.
        seed: of the bootstrap.
        resamples: number of resampled series.
        level: coverage.

    Raises:
        ValueError: fewer than `SHORTEST` points, or one that is not finite.
    """
    times, x = np.asarray(times, dtype=float), np.asarray(x, dtype=float)
    n = len(x)
    if times.shape != x.shape or n < SHORTEST or not np.isfinite(x).all():
        raise ValueError(
            f"times have shape {times.shape}, the series {x.shape}; give two of one length, at "
            f"least {SHORTEST}, without nan or infinity."
        )
    (place,), (size,), fitted = _steps(x[None])
    block = 2 * round(n ** (1 / 3))
    generator = np.random.default_rng(seed)
    first = generator.integers(0, n - block + 1, (resamples, -(-n // block)))
    index = (first[..., None] + np.arange(block)).reshape(resamples, -1)[:, :n]
    residuals = x - fitted[0]
    places, sizes, _ = _steps(fitted + (residuals - residuals.mean())[index])
    tails = (1 - level) / 2, (1 + level) / 2
    first, last = np.quantile(places, tails, method="nearest")
    middle, low, high = (times[place - 1] + times[place]) / 2, times[first - 1], times[last]
    return Change(
        Estimate(float(middle), float(min(middle, low)), float(max(middle, high))),
        _interval(size, np.quantile(sizes, tails)),
    )


def _steps(series: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Best step of every series `[series, times]`: index of the first point after it, size, fit."""
    n = series.shape[1]
    places = np.arange(MARGIN, n - MARGIN + 1)
    steps = (np.arange(n) >= places[:, None]).astype(float)
    line = np.linalg.qr(np.stack([np.ones(n), np.arange(n)], 1))[0]
    own = steps - steps @ line @ line.T  # what of each step is no line
    flat = series - series @ line @ line.T
    sizes = flat @ own.T / (own**2).sum(1)
    gain = sizes**2 * (own**2).sum(1)
    best = gain.argmax(1)
    size = np.take_along_axis(sizes, best[:, None], 1)
    fit = series @ line @ line.T + size * own[best]
    return places[best], size[:, 0], fit


def _interval(value: float, tails: np.ndarray) -> Estimate:
    return Estimate(float(value), float(min(value, tails[0])), float(max(value, tails[1])))
