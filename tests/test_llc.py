"""Local learning coefficients against closed forms, quadrature and another library."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from torch import nn

from superpos.data import modular
from superpos.llc import SGLD, llc
from superpos.modular_networks import trained
from superpos.networks import classification_loss

NOTHING = torch.zeros(1, 1)
few = settings(max_examples=8)


class Landscape(nn.Module):
    """A network that puts out its loss, which hangs on its weights alone."""

    def __init__(self, function, start, names=("w",), sizes=None):
        super().__init__()
        parts = torch.as_tensor(start, dtype=torch.float32).split(sizes or [len(start)])
        for name, part in zip(names, parts, strict=True):
            self.register_parameter(name, nn.Parameter(part.clone()))
        self.function = function

    def forward(self, x):
        return self.function(torch.cat(list(self.parameters()))).expand(len(x))


class Scaled(nn.Module):
    """A linear map of inputs that a buffer scales."""

    def __init__(self, linear, scale):
        super().__init__()
        self.linear = linear
        self.register_buffer("scale", torch.tensor(scale))

    def forward(self, x):
        return self.linear(self.scale * x)


def explored(function, *starts, seed=0, **sampler):
    networks = [Landscape(function, start) for start in starts]
    return outputs_as_losses(networks, seed=seed, **sampler)


def outputs_as_losses(networks, *, seed=0, **sampler):
    return llc(networks, NOTHING, NOTHING, lambda out, _: out, SGLD(batch=1, **sampler), seed=seed)


def quadratic(*curvatures):
    return lambda w: (torch.tensor(curvatures) * w.square()).sum() / 2


def squared_error(outputs, targets):
    return (outputs - targets).square().sum(-1)


def regression(samples=128, *, seed=0, noise=0.1):
    """Inputs `[samples, 3]`, targets `[samples, 2]`, and their best linear map."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 3, generator=generator)
    y = x @ torch.randn(3, 2, generator=generator)
    y = y + noise * torch.randn(samples, 2, generator=generator)
    network = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.linalg.lstsq(x, y).solution.T)
    return x, y, network


def linear_networks(count):
    torch.manual_seed(3)
    return [nn.Linear(3, 2) for _ in range(count)]


def assert_on_average(values, expected, *, precision):
    """The values' mean is the expected one within its 99.9% interval, and that is narrow."""
    error = values.std() / math.sqrt(len(values))
    half = stats.t.ppf(0.9995, len(values) - 1) * error
    assert half < precision * expected
    assert abs(values.mean() - expected) <= half


def assert_same(first, second, **tolerance):
    for name in first._fields:
        torch.testing.assert_close(
            getattr(first, name), getattr(second, name), equal_nan=True, **tolerance
        )


def tempered_mean(function, center, *, beta, localization):
    """n beta (E[L] - L(w*)) over two weights by quadrature."""
    reach = 8 / math.sqrt(localization)
    bounds = [(c - reach, c + reach) for c in center]

    def density(b, a):
        pull = (a - center[0]) ** 2 + (b - center[1]) ** 2
        return math.exp(-beta * function((a, b)) - localization / 2 * pull)

    def integral(integrand):
        return integrate.dblquad(integrand, *bounds[0], *bounds[1], epsabs=1e-6, epsrel=1e-4)[0]

    excess = integral(lambda b, a: (function((a, b)) - function(center)) * density(b, a))
    return beta * excess / integral(density)


def stationary(curvatures, *, rate, beta, localization):
    """Variance of each weight under the discrete chain once it has forgotten its start."""
    pull = beta * np.asarray(curvatures) + localization
    return 1 / (pull * (1 - rate * pull / 4))


# Regular models.


@pytest.mark.parametrize("parameters", [1, 4, 9])
def test_a_quadratic_loss_has_half_its_number_of_parameters(parameters):
    function = quadratic(*np.geomspace(1, 3, parameters))
    found = explored(
        function, [0.0] * parameters,
        rate=4e-4, inverse_temperature=100.0, localization=0.0,
        chains=64, burn_in=150, draws=300,
    )  # fmt: skip
    assert_on_average(found.chains[0], parameters / 2, precision=0.35)


