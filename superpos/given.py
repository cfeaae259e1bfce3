"""What a caller gives, checked at the door: taken as it is, or refused in one sentence."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

MOST = 10**12
"""The largest whole number that is taken for a count or a seed."""
SMALLEST, LARGEST = 1e-10, 1e15
"""Sizes between which a fit in single precision neither overflows nor loses digits."""


def whole(name: str, value: Any, low: int = 1, high: int = MOST) -> int:
    """A whole number within limits, as a plain int; neither a bool nor a float is one.

    Raises:
        ValueError: anything else.
    """
    if not is_whole(value) or not low <= operator.index(value) <= high:
        limits = f"at least {low:,} and at most {high:,}"
        raise ValueError(f"{name} is {shown(value)}; give a whole number of {limits}.")
    return operator.index(value)


def is_whole(value: Any) -> bool:
    """Whether this is a whole number of some library; neither a bool nor a float is one."""
    try:
        operator.index(value)
    except TypeError:
        return False
    return not isinstance(value, bool)


def real(name: str, value: Any, allowed: str, fits: Callable[[float], bool]) -> float:
    """A real number for which `fits` holds, as a plain float; neither a bool nor text is one.

    Args:
        name: what it is for.
        value: what was given.
        allowed: what can be given, such as "a positive number".
        fits: whether a number is allowed; must be false for nan.

    Raises:
        ValueError: anything else.
    """
    try:
        number = math.nan if isinstance(value, (bool, str, bytes)) else float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # what is no number raises
        number = math.nan
    if not fits(number):
        raise ValueError(f"{name} is {shown(value)}; give {allowed}.")
    return number


def numbers(name: str, value: Any) -> Tensor:
    """A dense tensor of real numbers, without a copy where none is needed.

    Args:
        name: what it holds, in the plural, such as "activations".
        value: a tensor, an array, or nested lists of one length.

    Raises:
        TypeError: anything else: objects, text, complex numbers, sparse or empty shells of tensors.
    """
    if isinstance(value, Tensor):
        kind = _kind(value)
        if kind is None:
            return value
    else:
        try:
            array = np.asarray(value)
            kind = None if array.dtype.kind in "biuf" else f"hold {array.dtype}"
        except (TypeError, ValueError, RuntimeError):  # such as lists of several lengths
            kind = f"are a {type(value).__name__} that makes no array"
        if kind is None:
            native = np.dtype("f8") if array.dtype.itemsize > 8 else array.dtype.newbyteorder("=")
            return torch.from_numpy(np.require(array, native, ["C", "W"]))
    raise TypeError(f"{name} {kind}; give real numbers in a dense tensor or an array.")


def check_range(activations: Tensor, low: float = SMALLEST) -> None:
    """Refuse activations that cannot be computed with in single precision.

    Args:
        activations: `[..., samples, neurons]`; each of the matrices must fit, or be all zero.
        low: size that the largest activation of a matrix has at least.

    Raises:
        ValueError: nan, infinity, or a size outside the limits.
    """
    x = activations if activations.is_floating_point() else activations.float()
    size = torch.linalg.vector_norm(x, math.inf, dim=(-2, -1))
    if not bool(torch.isfinite(size).all()):
        raise ValueError("activations contain nan or infinity (in single precision).")
    wrong = size[(size > LARGEST) | ((size > 0) & (size < low))]
    if len(wrong):
        raise ValueError(
            f"activations reach {wrong[0].item():.0e} in size, which single precision cannot fit; "
            f"multiply them all by one number, so that they reach {SMALLEST:.0e} to {LARGEST:.0e}."
        )


def shown(value: Any) -> str:
    """A value in a message: on one line, and short."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _kind(tensor: Tensor) -> str | None:
    """What is wrong with the kind of a tensor, if anything."""
    if tensor.is_meta:
        return "are on the meta device, which holds no numbers"
    if tensor.layout != torch.strided or tensor.is_quantized:
        return "are sparse or quantized"
    return f"hold {str(tensor.dtype).removeprefix('torch.')}" if tensor.is_complex() else None
