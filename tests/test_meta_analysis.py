"""Section 7's statistics against hand-worked numbers, other programs, and the paper's own."""

import math
from unittest import mock

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from superpos import meta_analysis as m
from superpos import slope
from superpos.stats import mean_interval

pytestmark = pytest.mark.filterwarnings("error")

# Slopes read off figure 9a (standard MLP, then CNN; 2, 3, 5, 10 classes) and of ResNet-18.
MNIST = [0.95, 0.85, 0.25, -0.45, 2.95, 2.8, 1.9, 0.25]
FASHION = [2.5, -0.1, -1.05, -1.0, 1.85, 0.3, -0.85, -1.05]
RESNET = np.log([0.25, 0.5, 1, 2]), [-1.5, 10, 44, 78], [1, 3, 4, 7]

# Kacker's example (2004) of nine laboratories, and what R's metafor makes of it.
EFFECTS = [61.00, 61.40, 62.21, 62.30, 62.34, 62.60, 62.70, 62.84, 65.90]
ERRORS = np.sqrt([0.2025, 1.2100, 0.0900, 0.2025, 0.3844, 0.5625, 0.0676, 0.0225, 1.8225])

cells = st.lists(st.tuples(st.floats(-10, 10), st.floats(0.05, 5)), min_size=2, max_size=8).map(
    lambda pairs: np.array(pairs).T
)
methods = st.sampled_from(["pm", "dl"])


def seeds_of(*slopes, base=10.0):
    """Three clean epsilons for every slope, with F = base (1 + slope epsilon)."""
    epsilon = np.tile([0, 0.1, 0.2], len(slopes))
    return epsilon, base * (1 + np.repeat(slopes, 3) * epsilon), np.repeat(range(len(slopes)), 3)


def test_seed_slopes_worked_by_hand():
    # Seed 7 falls from 10 by 2 per 0.1: -20 / 10 = -2. Seed 3 rises from 20 by 2 per 0.1: 20 / 20 =
    # 1, and so does seed 5, from 40 by 4. Mean 0, variance (4 + 1 + 1) / 2 = 3, error sqrt(3 / 3).
    # One line through all would have slope (-20 + 20 + 40) / (10 + 20 + 40), which is not 0.
    features = [9, 8, 6, 11, 8, 6] + [20, 22, 24] * 2 + [40, 44, 48] * 2
    found = slope.seed_slopes([0, 0.1, 0.2] * 6, features, [7] * 6 + [3] * 6 + [5] * 6)
    assert found.seeds == (3, 5, 7)
    assert found.values == pytest.approx((1, 1, -2))
    assert (found.value, found.se, found.df) == pytest.approx((0, 1, 2))


def test_the_error_over_seeds_is_that_of_the_mean_interval():
    found = slope.seed_slopes(*seeds_of(0.3, -1.0, 0.5, 2.2))
    value, low, high = mean_interval([0.3, -1.0, 0.5, 2.2])[:3]
    assert found.value == pytest.approx(value)
    assert found.se * scipy.stats.t.ppf(0.975, found.df) == pytest.approx((high - low) / 2)


def test_the_order_of_observations_does_not_matter():
    epsilon, features, seed = seeds_of(0.3, -1.0, 0.5)
    order = np.random.default_rng(0).permutation(len(seed))
    shuffled = slope.seed_slopes(epsilon[order], features[order], seed[order])
    assert shuffled.values == pytest.approx((0.3, -1.0, 0.5))


def test_observations_without_features_are_left_out():
    epsilon, features, seed = seeds_of(1.0, 3.0)
    features[[1, 5]] = np.nan, np.inf  # two points of each line are left
    assert slope.seed_slopes(epsilon, features, seed).values == pytest.approx((1, 3))


@pytest.mark.parametrize("missing", [[0], [1, 2]])
def test_a_seed_that_lacks_a_base_or_all_else_is_left_out(missing):
    epsilon, features, seed = seeds_of(1.0, 2.0, 3.0)
    features[3 + np.array(missing)] = np.nan
    found = slope.seed_slopes(epsilon, features, seed)
    assert (found.seeds, found.df) == ((0, 2), 1)
    assert found.values == pytest.approx((1, 3))


