"""Statistics against hand-worked numbers and simulations."""

import numpy as np
import pytest
import scipy.stats

from superpos import stats


def test_the_mean_interval_is_the_textbook_t_interval():
    # mean 2, standard error 1 / sqrt(3), t(0.975, 2) = 4.3027
    value, low, high, _ = stats.mean_interval([1.0, 2.0, 3.0])[:4]
    assert value == 2
    assert (low, high) == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-3)


def test_two_values_are_enough_for_an_interval_and_one_is_not():
    # mean 2, standard error 1, t(0.975, 1) = 12.7062
    assert stats.mean_interval([1.0, 3.0])[:3] == pytest.approx((2, -10.7062, 14.7062), abs=1e-4)
    with pytest.raises(ValueError, match="two repeats"):
        stats.mean_interval([1.0])


def test_repeats_that_agree_say_why_they_have_no_interval():
    assert stats.mean_interval([2.0, 2.0, 2.0]) == (2, 2, 2, "all repeats agree", "")


@pytest.mark.parametrize("kind", [np.float32, bool])
def test_numbers_of_any_kind_count_as_doubles(kind):
    x, y = np.array([[0, 0, 0.1, 0.7, 0.3], [3.1, 0.4, 0, 0.2, 0.3]]).astype(kind)
    assert stats.mean_interval(y) == stats.mean_interval(y.astype(float))
    for statistic in (stats.difference, stats.correlation, stats.normalized_slope):
        expected = statistic(x.astype(float), y.astype(float))
        assert statistic(x, y.astype(float)) == statistic(x.astype(float), y) == expected


def test_correlation_is_fishers():
    x, y = np.random.default_rng(0).normal(size=(2, 40))
    y = x + y
    value, low, high, _ = stats.correlation(x, y)[:4]
    r = np.corrcoef(x, y)[0, 1]
    half = scipy.stats.norm.ppf(0.975) / np.sqrt(37)
    assert value == pytest.approx(r)
    assert (low, high) == pytest.approx(
        (np.tanh(np.arctanh(r) - half), np.tanh(np.arctanh(r) + half))
    )


def test_four_pairs_are_enough_for_a_correlation():
    # r = 3 / 5, and the standard error of its arctanh is 1 / sqrt(4 - 3)
    found, half = stats.correlation([0, 1, 2, 3], [1, 0, 3, 2]), scipy.stats.norm.ppf(0.975)
    expected = 0.6, np.tanh(np.arctanh(0.6) - half), np.tanh(np.arctanh(0.6) + half)
    assert found[:3] == pytest.approx(expected)
    assert stats.correlation([0, 1, 1, 0], [0, 1, 0, 0]).value == pytest.approx(3**-0.5)


@pytest.mark.parametrize("x", [[1, 1, 1, 1], [1, 2, 3]])
def test_correlations_that_mean_nothing_are_refused(x):
    for pair in ((x, range(len(x))), (range(len(x)), x)):
        with pytest.raises(ValueError, match=r"^a correlation needs at least four pairs"):
            stats.correlation(*pair)


def test_the_bootstrap_interval_of_a_mean_is_close_to_the_t_interval():
    x = np.random.default_rng(1).normal(size=100)
    found = stats.bootstrap([x], np.mean)
    expected = stats.mean_interval(x)
    assert found.value == pytest.approx(expected.value)
    assert found.low == pytest.approx(expected.low, abs=0.04)
    assert found.high == pytest.approx(expected.high, abs=0.04)


def test_the_bootstrap_interval_of_a_share_is_the_binomial_one():
    found = stats.bootstrap([np.arange(20) < 5], np.mean, level=0.5)
    expected = scipy.stats.binom.ppf([0.25, 0.75], 20, 0.25) / 20
    assert found[:3] == pytest.approx((0.25, *expected))


def test_the_bootstrap_keeps_rows_together_and_its_seed():
    x = np.arange(20) ** 0.5
    assert stats.bootstrap([x, -x], lambda a, b: float((a + b).mean()))[:3] == (0, 0, 0)
    spelled_out = stats.bootstrap([x], np.mean, seed=0, resamples=2000, level=0.95)
    assert stats.bootstrap([x], np.mean) == spelled_out


def test_a_normalized_slope_worked_by_hand():
    # F falls from 10 by 2 per 0.1 of epsilon: slope -20, over 10 gives -2
    epsilon = [0, 0, 0.1, 0.1, 0.2, 0.2]
    assert stats.normalized_slope(epsilon, [9, 11, 8, 8, 6, 6]) == pytest.approx(-2)


def test_a_slope_without_a_base_is_refused():
    with pytest.raises(ValueError, match=r"^a normalized slope needs observations at epsilon 0"):
        stats.normalized_slope([0.1, 0.2], [1, 2])


@pytest.mark.parametrize("level", [0.95, 0.5])
def test_a_difference_has_welchs_interval(level):
    generator = np.random.default_rng(2)
    first, second = generator.normal(1, 1, 7), generator.normal(0, 3, 12)
    value, low, high, note = stats.difference(first, second, level)[:4]
    expected = scipy.stats.ttest_ind(first, second, equal_var=False).confidence_interval(level)
    assert value == pytest.approx(first.mean() - second.mean())
    assert (low, high) == pytest.approx((expected.low, expected.high))
    assert note == ""


def test_a_difference_worked_by_hand():
    # means 1 and 13, squared standard errors 1 and 9: (1 + 9)^2 / (1 + 81) degrees of freedom
    value, low, high, _ = stats.difference([0, 2], [10, 16])[:4]
    half = scipy.stats.t.ppf(0.975, 100 / 82) * 10**0.5
    assert value == -12
    assert (low, high) == pytest.approx((-12 - half, -12 + half))


def test_differences_change_sign_with_the_order_of_the_groups():
    first, second = [1.0, 2.0, 4.0], [3.0, 7.0, 8.0, 9.0]
    one, other = stats.difference(first, second), stats.difference(second, first)
    assert one[:3] == pytest.approx((-other.value, -other.high, -other.low))


@pytest.mark.parametrize(("first", "second"), [([1.0], [1.0, 2.0]), ([1.0, 2.0], [1.0]), ([], [])])
def test_groups_of_fewer_than_two_values_have_no_difference(first, second):
    assert stats.difference(first, second) is None
