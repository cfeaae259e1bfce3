"""How effects of several cells are combined and compared (paper section 7).

A cell is one setting: a network, a data set, a number of classes. Its effect is the mean of its
normalized slope over seeds, its error the standard error of that mean; see :mod:`superpos.slope`.
"""

from __future__ import annotations

import gc
import math
from typing import Literal, NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike
from statsmodels.regression.linear_model import WLS
from statsmodels.stats.meta_analysis import combine_effects
from statsmodels.stats.multitest import multipletests

HETEROGENEOUS = 0.05  # random effects where the p-value of Q is below this


class Combined(NamedTuple):
    """Effects of several cells in one; value, se, z, p, low and high are the chosen model's."""

    value: float
    se: float
    z: float
    p: float
    low: float
    high: float
    model: Literal["fixed", "random"]
    fixed: float
    fixed_se: float
    random: float
    random_se: float
    q: float
    """Cochran's Q with df degrees of freedom, and its p-value."""
    df: int
    q_p: float
    i2: float
    """(Q - df) / Q or 0: share of the spread that is no sampling error. tau2 is its variance."""
    tau2: float
    hk_low: float
    """The random effect's interval, Hartung and Knapp's or the normal one if that is wider."""
    hk_high: float


class Trend(NamedTuple):
    """Slope of a weighted straight line."""

    value: float
    se: float
    """From the errors alone, as in a meta-analysis: however badly the line fits."""
    residual_se: float
    """`se` rescaled by how far the points lie from the line, as in least squares."""
    t: float
    """value / residual_se with df degrees of freedom, and its two-sided p-value."""
    df: int
    p: float
    r2: float


class Paired(NamedTuple):
    """Mean difference with its t interval, its standard deviation, two-sided t test and size."""

    mean: float
    low: float
    high: float
    sd: float
    t: float
    df: int
    p: float
    cohens_d: float
    weighted: float
    """Inverse-variance weighted mean and its error (fixed effect); nan without errors."""
    weighted_se: float


class Reduction(NamedTuple):
    """Whether F falls in every cell; how many rise, fall or do neither significantly."""

    rejected: bool
    smallest_p: float
    """Of a rise, corrected; H1 is rejected if it is at most the level, so that one cell rises."""
    rising: int
    falling: int
    neither: int
    cohens_d: tuple[float, ...]
    """Mean over standard deviation of the seeds' slopes, one per cell."""


def combined(
    effects: ArrayLike, errors: ArrayLike, level: float = 0.95, method: str = "pm"
) -> Combined:
    """Meta-analysis of cells by the paper's rule (section 7).

    Random effects if the cells differ significantly (`HETEROGENEOUS`), otherwise a fixed effect.
    How the paper finds the variance between cells is not said. Paule and Mandel's way weighs the
    cells by the variance it finds; DerSimonian and Laird's keeps the weights of a fixed effect,
    and is too low for very different cells (Veroniki et al. 2016), hence not the default.

    z takes every error for known, and the variance between cells too. Of a few cells with a few
    seeds each neither is. Hartung and Knapp's interval goes by the cells' own spread and a t
    distribution with one degree of freedom fewer than cells (IntHout et al. 2014);
    :mod:`superpos.coverage` counts how often either misses.

    Args:
        effects: `[cells]`; a single one is returned as it is, with Q = 0 and p-value 1.
        errors: their standard errors, `[cells]`.
        level: coverage of the interval, which like z and p is that of a normal distribution.
        method: ``"pm"`` (Paule and Mandel) or ``"dl"`` (DerSimonian and Laird).

    Raises:
        ValueError: different lengths, or errors that are not positive and finite.
    """
    effects, errors = _cells(effects, errors)
    df, center = len(effects) - 1, np.average(effects, weights=errors**-2)  # Q keeps its digits
    with np.errstate(all="ignore"):  # one cell, or next to no spread
        found = combine_effects(effects - center, errors**2, method, maxiter=1000)
    fixed = random = float(center + found.mean_effect_fe), float(found.sd_eff_w_fe)
    q, q_p, tau2 = 0.0, 1.0, 0.0
    if df:
        q, q_p = max(0.0, float(found.q)), float(found.test_homogeneity().pvalue)
    if df and found.tau2 > 0:  # DerSimonian and Laird's may come out negative
        tau2 = float(found.tau2)
        random = float(center + found.mean_effect_re), float(found.sd_eff_w_re)
    model, (value, se) = ("random", random) if q_p < HETEROGENEOUS else ("fixed", fixed)
    z, i2 = value / se, max(0.0, 1 - df / q) if q else 0.0
    p = float(2 * scipy.stats.norm.sf(abs(z)))
    low, high = map(float, scipy.stats.norm.interval(level, value, se))
    half = scipy.stats.norm.ppf((1 + level) / 2) * random[1]
    if df:
        spread = found.var_hksj_re if tau2 else found.var_hksj_fe
        half = max(half, scipy.stats.t.ppf((1 + level) / 2, df) * spread**0.5)
    hk = float(random[0] - half), float(random[0] + half)
    return Combined(value, se, z, p, low, high, model, *fixed, *random, q, df, q_p, i2, tau2, *hk)