def test_seeds_may_have_names():
    epsilon, features, _ = seeds_of(1.0, 2.0)
    assert slope.seed_slopes(epsilon, features, list("bbbaaa")).seeds == ("a", "b")


def test_one_seed_has_no_error():
    with pytest.raises(ValueError, match="at least two"):
        slope.seed_slopes(*seeds_of(1.0))


def test_observations_of_different_lengths_are_refused():
    epsilon, features, seed = seeds_of(1.0, 2.0)
    with pytest.raises(ValueError, match="one per observation"):
        slope.seed_slopes(epsilon, features, seed[:-1])


def test_pooled_errors_worked_by_hand():
    # Variances over seeds 3 x 1^2 = 3 with df 2, and 2 x 2^2 = 8 with df 1: (2 x 3 + 8) / 3 = 14/3.
    slopes = [slope.Slope(5.0, 1.0, 2, (), ()), slope.Slope(-3.0, 2.0, 1, (), ())]
    assert slope.pooled_errors(slopes) == pytest.approx([math.sqrt(14 / 9), math.sqrt(14 / 6)])


def test_pooling_equals_the_one_way_analysis_of_variance():
    groups = np.random.default_rng(0).normal(size=(5, 3))
    slopes = [slope.seed_slopes(*seeds_of(*group)) for group in groups]
    within = groups.var(axis=1, ddof=1).mean()
    assert slope.pooled_errors(slopes) == pytest.approx([math.sqrt(within / 3)] * 5)
    between = 3 * groups.mean(axis=1).var(ddof=1)
    found = m.combined([one.value for one in slopes], slope.pooled_errors(slopes))
    assert found.q / found.df == pytest.approx(between / within)
    assert found.q / found.df == pytest.approx(scipy.stats.f_oneway(*groups).statistic)


def test_three_seeds_own_errors_find_effects_that_are_not_there_and_pooled_ones_seldom():
    generator = np.random.default_rng(0)
    false = np.zeros(2)
    for values in generator.normal(size=(300, 8, 3)):
        means, errors = values.mean(axis=1), scipy.stats.sem(values, axis=1)
        slopes = [
            slope.Slope(mean, error, 2, (), ()) for mean, error in zip(means, errors, strict=True)
        ]
        both = errors, slope.pooled_errors(slopes)
        false += [
            abs(m.combined(means, each).fixed / m.combined(means, each).fixed_se) > 1.96
            for each in both
        ]
    own, pooled = false / 300
    assert own > 0.2
    assert pooled < 0.1


def test_layers_are_weighted_by_their_parameters():
    assert slope.weighted_layers([1, 3], [1, 3]) == 2.5  # (1 + 9) / 4
    assert slope.weighted_layers([1, 3, 100], [2, 2, 0]) == 2


def test_weighting_layers_keeps_later_axes():
    values = np.random.default_rng(0).normal(size=(3, 2, 4))
    expected = (values[0] * 5 + values[1] * 1 + values[2] * 2) / 8
    assert slope.weighted_layers(values, [5, 1, 2]) == pytest.approx(expected)


@pytest.mark.parametrize(
    "parameters", [[1], [1, 2, 3], [1, -1], [2, -1], [0, 0], [1, math.nan], [1, math.inf], [[1, 2]]]
)
def test_wrong_numbers_of_parameters_are_refused(parameters):
    with pytest.raises(ValueError, match="give"):
        slope.weighted_layers([1.0, 2.0], parameters)


def test_a_meta_analysis_worked_by_hand():
    # Mean 2, Q = 4 + 4, df 1. Weights 1 and 1: tau2 = (8 - 1) / (2 - 2 / 2) = 7, so each cell has
    # variance 8 and the mean 8 / 2 = 4: error 2, z = 1. I2 = 7 / 8.
    for method in ("pm", "dl"):
        found = m.combined([0, 4], [1, 1], method=method)
        assert (found.q, found.df, found.i2) == pytest.approx((8, 1, 7 / 8))
        assert found.q_p == pytest.approx(0.00468, abs=1e-5)
        assert found.tau2 == pytest.approx(7, rel=1e-4)
        assert (found.fixed, found.fixed_se) == pytest.approx((2, math.sqrt(0.5)))
        assert (found.random, found.random_se) == pytest.approx((2, 2), rel=1e-4)
        assert (found.model, found.value, found.se) == ("random", found.random, found.random_se)
        assert (found.z, found.p) == pytest.approx((1, 0.317311), rel=1e-4)
        assert (found.low, found.high) == pytest.approx((2 - 3.91993, 2 + 3.91993), rel=1e-4)


