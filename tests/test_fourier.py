"""Waves on cyclic groups, against direct sums and least squares."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from superpos.fourier import cyclic_order, embedding_power, purity, wave

PRIMES = [2, 3, 5, 7, 11, 13, 53]
CASES = [(7, "add"), (13, "subtract"), (7, "multiply"), (13, "multiply")]
SEEDS = st.integers(0, 2**32 - 1)


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def angles(size, frequency):
    return 2 * math.pi * frequency * torch.arange(size, dtype=torch.float64) / size


def places(order):
    """Place of every residue in the order; -1 if it has none."""
    return [order.tolist().index(a) if a in order.tolist() else -1 for a in range(max(order) + 1)]


def on_pairs(order, function):
    """A function of two places as one of all pairs of residues, noise where there is no place."""
    prime, at = int(max(order)) + 1, places(order)
    values = normal(prime**2)
    for a in range(prime):
        for b in range(prime):
            if min(at[a], at[b]) >= 0:
                values[a * prime + b] = function(at[a], at[b])
    return values[:, None]


def both(size, frequency, phase=0.0):
    """A wave in the sum of two places."""
    return lambda a, b: math.cos(2 * math.pi * frequency * (a + b) / size + phase)


def purity_by_least_squares(values, order):
    """Largest share of the variance that waves of one frequency, and the mean, can fit."""
    prime, size = round(len(values) ** 0.5), len(order)
    grid = values.double().view(prime, prime)[order][:, order].reshape(-1, 1)
    centered = grid - grid.mean()
    shares = []
    for k in range(1, size // 2 + 1):
        one = [torch.ones(size).double(), angles(size, k).cos(), angles(size, k).sin()]
        design = torch.stack([torch.outer(f, g).flatten() for f in one for g in one], 1)
        fit = design @ torch.linalg.pinv(design, rtol=1e-9) @ centered
        shares.append((fit.square().sum() / centered.square().sum()).item())
    return max(shares)


@pytest.mark.parametrize("prime", PRIMES)
def test_multiplication_orders_the_residues_by_powers(prime):
    order = cyclic_order(prime, "multiply").tolist()
    assert sorted(order) == list(range(1, prime))
    assert order[0] == 1
    ratios = {
        b * pow(a, -1, prime) % prime for a, b in zip(order, order[1:] + order[:1], strict=True)
    }
    assert len(ratios) == 1


@pytest.mark.parametrize("prime", PRIMES[1:])
def test_in_cyclic_order_a_product_is_an_addition_of_places(prime):
    order = cyclic_order(prime, "multiply").tolist()
    for i, a in enumerate(order):
        for j, b in enumerate(order):
            assert order[(i + j) % (prime - 1)] == a * b % prime


@pytest.mark.parametrize("operation", ["add", "subtract"])
@pytest.mark.parametrize("prime", PRIMES)
def test_addition_needs_no_new_order(prime, operation):
    assert cyclic_order(prime, operation).tolist() == list(range(prime))


@pytest.mark.parametrize(("prime", "operation"), CASES)
def test_power_is_that_of_sums_with_cosines_and_sines(prime, operation):
    order, embedding = cyclic_order(prime, operation), normal(2, 3, prime, 4)
    found = embedding_power(embedding.float(), order)
    size = len(order)
    assert found.shape == (2, 3, size // 2)
    assert found.dtype == torch.float64
    for k in range(1, size // 2 + 1):
        expected = 0.0
        for function in (math.cos, math.sin):
            weights = [function(2 * math.pi * k * place / size) for place in range(size)]
            norm = sum(value**2 for value in weights)
            if norm < 1e-9:  # the highest frequency has no sine
                continue
            rows = (w * embedding[:, :, a] for w, a in zip(weights, order.tolist(), strict=True))
            expected = expected + sum(rows).square().sum(-1) / norm
        torch.testing.assert_close(found[..., k - 1], size * expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("operation", ["add", "multiply"])
@pytest.mark.parametrize("prime", [3, 5, 13])
def test_powers_of_all_frequencies_add_up_to_the_variance(prime, operation):
    embedding, order = normal(prime, 4), cyclic_order(prime, operation)
    rows = embedding[order]
    total = (rows - rows.mean(0)).square().sum()
    power = embedding_power(embedding, order)
    assert power.sum().item() / len(order) == pytest.approx(total.item())


@given(seed=SEEDS, shift=st.integers(0, 12), factor=st.floats(0.1, 10))
def test_power_ignores_the_mean_the_start_and_turns_of_the_axes(seed, shift, factor):
    embedding, order = normal(13, 4, seed=seed), cyclic_order(13, "multiply")
    expected = factor**2 * embedding_power(embedding, order)
    turned = factor * embedding @ torch.linalg.qr(normal(4, 4, seed=seed + 1))[0] + normal(4)
    found = embedding_power(turned, order.roll(shift))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("operation", ["add", "multiply"])
@pytest.mark.parametrize("frequency", [1, 2, 5])
def test_a_planted_circle_comes_out_as_a_circle(operation, frequency):
    order = cyclic_order(13, operation)
    size = len(order)
    turn = angles(size, frequency)
    plane = torch.linalg.qr(normal(6, 2))[0]
    embedding = normal(13, 6)
    embedding[order] = 3 * torch.stack([turn.cos(), turn.sin()], 1) @ plane.T + normal(6)
    power = embedding_power(embedding, order)
    assert power.argmax().item() == frequency - 1
    assert (power > 1e-9 * power.sum()).sum() == 1
    x, y = wave(embedding, order, frequency).T
    torch.testing.assert_close((x**2 + y**2).sqrt(), torch.full_like(x, 3))
    # not mirrored: residues go round in the sense of their places
    torch.testing.assert_close(x, 3 * turn.cos(), atol=1e-6, rtol=0)
    torch.testing.assert_close(y, 3 * turn.sin(), atol=1e-6, rtol=0)


def test_a_wave_is_seen_through_other_frequencies_and_from_the_middle():
    order, size = cyclic_order(11, "add"), 11
    basis = torch.linalg.qr(normal(6, 4))[0].T
    turns = [angles(size, 2), angles(size, 5)]
    circles = [torch.stack([t.cos(), t.sin()], 1) for t in turns]
    embedding = circles[0] @ basis[:2] + 4 * circles[1] @ basis[2:] + 7
    for k, circle in ((2, circles[0]), (5, 4 * circles[1])):
        found = wave(embedding.float(), order, k)
        assert found.shape == (11, 2)
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, circle, atol=1e-5, rtol=0)


def test_axes_of_a_wave_are_orthogonal_however_the_embedding_leans():
    order, size = cyclic_order(7, "add"), 7
    turn = angles(size, 1)
    axes = torch.tensor([[2.0, 0.0], [2.0, 1.0]]).double()
    rows = torch.stack([turn.cos(), turn.sin()], 1) @ axes
    found = wave(rows, order, 1)
    torch.testing.assert_close(found, rows)  # an isometry; the cosine already lies on an axis
    found = wave(rows @ torch.linalg.qr(normal(2, 2))[0], order, 1)
    torch.testing.assert_close(found, rows)


@pytest.mark.parametrize(("prime", "operation"), CASES)
@pytest.mark.parametrize("phase", [0.0, 1.0])
def test_a_wave_in_the_result_is_pure(prime, operation, phase):
    order = cyclic_order(prime, operation)
    size = len(order)
    for k in range(1, size // 2 + 1):
        values = on_pairs(order, both(size, k, phase))
        assert purity(values, order).item() == pytest.approx(1)
        assert purity(5 + 0.1 * values.float(), order).item() == pytest.approx(1, abs=1e-5)


def test_waves_in_either_residue_and_in_their_difference_belong_together():
    order = cyclic_order(11, "add")
    turn = 2 * math.pi * 3 / 11

    def function(a, b):
        one = math.cos(turn * a) + 2 * math.sin(turn * b)
        return one + math.cos(turn * (a - b)) - math.sin(turn * (a + b))

    assert purity(on_pairs(order, function), order).item() == pytest.approx(1)


def test_two_frequencies_share():
    order = cyclic_order(11, "add")

    def mixed(first, second):
        def function(a, b):
            return first * both(11, 2)(a, b) + second * both(11, 4, 1)(a, b)

        return purity(on_pairs(order, function), order).item()

    assert mixed(1, 1) == pytest.approx(1 / 2)
    assert mixed(1, 2) == pytest.approx(4 / 5)
    assert mixed(2, 1) == pytest.approx(4 / 5)
    product = on_pairs(order, lambda a, b: math.cos(angles(11, 1)[a]) * math.cos(angles(11, 2)[b]))
    assert purity(product, order).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("level", [0.0, 0.1, -3e5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_has_no_purity(level, dtype):
    for operation in ("add", "multiply"):
        values = torch.full((49, 1), level, dtype=dtype)
        assert purity(values, cyclic_order(7, operation)).tolist() == [0]


def test_what_varies_with_zero_alone_has_no_purity_under_multiplication():
    values = torch.ones(7, 7)
    values[0], values[:, 0] = normal(7), normal(7)
    assert purity(values.view(49, 1), cyclic_order(7, "multiply")).item() == 0
    assert purity(values.view(49, 1), cyclic_order(7, "add")).item() > 0


def test_noise_has_little_purity():
    # each of 11 frequencies has 8 of 528 waves
    found = purity(normal(23**2, 50), cyclic_order(23, "add"))
    assert found.min() > 8 / 528
    assert found.max() < 0.08


@pytest.mark.parametrize(("prime", "operation"), [(5, "add"), (7, "add"), *CASES[2:3]])
@given(seed=SEEDS)
def test_purity_is_what_least_squares_can_fit(prime, operation, seed):
    order = cyclic_order(prime, operation)
    values = normal(prime**2, 3, seed=seed) + 2 * on_pairs(order, both(len(order), 1))
    found = purity(values, order)
    assert found.dtype == torch.float64
    expected = [purity_by_least_squares(column, order) for column in values.T]
    assert found.tolist() == pytest.approx(expected)


@given(seed=SEEDS, factor=st.floats(1e-6, 1e6), shift=st.floats(-100, 100), data=st.data())
def test_purity_ignores_scale_and_shift_and_the_order_of_functions(seed, factor, shift, data):
    order, values = cyclic_order(7, "multiply"), normal(49, 3, seed=seed)
    expected = purity(values, order)
    assert ((expected >= 0) & (expected <= 1)).all()
    turn = data.draw(st.permutations(range(3)))
    found = purity(-factor * (values + shift)[:, turn], order)
    torch.testing.assert_close(found, expected[turn], rtol=1e-6, atol=1e-9)


def test_the_smallest_groups_have_one_frequency_or_none():
    for prime, operation in ((2, "add"), (3, "add"), (3, "multiply")):
        order = cyclic_order(prime, operation)
        assert purity(normal(prime**2, 2), order).tolist() == pytest.approx([1, 1])
        assert embedding_power(normal(prime, 4), order).shape == (1,)
    order = cyclic_order(2, "multiply")
    assert order.tolist() == [1]
    assert embedding_power(normal(2, 4), order).shape == (0,)
