"""When networks generalize and what falls then, on series made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from superpos.transition import (
    WINDOW,
    Transition,
    decay,
    fall,
    levels,
    mean_between,
    passing,
    transition,
)

STEPS = np.arange(0, 1001, 10)
AROUND = Transition(500, 550, 600)


def stairs(before, after, at=550):
    return np.where(at > STEPS, before, after).astype(float)


@pytest.mark.parametrize(
    ("level", "expected"), [(0.1, 50), (0.2, 100), (0.5, 175), (0.8, 250), (1.0, 300)]
)
def test_a_passing_is_interpolated(level, expected):
    found = passing([0, 100, 200, 300], [0, 0.2, 0.6, 1], level)
    assert found == pytest.approx(expected)
    assert isinstance(found, float)


def test_what_never_happens_is_none():
    assert passing([0, 1, 2], [0, 0.3, 0.49], 0.5) is None


def test_what_holds_from_the_start_happens_at_the_first_step():
    assert passing([5, 10, 20], [0.5, 0.2, 0.9], 0.5) == 5


def test_the_first_passing_counts():
    assert passing(range(5), [0, 1, 0, 0, 1], 0.5) == pytest.approx(0.5)


@given(
    values=st.lists(st.floats(0, 1), min_size=2, max_size=12),
    level=st.floats(0, 1),
    data=st.data(),
)
def test_a_passing_is_where_the_line_through_the_points_first_reaches_the_level(
    values, level, data
):
    n = len(values)
    steps = np.cumsum(data.draw(st.lists(st.integers(1, 50), min_size=n, max_size=n)))
    found = passing(steps, values, level)
    if found is None:
        assert max(values) < level
        return
    assert steps[0] <= found <= steps[-1]
    assert all(
        value < level for step, value in zip(steps, values, strict=True) if step < found - 1e-6
    )
    if values[0] < level:
        assert np.interp(found, steps, values) == pytest.approx(level, abs=1e-9)


def test_a_transition_goes_from_a_tenth_through_a_half_to_nine_tenths():
    found = transition([0, 100, 200, 300], [0, 0, 1, 1])
    assert found == pytest.approx((110, 150, 190))
    assert found._fields == ("begin", "middle", "end")


@pytest.mark.parametrize("highest", [0.05, 0.4, 0.89])
def test_without_nine_tenths_there_is_no_transition(highest):
    assert transition(STEPS, np.linspace(0, highest, len(STEPS))) is None
    assert transition(STEPS, np.linspace(0, 0.9, len(STEPS))) is not None


def test_a_network_that_generalizes_at_once_does_so_at_the_first_step():
    assert transition([0, 10], [0.95, 1]) == (0, 0, 0)


def test_means_include_both_ends_and_leave_out_what_is_unknown():
    values = [1, 2, math.nan, 4, 5]
    assert mean_between(range(5), values, 1, 3) == 3
    assert mean_between(range(5), values, 0.5, 1.5) == 2
    assert math.isnan(mean_between(range(5), values, 2, 2))
    assert math.isnan(mean_between(range(5), values, 1.2, 1.8))


def test_levels_are_those_of_a_stair():
    assert levels(STEPS, stairs(8, 2), AROUND) == (8, 2)
    assert fall(STEPS, stairs(8, 2), AROUND) == pytest.approx(0.75)
    assert fall(STEPS, stairs(2, 3), AROUND) == pytest.approx(-0.5)
    assert fall(STEPS, stairs(2, 2), AROUND) == 0


def test_levels_are_means_over_a_tenth_of_training_on_either_side():
    before, after = levels(STEPS, STEPS, AROUND)
    assert WINDOW == 0.1
    assert (before, after) == (pytest.approx(450), pytest.approx(650))  # 400-500, 600-700
    spike = np.where((STEPS < 400) | (STEPS > 700) | ((STEPS > 500) & (STEPS < 600)), 1e6, 1.0)
    assert levels(STEPS, spike, AROUND) == (1, 1)


def test_unknown_values_do_not_count_in_levels():
    values = stairs(8, 2)
    values[45] = values[65] = math.nan
    assert levels(STEPS, values, AROUND) == (8, 2)


def test_where_no_checkpoint_lies_levels_are_unknown():
    late = Transition(990, 995, 999)
    before, after = levels(STEPS, stairs(8, 2), late)
    assert (before, after) == (2, 2)  # the very last checkpoint
    before, after = levels([0, 500, 1000], [3, 3, 1], Transition(850, 900, 950))
    assert math.isnan(before)
    assert after == 1
    assert math.isnan(fall([0, 500, 1000], [3, 3, 1], Transition(850, 900, 950)))
    gone = levels(STEPS[:-1], stairs(8, 2)[:-1], Transition(992, 995, 999))
    assert gone[0] == 2
    assert math.isnan(gone[1])


def test_a_transition_at_the_start_has_the_first_checkpoint_before_it():
    assert levels(STEPS, stairs(8, 2, at=10), Transition(0, 5, 10)) == (8, 2)


def test_a_linear_fall_is_over_by_its_share_of_the_way():
    values = np.interp(STEPS, [0, 600, 1000], [60.0, 0, 0])
    peak, early, order = decay(STEPS, values, AROUND)
    assert peak == pytest.approx(59)  # the mean of 60, 59 and 58
    assert early == pytest.approx((59 - 10) / 59)
    assert order == pytest.approx(-1)


def test_an_exponential_fall_is_early():
    values = 5 + 20 * np.exp(-STEPS / 100)
    peak, early, order = decay(STEPS, values, AROUND)
    expected = 5 + 20 * np.exp(-0.1 * np.arange(3)).mean()
    middle = 5 + 20 * np.exp(-5 + 0.1 * np.arange(-1, 2)).mean()
    after = 5 + 20 * np.exp(-6 - 0.1 * np.arange(11)).mean()
    assert peak == pytest.approx(expected)
    assert early == pytest.approx((expected - middle) / (expected - after))
    assert early > 0.99
    assert order == pytest.approx(-1)


def test_a_fall_at_the_transition_is_not_early():
    values = np.interp(STEPS, [0, 480, 520, 580, 1000], [10, 9.5, 9.5, 1, 1])
    _, early, order = decay(STEPS, values, AROUND)
    assert 0 < early < 0.1
    assert order < -0.9


@pytest.mark.parametrize(
    "values",
    [
        np.where(STEPS < 550, STEPS / 100, 1.0),  # the peak comes after the beginning
        np.where(STEPS < 600, 1.0, 2.0),
        STEPS / 100,
        np.linspace(0.3, 0, len(STEPS)) + (STEPS > 550),  # the level after it is higher
        np.zeros(len(STEPS)),
    ],
)
@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_what_does_not_fall_before_a_transition_is_neither_early_nor_late(values):
    assert math.isnan(decay(STEPS, values, AROUND).early)


def test_only_what_lies_between_peak_and_beginning_has_an_order():
    values = np.interp(STEPS, [0, 200, 500, 550, 1000], [0, 10, 5, 8, 1])
    assert decay(STEPS, values, AROUND).order == pytest.approx(-1)
    noisy = values + np.random.default_rng(0).normal(size=len(STEPS), scale=0.3)
    top = 1 + int(np.convolve(noisy, np.ones(3) / 3, "valid").argmax())
    assert top < 40
    expected = scipy.stats.spearmanr(STEPS[top:51], noisy[top:51]).statistic
    assert decay(STEPS, noisy, AROUND).order == pytest.approx(expected)
    assert -1 < expected < -0.9


def test_the_beginning_lies_between_checkpoints():
    values = np.interp(STEPS, [0, 600, 1000], [60.0, 0, 0])
    around = Transition(505, 550, 600)
    assert decay(STEPS, values, around).early == pytest.approx((59 - 9.5) / 59)


def test_a_single_spike_is_smoothed_away():
    values = np.interp(STEPS, [0, 600, 1000], [60.0, 0, 0])
    values[30] += 60
    assert decay(STEPS, values, AROUND).peak == pytest.approx(59)
    values[30] += 60
    assert decay(STEPS, values, AROUND).peak == pytest.approx((32 + 31 + 150) / 3)


@pytest.mark.parametrize(("begin", "known"), [(30, False), (40, True)])
def test_three_checkpoints_have_no_order(begin, known):
    values = np.interp(STEPS, [0, 600, 1000], [60.0, 0, 0])
    order = decay(STEPS, values, Transition(begin, begin + 10, begin + 20)).order
    assert math.isnan(order) != known


@given(
    factor=st.floats(0.01, 100),
    seed=st.integers(0, 2**32 - 1),
    begin=st.integers(300, 600),
)
def test_falls_and_decays_ignore_scale(factor, seed, begin):
    values = 30 - STEPS / 50 + np.random.default_rng(seed).random(len(STEPS))
    around = Transition(begin, begin + 20, begin + 100)
    assert fall(STEPS, factor * values, around) == pytest.approx(fall(STEPS, values, around))
    peak, early, order = decay(STEPS, values, around)
    assert decay(STEPS, factor * values, around) == pytest.approx((factor * peak, early, order))


def test_unknown_values_leave_a_decay_known_elsewhere():
    values = np.interp(STEPS, [0, 600, 1000], [60.0, 0, 0])
    values[20] = math.nan
    assert decay(STEPS, values, AROUND) == pytest.approx((59, 49 / 59, -1))
