"""Networks for sparse parity: what they learn, what dropout does, and what is read."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from superpos.data import sparse_parity
from superpos.learner import Order
from superpos.networks import mlp
from superpos.parity_networks import DropoutMLP, _batches, trained
from superpos.ways import POST, PRE

HIDDEN, BATCH, RATE = 12, 8, 0.02


@pytest.fixture(scope="module")
def data():
    return sparse_parity(2, 2)


def few_epochs(data, members, epochs=5):
    return trained(data, HIDDEN, members, epochs=epochs, batch=BATCH, rate=RATE)


def masks(data, members, steps, hidden=HIDDEN):
    """Masks of several steps, `[members, steps * batch, hidden]`."""
    batches = _batches(data, hidden, members, BATCH)
    return torch.cat([batches(step)[1] for step in range(steps)], dim=1)


def correct(network, x, y):
    """Share of samples on whose side of zero the logit is."""
    with torch.no_grad():
        return ((network(x).squeeze(-1) > 0) == y.bool()).float().mean()


def written_out(data, seed, epochs):
    """One network without dropout, trained by a plain loop."""
    network = mlp(data.inputs, HIDDEN, 2, seed=seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    order = Order(seed, len(data.x_train), BATCH)
    for _ in range(epochs * (len(data.x_train) // BATCH)):
        index = order.next()
        logits = network(data.x_train[index]).squeeze(-1)
        labels = data.y_train[index].float()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


def test_a_small_parity_task_is_learned(data):
    found = trained(data, 32, [(0.0, 0), (0.0, 1)], epochs=60, batch=BATCH, rate=RATE)
    assert found.train_accuracy.tolist() == [1, 1]


def test_without_dropout_training_equals_a_plain_loop(data):
    found = few_epochs(data, [(0.0, 4), (0.0, 7)])
    for member, seed in enumerate((4, 7)):
        network = written_out(data, seed, epochs=5)
        with torch.no_grad():
            expected = network.linear1(data.x_train)
        torch.testing.assert_close(found.activations[PRE][member], expected, rtol=1e-4, atol=1e-5)
        test, train = found.accuracy[member], found.train_accuracy[member]
        assert test == correct(network, data.x_test, data.y_test)
        assert train == correct(network, data.x_train, data.y_train)


def test_a_network_trained_among_others_equals_the_one_trained_alone(data):
    members = [(0.0, 3), (0.5, 1), (0.2, 3), (0.5, 2)]
    among = few_epochs(data, members)
    for place, member in enumerate(members):
        alone = few_epochs(data, [member])
        for site in (PRE, POST):
            torch.testing.assert_close(
                among.activations[site][place], alone.activations[site][0], rtol=1e-5, atol=1e-5
            )
        assert among.accuracy[place] == alone.accuracy[0]
        assert among.train_accuracy[place] == alone.train_accuracy[0]


def test_rates_of_one_seed_start_from_the_weights_of_that_seed(data):
    found = few_epochs(data, [(0.0, 5), (0.8, 5), (0.0, 6)], epochs=0).activations[PRE]
    with torch.no_grad():
        expected = mlp(data.inputs, HIDDEN, 2, seed=5).linear1(data.x_train)
    torch.testing.assert_close(found[0], expected)
    torch.testing.assert_close(found[1], expected)
    assert not torch.allclose(found[2], expected)


def test_rates_of_one_seed_end_apart(data):
    none, half = few_epochs(data, [(0.0, 5), (0.5, 5)]).activations[PRE]
    assert not torch.allclose(none, half, atol=1e-2)


def test_activations_are_read_before_and_after_the_relu_on_all_training_samples(data):
    activations = few_epochs(data, [(0.0, 0), (0.3, 0), (0.3, 1)], epochs=1).activations
    assert set(activations) == {PRE, POST}
    assert activations[PRE].shape == (3, len(data.x_train), HIDDEN)
    assert torch.equal(activations[POST], activations[PRE].relu())
    assert (activations[PRE] < 0).any()
    assert not activations[PRE].requires_grad


def test_a_batch_larger_than_the_training_samples_is_all_of_them(data):
    count = len(data.x_train)
    found, whole = (
        trained(data, HIDDEN, [(0.3, 0)], epochs=4, batch=batch, rate=RATE)
        for batch in (10 * count, count)
    )
    assert torch.equal(found.activations[PRE], whole.activations[PRE])


def test_a_seed_fixes_the_result_and_the_global_generator_plays_no_part(data):
    torch.manual_seed(1)
    first = few_epochs(data, [(0.5, 0)])
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = few_epochs(data, [(0.5, 0)])
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.activations[PRE], second.activations[PRE])


def test_dropout_acts_on_pre_activations():
    network = mlp(6, 4, 2, seed=0)
    generator = torch.Generator().manual_seed(0)
    x, keep = (torch.rand(5, size, generator=generator) for size in (6, 4))
    first, second = network.linear1, network.linear2
    hidden = ((x @ first.weight.T + first.bias) * keep).clamp_min(0)
    expected = hidden @ second.weight.T + second.bias
    torch.testing.assert_close(DropoutMLP(network)(x, keep), expected)


def test_a_rate_of_zero_keeps_everything_as_it_is(data):
    assert (masks(data, [(0.0, 0), (0, 1)], 3) == 1).all()


@given(rate=st.floats(0, 0.95))
def test_masks_keep_the_expectation_at_any_rate(data, rate):
    keep = masks(data, [(rate, 0)], 8, hidden=1000)
    torch.testing.assert_close(keep, (keep > 0) / (1 - rate), rtol=1e-5, atol=0)
    spread = (rate / (1 - rate) / keep.numel()) ** 0.5  # of the mean of independent draws
    assert abs(keep.mean().item() - 1) < 6 * spread + 1e-4


def test_rates_of_one_seed_share_their_draws_and_samples(data):
    members = [(0.2, 0), (0.7, 0), (0.2, 1)]
    batches = _batches(data, HIDDEN, members, BATCH)
    for step in range(3):
        x, keep, y = batches(step)
        assert torch.equal(x[0], x[1])
        assert torch.equal(y[0], y[1])
        assert not torch.equal(x[0], x[2])
        assert ((keep[1] > 0) <= (keep[0] > 0)).all()
        assert ((keep[0] > 0) != (keep[1] > 0)).any()
        assert ((keep[0] > 0) != (keep[2] > 0)).any()


def test_masks_change_from_step_to_step_and_from_sample_to_sample(data):
    keep = masks(data, [(0.5, 0)], 2)[0]
    assert len(keep.unique(dim=0)) == 2 * BATCH


def test_inputs_keep_their_labels(data):
    labels = {tuple(x.tolist()): y.item() for x, y in zip(data.x_train, data.y_train, strict=True)}
    x, _, y = _batches(data, HIDDEN, [(0.5, 0), (0.5, 1)], BATCH)(0)
    for row, label in zip(x.flatten(0, 1), y.flatten(), strict=True):
        assert labels[tuple(row.tolist())] == label


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
def test_rates_that_are_none_are_refused(data, rate):
    with pytest.raises(ValueError, match=r"give numbers from 0 to below 1\."):
        few_epochs(data, [(0.0, 0), (rate, 0)])
