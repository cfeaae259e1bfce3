"""When a network generalizes, and what a measured number does then (paper section 6.3)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike

BEGIN, MIDDLE, END = 0.1, 0.5, 0.9
"""Test accuracies at which the transition begins, is halfway, and ends."""
WINDOW = 0.1
"""Share of training before its beginning and after its end over which levels are averaged."""


class Transition(NamedTuple):
    """When test accuracy rises, in training steps, interpolated between checkpoints."""

    begin: float
    """It passes a tenth."""
    middle: float
    """It passes a half."""
    end: float
    """It passes nine tenths."""


def transition(steps: ArrayLike, accuracy: ArrayLike) -> Transition | None:
    """When a network generalizes, or None if it never does.

    Args:
        steps: rising, `[checkpoints]`.
        accuracy: on the test set, `[checkpoints]`; the first passing of each level counts.
    """
    found = [passing(steps, accuracy, level) for level in (BEGIN, MIDDLE, END)]
    return None if None in found else Transition(*found)


def passing(steps: ArrayLike, values: ArrayLike, level: float) -> float | None:
    """When a series first reaches a level, interpolated; None if it never does.

    Args:
        steps: rising, `[checkpoints]`.
        values: `[checkpoints]`.
        level: what is reached from below.
    """
    steps, values = np.asarray(steps, dtype=float), np.asarray(values, dtype=float)
    reached = values >= level
    if not reached.any():
        return None
    place = int(reached.argmax())
    if place == 0:
        return float(steps[0])
    low, high = values[place - 1 : place + 1]
    share = (level - low) / (high - low)
    return float(steps[place - 1] + share * (steps[place] - steps[place - 1]))


def mean_between(steps: ArrayLike, values: ArrayLike, first: float, last: float) -> float:
    """Mean of the checkpoints from one step to another, both included; nan if there are none."""
    steps, values = np.asarray(steps, dtype=float), np.asarray(values, dtype=float)
    inside = (steps >= first) & (steps <= last) & np.isfinite(values)
    return float(values[inside].mean()) if inside.any() else float("nan")


def levels(steps: ArrayLike, values: ArrayLike, around: Transition) -> tuple[float, float]:
    """Means of a series before and after a transition, each over `WINDOW` of training.

    Args:
        steps: rising, evenly spaced, `[checkpoints]`.
        values: `[checkpoints]`.
        around: the transition; of another network, for a control.

    Returns:
        Before and after; nan where no checkpoint lies.
    """
    width = WINDOW * float(np.max(steps))
    before = mean_between(steps, values, around.begin - width, around.begin)
    return before, mean_between(steps, values, around.end, around.end + width)


def fall(steps: ArrayLike, values: ArrayLike, around: Transition) -> float:
    """By which share of its level before a transition a series is lower after it; see `levels`.

    nan if that level is zero.
    """
    before, after = levels(steps, values, around)
    return (before - after) / before if before else float("nan")


class Decay(NamedTuple):
    """How a series falls from its highest value until after a transition."""

    peak: float
    """Highest value of the running mean of three checkpoints."""
    early: float
    """Share of the fall from there to the level after the transition that is over when the
    transition begins; nan if the peak comes later, or nothing falls."""
    order: float
    """Spearman correlation with the step between peak and beginning; -1 if every checkpoint is
    lower than the one before. nan with fewer than four checkpoints, or if they do not differ."""


def decay(steps: ArrayLike, values: ArrayLike, around: Transition) -> Decay:
    """How a series falls before a transition.

    Args:
        steps: rising, evenly spaced, `[checkpoints]`, at least three.
        values: `[checkpoints]`.
        around: the transition.
    """
    steps, values = np.asarray(steps, dtype=float), np.asarray(values, dtype=float)
    if not np.isfinite(values).any():
        return Decay(float("nan"), float("nan"), float("nan"))
    smooth, middles = np.convolve(values, np.ones(3) / 3, "valid"), steps[1:-1]
    top = int(np.nanargmax(smooth))
    at_begin = float(np.interp(around.begin, middles, smooth))
    _, after = levels(steps, values, around)
    inside = (steps >= middles[top]) & (steps <= around.begin) & np.isfinite(values)
    order = (
        scipy.stats.spearmanr(steps[inside], values[inside]).statistic
        if inside.sum() >= 4 and np.ptp(values[inside]) > 0
        else float("nan")
    )
    peak = float(smooth[top])
    falls = middles[top] < around.begin and peak > after
    return Decay(peak, (peak - at_begin) / (peak - after) if falls else float("nan"), float(order))