def test_linear_regression_of_vectors_has_half_its_number_of_weights():
    x, y, network = regression()
    sampler = SGLD(
        rate=1e-3, inverse_temperature=30.0, localization=0.01,
        chains=64, burn_in=150, draws=250, batch=64,
    )  # fmt: skip
    found = llc([network], x, y, squared_error, sampler)
    assert_on_average(found.chains[0], 6 / 2, precision=0.16)


@pytest.mark.parametrize("localization", [0.0, 30.0, 200.0])
def test_a_quadratic_loss_follows_the_closed_form_of_the_discrete_chain(localization):
    curvatures, rate, beta = (0.5, 2.0, 10.0), 8e-3, 20.0
    variance = stationary(curvatures, rate=rate, beta=beta, localization=localization)
    found = explored(
        quadratic(*curvatures), [0.0] * 3,
        rate=rate, inverse_temperature=beta, localization=localization,
        chains=128, burn_in=100, draws=200,
    )  # fmt: skip
    assert_on_average(found.chains[0], beta / 2 * np.dot(curvatures, variance), precision=0.11)
    assert_on_average(found.distance[0].square(), variance.sum(), precision=0.6)


def test_the_first_steps_follow_the_closed_form_and_burn_in_does_not_count():
    curvature, rate, beta, localization = 3.0, 2e-3, 20.0, 10.0
    factor = 1 - rate / 2 * (beta * curvature + localization)
    variance = rate * np.cumsum(np.r_[0, factor ** (2 * np.arange(11))])
    found = explored(
        quadratic(curvature), [0.0],
        rate=rate, inverse_temperature=beta, localization=localization,
        chains=2000, burn_in=8, draws=4,
    )  # fmt: skip
    expected = curvature / 2 * variance
    for step in range(1, 12):
        assert_on_average(found.trace[0, :, step], expected[step], precision=0.2)
    assert_on_average(found.chains[0], beta * expected[8:].mean(), precision=0.2)


# Singular models.


@pytest.mark.parametrize("start", [(1.0, 0.0), (0.0, 0.0)])
def test_two_crossing_valleys_agree_with_quadrature(start):
    beta, localization = 20.0, 5.0
    expected = tempered_mean(
        lambda w: (w[0] * w[1]) ** 2, start, beta=beta, localization=localization
    )
    found = explored(
        lambda w: w.prod().square(), start,
        rate=2.5e-3, inverse_temperature=beta, localization=localization,
        chains=128, burn_in=200, draws=500,
    )  # fmt: skip
    assert_on_average(found.chains[0], expected, precision=0.27)


def test_a_point_inside_a_valley_has_half_of_its_one_steep_direction():
    found = explored(
        lambda w: w.prod().square(), (1.0, 0.0),
        rate=5e-5, inverse_temperature=1000.0, localization=20.0,
        chains=64, burn_in=100, draws=500,
    )  # fmt: skip
    expected = tempered_mean(
        lambda w: (w[0] * w[1]) ** 2, (1.0, 0.0), beta=1000.0, localization=20.0
    )
    assert expected == pytest.approx(1 / 2, abs=0.02)
    assert_on_average(found.chains[0], expected, precision=0.27)


@pytest.mark.parametrize("parameters", [2, 6])
def test_the_square_of_a_quadratic_has_a_quarter_of_its_number_of_parameters(parameters):
    found = explored(
        lambda w: w.square().sum().square(), [0.0] * parameters,
        rate=5e-3, inverse_temperature=1.0, localization=0.0,
        chains=96, burn_in=200, draws=500,
    )  # fmt: skip
    assert_on_average(found.chains[0], parameters / 4, precision=0.27)


# Another library.


@pytest.fixture(scope="module")
def memorizing():
    """Training pairs, their answers, and a network at checkpoints of learning them."""
    data = modular(7, train_fraction=0.8)
    networks = trained(
        [data], embedding=4, hidden=8, seeds=[0], checkpoints=[60, 150, 300, 1000],
        batch=20, rate=0.01, decay=0.0,
    ).networks  # fmt: skip
    return data.pairs[data.train], data.answers[data.train], [row[0] for row in networks]


