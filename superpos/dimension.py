"""Intrinsic dimension of activations: on how many coordinates they really depend."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

FEWEST = 100  # different points below which an estimate means little


def two_nn(x: Tensor) -> float:
    """Intrinsic dimension by the ratio of the two nearest distances (Facco et al. 2017).

    It is the manifold's dimension, at most the number of neurons, while F may exceed that. Points
    that occur several times, to a millionth of their spread, count once, since a distance of zero
    has no ratio. Estimated by
    scikit-dimension.

    Args:
        x: activations, `[samples, neurons]`; two thousand take about a tenth of a second.

    Returns:
        The dimension; nan with fewer than 100 different points.

    Raises:
        ValueError: not a matrix, or an activation is not finite.
    """
    if x.ndim != 2 or not bool(torch.isfinite(x).all()):
        raise ValueError(
            f"activations have shape {tuple(x.shape)}; give finite [samples, neurons]."
        )
    values = x.detach().cpu().double().numpy()
    size = (np.ptp(values, axis=0).max(initial=0.0) if len(values) else 0.0) or 1.0
    points = np.unique((values / size).round(6), axis=0)  # so that units do not matter
    if len(points) < FEWEST:
        return float("nan")
    from skdim.id import TwoNN  # takes seconds to import

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        padded = np.pad(points, ((0, 0), (0, 1)))  # scikit-dimension takes no single neuron
        return float(TwoNN().fit_transform(padded))
