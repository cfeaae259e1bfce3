"""How often intervals of combined slopes hold the truth, counted on simulated grids."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .meta_analysis import Combined, combined, trend
from .slope import Slope, pooled_errors


def coverage(
    groups: int,
    cells: int,
    seeds: int = 3,
    between: float = 0.0,
    uneven: float = 0.0,
    draws: int = 300,
    seed: int = 0,
) -> pd.Series:
    """Share of simulated grids whose 95% interval holds the true slope of the lines.

    A grid has groups of cells on a line, as hypotheses H2 and H3 have: every seed's value is the
    line's plus normal noise. Lines are fitted and combined by
    :func:`superpos.meta_analysis.combined`.

    Args:
        groups: lines, at least 1.
        cells: cells per line, at least 2; their places are 0, 1, 2, ...
        seeds: seeds per cell, at least 2.
        between: standard deviation of the lines' true slopes around their mean, 0.
        uneven: standard deviation of the logarithm of the cells' noise, whose median is 1.
        draws: simulated grids.
        seed: of the simulation.

    Returns:
        `paper`: every cell weighted by its own error and the normal interval, as in the paper.
        `pooled`: with the errors of `pooled_errors` instead. `hartung_knapp`: these errors and
        Hartung and Knapp's interval.

    Raises:
        ValueError: numbers below those allowed.
    """
    if groups < 1 or cells < 2 or seeds < 2 or draws < 1 or min(between, uneven) < 0:
        raise ValueError(
            "a grid needs at least 1 group, 2 cells, 2 seeds, 1 draw, and deviations of at least 0."
        )
    rng, x, held = np.random.default_rng(seed), np.arange(cells, dtype=float), []
    for _ in range(draws):
        slopes = rng.normal(0, between, (groups, 1, 1))
        noise = np.exp(rng.normal(0, uneven, (groups, 1, cells)))
        values = slopes * x + noise * rng.standard_normal((groups, seeds, cells))
        own = _combined_lines(x, values, pooled=False)
        one = _combined_lines(x, values, pooled=True)
        held.append(
            {
                "paper": own.low <= 0 <= own.high,
                "pooled": one.low <= 0 <= one.high,
                "hartung_knapp": one.hk_low <= 0 <= one.hk_high,
            }
        )
    return pd.DataFrame(held).mean()


def _combined_lines(x: np.ndarray, values: np.ndarray, pooled: bool) -> Combined:
    """Lines through every group's means, `values` of `[groups, seeds, cells]`, combined."""
    found = []
    for own in values:
        seeds = len(own)
        errors = own.std(axis=0, ddof=1) / seeds**0.5
        if pooled:
            errors = pooled_errors([Slope(0.0, float(e), seeds - 1, (), ()) for e in errors])
        found.append(trend(x, own.mean(axis=0), errors))
    return combined([line.value for line in found], [line.se for line in found])