def trend(x: ArrayLike, y: ArrayLike, errors: ArrayLike) -> Trend:
    """Line through cells, weighted by inverse variances (paper section 7).

    Hypothesis H2 has x = 1, 2, 3, ... for rising numbers of classes, H3 the logarithm of capacity.
    The t value that the paper gives for ResNet-18 is value / se, not value / residual_se.

    Args:
        x: `[cells]`.
        y: effects, `[cells]`; of two the residual error, t and p are nan, of equal ones R^2 is.
        errors: their standard errors, `[cells]`.

    Raises:
        ValueError: different lengths, errors that are not positive and finite, or x all equal.
    """
    (y, errors), x = _cells(y, errors), np.asarray(x, dtype=float)
    if x.shape != y.shape or not 0 < np.ptp(x) < math.inf:
        raise ValueError(f"x is {x}; give each cell a finite value, at least two different ones.")
    fit = WLS(y, np.stack([np.ones_like(x), x], axis=1), weights=errors**-2).fit()
    df, se = len(x) - 2, float(fit.normalized_cov_params[1, 1] ** 0.5)
    found = (fit.bse, fit.tvalues, fit.pvalues) if df else np.full((3, 2), math.nan)
    residual_se, t, p = (float(each[1]) for each in found)
    r2 = float(fit.rsquared) if np.ptp(y) > 0 else math.nan
    return Trend(float(fit.params[1]), se, residual_se, t, df, p, r2)


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    errors_first: ArrayLike | None = None,
    errors_second: ArrayLike | None = None,
    level: float = 0.95,
) -> Paired:
    """First minus second over cells that differ in one thing only (paper section 7).

    The t test gives every cell the same weight; the weighted mean does not, and may lie elsewhere.

    Args:
        first: effects, `[cells]`.
        second: effects of the same cells otherwise, `[cells]`.
        errors_first: their standard errors, `[cells]`; both or neither.
        errors_second: likewise.
        level: coverage of the interval of the mean.

    Raises:
        ValueError: different lengths, differences that do not vary, or wrong errors.
    """
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    pairs = first.shape == second.shape and first.ndim == 1 and first.size > 1
    if not pairs or not 0 < np.ptp(first - second) < math.inf:
        raise ValueError("a paired test needs pairs of finite numbers whose differences vary.")
    if (errors_first is None) != (errors_second is None):
        raise ValueError("errors are given for one side only; give both or neither.")
    differences, weighted = first - second, (math.nan, math.nan)
    if errors_first is not None:
        both = combined(differences, np.hypot(errors_first, errors_second))
        weighted = both.fixed, both.fixed_se
    test = scipy.stats.ttest_rel(first, second)
    low, high = map(float, test.confidence_interval(level))
    t, df, p = float(test.statistic), int(test.df), float(test.pvalue)
    mean, sd = float(differences.mean()), float(differences.std(ddof=1))
    return Paired(mean, low, high, sd, t, df, p, mean / sd, *weighted)


def universal_reduction(
    effects: ArrayLike,
    errors: ArrayLike,
    df: ArrayLike,
    level: float = 0.05,
    freedom: ArrayLike | None = None,
) -> Reduction:
    """Test H1, that adversarial training lowers F in every cell (paper section 7).

    One-sided t tests of a slope above 0, and again below 0, each family corrected by Holm.

    Args:
        effects: mean slopes, `[cells]`.
        errors: their standard errors, `[cells]`.
        df: seeds minus 1, `[cells]` or one number for all.
        level: chance, at most, of calling any cell rising (or falling) by mistake.
        freedom: degrees of freedom of the errors, `[cells]` or one number: those of `pooled_errors`
            have the sum of df of the cells they were pooled over. Default df.

    Raises:
        ValueError: different lengths, errors that are not positive and finite, or df below 1.
    """
    (effects, errors), df = _cells(effects, errors), np.asarray(df, dtype=float)
    if df.shape not in ((), effects.shape) or not (df >= 1).all():
        raise ValueError(f"df is {df}; give one number of at least 1, or one per cell.")
    t, df = effects / errors, np.broadcast_to(df, effects.shape)
    freedom = df if freedom is None else np.asarray(freedom, dtype=float)
    up, p_up = _holm(scipy.stats.t.sf(t, freedom), level)
    down, _ = _holm(scipy.stats.t.cdf(t, freedom), level)
    rising, falling, d = int(up.sum()), int(down.sum()), tuple((t / np.sqrt(df + 1)).tolist())
    return Reduction(rising > 0, float(p_up.min()), rising, falling, len(t) - rising - falling, d)


def _holm(p: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Which tests are significant, and their chances, corrected for their number (Holm 1979)."""
    gc.freeze()  # statsmodels collects all garbage at every call: a third of a second
    try:
        significant, corrected, *_ = multipletests(p, level, "holm")
    finally:
        gc.unfreeze()
    return significant, corrected


def _cells(effects: ArrayLike, errors: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays, if every effect is finite and has a positive, finite error."""
    effects, errors = np.asarray(effects, dtype=float), np.asarray(errors, dtype=float)
    if effects.shape != errors.shape or effects.ndim != 1 or not effects.size:
        raise ValueError(f"{effects.shape} effects, {errors.shape} errors; give one per cell.")
    if not (np.isfinite(effects) & np.isfinite(errors) & (errors > 0)).all():
        raise ValueError(
            f"effects {effects} and errors {errors} must be finite and errors positive; leave "
            "other cells out, or take their errors from superpos.slope.pooled_errors."
        )
    return effects, errors