@pytest.mark.parametrize(
    ("method", "value", "se", "tau2", "low", "high"),
    [
        ("pm", 62.4076199113286, 0.338030602684471, 0.705395309224248, 61.7450921, 63.0701477),
        ("dl", 62.3901386044504, 0.245749668040304, 0.288049246973751, 61.9084781, 62.8717991),
    ],
)
def test_nine_laboratories_come_out_as_in_metafor(method, value, se, tau2, low, high):
    found = m.combined(EFFECTS, ERRORS, method=method)
    assert (found.model, found.df) == ("random", 8)
    assert (found.value, found.se) == pytest.approx((value, se), rel=1e-5)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-5)
    assert found.tau2 == pytest.approx(tau2, rel=1e-4)
    assert (found.fixed, found.fixed_se) == pytest.approx((62.5833970939982, 0.107845705498231))
    assert (found.q, found.q_p) == pytest.approx((24.801897741835, 0.00167935146372742))
    assert found.i2 == pytest.approx(0.67744403741711)


def test_paule_and_mandel_is_the_default():
    assert m.combined(EFFECTS, ERRORS) == m.combined(EFFECTS, ERRORS, method="pm")
    assert m.combined(EFFECTS, ERRORS) != m.combined(EFFECTS, ERRORS, method="dl")


def test_hartung_and_knapps_interval_worked_by_hand():
    # tau2 = 7 leaves cells of variance 8 at -2 and 2 around the mean: the error is 2 again, and t
    # with one degree of freedom is 12.7062.
    found = m.combined([0, 4], [1, 1])
    half = 12.7062 * 2
    assert (found.hk_low, found.hk_high) == pytest.approx((2 - half, 2 + half), rel=1e-4)


def test_hartung_and_knapps_interval_is_that_of_unweighted_cells_if_errors_are_equal():
    effects = [1.0, 4.0, 2.5, -1.0]
    test = scipy.stats.ttest_1samp(effects, 0)
    for error in (0.1, 1.0):
        found = m.combined(effects, [error] * 4)
        assert (found.hk_low, found.hk_high) == pytest.approx(tuple(test.confidence_interval()))


def test_cells_that_agree_by_accident_keep_the_normal_interval():
    found = m.combined([1.0, 1.0, 1.0], [0.5] * 3)
    half = scipy.stats.norm.ppf(0.975) * 0.5 / math.sqrt(3)
    assert (found.hk_low, found.hk_high) == pytest.approx((1 - half, 1 + half))


@given(cells)
def test_the_wider_interval_is_never_narrower_than_the_random_effects(pairs):
    found = m.combined(*pairs)
    half = scipy.stats.norm.ppf(0.975) * found.random_se
    assert found.hk_high - found.random >= half * (1 - 1e-9)
    assert found.random - found.hk_low == pytest.approx(found.hk_high - found.random, rel=1e-6)


@given(cells)
def test_dersimonian_and_laird_is_its_formula(pairs):
    effects, errors = pairs
    w = errors**-2
    fixed = (w * effects).sum() / w.sum()
    q = (w * (effects - fixed) ** 2).sum()
    tau2 = max(0, (q - (len(w) - 1)) / (w.sum() - (w**2).sum() / w.sum()))
    v = 1 / (errors**2 + tau2)
    found = m.combined(effects, errors, method="dl")
    assert (found.q, found.fixed) == pytest.approx((q, fixed), rel=1e-7, abs=1e-9)
    assert found.tau2 == pytest.approx(tau2, rel=1e-6, abs=1e-9)
    assert found.fixed_se == pytest.approx(w.sum() ** -0.5)
    assert found.random == pytest.approx((v * effects).sum() / v.sum(), rel=1e-6, abs=1e-8)
    assert found.random_se == pytest.approx(v.sum() ** -0.5, rel=1e-6)


def generalized_q(tau2, effects, errors):
    v = 1 / (errors**2 + tau2)
    return (v * (effects - (v * effects).sum() / v.sum()) ** 2).sum()


