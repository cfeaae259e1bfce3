"""Transformers against a computation position by position, and their compression."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from superpos.compression import Compressed
from superpos.ensemble import Ensemble
from superpos.rasp import balanced_brackets, compiled, indices, reversal, shifted_copy, sorting
from superpos.transformers import Shape, Transformer

SHAPE = Shape(tokens=6, positions=7, width=9, layers=2, heads=2, head=3, hidden=8, outputs=4)
PAD = SHAPE.tokens - 1


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(seed=0):
    """A transformer with random weights, biases too."""
    network = Transformer(SHAPE, seed=seed).double()
    torch.nn.init.normal_(network.bias, generator=seeded(seed))
    return network


def some_ids(batch, positions, seed=0):
    """Ids without padding, and with some at the end of every other row."""
    ids = torch.randint(PAD, (batch, positions), generator=seeded(seed))
    ids[::2, positions // 2 + 1 :] = PAD
    return ids


def brute_force(network, ids, read=lambda h: h, write=lambda x: x):
    """The stream of one sequence of ids, head by head and position by position.

    `read` takes a state to what a sublayer sees, `write` what it gives to a change of the state.
    """
    shape = network.shape
    visible = [place for place, own in enumerate(ids) if own != shape.tokens - 1]
    h = [write(network.token[own] + network.position[k]) for k, own in enumerate(ids)]
    states = [torch.stack(h)]
    for layer in range(shape.layers):
        seen, gain = [read(own) for own in h], [torch.zeros(shape.width).double() for _ in h]
        for head in range(shape.heads):
            q, k, v = (
                [own @ weight[layer, head] for own in seen]
                for weight in (network.query, network.key, network.value)
            )
            for place in range(len(ids)):
                scores = torch.stack([q[place] @ k[other] for other in visible])
                shares = (scores / math.sqrt(shape.head)).softmax(0)
                for share, other in zip(shares, visible, strict=True):
                    gain[place] = gain[place] + share * v[other] @ network.out[layer, head]
        h = [own + write(more) for own, more in zip(h, gain, strict=True)]
        for place, own in enumerate(h):
            neurons = (read(own) @ network.enter[layer] + network.bias[layer]).clamp(min=0)
            h[place] = own + write(neurons @ network.leave[layer])
        states.append(torch.stack(h))
    return states


def test_the_stream_is_what_a_computation_by_position_gives():
    network, ids = drawn(), some_ids(4, 7)
    stream = network.points(ids)[::2]
    assert [tuple(state.shape) for state in stream] == [(4, 7, 9)] * 3
    for row, own in enumerate(ids.tolist()):
        for state, expected in zip(stream, brute_force(network, own), strict=True):
            torch.testing.assert_close(state[row], expected)
    torch.testing.assert_close(network(ids), stream[-1] @ network.unembed)
    assert network(ids).shape == (4, 7, 4)


@given(st.lists(st.integers(0, PAD - 1), min_size=1, max_size=6), st.integers(0, 6))
def test_padding_changes_nothing_at_other_positions(ids, padding):
    network, padding = drawn(), min(padding, 7 - len(ids))
    alone = network.points(torch.tensor([ids]))[::2]
    padded = network.points(torch.tensor([ids + [PAD] * padding]))[::2]
    for expected, state in zip(alone, padded, strict=True):
        assert state.shape[1] == len(ids) + padding
        torch.testing.assert_close(state[:, : len(ids)], expected)


def test_every_other_position_is_attended_to():
    network, ids = drawn(), some_ids(1, 5)[:, :3]
    with torch.no_grad():
        for place in range(3):
            changed = ids.clone()
            changed[0, place] = (ids[0, place] + 1) % PAD
            moved = (network(changed) - network(ids)).abs().amax(-1)
            assert (moved > 1e-6).all()


def test_the_seed_alone_decides_the_weights():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first, other = Transformer(SHAPE, seed=5), Transformer(SHAPE, seed=6)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(2)
    again = Transformer(SHAPE, seed=5)
    assert all(map(torch.equal, first.parameters(), again.parameters()))
    assert not torch.equal(first.token, other.token)


def test_weights_have_the_variance_of_one_over_their_inputs():
    shape = Shape(
        tokens=64, positions=64, width=50, layers=3, heads=2, head=20, hidden=80, outputs=99
    )
    network = Transformer(shape, seed=0)
    for name, inputs in {"out": 20, "leave": 80}.items():
        assert network.get_parameter(name).var().item() == pytest.approx(1 / inputs, rel=0.1)
    for name in ("token", "position", "query", "key", "value", "enter", "unembed"):
        assert network.get_parameter(name).var().item() == pytest.approx(1 / 50, rel=0.1)
    assert not network.bias.any()


FROZEN = {
    "reversal": lambda: compiled(reversal(), "ab", 3),
    "sorting": lambda: compiled(sorting(3), (1, 2), 3),
    "brackets": lambda: compiled(balanced_brackets(), "()", 3),
    "shift": lambda: compiled(shifted_copy(), "ab", 3),
    "indices": lambda: compiled(indices, "ab", 3),
}


def exact(name):
    """A compiled transformer in double precision, and all its inputs."""
    network = FROZEN[name]()
    return network.transformer.double(), network.every_input()


def with_matrix(frozen, matrix, **options):
    """A compression whose W is given."""
    network = Compressed(frozen, len(matrix), seed=0, **options)
    with torch.no_grad():
        network.matrix.copy_(matrix)
    return network


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("name", FROZEN)
def test_a_neuron_for_every_direction_changes_nothing(name, linear):
    frozen, ids = exact(name)
    whole = with_matrix(frozen, torch.eye(frozen.shape.width), linear=linear)
    torch.testing.assert_close(whole(ids), frozen(ids))
    for state, expected in zip(whole.points(ids)[::2], frozen.points(ids)[::2], strict=True):
        torch.testing.assert_close(state, expected)


@pytest.mark.parametrize("frozen", [*FROZEN, "drawn"])
def test_a_rotation_changes_nothing_where_reading_is_linear(frozen):
    frozen, ids = (drawn(), some_ids(4, 7)) if frozen == "drawn" else exact(frozen)
    width = frozen.shape.width
    matrix, _ = torch.linalg.qr(torch.randn(width, width, generator=seeded()).double())
    rotated = with_matrix(frozen, matrix, linear=True)
    torch.testing.assert_close(rotated(ids), frozen(ids))
    for state, expected in zip(rotated.points(ids)[::2], frozen.points(ids)[::2], strict=True):
        torch.testing.assert_close(state, expected @ matrix.mT)


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("frozen", [*FROZEN, "drawn"])
def test_compression_is_reading_and_writing_through_one_matrix(frozen, linear):
    frozen, ids = (drawn(), some_ids(4, 7)) if frozen == "drawn" else exact(frozen)
    network = Compressed(frozen, 5, seed=3, linear=linear)
    matrix = network.matrix.detach().clone().requires_grad_()

    def read(h):
        return matrix.T @ h if linear else (matrix.T @ h).clamp(min=0)

    ids = ids[torch.randperm(len(ids), generator=seeded())[:4]]
    stream, found = network.points(ids)[::2], network(ids)
    total = torch.zeros(()).double()
    for row, own in enumerate(ids.tolist()):
        states = brute_force(frozen, own, read, lambda x: matrix @ x)
        for state, expected in zip(stream, states, strict=True):
            torch.testing.assert_close(state[row], expected)
        expected = torch.stack([read(h) @ frozen.unembed for h in states[-1]])
        torch.testing.assert_close(found[row], expected)
        total = total + expected.square().sum()
    gradients = torch.autograd.grad([found.square().sum(), total], [network.matrix, matrix])
    torch.testing.assert_close(*gradients)


def test_only_the_matrix_is_trained():
    frozen = drawn()
    before = [weight.clone() for weight in frozen.parameters()]
    network = Compressed(frozen, 5, seed=0)
    assert [(name, tuple(own.shape)) for name, own in network.named_parameters()] == [
        ("matrix", (5, 9))
    ]
    first = network.matrix.clone()
    network(some_ids(3, 7)).square().sum().backward()
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    assert not torch.equal(network.matrix, first)
    assert all(map(torch.equal, frozen.parameters(), before))
    assert all(weight.grad is None for weight in frozen.parameters())


def test_the_seed_alone_decides_the_first_matrix():
    frozen = drawn()
    first, again, other = (Compressed(frozen, 5, seed=seed).matrix for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("linear", [False, True])
def test_members_of_an_ensemble_keep_their_own_matrix(linear):
    frozen, ids = exact("reversal")
    alone = [Compressed(frozen, 7, seed=seed, linear=linear) for seed in range(3)]
    own_ids = torch.stack([ids, ids.flip(0), ids.roll(1, 0)])
    expected = torch.stack([own(x) for own, x in zip(alone, own_ids, strict=True)])
    assert not torch.allclose(expected[0], expected[1])
    for at_once in (None, 1):
        torch.testing.assert_close(Ensemble(alone, at_once=at_once)(own_ids), expected)


@pytest.mark.parametrize("neurons", [0, -3])
def test_a_stream_without_neurons_is_refused(neurons):
    with pytest.raises(ValueError, match=f"neurons is {neurons}; give at least 1"):
        Compressed(drawn(), neurons, seed=0)
