"""Handing dictionaries on along a series: what is kept, what is never lost, and when it ends."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superpos import relay as module
from superpos.entropy import effective_features
from superpos.relay import relay
from superpos.sae import SAEConfig
from superpos.solver import fit, plan_of, state_of

NEURONS, SAMPLES = 5, 200
QUICK = SAEConfig(steps=100, starts=1, rounds=1)


def drifting(layers, *, seed=0, drift=0.05):
    """Sparse activations, each layer's a little different, `[layers, samples, neurons]`."""
    generator = torch.Generator().manual_seed(seed)
    on = torch.rand(SAMPLES, 8, generator=generator) < 0.15
    size = torch.rand(SAMPLES, 8, generator=generator)
    x = [(on * size @ torch.randn(8, NEURONS, generator=generator)).relu()]
    for _ in range(layers - 1):
        turn = torch.eye(NEURONS) + drift * torch.randn(NEURONS, NEURONS, generator=generator)
        x.append((x[-1] @ turn).relu())
    return torch.stack(x)


def alike(layers, seed=0):
    return drifting(1, seed=seed).repeat(layers, 1, 1)


def spoil(monkeypatch, layers, *, size=0.3):
    """Let the own fits of some layers end in noise, the later the worse."""

    def spoiled(x, config, **options):
        found = fit(x, config, **options)
        for layer in layers:
            generator = torch.Generator().manual_seed(layer)
            rows = torch.randn(found.sae.encoder[layer].shape, generator=generator)
            found.sae.encoder[layer] = size * (1 + layer) * rows
        loss, features, _ = state_of(found.sae, x)
        return found._replace(loss=loss, features=features, history=loss[None])

    monkeypatch.setattr(module, "fit", spoiled)


def without_rounds(monkeypatch):
    """Let a round change nothing, so that dictionaries can only be handed on."""
    monkeypatch.setattr(module, "run_round", lambda *_, **__: None)


def loss_on(sae, layer, x):
    """Loss of one layer's dictionary on the activations of another."""
    return sae.select([layer]).losses(x)[0].item()


def in_reach(layer, layers, reach):
    return [i for i in range(layers) if abs(i - layer) in reach]


def handed_on(own, x, reach, passes):
    """Losses pass by pass where dictionaries only move, and who made each layer's."""
    maker = list(range(len(x)))
    table = [[loss_on(own.sae, i, rows) for i in range(len(x))] for rows in x]
    history = [[table[layer][layer] for layer in range(len(x))]]
    for _ in range(passes):
        maker = [
            min(
                (maker[i] for i in [layer, *in_reach(layer, len(x), reach)]),
                key=table[layer].__getitem__,
            )
            for layer in range(len(x))
        ]
        history.append([table[layer][maker[layer]] for layer in range(len(x))])
    return torch.tensor(history, dtype=torch.float64), maker


def assert_same_fit(found, expected):
    for value, other in zip(found[1:], expected[1:], strict=True):
        assert torch.equal(value, other)
    for name, value in expected.sae.tensors().items():
        assert torch.equal(getattr(found.sae, name), value)


@settings(max_examples=8)
@given(seed=st.integers(0, 999), layers=st.integers(1, 5), drift=st.floats(0, 1))
def test_handing_on_never_raises_a_loss(seed, layers, drift):
    own, after = relay(drifting(layers, seed=seed, drift=drift), QUICK, seed=seed, passes=4)
    assert torch.equal(after.history[0], own.loss)
    assert torch.equal(after.history[-1], after.loss)
    assert (after.history.diff(dim=0) <= 0).all()
    assert (after.loss <= own.loss).all()


@pytest.mark.parametrize("architecture", ["tied", "untied", "topk"])
def test_loss_and_features_are_those_of_the_autoencoders_returned(architecture):
    config = SAEConfig(architecture, steps=100, starts=1, rounds=1, l1=0.2, k=2)
    x = drifting(3)
    for found in relay(x, config, passes=3):
        z = found.sae.encode(x)
        loss = (x - found.sae.decode(z)).double().square().mean((1, 2))
        if architecture != "topk":
            loss = loss + 0.2 * z.double().mean((1, 2))
        torch.testing.assert_close(found.loss, loss, rtol=1e-5, atol=1e-9)
        features = effective_features(z.double().sum(1))
        torch.testing.assert_close(found.features, features, rtol=1e-5, atol=0)