@given(cells)
def test_paule_and_mandel_leave_as_much_spread_as_there_are_degrees_of_freedom(pairs):
    effects, errors = pairs
    found = m.combined(effects, errors, method="pm")
    if found.q <= found.df:
        assert (found.tau2, found.random, found.random_se) == (0, found.fixed, found.fixed_se)
        return
    assert generalized_q(found.tau2, effects, errors) == pytest.approx(found.df, abs=2e-5)
    tau2 = scipy.optimize.brentq(
        lambda t: generalized_q(t, effects, errors) - found.df, 0, 1e4, xtol=1e-14
    )
    v = 1 / (errors**2 + tau2)
    assert found.random == pytest.approx((v * effects).sum() / v.sum(), rel=1e-4, abs=1e-4)
    assert found.random_se == pytest.approx(v.sum() ** -0.5, rel=1e-4)


@given(cells, methods, st.randoms(use_true_random=False))
def test_the_order_of_cells_does_not_matter(pairs, method, random):
    order = list(range(pairs.shape[1]))
    random.shuffle(order)
    found, shuffled = (m.combined(*each, method=method) for each in (pairs, pairs[:, order]))
    assert shuffled[7:] == pytest.approx(found[7:], rel=1e-4, abs=1e-7)


@given(cells, methods, st.floats(0.01, 100))
def test_units_scale_estimates_and_leave_heterogeneity_alone(pairs, method, unit):
    found, scaled = (m.combined(*each, method=method) for each in (pairs, unit * pairs))
    assert (scaled.q, scaled.q_p, scaled.i2) == pytest.approx(
        (found.q, found.q_p, found.i2), rel=1e-6, abs=1e-9
    )
    assert np.array(scaled[7:11]) / unit == pytest.approx(found[7:11], rel=1e-4, abs=1e-7)
    assert scaled.tau2 / unit**2 == pytest.approx(found.tau2, rel=1e-4, abs=1e-7)


@given(cells, methods, st.floats(-1e4, 1e4))
def test_a_constant_shifts_estimates_and_leaves_the_rest_alone(pairs, method, constant):
    effects, errors = pairs
    found = m.combined(effects, errors, method=method)
    shifted = m.combined(effects + constant, errors, method=method)
    assert shifted.q == pytest.approx(found.q, rel=1e-5, abs=1e-5)
    assert shifted.fixed - constant == pytest.approx(found.fixed, abs=1e-7)
    assert shifted.random - constant == pytest.approx(found.random, abs=1e-3)
    assert (shifted.fixed_se, shifted.tau2) == pytest.approx((found.fixed_se, found.tau2), abs=1e-3)


def test_random_effects_are_chosen_where_q_is_significant():
    # Two cells at plus and minus a with errors 1 have Q = 2 a^2; its 95% point is 3.8415 = 2 x
    # 1.3859^2.
    below, above = (m.combined([a, -a + 1], [1, 1]) for a in (0.5 + 1.385, 0.5 + 1.387))
    assert (below.model, below.value, below.se) == ("fixed", below.fixed, below.fixed_se)
    assert (above.model, above.value, above.se) == ("random", above.random, above.random_se)
    assert below.q_p > 0.05 > above.q_p
    assert below.random_se > below.fixed_se


@pytest.mark.parametrize("method", ["pm", "dl"])
@pytest.mark.parametrize("effects", [[1, 1, 1], [1, 1.1, 1.2]])
def test_cells_that_agree_too_well_have_no_variance_between_them(effects, method):
    found = m.combined(effects, [1, 1, 2], method=method)
    assert found.q < found.df
    assert (found.tau2, found.i2, found.model) == (0, 0, "fixed")
    assert (found.random, found.random_se) == (found.fixed, found.fixed_se)


@pytest.mark.parametrize("method", ["pm", "dl"])
def test_one_cell_combines_to_itself(method):
    found = m.combined([-0.5], [0.25], method=method)
    assert (found.value, found.se, found.fixed, found.random) == (-0.5, 0.25, -0.5, -0.5)
    assert (found.q, found.df, found.q_p, found.i2, found.tau2) == (0, 0, 1, 0, 0)
    assert (found.model, found.z, found.p) == ("fixed", -2, pytest.approx(0.0455, abs=1e-4))


