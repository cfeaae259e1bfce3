"""The measure: closed forms, other libraries, and properties that must always hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from superpos import entropy as e

codes_arrays = arrays(
    np.float64, st.integers(1, 30), elements=st.floats(0, 1e6, allow_subnormal=False)
).filter(lambda a: a.max() > 1e-9)

MATRIX_MEASURES = {
    e.weight_features: "weights",
    e.frobenius_superposition: "weights",
    e.effective_rank: "entries",
    e.participation_ratio: "covariances",
}


@given(codes_arrays)
def test_features_lie_between_one_and_the_dictionary_size(codes):
    features = e.effective_features(codes)
    assert 1 - 1e-12 <= features <= len(codes) * (1 + 1e-12)


@given(codes_arrays, st.floats(1e-6, 1e6), st.randoms(use_true_random=False))
def test_features_ignore_scale_and_order_of_the_codes(codes, scale, random):
    shuffled = list(codes * scale)
    random.shuffle(shuffled)
    assert e.effective_features(np.array(shuffled)) == pytest.approx(
        e.effective_features(codes), rel=1e-9
    )


@settings(max_examples=200)
@given(codes_arrays, st.floats(0, 20), st.floats(0, 20))
def test_hill_numbers_never_grow_with_the_order(codes, q1, q2):
    low, high = sorted((q1, q2))
    assert e.hill_number(codes, high) <= e.hill_number(codes, low) * (1 + 1e-6)
    assert e.hill_number(codes, math.inf) <= e.hill_number(codes, high) * (1 + 1e-6)


@given(codes_arrays)
def test_entropy_agrees_with_scipy(codes):
    assert e.entropy(codes) == pytest.approx(scipy.stats.entropy(codes), abs=1e-9)


@given(st.integers(1, 50), st.integers(0, 50))
def test_equal_codes_count_themselves_whatever_the_order(used, unused):
    codes = np.r_[np.ones(used), np.zeros(unused)]
    for order in (0, 0.5, 1, 2, 7, math.inf):
        assert e.hill_number(codes, order) == pytest.approx(used)


def test_hill_numbers_of_a_hand_worked_example():
    codes = np.array([4.0, 2.0, 1.0, 1.0])  # shares 1/2, 1/4, 1/8, 1/8
    assert e.entropy(codes) == pytest.approx(1.75 * math.log(2))
    assert e.effective_features(codes) == pytest.approx(2**1.75)
    assert e.hill_number(codes, 0) == 4
    assert e.hill_number(codes, 2) == pytest.approx(1 / (1 / 4 + 1 / 16 + 2 / 64))
    assert e.hill_number(codes, math.inf) == pytest.approx(2)
    assert e.superposition(codes, 2) == pytest.approx(2**1.75 / 2)


def test_the_order_one_is_the_limit_of_its_neighbors():
    codes = np.random.default_rng(0).random(20)
    middle = e.hill_number(codes, 1)
    for near in (1 - 1e-5, 1 + 1e-5):
        assert e.hill_number(codes, near) == pytest.approx(middle, rel=1e-4)


def test_batched_members_equal_members_alone_and_torch_equals_numpy():
    codes = np.random.default_rng(1).random((3, 4, 7))
    batched = e.effective_features(codes)
    assert batched.shape == (3, 4)
    assert batched[2, 1] == pytest.approx(e.effective_features(codes[2, 1]), rel=1e-12)
    torched = e.effective_features(torch.tensor(codes))
    assert isinstance(torched, torch.Tensor)
    np.testing.assert_allclose(torched.numpy(), batched, rtol=1e-12)


@pytest.mark.parametrize("order", [0, 0.5, 1, 2, math.inf])
def test_hill_numbers_of_members_together_are_theirs_alone(order):
    codes = torch.rand(3, 7, generator=torch.Generator().manual_seed(1))
    codes[0, :4] = 0
    together = e.hill_number(codes, order)
    assert together.dtype == torch.float64
    torch.testing.assert_close(together, torch.stack([e.hill_number(c, order) for c in codes]))


@pytest.mark.parametrize("codes", [torch.full((6,), 3e38), np.full(6, 1e308), np.full(6, 1e-308)])
def test_huge_and_tiny_codes_do_no_harm(codes):
    assert e.effective_features(codes).item() == pytest.approx(6)


def test_dead_codes_are_a_named_error_not_a_number():
    message = (
        r"^all codes are zero for 2 member\(s\): .* there\. Lower l1, or check .* not all zero\.$"
    )
    with pytest.raises(e.DeadCodesError, match=message):
        e.effective_features(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]))


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_negative_and_non_finite_codes_are_refused(bad):
    with pytest.raises(ValueError, match=r"^codes contain (negative|nan)"):
        e.probabilities(np.array([1.0, bad]))


@pytest.mark.parametrize("codes", [np.float64(1), np.ones((3, 0))])
def test_codes_without_a_dictionary_are_refused(codes):
    with pytest.raises(ValueError, match=r"^codes have no dictionary axis; give an array"):
        e.probabilities(codes)


@pytest.mark.parametrize("order", [-0.1, math.nan])
def test_negative_orders_are_refused(order):
    with pytest.raises(ValueError, match="order"):
        e.hill_number(np.ones(3), order)


def test_a_layer_without_neurons_is_refused():
    assert e.superposition(np.ones(3), 1) == pytest.approx(3)
    with pytest.raises(ValueError, match=r"^neurons is 0; give a whole number of at least 1 and"):
        e.superposition(np.ones(3), 0)


def test_weight_measures_agree_with_brute_force():
    weights = np.random.default_rng(2).normal(size=(5, 20))
    norms = [sum(w**2 for w in column) for column in weights.T]
    np.testing.assert_allclose(e.weight_features(weights), norms)
    assert e.frobenius_superposition(weights) == pytest.approx(sum(norms) / 5)


def test_effective_rank_of_orthogonal_and_rank_one_matrices():
    orthogonal = np.linalg.qr(np.random.default_rng(3).normal(size=(6, 6)))[0]
    assert e.effective_rank(orthogonal) == pytest.approx(6)
    assert e.effective_rank(np.outer(np.arange(1, 4), np.arange(1, 6))) == pytest.approx(1)


def test_participation_ratio_agrees_with_eigenvalues():
    samples = np.random.default_rng(4).normal(size=(50, 6)) * np.arange(1, 7)
    covariance = np.cov(samples.T)
    values = np.linalg.eigvalsh(covariance)
    assert e.participation_ratio(covariance) == pytest.approx(values.sum() ** 2 / (values**2).sum())


@pytest.mark.parametrize("measure", MATRIX_MEASURES)
def test_matrices_measured_together_are_measured_alone(measure):
    factors = np.random.default_rng(5).normal(size=(3, 4, 4))
    factors[1, :, 2:] = 0
    matrices = factors @ factors.swapaxes(-1, -2)
    np.testing.assert_allclose(measure(matrices), [measure(matrix) for matrix in matrices])


def test_a_participation_ratio_does_not_depend_on_the_scale_of_its_covariance():
    covariance = np.diag([3.0, 1.0])
    found = e.participation_ratio(np.stack([covariance * scale for scale in (1e200, 1, 1e-200)]))
    np.testing.assert_allclose(found, 16 / 10)


def test_constant_activations_have_no_participation_ratio():
    with pytest.raises(e.DeadCodesError, match=r"^the covariance is zero: .* do not vary\.$"):
        e.participation_ratio(np.stack([2 * np.eye(3), np.zeros((3, 3))]))


def test_the_covariance_of_a_participation_ratio_is_square():
    with pytest.raises(
        ValueError, match=r"^covariance has shape \(3, 3, 2\); its last axes must be"
    ):
        e.participation_ratio(np.ones((3, 3, 2)))


@pytest.mark.parametrize(("measure", "name"), MATRIX_MEASURES.items())
def test_what_is_no_finite_matrix_is_refused_by_name(measure, name):
    with pytest.raises(ValueError, match=rf"^{name} have shape \(3,\); give at least two axes"):
        measure(np.ones(3))
    with pytest.raises(ValueError, match=f"^{name} contain nan or infinity"):
        measure(np.array([[1.0, math.inf], [1.0, 1.0]]))


@pytest.mark.parametrize(
    ("measure", "name"),
    [(e.probabilities, "codes"), (e.entropy, "codes"), *MATRIX_MEASURES.items()],
)
def test_what_is_no_real_number_is_refused_by_name(measure, name):
    with pytest.raises(TypeError, match=f"^{name} hold complex128; give real numbers"):
        measure(np.ones((2, 2), dtype=complex))


@pytest.mark.parametrize("order", [-1, math.nan, "two"])
def test_an_order_that_is_none_is_refused_with_what_is_allowed(order):
    with pytest.raises(ValueError, match=r"^order is .*; give a number from 0 to math\.inf\.$"):
        e.hill_number(np.ones(3), order)


def test_huge_orders_of_members_with_differing_shares_count_the_largest_share_of_each():
    codes = np.array([[0.2, 0.2, 0.2, 0.2, 0.2], [0.9, 0.1, 0, 0, 0]])
    assert e.hill_number(codes, 1.7e308) == pytest.approx([5, 1 / 0.9])


@pytest.mark.parametrize("measure", MATRIX_MEASURES)
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 0, 3), (2, 3, 0)])
def test_matrices_with_an_empty_axis_are_refused(measure, shape):
    with pytest.raises(ValueError, match="none of them empty"):
        measure(np.ones(shape))


def test_a_single_row_or_no_matrix_at_all_is_measured():
    assert e.weight_features(np.array([[1.0, 2.0]])).tolist() == [1, 4]
    assert e.weight_features(np.array([[1.0], [2.0]])).tolist() == [5]
    assert e.weight_features(np.ones((0, 2, 3))).shape == (0, 3)


def test_weights_whose_squares_overflow_are_refused_with_what_to_do():
    with pytest.raises(ValueError, match=r"reach 1e\+200, .* divide them all by one number\.$"):
        e.weight_features(np.array([[1.0, -1e200]]))
