"""The measure itself: probabilities, entropy, effective features, superposition.

Every function takes a torch tensor or a NumPy array (or anything NumPy understands), keeps the
kind it was given, and is batched: the last axis holds the dictionary's codes (or the last two a
matrix), all axes before it are members. The formulas are those of the paper's sections 3 and 4.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
import torch

from .given import numbers, real, whole

Array = TypeVar("Array", torch.Tensor, np.ndarray)


class DeadCodesError(ValueError):
    """Every code of a member is zero, so its shares, entropy and F are undefined."""


def probabilities(codes: Array) -> Array:
    """Share of the total magnitude that each code carries.

    ``p_i = sum_s |z_is| / sum_j sum_s |z_js|`` (paper section 3).

    Args:
        codes: summed magnitudes of the codes over samples, `[..., dictionary]`, non-negative.

    Returns:
        Shares that sum to one over the last axis, `[..., dictionary]`, in double precision.

    Raises:
        TypeError: codes that are no real numbers.
        ValueError: a code is negative, nan or infinite, or there are no codes.
        DeadCodesError: all codes of a member are zero.
    """
    values, restore = _doubles(codes)
    if values.ndim == 0 or values.shape[-1] == 0:
        raise ValueError("codes have no dictionary axis; give an array [..., dictionary].")
    if not bool(torch.isfinite(values).all()):
        raise ValueError("codes contain nan or infinity; only finite magnitudes can be shared out.")
    if bool((values < 0).any()):
        raise ValueError(
            "codes contain negative values; give magnitudes, for example codes.abs().sum(0)."
        )
    largest = values.amax(-1, keepdim=True)
    dead = (largest == 0).sum().item()
    if dead:
        raise DeadCodesError(
            f"all codes are zero for {dead} member(s): the autoencoder is dead there. "
            "Lower l1, or check that the activations are not all zero."
        )
    values = values / largest  # so that the sum cannot overflow
    return restore(values / values.sum(-1, keepdim=True))


def entropy(codes: Array) -> Array:
    """Shannon entropy H(p) = -sum p ln p of the codes' shares, in nats (paper section 3).

    Args:
        codes: summed magnitudes of the codes, `[..., dictionary]`.

    Returns:
        H, `[...]`, between 0 and ln(dictionary).

    Raises:
        ValueError: as in `probabilities`.
        DeadCodesError: as in `probabilities`.
    """
    values, restore = _doubles(probabilities(codes))
    return restore(torch.special.entr(values).sum(-1))


def effective_features(codes: Array) -> Array:
    """Number of effective features F = exp(H(p)) (paper section 3).

    Args:
        codes: summed magnitudes of the codes, `[..., dictionary]`.

    Returns:
        F, `[...]`, with 1 <= F <= dictionary.

    Raises:
        ValueError: as in `probabilities`.
        DeadCodesError: as in `probabilities`.
    """
    values, restore = _doubles(entropy(codes))
    return restore(values.exp())


def superposition(codes: Array, neurons: int) -> Array:
    """Superposition psi = F / N: effective features per neuron (paper section 3).

    psi = 1 is the lossless limit; psi > 1 is lossy compression.

    Args:
        codes: summed magnitudes of the codes, `[..., dictionary]`.
        neurons: number N of neurons of the layer.

    Returns:
        psi, `[...]`.

    Raises:
        ValueError: `neurons` is no whole number of at least one, or as in `probabilities`.
        DeadCodesError: as in `probabilities`.
    """
    return effective_features(codes) / whole("neurons", neurons)


def hill_number(codes: Array, order: float) -> Array:
    """Hill number of a given order: the diversity family to which F belongs (order 1).

    D_q = (sum p^q)^(1 / (1 - q)). Order 0 counts the codes that are not zero, order 1 is F,
    order 2 is the participation ratio 1 / sum p^2, order infinity is 1 / max p.

    Args:
        codes: summed magnitudes of the codes, `[..., dictionary]`.
        order: q, zero or more, `math.inf` allowed.

    Returns:
        The number, `[...]`; it never grows with the order.

    Raises:
        ValueError: `order` is no number, negative or nan, or as in `probabilities`.
        DeadCodesError: as in `probabilities`.
    """
    order = real("order", order, "a number from 0 to math.inf", lambda number: number >= 0)
    values, restore = _doubles(probabilities(codes))
    if order == 0:  # of the codes themselves, since a small share may round to zero
        return restore((_doubles(codes)[0] > 0).sum(-1).to(values.dtype))
    logs = values.log()  # -inf where a share is zero, which drops out below
    if order == math.inf:
        return restore((-logs.amax(-1)).exp())
    # Log of the mean of p^(q-1) weighted by p, over q-1: near order 1 this tends to -H smoothly.
    if abs(order - 1) < 1e-6:
        return restore(torch.special.entr(values).sum(-1).exp())
    largest = logs.amax(-1, keepdim=True)  # taken out, so that no order overflows
    rest = torch.logsumexp(order * (logs - largest), -1)
    return restore((order / (1 - order) * largest.squeeze(-1) + rest / (1 - order)).exp())


def weight_features(weights: Array) -> Array:
    """Codes' magnitudes read off a weight matrix: the squared norms of its columns.

    The weight-based reference of the toy models (paper section 5.1): give the result to
    `superposition` for psi(W).

    Args:
        weights: `[..., neurons, features]`; a column is the direction of one feature.

    Returns:
        Squared column norms, `[..., features]`.

    Raises:
        TypeError: weights that are no real numbers.
        ValueError: fewer than two axes, or a weight or its square is not finite.
    """
    values, restore = _matrix(weights, "weights")
    return restore(_squares(values).sum(-2))


def frobenius_superposition(weights: Array) -> Array:
    """Frobenius baseline psi_Frob = ||W||_F^2 / N (Elhage et al. 2022; paper section 5.1).

    Args:
        weights: `[..., neurons, features]`.

    Returns:
        psi_Frob, `[...]`.

    Raises:
        TypeError: weights that are no real numbers.
        ValueError: fewer than two axes, or a weight or its square is not finite.
    """
    values, restore = _matrix(weights, "weights")
    return restore(_squares(values).sum((-2, -1)) / values.shape[-2])


def effective_rank(matrix: Array) -> Array:
    """Effective rank: exponential of the entropy of the normalized singular values.

    Source: Roy and Vetterli (2007), the closest older relative of F.

    Args:
        matrix: `[..., rows, columns]`.

    Returns:
        Effective rank, `[...]`, between 1 and the rank.

    Raises:
        ValueError: fewer than two axes, or an entry is not finite.
        DeadCodesError: the matrix is zero.
    """
    values, restore = _matrix(matrix, "entries")
    return restore(effective_features(torch.linalg.svdvals(values)))


def participation_ratio(covariance: Array) -> Array:
    """Participation ratio of a covariance matrix: (sum of eigenvalues)^2 / sum of their squares.

    The linear dimension of a cloud of activations; it is at most the number of neurons, so it
    cannot see superposition. Computed from traces, without an eigendecomposition.

    Args:
        covariance: `[..., neurons, neurons]`, symmetric, positive semi-definite.

    Returns:
        The ratio, `[...]`, between 1 and neurons.

    Raises:
        ValueError: the matrix is not square or not finite.
        DeadCodesError: the covariance is zero: the activations are constant.
    """
    values, restore = _matrix(covariance, "covariances")
    if values.shape[-1] != values.shape[-2]:
        raise ValueError(
            f"covariance has shape {tuple(values.shape)}; its last axes must be equal."
        )
    scale = values.abs().amax((-2, -1), keepdim=True)
    if bool((scale == 0).any()):
        raise DeadCodesError("the covariance is zero: the activations do not vary.")
    values = values / scale
    trace = values.diagonal(dim1=-2, dim2=-1).sum(-1)
    return restore(trace.square() / values.square().sum((-2, -1)))


def _doubles(array: Any, name: str = "codes") -> tuple[torch.Tensor, Any]:
    """A double tensor, and a function that takes results back to the kind that was given."""
    values = numbers(name, array).detach().double()
    if isinstance(array, torch.Tensor):
        return values, lambda result: result
    return values, lambda result: result.numpy()[()]


def _matrix(array: Any, name: str) -> tuple[torch.Tensor, Any]:
    """`_doubles` for an argument whose last two axes form a finite matrix."""
    values, restore = _doubles(array, name)
    if values.ndim < 2 or 0 in values.shape[-2:]:
        raise ValueError(
            f"{name} have shape {tuple(values.shape)}; give at least two axes, none of them empty."
        )
    if not bool(torch.isfinite(values).all()):
        raise ValueError(f"{name} contain nan or infinity.")
    return values, restore


def _squares(weights: torch.Tensor) -> torch.Tensor:
    """Squares of weights, or a refusal where they overflow."""
    squares = weights.square()
    if not bool(torch.isfinite(squares).all()):
        raise ValueError(
            f"weights reach {weights.abs().max().item():.0e}, whose squares overflow; divide them "
            "all by one number."
        )
    return squares