def test_a_cell_with_a_vanishing_error_does_not_spoil_q():
    # The first cell is the mean, so that Q = 1^2 / 1^2 + 2^2 / 0.1^2.
    for tiny in (1e-6, 1e-9, 1e-15):
        found = m.combined([0, 1, 2], [tiny, 1, 0.1])
        assert (found.q, found.model) == (pytest.approx(401), "random")
        assert generalized_q(found.tau2, np.arange(3.0), np.array([tiny, 1, 0.1])) == pytest.approx(
            2, abs=2e-5
        )


def test_cells_that_agree_but_for_rounding_have_no_spread():
    for effect, errors in [(0.8, [0.9, 0.1]), (0.6, [0.2, 0.7]), (0.7, [0.9, 0.4, 0.4, 0.1, 0.7])]:
        found = m.combined([effect] * len(errors), errors)  # (Q - df) / Q explodes below zero
        assert (found.q, found.i2, found.q_p) == pytest.approx((0, 0, 1))


@pytest.mark.parametrize("tiny", [1e-6, 1e-9, 1e-12])
def test_vanishing_errors_leave_the_spread_of_the_cells(tiny):
    found = m.combined([0, 1], [tiny, tiny])
    assert (found.tau2, found.random_se) == pytest.approx((0.5, 0.5), rel=1e-4)


def test_the_level_is_the_intervals_coverage():
    low, high = m.combined([1.0], [1.0], level=0.5)[4:6]
    assert scipy.stats.norm.cdf(high - 1) - scipy.stats.norm.cdf(low - 1) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("effects", "errors"),
    [
        ([1, 2], [1, 0]),
        ([1, 2], [1, -1]),
        ([1, 2], [1, math.nan]),
        ([1, 2], [1, math.inf]),
        ([1, math.nan], [1, 1]),
    ],
)
@pytest.mark.parametrize(
    "function",
    [m.combined, lambda y, e: m.trend([1, 2], y, e), lambda y, e: m.universal_reduction(y, e, 2)],
)
def test_cells_without_a_proper_error_are_refused(function, effects, errors):
    with pytest.raises(ValueError, match="errors positive; leave"):
        function(effects, errors)


@pytest.mark.parametrize(("effects", "errors"), [([1, 2], [1]), ([], []), ([[1]], [[1]])])
def test_effects_and_errors_must_pair_up(effects, errors):
    with pytest.raises(ValueError, match="one per cell"):
        m.combined(effects, errors)


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="pm"):
        m.combined([1, 2], [1, 1], method="reml")


def test_a_weighted_line_solves_the_normal_equations():
    x, y, errors = np.random.default_rng(0).uniform(1, 2, size=(3, 6))
    design, weights = np.stack([np.ones(6), x], axis=1), np.diag(errors**-2)
    covariance = np.linalg.inv(design.T @ weights @ design)
    line = covariance @ design.T @ weights @ y
    left = y - design @ line
    scale = left @ weights @ left / 4
    total = y - (weights @ y).sum() / weights.sum()
    found = m.trend(x, y, errors)
    assert (found.value, found.df) == (pytest.approx(line[1]), 4)
    assert found.se == pytest.approx(covariance[1, 1] ** 0.5)
    assert found.residual_se == pytest.approx((covariance[1, 1] * scale) ** 0.5)
    assert found.t == pytest.approx(found.value / found.residual_se)
    assert found.p == pytest.approx(2 * scipy.stats.t.sf(abs(found.t), 4))
    assert found.r2 == pytest.approx(1 - left @ weights @ left / (total @ weights @ total))


def test_a_line_of_equal_errors_is_the_ordinary_one():
    y = [0.95, 0.85, 0.25, -0.45]
    expected = scipy.stats.linregress([1, 2, 3, 4], y)
    found = m.trend([1, 2, 3, 4], y, [0.2] * 4)
    assert (found.value, found.residual_se) == pytest.approx((expected.slope, expected.stderr))
    assert (found.r2, found.p) == pytest.approx((expected.rvalue**2, expected.pvalue))
    assert found.se == pytest.approx(0.2 / math.sqrt(5))  # ranks 1..4 have squares 2 (2.25 + 0.25)


