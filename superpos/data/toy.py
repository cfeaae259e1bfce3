"""Sparse features of the toy models (paper section 5.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..given import numbers, whole


def toy_features(
    count: int, features: int, sparsity: float | Tensor, *, generator: torch.Generator
) -> Tensor:
    """Draw sparse features: zero with probability S, else uniform on [0, 1] (paper section 5.1).

    One uniform draw u serves all members: a member of sparsity S takes (u - S) / (1 - S) where
    u > S and zero elsewhere, which decides at once whether a feature is active and its value.

    Args:
        count: Number of samples.
        features: Number of features M.
        sparsity: S in [0, 1): a number, or one for each member, `[members]`.
        generator: Source of the draw; its device is where the features live.

    Returns:
        Features `[*sparsity.shape, count, features]`, float32.

    Raises:
        TypeError: If a sparsity is no real number.
        ValueError: If a sparsity is outside [0, 1), or a number of samples or features is none.
    """
    count, features = whole("count", count, 0), whole("features", features)
    sparsity = _sparsity(sparsity, generator.device)[..., None, None]
    uniform = torch.rand(count, features, generator=generator, device=generator.device)
    return _thresholded(uniform, sparsity)


def nonempty_toy_features(
    count: int, features: int, sparsity: float | Tensor, *, generator: torch.Generator
) -> Tensor:
    """Draw sparse features of which at least one in every sample is active.

    The distribution is that of :func:`toy_features` given that a sample is not empty, which
    happens with probability 1 - S^M. It saves a very sparse model from training on samples that
    are nearly all empty: the expected loss is S^M times the loss of the empty sample plus
    1 - S^M times the expected loss here. The first active feature J follows a geometric
    distribution cut off after M, drawn by inversion; features before it are zero, those after it
    are active with probability 1 - S each. As in :func:`toy_features`, members share the draws.

    Args:
        count: Number of samples.
        features: Number of features M.
        sparsity: S in [0, 1): a number, or one for each member, `[members]`.
        generator: Source of the draws; its device is where the features live.

    Returns:
        Features `[*sparsity.shape, count, features]`, float32, none of the samples all zero.

    Raises:
        TypeError: If a sparsity is no real number.
        ValueError: If a sparsity is outside [0, 1), or a number of samples or features is none.
    """
    count, features = whole("count", count, 0), whole("features", features)
    device = generator.device
    sparsity = _sparsity(sparsity, device)[..., None, None]
    uniform = torch.rand(count, features, generator=generator, device=device)
    place = torch.rand(count, 1, generator=generator, device=device)
    # The first J with 1 - S^(J + 1) > place (1 - S^M); S = 0 has log S = -inf and gives J = 0.
    log_sparsity = sparsity.log()
    empty = torch.expm1(features * log_sparsity)
    first = (torch.log1p(place * empty) / log_sparsity).floor_().clamp_(0, features - 1)
    index = torch.arange(features, device=device)
    values = _thresholded(uniform, sparsity).masked_fill_(index < first, 0)
    return torch.where(index == first, 1 - uniform, values)


def _thresholded(uniform: Tensor, sparsity: Tensor) -> Tensor:
    return (uniform - sparsity).div_(1 - sparsity).clamp_(min=0)


def _sparsity(sparsity: float | Tensor, device: torch.device) -> Tensor:
    sparsity = numbers("sparsities", sparsity).to(torch.float32)
    if not bool(((sparsity >= 0) & (sparsity < 1)).all()):
        raise ValueError(
            f"Sparsity must be at least 0 and below 1 (in float32), got {sparsity.tolist()}."
        )
    return sparsity.to(device)