def test_own_fits_are_those_of_the_solver_and_stay_as_they_were():
    x = drifting(3)
    own, after = relay(x, QUICK, seed=4, passes=5)
    assert_same_fit(own, fit(x, QUICK, seeds=[4]))
    assert (after.loss < own.loss).all()


def test_without_a_pass_the_own_fits_come_back_as_copies():
    own, after = relay(drifting(3), QUICK, passes=0)
    assert_same_fit(after, own)
    assert own.sae.encoder.data_ptr() != after.sae.encoder.data_ptr()
    assert own.loss.data_ptr() != after.loss.data_ptr()


def test_layers_that_are_alike_all_end_with_the_best_of_them(monkeypatch):
    def differently(x, config, **_):
        return fit(x, config, seeds=range(len(x)))

    monkeypatch.setattr(module, "fit", differently)
    own, after = relay(alike(5), QUICK, passes=40)
    assert own.loss.max() > 1.05 * own.loss.min()
    assert after.loss.max() < own.loss.min()
    assert after.loss.max() < 1.01 * after.loss.min()
    assert after.features.max() < 1.03 * after.features.min()


@pytest.mark.parametrize("size", [1e-6, 0.3])
def test_a_bad_dictionary_is_replaced_by_a_neighbors(monkeypatch, size):
    spoil(monkeypatch, [1], size=size)
    x = drifting(4)
    own, after = relay(x, QUICK, passes=1, reach=[1])
    own_alone, alone = relay(x, QUICK, passes=1, reach=[9])
    assert torch.equal(own_alone.loss, own.loss)
    assert own.loss[1] > 2 * own.loss[[0, 2, 3]].max()
    assert after.loss[1] < min(loss_on(own.sae, 0, x[1]), loss_on(own.sae, 2, x[1]))
    assert after.loss[1] < 0.9 * alone.loss[1]