@given(st.floats(0.01, 100))
def test_errors_in_another_unit_change_the_known_error_only(unit):
    x, y, errors = RESNET
    found, scaled = m.trend(x, y, errors), m.trend(x, y, unit * np.array(errors))
    assert scaled.se == pytest.approx(unit * found.se)
    assert (scaled.value, *scaled[2:]) == pytest.approx((found.value, *found[2:]))
    assert found.r2 == pytest.approx(found.t**2 / (found.t**2 + found.df))


def test_two_points_have_a_known_error_only():
    found = m.trend([0, 2], [1, 7], [3, 4])  # 6 / 2 = 3, error sqrt(9 + 16) / 2
    assert (found.value, found.se, found.df) == pytest.approx((3, 2.5, 0))
    assert np.isnan([found.residual_se, found.t, found.p]).all()


def test_a_flat_line_explains_nothing_there_is_to_explain():
    found = m.trend([1, 2, 3], [2, 2, 2], [1, 1, 1])
    assert found.value == pytest.approx(0)
    assert math.isnan(found.r2)


@pytest.mark.parametrize("x", [[1, 1], [1], [1, math.nan], [1, math.inf], [[1, 2]]])
def test_a_line_needs_two_places(x):
    with pytest.raises(ValueError, match="different ones"):
        m.trend(x, [1, 2], [1, 1])


def test_paired_differences_worked_by_hand():
    # Differences 1, 2, 3: mean 2, sd 1, error 1 / sqrt(3), t = 2 sqrt(3), t(0.975, 2) = 4.30265.
    found = m.paired_difference([2, 4, 6], [1, 2, 3])
    assert (found.mean, found.sd, found.df, found.cohens_d) == pytest.approx((2, 1, 2, 2))
    assert found.t == pytest.approx(2 * math.sqrt(3))
    assert found.p == pytest.approx(scipy.stats.ttest_1samp([1, 2, 3], 0).pvalue)
    half = 4.30265 / math.sqrt(3)
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half), rel=1e-5)
    assert math.isnan(found.weighted)
    assert math.isnan(found.weighted_se)


def test_a_weighted_difference_worked_by_hand():
    # Variances 9 + 16 = 25 and 0.36 + 0.64 = 1: (10 / 25 + 2 / 1) / (1 / 25 + 1) = 60 / 26. It is
    # the fixed effect's mean even where the cells differ: Q = 8^2 / 26.
    for gap in (10, 100):
        found = m.paired_difference([gap, 3], [0, 1], [3, 0.6], [4, 0.8])
        assert found.weighted == pytest.approx((gap / 25 + 2) * 25 / 26)
        assert found.weighted_se == pytest.approx(math.sqrt(25 / 26))
    assert found.mean == 51
    assert m.combined([100, 2], [5, 1]).model == "random"


def test_the_level_of_a_paired_difference_is_its_intervals_coverage():
    found = m.paired_difference([2, 4, 6], [1, 2, 3], level=0.5)
    assert found.high - found.mean == pytest.approx(scipy.stats.t.ppf(0.75, 2) / math.sqrt(3))
    assert found.mean - found.low == pytest.approx(found.high - found.mean)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([1, 2], [1]),
        ([1], [2]),
        ([], []),
        ([[1, 2]], [[0, 3]]),
        ([1, 2], [2, 3]),
        ([1, math.nan], [0, 0]),
        ([1, math.inf], [0, 0]),
    ],
)
def test_pairs_that_allow_no_test_are_refused(first, second):
    with pytest.raises(ValueError, match="differences vary"):
        m.paired_difference(first, second)


def test_errors_of_one_side_are_refused():
    for errors in [{"errors_first": [1, 1]}, {"errors_second": [1, 1]}]:
        with pytest.raises(ValueError, match="both or neither"):
            m.paired_difference([1, 2], [0, 3], **errors)