@pytest.mark.parametrize(
    ("setting", "chains"),
    [
        ({"rate": 1e-4, "inverse_temperature": 46.0, "localization": 100.0}, 6),
        ({"rate": 3e-3, "inverse_temperature": 2.0, "localization": 5.0}, 2),
    ],
    ids=["local", "wide"],
)
def test_checkpoints_agree_with_another_library(memorizing, setting, chains, tmp_path, monkeypatch):
    pytest.importorskip("devinterp")
    from devinterp.slt import llc as other
    from devinterp.slt import sampler as steps

    monkeypatch.setattr(steps, "trange", functools.partial(steps.trange, disable=True))
    monkeypatch.setattr(steps, "_gc_and_empty_cache", lambda: None)  # most of its time
    inputs, answers, networks = memorizing
    draws, batch = 200, 32
    # The other library shuffles one pass over its rows: rows drawn with replacement are new
    # batches at every step. Its mean counts the first steps too, so there is no burn-in.
    drawn = torch.randint(len(inputs), (draws * batch,), generator=torch.Generator().manual_seed(0))
    rows = torch.cat([inputs, answers[:, None]], 1)[drawn]

    def loss(network, row):
        return classification_loss(network(row[:, :2]), row[:, 2])[:, None].expand(-1, 2)

    def theirs(place):
        found = other.llc(
            networks[place], [{"input_ids": row} for row in rows], {},
            lr=setting["rate"], n_beta=setting["inverse_temperature"],
            localization=setting["localization"], loss_fn=loss, num_chains=chains,
            num_draws=draws, batch_size=batch, num_init_loss_batches=draws, device="cpu",
            match_sampling_input_ids_across_chains=False, output_path=tmp_path / f"{place}.zarr",
        )  # fmt: skip
        return float(found.llc_mean)

    sampler = SGLD(**setting, chains=64, draws=draws, burn_in=0, batch=batch)
    ours = llc(networks, inputs, answers, classification_loss, sampler)
    values = torch.tensor([theirs(place) for place in range(len(networks))])
    assert np.corrcoef(ours.mean, values)[0, 1] >= 0.99
    spread = ours.chains.std(-1) * math.sqrt(1 / chains + 1 / sampler.chains)
    assert ((ours.mean - values).abs() <= 4 * spread).all()
    assert ((ours.mean - values).abs() <= 0.2 * ours.mean.max()).all()


# Networks among others, and what decides a result.


SHORT = SGLD(rate=1e-3, inverse_temperature=20.0, chains=3, draws=15, burn_in=5, batch=16)


@pytest.mark.parametrize("at_once", [1, 4, 6, 100, None])
def test_a_network_among_others_gives_what_it_gives_alone(at_once):
    x, y, _ = regression()
    networks = linear_networks(5)
    among = llc(networks, x, y, squared_error, SHORT, at_once=at_once)
    for place, network in enumerate(networks):
        alone = llc([network], x, y, squared_error, SHORT)
        here = type(among)(*(field[place : place + 1] for field in among))
        assert_same(here, alone, rtol=1e-4, atol=1e-4)


def test_the_same_seed_gives_the_same_result_and_another_seed_another():
    x, y, network = regression()
    first, again, other = (
        llc([network], x, y, squared_error, SHORT, seed=seed) for seed in (5, 5, 6)
    )
    assert_same(first, again, rtol=0, atol=0)
    assert not torch.isclose(first.chains, other.chains).any()


def test_chains_differ_and_the_first_of_them_do_not_hang_on_how_many_there_are():
    three, two = (
        explored(quadratic(1.0, 2.0), [0.0, 0.0], chains=chains, burn_in=0, draws=20)
        for chains in (3, 2)
    )
    assert len(three.chains[0].unique()) == 3
    torch.testing.assert_close(three.trace[:, :2], two.trace)


def test_networks_are_left_as_they_were():
    x, y, network = regression()
    before = network.weight.detach().clone()
    llc([network], x, y, squared_error, SHORT)
    assert network.weight.equal(before) and network.weight.grad is None


def test_a_buffer_that_scales_inputs_equals_scaled_inputs():
    x, y, _ = regression()
    (linear,) = linear_networks(1)
    buffered = llc([Scaled(linear, 1.5)], x, y, squared_error, SHORT)
    plain = llc([linear], 1.5 * x, y, squared_error, SHORT)
    assert_same(buffered, plain, rtol=1e-4, atol=1e-4)