@pytest.mark.parametrize("reach", [(1,), (2,), (1, 3), (4, 1, 1)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_layer_takes_the_dictionary_in_reach_with_the_lowest_loss_on_it(
    monkeypatch, reach, seed
):
    spoil(monkeypatch, [1, 2, 4, 5])
    without_rounds(monkeypatch)
    x = drifting(7, seed=seed, drift=0.3)
    own, after = relay(x, QUICK, passes=20, reach=reach)
    expected, maker = handed_on(own, x, reach, 20)
    passes = len(after.history)
    torch.testing.assert_close(after.history, expected[:passes], rtol=1e-6, atol=0)
    torch.testing.assert_close(after.loss, expected[-1], rtol=1e-6, atol=0)
    assert torch.equal(after.sae.encoder, own.sae.encoder[maker])
    assert maker != list(range(7))


@pytest.mark.parametrize("at_once", [1, 2, 99])
def test_a_pass_hands_on_what_the_pass_before_it_found(monkeypatch, at_once):
    spoil(monkeypatch, range(1, 5))
    monkeypatch.setattr(module, "plan_of", lambda *given: plan_of(*given[:2], at_once))
    without_rounds(monkeypatch)
    for passes in range(5):
        own, after = relay(alike(5), QUICK, passes=passes, reach=[1])
        reached = (after.loss < 1.001 * own.loss[0]).tolist()
        assert reached == [layer <= passes for layer in range(5)]


def test_a_dictionary_handed_on_is_kept_though_a_round_makes_it_worse(monkeypatch):
    spoil(monkeypatch, [1])

    def worsening(sae, *_, **__):
        sae.encoder.mul_(1e-3)

    monkeypatch.setattr(module, "run_round", worsening)
    own, after = relay(alike(3), QUICK, passes=2, reach=[1])
    assert own.loss[1] > own.loss[0]
    torch.testing.assert_close(after.loss, own.loss[0].expand(3), rtol=1e-6, atol=0)
    assert loss_on(after.sae, 1, alike(1)[0]) == pytest.approx(own.loss[0].item(), rel=1e-6)


def test_a_dictionary_from_outside_the_reach_is_not_taken(monkeypatch):
    spoil(monkeypatch, [0, 2])
    without_rounds(monkeypatch)
    own, after = relay(alike(4), QUICK, passes=5, reach=[2])
    torch.testing.assert_close(after.loss[[0, 2]], own.loss[[0, 2]].min().expand(2))
    torch.testing.assert_close(after.loss[[1, 3]], own.loss[[1, 3]], rtol=1e-6, atol=0)


def test_a_series_that_stands_still_ends_with_no_better_dictionary_in_reach():
    x, reach = drifting(5, drift=0.2), (1, 2)
    _, after = relay(x, QUICK, passes=60, reach=reach)
    assert after.converged.all()
    assert len(after.history) < 60
    for layer in range(5):
        lowest = min(loss_on(after.sae, i, x[layer]) for i in in_reach(layer, 5, reach))
        assert lowest >= after.loss[layer] * (1 - 1e-6)


def test_a_series_that_stands_still_changes_little_when_it_goes_on():
    x = drifting(3)
    found = relay(x, QUICK, passes=60)[1]
    strict = SAEConfig(steps=100, starts=1, rounds=1, tolerance=1e-9)
    further = relay(x, strict, passes=len(found.history))[1]
    torch.testing.assert_close(further.loss, found.loss, rtol=0.03, atol=0)


@pytest.mark.parametrize("passes", range(5))
def test_a_layer_has_not_converged_while_a_better_dictionary_is_in_reach(monkeypatch, passes):
    spoil(monkeypatch, range(1, 5))
    without_rounds(monkeypatch)
    x = alike(5)
    _, after = relay(x, QUICK, passes=passes, reach=[1])
    for layer in range(5):
        lowest = min(loss_on(after.sae, i, x[layer]) for i in in_reach(layer, 5, [1]))
        better = lowest < after.loss[layer] * (1 - 1e-9)
        assert after.converged[layer] == (passes > 0 and not better)


def test_a_layer_whose_rounds_still_change_it_has_not_converged():
    strict = SAEConfig(steps=100, starts=1, rounds=1, tolerance=1e-12)
    own, after = relay(drifting(3), strict, passes=3)
    assert not after.converged.any()
    assert torch.equal(after.rounds, own.rounds + 3)
    assert after.history.shape == (4, 3)


def test_layers_that_have_converged_on_their_own_do_not_go_on():
    loose = SAEConfig(steps=100, starts=1, rounds=30, tolerance=0.3)
    own, after = relay(drifting(3), loose, passes=5, reach=[9])
    assert own.converged.all()
    assert after.converged.all()
    assert torch.equal(after.rounds, own.rounds)
    assert torch.equal(after.sae.encoder, own.sae.encoder)


def test_a_single_layer_goes_on_by_itself():
    own, after = relay(drifting(1), QUICK, passes=3)
    assert after.loss < own.loss


def test_a_layer_without_activity_does_no_harm():
    x = drifting(3)
    x[1] = 0
    own, after = relay(x, QUICK, passes=3)
    assert math.isnan(after.features[1])
    assert after.loss[1] == 0
    assert (after.loss[[0, 2]] <= own.loss[[0, 2]]).all()


def test_a_seed_fixes_the_result_and_the_global_generator_plays_no_part():
    x = drifting(3)
    before = torch.get_rng_state()
    first = relay(x, QUICK, seed=2, passes=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    for found, expected in zip(relay(x, QUICK, seed=2, passes=3), first, strict=True):
        assert_same_fit(found, expected)
    other = relay(x, QUICK, seed=3, passes=3)[1]
    assert not torch.equal(other.sae.encoder, first[1].sae.encoder)


def test_activations_stay_as_they_were():
    x = drifting(3)
    before = x.clone()
    relay(x, QUICK, passes=2)
    assert torch.equal(x, before)


def test_activations_that_are_no_series_are_refused():
    with pytest.raises(ValueError, match=r"\(200, 5\); give \[layers, samples, neurons\]\."):
        relay(drifting(1)[0], QUICK)
    for shape in ((5,), (2, 2, 5, 5), (0, 5, 5), (2, 0, 5)):
        with pytest.raises(ValueError, match="activations have shape"):
            relay(torch.ones(shape), QUICK)
    with pytest.raises(ValueError, match="nan or infinity"):
        relay(torch.full((2, 5, 5), torch.nan), QUICK)


@pytest.mark.parametrize(
    "wrong", [{"reach": ()}, {"reach": (0,)}, {"reach": (1, -2)}, {"passes": -1}]
)
def test_distances_and_passes_that_are_none_are_refused(wrong):
    with pytest.raises(ValueError, match=r"reach is \(.*\) and passes .*; give distances"):
        relay(drifting(2), QUICK, **wrong)


@pytest.mark.parametrize("wrong", [{"normalize": True}, {"architecture": "batchtopk"}])
def test_autoencoders_that_hold_numbers_of_their_own_layer_are_refused(wrong):
    with pytest.raises(ValueError, match="cannot be handed on; take another architecture"):
        relay(drifting(2), SAEConfig(**wrong))