def test_h1_worked_by_hand():
    # With df 1, t follows Cauchy's distribution: p = 1/2 - arctan(t) / pi. Of 31.2, 16 and -31.2
    # over three cells Holm rejects 3 x 0.0102 and then 2 x 0.0199, which Bonferroni (3 x) would
    # not; and below zero 3 x 0.0102.
    found = m.universal_reduction([31.2, 1.6, -62.4], [1, 0.1, 2], 1)
    assert (found.rejected, found.rising, found.falling, found.neither) == (True, 2, 1, 0)
    assert found.smallest_p == pytest.approx(3 * (0.5 - math.atan(31.2) / math.pi))
    assert found.cohens_d == pytest.approx([t / math.sqrt(2) for t in (31.2, 16, -31.2)])
    mirrored = m.universal_reduction([-31.2, -1.6, 62.4], [1, 0.1, 2], 1)
    assert (mirrored.rising, mirrored.falling, mirrored.neither) == (1, 2, 0)
    strict = m.universal_reduction([-31.2, -1.6, 62.4], [1, 0.1, 2], 1, level=0.035)
    assert (strict.rising, strict.falling, strict.neither) == (1, 1, 1)


def test_h1_stands_where_all_cells_fall():
    found = m.universal_reduction([-10, -11, -0.1], [0.1, 0.1, 0.1], [5, 5, 5])
    assert (found.rejected, found.rising, found.falling, found.neither) == (False, 0, 2, 1)
    assert found.smallest_p == 1


def test_cohens_d_is_the_seeds_mean_over_their_deviation():
    values = [0.5, 1.5, 4.0, 1.0]
    found = slope.seed_slopes(*seeds_of(*values))
    (d,) = m.universal_reduction([found.value], [found.se], found.df).cohens_d
    assert d == pytest.approx(np.mean(values) / np.std(values, ddof=1))


def test_one_cell_is_scipys_one_sided_test():
    values = [0.5, 1.5, 4.0, 1.0]
    expected = scipy.stats.ttest_1samp(values, 0, alternative="greater").pvalue
    found = m.universal_reduction([np.mean(values)], [scipy.stats.sem(values)], [3])
    assert found.smallest_p == pytest.approx(expected)


@settings(max_examples=40)
@given(cells, st.integers(1, 5), st.sampled_from([0.01, 0.05, 0.2]))
def test_counts_of_cells_are_holms(pairs, df, level):
    effects, errors = pairs
    p = np.sort(scipy.stats.t.sf(effects / errors, df))
    rising = 0
    while rising < len(p) and p[rising] <= level / (len(p) - rising):
        rising += 1
    found = m.universal_reduction(effects, errors, df, level)
    assert (found.rising, found.rejected) == (rising, rising > 0)
    assert found.rejected == (found.smallest_p <= level)
    assert found.rising + found.falling + found.neither == len(effects)


def test_rising_and_falling_mirror_each_other():
    effects, errors = np.array([3, 2, 4, -0.1, -5, 0.5]), np.full(6, 0.3)
    found = m.universal_reduction(effects, errors, 4)
    turned = m.universal_reduction(-effects, errors, [4] * 6)
    assert (found.rising, found.falling, found.neither) == (3, 1, 2)
    assert (turned.rising, turned.falling, turned.neither) == (1, 3, 2)
    assert turned.cohens_d == pytest.approx(-np.array(found.cohens_d))
    assert (turned.smallest_p, found.smallest_p) == pytest.approx(
        6 * scipy.stats.t.sf([5 / 0.3, 4 / 0.3], 4)
    )


def test_pooled_errors_have_the_degrees_of_freedom_of_all_cells():
    effects, errors = [1.0, -0.5, 0.2], [0.3, 0.3, 0.3]
    found = m.universal_reduction(effects, errors, 2, freedom=2 * len(effects))
    assert found.smallest_p == pytest.approx(3 * scipy.stats.t.sf(1 / 0.3, 6))
    assert found.cohens_d == m.universal_reduction(effects, errors, 2).cohens_d
    uneven = m.universal_reduction(effects, errors, [1, 2, 3], freedom=6)
    assert uneven.smallest_p == found.smallest_p


@pytest.mark.parametrize("df", [0, [1, 0], [1, 1, 1], math.nan])
def test_wrong_degrees_of_freedom_are_refused(df):
    with pytest.raises(ValueError, match="at least 1, or one per cell"):
        m.universal_reduction([1, 2], [1, 1], df)


def test_results_are_plain_numbers():
    results = [
        slope.seed_slopes(*seeds_of(1.0, 3.0)),
        m.combined(EFFECTS, ERRORS),
        m.trend(*RESNET),
        m.paired_difference(FASHION, MNIST, [1] * 8, [1] * 8),
        m.universal_reduction(EFFECTS, ERRORS, 2),
    ]
    for result in results:
        assert yaml.safe_load(yaml.safe_dump(result._asdict(), sort_keys=False))