def test_the_initial_loss_is_the_mean_over_all_samples():
    x, y, _ = regression(5000)
    networks = linear_networks(2)
    found = llc(networks, x, y, squared_error, SHORT)
    with torch.no_grad():
        expected = [squared_error(network(x), y).mean() for network in networks]
    torch.testing.assert_close(found.initial, torch.stack(expected))


def test_every_step_is_compared_with_the_loss_of_its_own_batch_at_the_center():
    x, y, network = regression(noise=3.0)
    found = llc([network], x, y, squared_error, SHORT)
    assert found.trace[..., 0].abs().max() == 0
    assert (found.trace[..., 1:] != 0).all()


def test_shapes_are_networks_chains_and_all_steps():
    x, y, _ = regression()
    found = llc(linear_networks(2), x, y, squared_error, SHORT)
    assert found.trace.shape == (2, 3, 20)
    assert found.mean.shape == found.error.shape == found.initial.shape == (2,)
    assert found.chains.shape == found.diverged.shape == found.distance.shape == (2, 3)
    assert (found.distance > 0).all() and not found.diverged.any()


def test_estimates_are_means_over_the_draws_and_over_the_chains():
    found = explored(
        quadratic(1.0, 4.0), [0.0, 0.0], inverse_temperature=7.0, burn_in=10, draws=30, chains=5
    )
    chains = 7 * found.trace[0, :, 10:].double().mean(-1).numpy()
    np.testing.assert_allclose(found.chains[0], chains)
    np.testing.assert_allclose(found.mean[0], chains.mean())
    np.testing.assert_allclose(found.error[0], stats.sem(chains))


# Chains that diverge.


@pytest.mark.parametrize(("strength", "runs_away"), [(3.6, False), (4.8, True)])
def test_a_chain_runs_away_once_rate_times_curvature_passes_four(strength, runs_away):
    rate, beta = 0.01, 10.0
    found = explored(
        quadratic(strength / (rate * beta)), [0.0],
        rate=rate, inverse_temperature=beta, localization=0.0, burn_in=100, draws=300,
    )  # fmt: skip
    assert (found.diverged == runs_away).all()
    assert (found.chains.isnan() == runs_away).all()
    assert (found.mean.isnan() == runs_away).all()
    assert (found.error.isnan() == runs_away).all()


def test_diverged_networks_do_not_disturb_healthy_ones():
    def quartic(w):
        return w.square().square().sum()

    sampler = {"rate": 1e-3, "inverse_temperature": 10.0, "localization": 1.0, "seed": 2}
    among = explored(quartic, [0.0, 0.0], [1e3, 0.0], [0.1, 0.0], **sampler)
    assert among.diverged.all(-1).tolist() == [False, True, False]
    assert among.mean.isnan().tolist() == [False, True, False]
    alone = explored(quartic, [0.0, 0.0], [0.1, 0.0], **sampler)
    healthy = type(among)(*(field[[0, 2]] for field in among))
    assert_same(healthy, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("left", [0, 1, 2, 4])
def test_chains_above_the_ceiling_are_left_out(left):
    def run(**more):
        sampler = {"inverse_temperature": 10.0, "chains": 5, "draws": 20, "burn_in": 5}
        return explored(lambda w: 3 + quadratic(1.0, 2.0)(w), [0.0, 0.0], **sampler, **more)

    free = run().chains[0].sort().values
    losses = 3 + free / 10
    ceiling = 3.0 if left == 0 else float(losses[left - 1 : left + 1].mean())
    found = run(ceiling=ceiling)
    kept = found.chains[~found.diverged].sort().values
    assert found.diverged.sum() == 5 - left
    assert found.chains[found.diverged].isnan().all()
    torch.testing.assert_close(kept, free[:left])
    expected = free[:left].mean()[None]
    torch.testing.assert_close(found.mean, expected, equal_nan=True)
    if left < 2:
        assert found.error.isnan().all()
    else:
        np.testing.assert_allclose(found.error[0], stats.sem(free[:left]))


def test_a_single_chain_has_no_error():
    found = explored(quadratic(1.0), [0.0], chains=1, draws=5, burn_in=0)
    assert found.error.isnan().all() and found.mean.isfinite().all()


# Refusals.


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"rate": 0.0}, "rate is 0.0; give a positive number"),
        ({"rate": math.nan}, "rate is nan; give a positive number"),
        ({"inverse_temperature": -1.0}, "inverse_temperature is -1.0; give a positive"),
        ({"inverse_temperature": math.inf}, "inverse_temperature is inf; give a positive"),
        ({"localization": -1.0}, "localization is -1.0; give zero or a positive"),
        ({"localization": math.inf}, "localization is inf; give zero or a positive"),
        ({"rate": 0.04}, "0.04 times localization 100.0 is 4 or more.*lower either"),
        ({"chains": 0}, "chains is 0; give a whole number of at least 1"),
        ({"draws": 0}, "draws is 0; give a whole number of at least 1"),
        ({"burn_in": -1}, "burn_in is -1; give a whole number of at least 0"),
        ({"batch": 2.5}, "batch is 2.5; give a whole number of at least 1"),
    ],
)
def test_a_sampler_that_means_nothing_is_refused(setting, words):
    with pytest.raises(ValueError, match=words):
        SGLD(**setting)


