"""Series of neighbors that depend on each other: closed forms, other libraries, simulations."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from superpos import trends
from superpos.trends import (
    MARGIN,
    change_point,
    effective_pairs,
    series_correlation,
    without_trend,
)

SEEDS = st.integers(0, 2**32 - 1)
FACTORS = st.floats(1e-3, 1e3)
SHIFTS = st.floats(-1e3, 1e3)


def autoregressive(memory, correlation, n, seed):
    """Two stationary AR(1) series of one memory, `[2, n]`, that correlate as given."""
    noise = np.random.default_rng(seed).normal(size=(2, n))
    noise[1] = correlation * noise[0] + np.sqrt(1 - correlation**2) * noise[1]
    noise[:, 0] /= np.sqrt(1 - memory**2)
    return scipy.signal.lfilter([1], [1, -memory], noise)


def stepped(n, place, size, noise, seed):
    """A step before point `place` in white noise, `[n]`."""
    steps = size * (np.arange(n) >= place)
    return steps + noise * np.random.default_rng(seed).normal(size=n)


def best_step(times, x):
    """Time and size of the step that least squares prefers, one place after another."""
    n, found = len(x), []
    for place in range(MARGIN, n - MARGIN + 1):
        design = np.stack([np.ones(n), np.arange(n), np.arange(n) >= place], 1)
        weights = np.linalg.lstsq(design, x, rcond=None)[0]
        error = ((x - design @ weights) ** 2).sum()
        found.append((error, (times[place - 1] + times[place]) / 2, weights[2]))
    return min(found)[1:]


def test_white_noise_is_as_many_pairs_as_it_has():
    found = [effective_pairs(*autoregressive(0, 0, 400, seed)) for seed in range(30)]
    assert max(found) <= 400
    assert np.mean(found) == pytest.approx(400, rel=0.05)


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (0.9, 0.6), (0.8, 0.9)])
def test_autoregressive_series_are_worth_what_bartlett_says(a, b):
    n = 20_000
    x, y = autoregressive(a, 0, n, 1)[0], autoregressive(b, 0, n, 2)[0]
    assert effective_pairs(x, y) == pytest.approx(n * (1 - a * b) / (1 + a * b), rel=0.1)


def test_effective_pairs_are_those_of_the_sum_written_out():
    n = 40
    x, y = autoregressive(0.8, 0.3, n, 3)

    def autocorrelation(values, lag):
        values = values - values.mean()
        return (values[lag:] * values[: n - lag]).sum() / (values**2).sum()

    total = 0
    for lag in range(1, n // 4 + 1):
        total += (1 - lag / n) * autocorrelation(x, lag) * autocorrelation(y, lag)
    assert effective_pairs(x, y) == pytest.approx(n / (1 + 2 * total))


def test_opposed_memories_do_not_make_more_pairs_than_there_are():
    x, y = autoregressive(0.8, 0, 200, 0)[0], autoregressive(-0.8, 0, 200, 1)[0]
    assert effective_pairs(x, y) == 200


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_independent_pairs_have_the_interval_of_scipy(level):
    x, _ = autoregressive(-0.5, 0, 60, 0)
    y = 0.3 * x + autoregressive(0.5, 0, 60, 1)[1]
    assert effective_pairs(x, y) == 60
    found, expected = series_correlation(x, y, level), scipy.stats.pearsonr(x, y)
    interval = expected.confidence_interval(level)
    assert found[:3] == pytest.approx((expected.statistic, interval.low, interval.high))


@given(seed=SEEDS, memory=st.floats(0.5, 0.95))
def test_the_interval_is_fishers_for_the_effective_pairs(seed, memory):
    x, y = autoregressive(memory, 0.4, 50, seed)
    found, expected = series_correlation(x, y), scipy.stats.pearsonr(x, y)
    assert found.value == pytest.approx(expected.statistic, abs=1e-12)
    pairs = effective_pairs(x, y)
    assume(pairs > 3)
    half = scipy.stats.norm.ppf(0.975) / np.sqrt(pairs - 3)
    middle = np.arctanh(expected.statistic)
    assert found[1:3] == pytest.approx((np.tanh(middle - half), np.tanh(middle + half)))
    naive = expected.confidence_interval()
    assert found.low <= naive.low + 1e-12
    assert found.high >= naive.high - 1e-12


def test_series_with_memory_have_a_wider_interval_than_pairs_without():
    x, y = autoregressive(0.8, 0.5, 200, 0)
    order = np.random.default_rng(1).permutation(200)
    found, mixed = series_correlation(x, y), series_correlation(x[order], y[order])
    assert found.value == pytest.approx(mixed.value)
    assert found.high - found.low > 1.5 * (mixed.high - mixed.low)


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_the_interval_covers_the_truth_where_the_naive_one_does_not(correlation):
    covered, naive = [], []
    for seed in range(200):
        x, y = autoregressive(0.7, correlation, 100, seed)
        found = series_correlation(x, y)
        covered.append(found.low <= correlation <= found.high)
        interval = scipy.stats.pearsonr(x, y).confidence_interval()
        naive.append(interval.low <= correlation <= interval.high)
    assert 0.91 <= np.mean(covered) <= 0.99
    assert np.mean(naive) < 0.85


@given(seed=SEEDS, factors=st.tuples(FACTORS, FACTORS), shifts=st.tuples(SHIFTS, SHIFTS))
def test_correlations_ignore_scale_and_shift(seed, factors, shifts):
    x, y = autoregressive(0.6, 0.5, 40, seed)
    found = series_correlation(factors[0] * x + shifts[0], factors[1] * y + shifts[1])
    expected = series_correlation(x, y)
    assert found[:3] == pytest.approx(expected[:3], abs=1e-6)
    value, low, high, _ = series_correlation(x, -factors[1] * y)[:4]
    assert (-value, -high, -low) == pytest.approx(expected[:3], abs=1e-6)


def test_three_pairs_or_fewer_say_nothing(monkeypatch):
    x, y = autoregressive(0, 0.5, 20, 0)
    for pairs in (2.5, 3.0):
        monkeypatch.setattr(trends, "effective_pairs", lambda *_, pairs=pairs: pairs)
        value, low, high, note = series_correlation(x, y)[:4]
        assert (value, low, high) == (pytest.approx(np.corrcoef(x, y)[0, 1]), -1, 1)
        assert "few" in note


def test_a_perfect_correlation_has_a_narrow_interval():
    x, _ = autoregressive(0, 0, 100, 0)
    value, low, high, _ = series_correlation(x, 2 * x + 1)[:4]
    assert value == pytest.approx(1)
    assert 0.999 < low <= high <= 1


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (range(10), range(11)),
        (range(7), range(7)),
        ([1.0] * 10, range(10)),
        (range(10), [2.0] * 10),
        (np.ones((10, 2)), np.ones((10, 2))),
    ],
)
def test_correlations_that_mean_nothing_are_refused(x, y):
    with pytest.raises(ValueError, match="at least 8"):
        series_correlation(x, y)


@given(slope=st.floats(-100, 100), start=st.floats(-100, 100), n=st.integers(10, 80))
def test_a_straight_line_is_all_trend(slope, start, n):
    np.testing.assert_allclose(without_trend(start + slope * np.arange(n)), 0, atol=1e-8)


def test_fast_noise_is_left_and_a_slow_bend_is_not():
    n = 200
    noise = np.random.default_rng(0).normal(size=n)
    bend = 10 * np.linspace(-1, 1, n) ** 2
    assert np.corrcoef(without_trend(noise), noise)[0, 1] > 0.98
    found = without_trend(bend + noise, span=0.3)
    assert np.corrcoef(found, noise)[0, 1] > 0.95
    assert np.corrcoef(bend + noise, noise)[0, 1] < 0.3


def test_a_wider_span_leaves_more_of_a_bend():
    bend = np.linspace(-1, 1, 100) ** 2
    left = [np.abs(without_trend(bend, span)).mean() for span in (0.1, 0.3, 0.5, 0.9)]
    assert left == sorted(left)
    assert left[-1] > 5 * left[0]
    assert np.array_equal(without_trend(bend), without_trend(bend, 0.5))


@given(seed=SEEDS, slope=st.floats(-10, 10), start=SHIFTS, factor=FACTORS)
def test_what_is_no_trend_scales_and_forgets_lines(seed, slope, start, factor):
    x = np.random.default_rng(seed).normal(size=40)
    found = without_trend(factor * x + slope * np.arange(40) + start)
    np.testing.assert_allclose(found, factor * without_trend(x), rtol=1e-3, atol=1e-6)


@settings(max_examples=40)
@given(seed=SEEDS, n=st.integers(4 * MARGIN, 60), size=st.floats(-5, 5), memory=st.floats(0, 0.9))
def test_the_change_point_is_where_least_squares_puts_it(seed, n, size, memory):
    generator = np.random.default_rng(seed)
    x = autoregressive(memory, 0, n, seed)[0] + size * (np.arange(n) >= generator.integers(n))
    times = 10 + 3 * np.arange(n) + 0.5 * generator.random(n)
    time, height = best_step(times, x)
    found = change_point(times, x, resamples=3)
    assert found.time.value == pytest.approx(time)
    assert found.size.value == pytest.approx(height)


@pytest.mark.parametrize("size", [4.0, -4.0])
@pytest.mark.parametrize("place", [MARGIN, 17, 40 - MARGIN])
def test_a_planted_step_is_found_with_its_sign(place, size):
    times = np.arange(40) * 100
    exact = change_point(times, stepped(40, place, size, 0, 0), resamples=10)
    middle, low, high, _ = exact.time[:4]
    assert (low, middle, high) == (100 * place - 100, 100 * place - 50, 100 * place)
    assert exact.size[:3] == pytest.approx((size, size, size))
    noisy = change_point(times, stepped(40, place, size, 0.2, 0), resamples=100)
    assert noisy.time.value == 100 * place - 50
    assert noisy.size.value == pytest.approx(size, abs=0.4)
    assert np.sign([noisy.size.low, noisy.size.high]).tolist() == [np.sign(size)] * 2


def test_intervals_cover_the_truth_in_most_simulations():
    times, truth, when, size = np.arange(60), (29.5, 3.0), [], []
    for seed in range(40):
        found = change_point(times, stepped(60, 30, 3, 1, seed), resamples=150, seed=seed)
        when.append(found.time.low <= truth[0] <= found.time.high)
        size.append(found.size.low <= truth[1] <= found.size.high)
    assert np.mean(when) >= 0.85
    assert np.mean(size) >= 0.8


def test_more_noise_and_a_higher_level_make_intervals_wider():
    times = np.arange(60)

    def widths(noise, level=0.95):
        found = change_point(times, stepped(60, 30, 3, noise, 0), level=level, resamples=200)
        return [estimate.high - estimate.low for estimate in found]

    calm, noisy, narrow = widths(0.3), widths(2), widths(2, 0.5)
    assert calm[0] < noisy[0]
    assert calm[1] < narrow[1] < noisy[1]
    assert narrow[0] <= noisy[0]


def test_memory_makes_the_interval_of_the_size_wider():
    x = autoregressive(0.8, 0, 200, 0)[0]
    mixed = np.random.default_rng(0).permutation(x)
    step, times = 6 * (np.arange(200) >= 100), np.arange(200)
    slow, fast = (change_point(times, step + own).size for own in (x, mixed))
    assert slow.high - slow.low > 1.3 * (fast.high - fast.low)


def test_the_seed_fixes_the_interval_and_nothing_else():
    times, x = np.arange(40), stepped(40, 20, 1, 1, 0)
    found = change_point(times, x, seed=3, resamples=50)
    assert found == change_point(times, x, seed=3, resamples=50)
    other = change_point(times, x, seed=4, resamples=50)
    assert other != found
    assert [own.value for own in other] == [own.value for own in found]


@settings(max_examples=20)
@given(seed=SEEDS, slope=st.floats(-10, 10), start=SHIFTS, factor=FACTORS)
def test_a_change_point_forgets_lines_and_its_size_scales(seed, slope, start, factor):
    times = np.arange(30) * 5
    x = stepped(30, 12, 3, 1, seed)
    expected = change_point(times, x, resamples=20)
    found = change_point(times, factor * x + slope * times + start, resamples=20)
    assert found.time[:3] == expected.time[:3]
    scaled = [factor * value for value in expected.size[:3]]
    assert found.size[:3] == pytest.approx(scaled, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("shape", [(4 * MARGIN - 1, 4 * MARGIN - 1), (30, 31)])
def test_series_too_short_for_a_change_are_refused(shape):
    with pytest.raises(ValueError, match=f"at least {4 * MARGIN}"):
        change_point(*map(np.arange, shape))


def test_the_shortest_series_has_a_change_point():
    n = 4 * MARGIN
    found = change_point(np.arange(n), stepped(n, n // 2, 5, 0.1, 0), resamples=20)
    assert found.time.value == n // 2 - 0.5
