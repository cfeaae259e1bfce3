"""Networks for modular arithmetic: what they compute, when they are kept, how they are trained."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from superpos.data import modular
from superpos.learner import Order
from superpos.modular_networks import TwoPathMLP, checkpoint_steps, trained

PRIME, EMBEDDING, HIDDEN, BATCH, RATE, DECAY = 7, 4, 10, 6, 0.01, 0.02
SEEDS = (3, 0, 5)


@pytest.fixture(scope="module")
def data():
    """Data sets that differ in their split, their operation and whether there is a rule."""
    return [
        modular(PRIME, seed=1),
        modular(PRIME, "multiply", seed=2),
        modular(PRIME, seed=3, shuffled=True),
    ]


@pytest.fixture(scope="module")
def found(data):
    return few_steps(data, SEEDS, [0, 1, 9, 40])


def few_steps(data, seeds, checkpoints, batch=BATCH):
    return trained(
        data, embedding=EMBEDDING, hidden=HIDDEN, seeds=seeds, checkpoints=checkpoints,
        batch=batch, rate=RATE, decay=DECAY,
    )  # fmt: skip


def assert_same_weights(network, expected, **tolerance):
    weights = dict(network.named_parameters())
    assert weights.keys() == dict(expected.named_parameters()).keys()
    for name, value in expected.named_parameters():
        torch.testing.assert_close(weights[name], value, **tolerance)


EXACT = {"rtol": 0, "atol": 0}
ROUNDED = {"rtol": 1e-4, "atol": 1e-5}


def untrained(seed):
    return TwoPathMLP(PRIME, EMBEDDING, HIDDEN, seed=1_000_003 * seed)


def written_out(data, seed, checkpoints):
    """One network trained by a plain loop, copied at its checkpoints."""
    network = untrained(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE, weight_decay=DECAY)
    order = Order(1_000_003 * seed + 1, len(data.train), BATCH)
    kept = []
    for step in range(max(checkpoints) + 1):
        if step in checkpoints:
            kept.append(copy.deepcopy(network))
        chosen = data.train[order.next()]
        loss = functional.cross_entropy(network(data.pairs[chosen]), data.answers[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return kept


def test_logits_are_two_linear_paths_an_exact_gelu_and_no_output_bias():
    network = TwoPathMLP(PRIME, EMBEDDING, HIDDEN, seed=0).double()
    weights = {name: value.detach() for name, value in network.named_parameters()}
    pairs = torch.cartesian_prod(torch.arange(PRIME), torch.arange(PRIME))
    first, second = (
        weights["embedding.weight"][pairs[:, 0]],
        weights["embedding.weight"][pairs[:, 1]],
    )
    pre = first @ weights["left.weight"].T + weights["left.bias"]
    pre = pre + second @ weights["right.weight"].T + weights["right.bias"]
    hidden = 0.5 * pre * (1 + torch.erf(pre / math.sqrt(2)))
    with torch.no_grad():
        torch.testing.assert_close(network.pre(pairs), pre)
        torch.testing.assert_close(network(pairs), hidden @ weights["out.weight"].T)
    assert "out.bias" not in weights
    assert len(weights) == 6


def test_a_seed_fixes_the_weights_and_the_global_generator_plays_no_part():
    torch.manual_seed(1)
    first = TwoPathMLP(PRIME, EMBEDDING, HIDDEN, seed=4)
    torch.manual_seed(2)
    assert_same_weights(TwoPathMLP(PRIME, EMBEDDING, HIDDEN, seed=4), first, **EXACT)
    other = TwoPathMLP(PRIME, EMBEDDING, HIDDEN, seed=5)
    for value, expected in zip(other.parameters(), first.parameters(), strict=True):
        assert not torch.isclose(value, expected).any()


def test_embeddings_are_normal_and_other_weights_uniform_within_the_root_of_their_inputs():
    network = TwoPathMLP(101, 50, 300, seed=0)
    embedding = network.embedding.weight
    assert abs(embedding.mean()) < 0.05
    assert abs(embedding.std() - 1) < 0.05
    assert embedding.abs().max() > 3
    for layer, inputs in ((network.left, 50), (network.right, 50), (network.out, 300)):
        for value in layer.parameters():
            scaled = value.detach() * inputs**0.5
            assert 0.95 < scaled.abs().max() <= 1 + 1e-6
            assert abs(scaled.std() - 3**-0.5) < 0.06


@st.composite
def schedules(draw):
    """Numbers of steps and checkpoints that leave a step at least between even ones."""
    count = draw(st.integers(2, 60))
    return draw(st.integers(count - count // 5 - 1, 20_000)), count


@given(schedule=schedules())
def test_checkpoints_rise_from_the_start_to_the_end(schedule):
    every, even = checkpoint_steps(*schedule)
    assert every == sorted(set(every))
    assert (every[0], every[-1]) == (0, schedule[0])
    assert set(even) <= set(every)
    assert all(type(step) is int for step in every + even)


@given(schedule=schedules())
def test_there_are_no_more_checkpoints_than_asked_for(schedule):
    _, count = schedule
    every, even = checkpoint_steps(*schedule)
    assert len(every) <= count
    if even[1] >= 1000:
        assert len(every) == count


@given(schedule=schedules())
def test_four_fifths_of_the_checkpoints_are_evenly_spaced(schedule):
    steps, count = schedule
    even = checkpoint_steps(*schedule)[1]
    assert len(even) == len(set(even)) == count - count // 5
    for place, step in enumerate(even):
        assert abs(step - place * steps / (len(even) - 1)) <= 0.5 + 1e-6


@given(schedule=schedules())
def test_early_checkpoints_rise_by_a_factor_from_ten_to_the_second_even_one(schedule):
    _, count = schedule
    every, even = checkpoint_steps(*schedule)
    early = sorted(set(every) - set(even))
    assert all(10 <= step < even[1] for step in early)
    factor = max(1, even[1] / 10) ** (1 / max(1, count // 5))
    expected = [10 * factor**power for power in range(count // 5)]
    for step in early:
        assert min(abs(step - other) for other in expected) <= 0.5 + 1e-6
    for step in expected if even[1] > 10 else []:
        assert min(abs(step - other) for other in every) <= 0.5 + 1e-6


@pytest.mark.parametrize(
    ("steps", "count", "every", "even"),
    [
        (4, 5, [0, 1, 3, 4], [0, 1, 3, 4]),
        (1, 2, [0, 1], [0, 1]),
        (400, 5, [0, 10, 133, 267, 400], [0, 133, 267, 400]),
        (7000, 10, [0, 10, 100, 1000, 2000, 3000, 4000, 5000, 6000, 7000], range(0, 7001, 1000)),
    ],
)
def test_checkpoints_by_hand(steps, count, every, even):
    assert checkpoint_steps(steps, count) == (every, list(even))


@pytest.mark.parametrize(("steps", "count"), [(100, 0), (100, 1), (0, 5), (2, 5), (6, 10)])
def test_checkpoints_that_cannot_be_kept_apart_are_refused(steps, count):
    with pytest.raises(ValueError, match=rf"{count}"):
        checkpoint_steps(steps, count)


def test_training_equals_a_plain_loop(data, found):
    for member, seed in enumerate(SEEDS):
        for row, network in zip(
            found.networks, written_out(data[member], seed, found.steps), strict=True
        ):
            assert_same_weights(row[member], network, **ROUNDED)


def test_a_network_trained_among_others_equals_the_one_trained_alone(data, found):
    for member, seed in enumerate(SEEDS):
        alone = few_steps([data[member]], [seed], [9, 40])
        for place, (network,) in enumerate(alone.networks, start=2):
            assert_same_weights(found.networks[place][member], network, **ROUNDED)


def test_the_first_checkpoint_is_the_untrained_network(found):
    for network, seed in zip(found.networks[0], SEEDS, strict=True):
        assert_same_weights(network, untrained(seed), **EXACT)


def test_networks_stay_as_they_were_at_their_checkpoints(data, found):
    assert found.steps == [0, 1, 9, 40]
    for place, step in enumerate(found.steps):
        ends = few_steps(data, SEEDS, [step])
        for member in range(len(SEEDS)):
            assert_same_weights(found.networks[place][member], ends.networks[0][member], **EXACT)


def test_networks_of_different_checkpoints_and_members_share_no_weights(found):
    networks = [network for row in found.networks for network in row]
    places = {value.data_ptr() for network in networks for value in network.parameters()}
    assert len(places) == len(networks) * len(list(networks[0].parameters()))


def test_losses_and_accuracies_are_those_of_each_network_on_its_own_pairs(data, found):
    for place, row in enumerate(found.networks):
        for member, network in enumerate(row):
            own = data[member]
            for chosen, loss, accuracy in (
                (own.train, found.train_loss, found.train_accuracy),
                (own.test, found.test_loss, found.test_accuracy),
            ):
                with torch.no_grad():
                    logits = network(own.pairs[chosen]).double()
                answers = own.answers[chosen]
                expected = functional.cross_entropy(logits, answers).item()
                right = (logits.argmax(-1) == answers).double().mean().item()
                assert loss[place, member].item() == pytest.approx(expected, rel=1e-5)
                assert accuracy[place, member].item() == pytest.approx(right, abs=1e-6)


def test_arrays_are_checkpoints_by_members(data, found):
    assert [len(row) for row in found.networks] == [3] * 4
    for values in found[2:]:
        assert values.shape == (4, 3)
        assert not values.requires_grad


def test_a_batch_larger_than_the_training_pairs_is_all_of_them(data):
    count = len(data[0].train)
    found, whole = (
        few_steps(data[:1], [0], [5], batch=batch).networks[0][0] for batch in (9 * count, count)
    )
    assert_same_weights(found, whole, **EXACT)


def test_training_does_not_depend_on_the_global_generator(data):
    torch.manual_seed(1)
    first = few_steps(data[:1], [0], [5]).networks[0][0]
    torch.manual_seed(2)
    assert_same_weights(few_steps(data[:1], [0], [5]).networks[0][0], first, **EXACT)


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_small_table_is_memorized(shuffled):
    data = [modular(5, train_fraction=0.6, seed=seed, shuffled=shuffled) for seed in (0, 1)]
    found = trained(
        data, embedding=6, hidden=32, seeds=[0, 1], checkpoints=[0, 400],
        batch=15, rate=0.01, decay=0.0,
    )  # fmt: skip
    assert found.train_accuracy[-1].tolist() == [1, 1]
    assert (found.train_loss[-1] < 0.1).all()
    assert (found.train_loss[0] > 1).all()


def test_weight_decay_pulls_in_what_the_gradient_does_not_hold():
    data = [modular(5, train_fraction=0.6)]
    sizes = []
    for decay in (0.0, 0.1):
        network = trained(
            data, embedding=6, hidden=32, seeds=[0], checkpoints=[300], batch=15, rate=0.01,
            decay=decay,
        ).networks[0][0]  # fmt: skip
        sizes.append(sum(value.square().sum().item() for value in network.parameters()))
    assert sizes[1] < 0.5 * sizes[0]


@pytest.mark.parametrize("seeds", [[], [0], [0, 1, 2, 3]])
def test_seeds_that_do_not_match_the_data_are_refused(data, seeds):
    with pytest.raises(ValueError, match=f"{len(seeds)} seeds for 3 data sets; give one for each"):
        few_steps(data, seeds, [0])
