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
    across: bool = False,
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
        across: cells at the same place of all lines share an error, as for H3, in place of those
            of one line, as for H2.
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
        errors = values.std(axis=1, ddof=1) / seeds**0.5  # [groups, cells]
        shared = _shared(errors.T, seeds).T if across else _shared(errors, seeds)
        own, one = (_combined_lines(x, values.mean(axis=1), each) for each in (errors, shared))
        held.append(
            {
                "paper": own.low <= 0 <= own.high,
                "pooled": one.low <= 0 <= one.high,
                "hartung_knapp": one.hk_low <= 0 <= one.hk_high,
            }
        )
    return pd.DataFrame(held).mean()


def _shared(errors: np.ndarray, seeds: int) -> np.ndarray:
    """Errors `[families, cells]`, shared by the cells of a family."""
    families = [[Slope(0.0, float(error), seeds - 1, (), ()) for error in own] for own in errors]
    return np.array([pooled_errors(family) for family in families])


def _combined_lines(x: np.ndarray, means: np.ndarray, errors: np.ndarray) -> Combined:
    """Lines through means with errors, both `[groups, cells]`, combined."""
    found = [trend(x, *own) for own in zip(means, errors, strict=True)]
    return combined([line.value for line in found], [line.se for line in found])
