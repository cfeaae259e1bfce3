"""Normalized slopes of F over training epsilon, and their errors (paper section 7)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike

from .stats import normalized_slope


class Slope(NamedTuple):
    """Mean and error of a normalized slope (per unit of epsilon), each seed's, and the seeds."""

    value: float
    se: float
    df: int
    values: tuple[float, ...]
    seeds: tuple


def seed_slopes(epsilon: ArrayLike, features: ArrayLike, seed: ArrayLike) -> Slope:
    """Normalized slope of one cell over seeds (paper section 7).

    All models of a seed start from the same weights: the seed is the independent unit. Left out
    are observations without finite F, and seeds that then lack epsilon 0 or any other.

    Args:
        epsilon: training epsilon of every observation, clean and adversarial, `[observations]`.
        features: F of every observation, `[observations]`.
        seed: whose it is, `[observations]`.

    Raises:
        ValueError: different lengths, or fewer than two seeds are left.
    """
    epsilon, seed = np.asarray(epsilon, dtype=float), np.asarray(seed)
    features = np.asarray(features, dtype=float)
    if not epsilon.shape == features.shape == seed.shape:
        raise ValueError("epsilon, features and seed differ in shape; give one per observation.")
    slopes = {}
    for each in np.unique(seed).tolist():
        own = np.isfinite(features) & (seed == each)
        if 0 < np.count_nonzero(epsilon[own]) < own.sum():
            slopes[each] = normalized_slope(epsilon[own], features[own])
    n, values = len(slopes), tuple(slopes.values())
    if n < 2:
        raise ValueError(f"{n} seed(s) have F at epsilon 0 and elsewhere; give at least two.")
    return Slope(sum(values) / n, float(scipy.stats.sem(values)), n - 1, values, tuple(slopes))


def pooled_errors(slopes: Sequence[Slope]) -> list[float]:
    """Standard errors of one or more cells' means if seeds vary equally in all of them.

    Three seeds' variance is often far too small by accident, which inverse-variance weights reward.
    Here it is averaged over cells, weighted by df; equally many seeds then get equal weights. Not
    for cells whose scatter differs in kind, such as networks of very different widths.
    """
    df = np.array([slope.df for slope in slopes])
    variances = np.array([slope.se for slope in slopes]) ** 2 * (df + 1)
    return np.sqrt(np.average(variances, weights=df) / (df + 1)).tolist()


def weighted_layers(values: ArrayLike, parameters: ArrayLike) -> float | np.ndarray:
    """Mean over layers, weighted by their numbers of parameters (paper section 7).

    Args:
        values: of each layer, `[layers]` or `[layers, ...]`; later axes are kept.
        parameters: of each layer, `[layers]`.

    Raises:
        ValueError: different lengths, or weights that are negative, not finite or all zero.
    """
    values, weights = np.asarray(values, dtype=float), np.asarray(parameters, dtype=float)
    if values.shape[:1] != weights.shape:
        raise ValueError(f"{values.shape} values, {weights.shape} counts; give one per layer.")
    if not (weights >= 0).all() or not 0 < weights.sum() < math.inf:
        raise ValueError(f"parameters are {weights}; give finite counts of at least 0, not all 0.")
    return np.average(values, axis=0, weights=weights)
