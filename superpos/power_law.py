"""Are magnitudes of features spread as a power law?"""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from typing import NamedTuple

import numpy as np
from scipy.stats import linregress
from torch import Tensor

FEWEST = 50  # living codes below which nothing is fitted
STEEPEST = 100.0  # exponent that is looked for
STARTS, LEAST_TAIL = 30, 0.25  # where the tail may begin: at so many quantiles, up to so few codes


class PowerLaw(NamedTuple):
    """How magnitudes fall with rank, and whether a power law or a lognormal describes them."""

    slope: float
    """Of log magnitude over log rank, over all living codes; a power law has a straight line."""
    straightness: float
    """R^2 of that line."""
    exponent: float
    """Of the density of the largest magnitudes, by maximum likelihood (Clauset et al. 2009)."""
    tail: float
    """Share of the living codes that the power law is fitted to."""
    ratio: float
    """Mean log likelihood ratio of the power law to a lognormal over that tail, in units of its
    standard error (Vuong 1989): below -1.96 the lognormal is better."""


def power_law(codes: Tensor) -> PowerLaw | None:
    """Describe the magnitudes of one autoencoder's codes.

    Exponent and comparison are those of the package powerlaw (Alstott et al. 2014); of 30
    tails, each a quarter of the codes or more, it is the one that lies nearest to its power law by
    the Kolmogorov-Smirnov distance.

    Args:
        codes: summed magnitudes, `[dictionary]`; zeros are left out.

    Returns:
        The description, or None with fewer than 50 living codes.
    """
    values = codes[codes > 0].sort(descending=True).values.double().cpu().numpy()
    if len(values) < FEWEST:
        return None
    import powerlaw

    line = linregress(np.log(np.arange(1, len(values) + 1)), np.log(values))
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        scaled = values / values.mean()
        starts = np.unique(np.quantile(scaled, np.linspace(0, 1 - LEAST_TAIL, STARTS)))
        steep = {"alpha": [1.0, STEEPEST]}  # the package itself stops at 3
        tails = {
            start: powerlaw.Fit(scaled, xmin=start, parameter_ranges=steep, verbose=False)
            for start in starts
        }
        start, fitted = min(tails.items(), key=lambda own: own[1].power_law.D)
        ratio, _ = fitted.distribution_compare("power_law", "lognormal", normalized_ratio=True)
        exponent = float(fitted.power_law.alpha)
    tail = float((scaled >= start).mean())
    ratio = float(ratio) if math.isfinite(ratio) else 0.0
    return PowerLaw(float(line.slope), float(line.rvalue**2), exponent, tail, ratio)