# The paper's numbers.


def test_the_papers_heterogeneity_of_h2_asks_for_random_effects():
    # Four cells with errors 1 at plus and minus b: Q = 4 b^2.
    b = math.sqrt(8.047 / 4)
    found = m.combined([b, -b, b, -b], [1, 1, 1, 1])
    assert (found.q, found.df, found.model) == (pytest.approx(8.047), 3, "random")
    assert found.q_p == pytest.approx(0.045, abs=5e-4)


@pytest.mark.parametrize(
    ("value", "se", "z"), [(-0.745, 0.122, -6.14), (0.220, 0.037, 5.90)], ids=["H2", "H3"]
)
def test_the_papers_z_values_are_value_over_error(value, se, z):
    found = m.combined([value], [se])
    rounding = abs(z) * (5e-4 / abs(value) + 5e-4 / se) + 5e-3  # of value, error and z itself
    assert found.z == pytest.approx(z, abs=rounding)
    assert found.p < 1e-8


def test_fashion_minus_mnist_as_read_off_the_figure_gives_the_papers_t():
    # Readings are good to about 0.05 each; the paper has t(7) = -2.405, p = 0.047, d = -0.85.
    found = m.paired_difference(FASHION, MNIST)
    assert found.df == 7
    assert found.t == pytest.approx(-2.405, abs=0.1)
    assert found.p == pytest.approx(0.047, abs=0.007)
    assert found.cohens_d == pytest.approx(-0.85, abs=0.03)
    assert found.cohens_d == pytest.approx(found.t / math.sqrt(8))
    assert -2.405 / math.sqrt(8) == pytest.approx(-0.85, abs=5e-3)
    assert 2 * scipy.stats.t.sf(2.405, 7) == pytest.approx(0.047, abs=5e-4)


def test_the_papers_mean_difference_is_no_plain_mean_but_may_be_a_weighted_one():
    # -1.467 +- 0.156 would have t = -9.4; the plain mean is -1.11. A large error of the one pair
    # that rises (two classes, MLP) brings the weighted mean there.
    plain = m.paired_difference(FASHION, MNIST, [0.3] * 8, [0.3] * 8)
    assert plain.weighted == pytest.approx(plain.mean)
    assert plain.mean == pytest.approx(-1.1125)
    found = m.paired_difference(FASHION, MNIST, [1.9, *[0.29] * 7], [0.9, *[0.29] * 7])
    assert found.weighted == pytest.approx(-1.467, abs=0.03)
    assert found.weighted_se == pytest.approx(0.156, abs=0.005)
    assert found.t == plain.t


def test_resnets_trend_is_the_papers_with_known_errors():
    # The paper has 31.0 +- 2.0, R^2 = 0.929 and calls 31.0 / 2.0 a t(2) of 15.7.
    found = m.trend(*RESNET)
    assert found.value == pytest.approx(31.0, abs=2)
    assert found.se == pytest.approx(2.0, abs=0.2)
    assert found.value / found.se == pytest.approx(15.7, abs=1)
    assert found.r2 == pytest.approx(0.929, abs=0.02)
    # Its own R^2 says that t is 5.1: R^2 = t^2 / (t^2 + 2).
    assert found.t == pytest.approx(math.sqrt(2 * 0.929 / (1 - 0.929)), abs=0.6)
    assert found.p == pytest.approx(0.03, abs=0.01)


def test_resnets_trend_with_other_weights_is_not_the_papers():
    x, y, errors = RESNET
    assert m.trend(x, y, [1] * 4).value > 38
    assert m.trend(x, y, np.sqrt(errors)).value > 34
    assert m.trend(x / math.log(2), y, errors).value < 23  # per doubling


@settings(max_examples=20)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_corrected_chances_are_those_of_statsmodels(p):
    with mock.patch("gc.collect"):  # nearly all of its time
        rejected, corrected, *_ = multipletests(p, 0.05, "holm")
    assert m.holm(p) == pytest.approx(corrected)
    assert ((m.holm(p) <= 0.05) == rejected).all()
