"""Shares of simulated grids whose intervals hold the truth."""

import math

import pytest
import scipy.stats

from superpos.coverage import coverage


def test_many_seeds_and_even_cells_give_every_interval_its_level():
    found = coverage(groups=1, cells=4, seeds=200, draws=400)
    low, high = scipy.stats.binom.interval(0.9999, 400, 0.95)
    assert ((found * 400 >= low) & (found * 400 <= high)).all()


def test_two_cells_of_one_line_miss_as_a_t_distribution_says():
    # One line through two cells of shared errors: z with the error of 2 (seeds - 1) degrees of
    # freedom, so that 1.96 covers what a t distribution of four holds within it, 0.878.
    found = coverage(groups=1, cells=2, seeds=3, draws=2000)
    expected = scipy.stats.t.cdf(1.959964, 4) * 2 - 1
    assert found["pooled"] == pytest.approx(expected, abs=4 * math.sqrt(0.878 * 0.122 / 2000))
    assert found["hartung_knapp"] == found["pooled"]  # a single line has no spread to go by


def test_three_seeds_starve_the_papers_interval_and_not_hartung_and_knapps():
    found = coverage(groups=3, cells=4, draws=300)
    assert found["paper"] < 0.9 < found["hartung_knapp"]


def test_a_simulation_is_that_of_its_seed():
    one, same, other = (coverage(2, 3, draws=60, seed=seed) for seed in (1, 1, 2))
    assert one.equals(same) and not one.equals(other)


@pytest.mark.parametrize(
    "wrong",
    [{"groups": 0}, {"cells": 1}, {"seeds": 1}, {"draws": 0}, {"between": -1}, {"uneven": -0.1}],
)
def test_grids_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="at least 1 group, 2 cells"):
        coverage(**{"groups": 2, "cells": 3, **wrong})
