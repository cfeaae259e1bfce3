"""The solver's steps: silent codes set aside, shuffled batches, and what l1 starts at."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from superpos import fit, solver
from superpos.learner import (
    MOMENTUM,
    Learner,
    Order,
    checked,
    gradients,
    next_batch,
    paired_seeds,
    root_mean_square,
)
from superpos.polar import orthogonalized
from superpos.sae import SAE, SAEConfig

MEMBERS, BATCH, NEURONS, DICTIONARY = 2, 24, 6, 96
LIVING = (11, 25)  # codes of either member that may fire


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def sparse_layer(neurons, samples, seed=0):
    """ReLU activations of twice as many sparse features as neurons, `[samples, neurons]`."""
    generator = torch.Generator().manual_seed(seed)
    on = torch.rand(samples, 2 * neurons, generator=generator) < 0.1
    size = torch.rand(samples, 2 * neurons, generator=generator)
    return (on * size @ torch.randn(2 * neurons, neurons, generator=generator)).relu()


def planted(architecture="untied", seed=0):
    """Autoencoders whose other codes no sample activates, and which codes may fire."""
    config = SAEConfig(architecture=architecture, expansion=DICTIONARY / NEURONS, k=2)
    may_fire = torch.zeros(MEMBERS, DICTIONARY, dtype=torch.bool)
    generator = torch.Generator().manual_seed(seed)
    for member, count in enumerate(LIVING):
        may_fire[member, torch.randperm(DICTIONARY, generator=generator)[:count]] = True
    bias = torch.where(may_fire, 0.5, -1e3).double()
    sae = SAE(config, 0.4 * normal(MEMBERS, DICTIONARY, NEURONS, seed=seed + 1), bias)
    if architecture != "tied":
        sae.decoder = normalize(normal(MEMBERS, DICTIONARY, NEURONS, seed=seed + 2), dim=-1)
        sae.offset = 0.1 * normal(MEMBERS, NEURONS, seed=seed + 3)
    return sae, may_fire


def stepped(learner, steps, *, rate=0.01, l1=(0.2, 0.4), bias_rate=(0.01, 0.02), seed=50):
    """The learner after steps on batches that depend on the seed alone."""
    members = learner.whole.members
    l1, bias_rate = (torch.tensor(v[:members], dtype=torch.float64) for v in (l1, bias_rate))
    for step in range(steps):
        x = normal(MEMBERS, BATCH, NEURONS, seed=seed + step).relu()[:members]
        learner.step(x, l1, rate=rate, bias_rate=bias_rate)
    return learner


def rows(sae, member, which):
    """What belongs to some codes of one member, by field name."""
    names = ("encoder", "bias") if sae.decoder is None else ("encoder", "bias", "decoder")
    return {name: getattr(sae, name)[member, which] for name in names}


@pytest.mark.parametrize("architecture", ["tied", "untied"])
def test_without_its_silent_codes_a_dictionary_learns_the_same(architecture):
    sae, may_fire = planted(architecture)
    slow, quick = copy.deepcopy(sae), copy.deepcopy(sae)
    stepped(Learner(slow), 40).write()
    stepped(Learner(quick, may_fire), 40).write()
    for member in range(MEMBERS):
        before, after, expected = (rows(s, member, may_fire[member]) for s in (sae, quick, slow))
        for name, value in expected.items():
            assert not torch.allclose(value, before[name], atol=1e-3)
            torch.testing.assert_close(after[name], value, rtol=0, atol=1e-9)
    if architecture == "untied":
        assert not torch.allclose(slow.offset, sae.offset, atol=1e-3)
        torch.testing.assert_close(quick.offset, slow.offset, rtol=0, atol=1e-9)


@pytest.mark.parametrize("architecture", ["tied", "untied"])
def test_codes_set_aside_come_back_as_they_were(architecture):
    sae, may_fire = planted(architecture)
    before = copy.deepcopy(sae)
    learner = stepped(Learner(sae, may_fire), 10)
    learner.write()
    for member in range(MEMBERS):
        silent = ~may_fire[member]
        expected = rows(before, member, silent)
        for name, value in rows(sae, member, silent).items():
            torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-14)
        silent[learner.kept[member]] = False  # some fill the width up, and are normalized again
        assert silent.sum() == DICTIONARY - 32
        expected = rows(before, member, silent)
        for name, value in rows(sae, member, silent).items():
            assert torch.equal(value, expected[name])


@pytest.mark.parametrize("architecture", ["tied", "untied"])
def test_silence_is_noticed_while_training_and_changes_nothing(architecture):
    sae, _ = planted(architecture)
    slow, quick = Learner(copy.deepcopy(sae)), Learner(copy.deepcopy(sae))
    for first in (50, 60, 70):
        stepped(slow, 10, seed=first)
        stepped(quick, 10, seed=first).rest()
    assert quick.sae.dictionary == 32 < slow.sae.dictionary == DICTIONARY
    slow.write()
    quick.write()
    for name, value in slow.whole.tensors().items():
        torch.testing.assert_close(getattr(quick.whole, name), value, rtol=0, atol=1e-9)


def test_resting_keeps_the_codes_that_fired_since_the_last_rest():
    sae, _ = planted("untied", seed=3)
    learner = Learner(sae)
    narrowed = []
    one, none = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for size, different in ((1, BATCH), (9, 1)):  # a single strong sample activates fewer codes
        fired = torch.zeros(MEMBERS, DICTIONARY, dtype=torch.bool)
        for step in range(3 if different > 1 else 1):
            x = size * normal(MEMBERS, different, NEURONS, seed=step)
            fired |= (sae.encode(x) > 0).any(1)
            learner.step(x, one, rate=0.0, bias_rate=none)
        learner.rest()
        for member in range(MEMBERS):
            kept = learner.kept[member].tolist()
            assert len(set(kept)) == len(kept)
            assert set(fired[member].nonzero().flatten().tolist()) <= set(kept)
        narrowed.append(learner.kept.shape[1])
    assert narrowed[1] < narrowed[0] < DICTIONARY
    learner.write()
    for member in range(MEMBERS):
        kept = learner.kept[member]
        for name, value in rows(sae, member, kept).items():
            assert torch.equal(value, getattr(learner.sae, name)[member])


@pytest.mark.parametrize("architecture", ["tied", "untied"])
def test_codes_that_fall_silent_later_keep_what_they_had_learned(architecture):
    sae, may_fire = planted(architecture, seed=3)
    learner = stepped(Learner(sae, may_fire), 5)
    learner.rest()
    moved, kept = copy.deepcopy(learner.sae), learner.kept
    one, none = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    learner.step(9 * normal(MEMBERS, 1, NEURONS), one, rate=0.0, bias_rate=none)
    learner.rest()
    assert learner.kept.shape[1] < kept.shape[1]
    learner.write()
    for member in range(MEMBERS):
        expected = rows(moved, member, slice(None))
        for name, value in rows(sae, member, kept[member]).items():
            torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-14)


@given(counts=st.tuples(st.integers(0, DICTIONARY), st.integers(0, DICTIONARY)))
def test_widths_are_multiples_of_sixteen_that_hold_the_living_codes(counts):
    sae, _ = planted("tied")
    fires = torch.arange(DICTIONARY) < torch.tensor(counts)[:, None]
    width = Learner(sae, fires).sae.dictionary
    assert width % 16 == 0
    assert max(counts) <= width
    assert width == DICTIONARY or width < max(counts) + 16 or width == 16


@pytest.mark.parametrize("architecture", ["topk", "batchtopk"])
def test_codes_kept_by_rank_are_never_set_aside(architecture):
    sae, may_fire = planted(architecture)
    if architecture == "batchtopk":
        sae.threshold = torch.zeros(MEMBERS, dtype=torch.float64)
    learner = Learner(sae, may_fire)
    stepped(learner, 3).rest()
    assert learner.kept is None
    assert learner.sae.dictionary == DICTIONARY
    silent = ~may_fire[0]
    learner.sae.bias[0, silent] = 10.0  # now they outdo the others, and move
    before = sae.encoder[0, silent].clone()
    stepped(learner, 3)
    assert not torch.allclose(sae.encoder[0, silent], before, atol=1e-4)


def test_a_dictionary_whose_codes_all_fire_is_trained_in_place():
    sae, _ = planted("tied")
    everything = torch.ones(MEMBERS, DICTIONARY, dtype=torch.bool)
    learner = Learner(sae, everything)
    assert learner.sae is sae
    before = sae.encoder.clone()
    stepped(learner, 1)
    assert not torch.equal(sae.encoder, before)


@pytest.mark.parametrize("architecture", ["tied", "untied"])
def test_vectors_move_as_in_adam(architecture):
    sae, _ = planted(architecture)
    oracle = copy.deepcopy(sae)
    names = ["bias"] if architecture == "tied" else ["bias", "offset"]
    leaves = [getattr(oracle, name) for name in names]
    optimizer = torch.optim.Adam(leaves, lr=0.02, eps=1e-12)
    learner = Learner(sae)
    for step in range(12):
        x = normal(MEMBERS, BATCH, NEURONS, seed=step).relu()
        rate = torch.full((1,), 0.02, dtype=torch.float64)
        learner.step(x, torch.tensor([0.3], dtype=torch.float64), rate=0.0, bias_rate=rate)
        found = gradients(oracle, x, 0.3 / DICTIONARY)
        for name, leaf in zip(names, leaves, strict=True):
            leaf.grad = found[name]
        optimizer.step()
    for name, leaf in zip(names, leaves, strict=True):
        torch.testing.assert_close(getattr(sae, name), leaf, rtol=0, atol=1e-9)


def test_matrices_move_along_their_orthogonalized_nesterov_momentum():
    sae, _ = planted("untied")
    encoder, decoder = sae.encoder.clone(), sae.decoder.clone()
    still = copy.deepcopy(sae)
    learner, rate = Learner(sae), 0.03
    leaves = [torch.zeros_like(encoder), torch.zeros_like(decoder)]
    optimizer = torch.optim.SGD(leaves, lr=1.0, momentum=MOMENTUM, nesterov=True)
    for step in range(6):
        still.encoder, still.decoder = encoder, decoder
        x = normal(MEMBERS, BATCH, NEURONS, seed=step).relu()
        none = torch.zeros(1, dtype=torch.float64)
        learner.step(x, torch.ones(1, dtype=torch.float64), rate=rate, bias_rate=none)
        found = gradients(still, x, 1.0 / DICTIONARY)
        for name, leaf in zip(("encoder", "decoder"), leaves, strict=True):
            leaf.zero_()
            leaf.grad = found[name]
        optimizer.step()  # the leaves are now minus the direction
        size = rate * math.sqrt(DICTIONARY / NEURONS)
        encoder = encoder + size * orthogonalized(leaves[0])
        decoder = normalize(decoder + size * orthogonalized(leaves[1]), dim=-1)
    torch.testing.assert_close(sae.encoder, encoder, rtol=0, atol=1e-9)
    torch.testing.assert_close(sae.decoder, decoder, rtol=0, atol=1e-9)


@pytest.mark.parametrize("architecture", ["tied", "untied"])
def test_members_with_penalties_and_rates_of_their_own_learn_as_they_would_alone(architecture):
    sae, may_fire = planted(architecture)
    alone = sae.select([0])
    stepped(Learner(sae, may_fire), 20).write()
    stepped(Learner(alone, may_fire[:1]), 20).write()
    for name, value in alone.tensors().items():
        torch.testing.assert_close(getattr(sae, name)[:1], value, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("architecture", "rounds"), [("tied", 1), ("untied", 2)])
def test_a_fit_of_a_large_dictionary_equals_one_that_sets_nothing_aside(
    architecture, rounds, monkeypatch
):
    x = sparse_layer(8, 600)
    config = SAEConfig(
        architecture=architecture, expansion=16, l1=1.0, starts=1, rounds=rounds, steps=240,
        tolerance=1e-9,
    )  # fmt: skip
    rest, widths = Learner.rest, []

    def watched(learner):
        rest(learner)
        widths.append(learner.sae.dictionary)

    monkeypatch.setattr(Learner, "rest", watched)
    usual = fit(x, config)
    assert min(widths) < 128

    def idle(learner):
        learner.fired = torch.zeros_like(learner.fired)

    monkeypatch.setattr(Learner, "rest", idle)
    whole = fit(x, config)
    torch.testing.assert_close(usual.history, whole.history, rtol=1e-5, atol=0)
    torch.testing.assert_close(usual.features, whole.features, rtol=1e-4, atol=0)
    living = [result.sae.losses(x)[1] > 0 for result in (usual, whole)]
    assert torch.equal(*living)
    encoders = [result.sae.encoder[living[0]] for result in (usual, whole)]
    torch.testing.assert_close(*encoders, rtol=0, atol=1e-4)


@given(samples=st.integers(1, 40), data=st.data())
def test_a_pass_gives_every_sample_once_but_for_a_remainder(samples, data):
    batch = data.draw(st.integers(1, samples))
    order = Order(data.draw(st.integers(0, 99)), samples, batch)
    for _ in range(3):
        drawn = torch.cat([order.next() for _ in range(samples // batch)]).tolist()
        assert len(set(drawn)) == len(drawn) == samples // batch * batch
        assert set(drawn) <= set(range(samples))
        if samples % batch == 0:
            assert sorted(drawn) == list(range(samples))


def test_passes_differ_and_so_do_seeds():
    first, other = Order(0, 50, 50), Order(1, 50, 50)
    one, two = first.next(), first.next()
    assert not torch.equal(one, two)
    assert not torch.equal(one, other.next())


@given(before=st.integers(0, 9), after=st.integers(0, 9), batch=st.integers(1, 17))
def test_an_order_goes_on_from_a_state_as_it_would_have(before, after, batch):
    order = Order(3, 17, batch)
    order.skip(before)
    state = order.state()
    expected = [order.next() for _ in range(after + 1)]
    again = Order(8, 17, batch).restored(state)
    assert all(torch.equal(again.next(), index) for index in expected)
    skipped = Order(8, 17, batch).restored(state)
    skipped.skip(after)
    assert torch.equal(skipped.next(), expected[-1])


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("scale", [None, torch.tensor([2.0, 4.0, 0.5])])
def test_batches_hold_each_members_next_rows_divided_by_its_scale(shared, scale):
    x = torch.arange(3 * 20 * 2.0).reshape(3, 20, 2)
    x = x[0] if shared else x
    seeds = (5, 6, 7)
    orders, twins = ([Order(seed, 20, 8) for seed in seeds] for _ in range(2))
    for _ in range(4):
        found = next_batch(x, orders, scale)
        for member, twin in enumerate(twins):
            own = x if shared else x[member]
            expected = torch.stack([own[index] for index in twin.next().tolist()])
            divisor = 1.0 if scale is None else scale[member]
            assert torch.equal(found[member], expected / divisor)


def test_the_root_mean_square_is_each_members_own_and_never_zero():
    x = torch.stack([torch.full((5, 3), 2.0), torch.tensor([[3.0, -4.0, 0.0]] * 5)])
    torch.testing.assert_close(root_mean_square(x), torch.tensor([2.0, math.sqrt(25 / 3)]))
    assert root_mean_square(x[0]).shape == (1,)
    assert (root_mean_square(torch.zeros(2, 5, 3)) > 0).all()


def test_activations_and_seeds_are_put_in_order():
    found = checked([[1.0, 2.0]], None)
    assert found.dtype == torch.float32
    assert found.tolist() == [[1.0, 2.0]]
    assert paired_seeds(torch.zeros(4, 2), [7, 8]) == [7, 8]
    assert paired_seeds(torch.zeros(3, 4, 2), [7]) == [7, 7, 7]
    with pytest.raises(ValueError, match="2 seeds for 3 members"):
        paired_seeds(torch.zeros(3, 4, 2), [7, 8])


@pytest.mark.parametrize(("neurons", "l1"), [(16, 1.0), (16, 10.0), (32, 10.0)])
def test_a_strong_penalty_ends_lower_than_from_ten_times_its_value(neurons, l1, monkeypatch):
    x = sparse_layer(neurons, 2000)
    config = SAEConfig(l1=l1, starts=1, rounds=1, steps=600)
    usual = fit(x, config)
    monkeypatch.setattr(solver, "_first_heats", lambda *_: [10.0])
    hot = fit(x, config)
    assert usual.features > 2
    assert usual.loss < 0.96 * hot.loss


def test_a_strong_penalty_starts_weak_and_a_weak_one_strong():
    x = sparse_layer(16, 500)
    heats = [solver._first_heats(x, SAEConfig(l1=l1))[0] for l1 in (1e-6, 0.3, 3.0, 1e6)]
    assert heats == sorted(heats, reverse=True)
    assert (heats[0], heats[-1]) == (solver.HEAT, 1 / solver.HEAT)
    assert 1 / solver.HEAT < heats[2] < 1 < heats[1] < solver.HEAT


@given(value=st.floats(0.01, 100), l1=st.floats(0.01, 100))
def test_l1_starts_at_half_of_activations_that_are_all_alike(value, l1):
    (heat,) = solver._first_heats(torch.full((7, 5), value), SAEConfig(l1=l1))
    assert heat == pytest.approx(min(max(0.5 * value / l1, 0.1), 10), rel=1e-5)


@given(
    seed=st.integers(0, 999),
    l1=st.floats(1e-3, 1e3),
    power=st.floats(-3, 3),
    normalize=st.booleans(),
)
def test_what_l1_starts_at_is_bounded_and_in_units_of_the_activations(seed, l1, power, normalize):
    factor = 10**power
    x = normal(30, 5, seed=seed, dtype=torch.float32).relu()
    (heat,) = solver._first_heats(x, SAEConfig(l1=l1, normalize=normalize))
    assert 1 / solver.HEAT <= heat <= solver.HEAT
    same = SAEConfig(l1=l1 if normalize else factor * l1, normalize=normalize)
    assert solver._first_heats(factor * x, same) == [pytest.approx(heat, rel=1e-4)]


@given(seed=st.integers(0, 999), empty=st.integers(0, 500))
def test_empty_samples_do_not_change_what_l1_starts_at(seed, empty):
    x = normal(30, 5, seed=seed, dtype=torch.float32).relu()
    more = torch.cat([x, torch.zeros(empty, 5)])
    config = SAEConfig(l1=0.3)
    assert solver._first_heats(more, config) == [
        pytest.approx(solver._first_heats(x, config)[0], rel=1e-5)
    ]


def test_each_members_l1_starts_at_its_own_size():
    x = torch.stack([sparse_layer(5, 40, seed) * (seed + 1) for seed in range(3)])
    config = SAEConfig(l1=0.5)
    together = solver._first_heats(x, config)
    assert len(set(together)) == 3
    assert together == [pytest.approx(solver._first_heats(own, config)[0]) for own in x]


@pytest.mark.parametrize("config", [SAEConfig(l1=0.0), SAEConfig(architecture="topk")])
def test_without_a_penalty_nothing_is_heated(config):
    assert solver._first_heats(sparse_layer(5, 40), config) == [1.0]


def test_activations_that_are_all_zero_have_a_start_too():
    assert solver._first_heats(torch.zeros(2, 9, 4), SAEConfig()) == [1 / solver.HEAT] * 2
