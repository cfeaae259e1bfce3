"""Intrinsic dimension: of shapes whose dimension is known, and against the method by hand."""

from __future__ import annotations

import math

import pytest
import torch

from superpos.dimension import two_nn

SAMPLES = 1500


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def cube(dimension, samples=SAMPLES, seed=0):
    return torch.rand(samples, dimension, generator=generator(seed), dtype=torch.float64)


def ball(dimension, samples=SAMPLES, seed=0):
    x = torch.randn(samples, dimension, generator=generator(seed), dtype=torch.float64)
    radius = cube(1, samples, seed + 1) ** (1 / dimension)
    return radius * x / x.norm(dim=1, keepdim=True)


def embedded(x, neurons=12, seed=2):
    """Points of a plane that lies askew among the neurons and off the origin."""
    square = torch.randn(neurons, neurons, generator=generator(seed), dtype=torch.float64)
    rows = torch.linalg.qr(square).Q
    return x @ rows[: x.shape[1]] + rows[-1]


def rotated(x, seed=3):
    square = torch.randn(x.shape[1], x.shape[1], generator=generator(seed), dtype=torch.float64)
    return x @ torch.linalg.qr(square).Q


def by_hand(x):
    """Slope through the origin of -log(1 - share of points) over the log ratio of distances."""
    distances = torch.cdist(x.double(), x.double(), compute_mode="donot_use_mm_for_euclid_dist")
    nearest = distances.fill_diagonal_(math.inf).topk(2, largest=False).values
    ratios = (nearest[:, 1] / nearest[:, 0]).log().sort().values
    kept = int(0.9 * len(x))
    share = torch.arange(1, kept + 1, dtype=torch.float64) / len(x)
    return (ratios[:kept] @ -(1 - share).log() / ratios[:kept].square().sum()).item()


@pytest.mark.parametrize("shape", [cube, ball])
@pytest.mark.parametrize("dimension", [1, 2, 5])
@pytest.mark.parametrize("neurons", [6, 40])
def test_a_plane_has_its_own_dimension_however_many_neurons_it_lies_in(shape, dimension, neurons):
    found = [two_nn(embedded(shape(dimension, seed=seed), neurons)) for seed in range(3)]
    assert found == pytest.approx([dimension] * 3, rel=0.12)
    assert sum(found) / 3 == pytest.approx(dimension, rel=0.1)


def test_a_curve_and_a_surface_have_their_own_dimension_though_they_bend():
    turn = 2 * math.pi * cube(1)
    circle = torch.cat([turn.cos(), turn.sin()], 1)
    assert two_nn(circle) == pytest.approx(1, rel=0.1)
    sphere = torch.nn.functional.normalize(torch.randn(SAMPLES, 3, generator=generator()))
    assert two_nn(embedded(sphere.double())) == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("neurons", [2, 9, 30])
def test_the_estimate_is_that_of_the_method_by_hand(neurons):
    for samples in (100, 700):
        x = torch.randn(samples, neurons, generator=generator(samples))
        assert two_nn(x) == pytest.approx(by_hand(x), rel=1e-3)


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_rotation_shift_and_order_change_nothing(dimension):
    x = embedded(ball(dimension))
    expected = two_nn(x)
    assert two_nn(rotated(x)) == pytest.approx(expected, rel=1e-2)
    assert two_nn(x - 100) == pytest.approx(expected, rel=1e-2)
    assert two_nn(x.flip(0)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("dimension", [1, 2, 5])
@pytest.mark.parametrize("factor", [0.5, 10.0, 1e6])
def test_units_change_nothing_where_points_lie_much_further_apart_than_a_millionth(
    dimension, factor
):
    x = embedded(ball(dimension))
    assert two_nn(factor * x) == pytest.approx(two_nn(x), rel=1e-2)


@pytest.mark.parametrize("factor", [1e-2, 1e-4])
def test_small_units_change_nothing_either(factor):
    x = embedded(ball(1))
    assert two_nn(factor * x) == pytest.approx(two_nn(x), rel=1e-2)


def test_a_single_neuron_has_one_dimension():
    assert two_nn(cube(1)) == pytest.approx(1, rel=0.1)


def test_points_that_occur_several_times_count_once():
    x = embedded(cube(2, 300))
    expected = two_nn(x)
    assert two_nn(torch.cat([x, x[:250], x[:10], x[:10]])) == pytest.approx(expected, rel=1e-9)


def test_fewer_than_a_hundred_different_points_have_no_dimension():
    x = cube(3, 100)
    assert math.isfinite(two_nn(x))
    assert math.isnan(two_nn(x[:99]))
    assert math.isnan(two_nn(x[:99].repeat(20, 1)))
    assert math.isnan(two_nn(torch.zeros(500, 3)))
    assert math.isnan(two_nn(torch.zeros(0, 3)))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_activations_that_are_not_finite_are_refused(value):
    x = cube(3, 200)
    x[150, 2] = value
    with pytest.raises(ValueError, match=r"\(200, 3\); give finite \[samples, neurons\]"):
        two_nn(x)


@pytest.mark.parametrize("shape", [(200,), (2, 200, 3)])
def test_activations_that_are_no_matrix_are_refused(shape):
    with pytest.raises(ValueError, match="activations have shape"):
        two_nn(torch.rand(shape))


def test_activations_that_require_gradients_are_read_and_stay_as_they_were():
    x = cube(2, 200).float()
    before = x.clone()
    assert two_nn(x.clone().requires_grad_()) == two_nn(x)
    assert torch.equal(x, before)