def test_no_networks_and_samples_that_do_not_match_are_refused():
    x, y, network = regression()
    with pytest.raises(ValueError, match="no networks; give at least one"):
        llc([], x, y, squared_error, SHORT)
    with pytest.raises(ValueError, match="128 inputs and 127 targets"):
        llc([network], x, y[1:], squared_error, SHORT)
    with pytest.raises(ValueError, match="0 inputs and 0 targets"):
        llc([network], x[:0], y[:0], squared_error, SHORT)


# What a result does not hang on.


def tiny(function, start, **more):
    sampler = {"rate": 2e-3, "inverse_temperature": 20.0, "localization": 10.0, "seed": 1}
    return explored(function, start, **{**sampler, **more}, chains=2, draws=20, burn_in=5)


curvatures = st.lists(st.floats(0.1, 10), min_size=2, max_size=4)


@few
@given(curvatures, st.floats(-10, 10))
def test_a_constant_added_to_the_loss_changes_nothing_but_the_initial_loss(values, constant):
    function, start = quadratic(*values), [0.3] * len(values)
    plain = tiny(function, start)
    shifted = tiny(lambda w: function(w) + constant, start)
    torch.testing.assert_close(shifted.trace, plain.trace, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(shifted.initial, plain.initial + constant, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(shifted.distance, plain.distance)


@few
@given(curvatures, st.floats(0.1, 10))
def test_a_scaled_loss_at_a_scaled_temperature_has_the_same_coefficient(values, scale):
    function, start = quadratic(*values), [0.3] * len(values)
    plain = tiny(function, start)
    scaled = tiny(lambda w: scale * function(w), start, inverse_temperature=20 / scale)
    torch.testing.assert_close(scaled.chains, plain.chains, rtol=1e-3, atol=1e-4)


@few
@given(curvatures, st.floats(0.1, 10))
def test_weights_in_other_units_have_the_same_coefficient(values, unit):
    function, start = quadratic(*values), [0.3] * len(values)
    plain = tiny(function, start)
    scaled = tiny(
        lambda w: function(w / unit), [0.3 * unit] * len(values),
        rate=2e-3 * unit**2, localization=10 / unit**2,
    )  # fmt: skip
    torch.testing.assert_close(scaled.chains, plain.chains, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(scaled.distance, unit * plain.distance, rtol=1e-3, atol=1e-4)


@few
@given(curvatures, st.data())
def test_how_weights_are_split_into_parameters_and_named_changes_nothing(values, data):
    first = data.draw(st.integers(1, len(values) - 1))
    function, start = quadratic(*values), [0.3] * len(values)
    names = data.draw(st.permutations(["zeta", "alpha"]))
    split = Landscape(function, start, names, [first, len(values) - first])
    sampler = {"chains": 2, "draws": 20, "burn_in": 5}
    found = outputs_as_losses([split], **sampler)
    assert_same(found, explored(function, start, **sampler), rtol=1e-5, atol=1e-6)
