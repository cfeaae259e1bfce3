"""Fitting a compressed stream to what a frozen transformer reads."""

import math
from collections import defaultdict
from functools import cache
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superpos.compression import (
    START_SEEDS,
    Compressed,
    Read,
    compressed,
    directions_read,
    read_error,
    reads,
)
from superpos.rasp import (
    compiled,
    double_letter,
    histogram,
    indices,
    reversal,
    shifted_copy,
    sorting,
)
from superpos.sequence_tasks import accuracy, task
from superpos.transformers import Shape, Transformer, padding

PROGRAMS = {
    "reversal": (reversal(), "ab", 2),
    "sorting": (sorting(2), (1, 2), 2),
    "histogram": (histogram(), "ab", 2),
    "shift": (shifted_copy(), "ab", 3),
    "double": (double_letter(), "ab", 2),
    "indices": (indices, "ab", 2),
}
SEEDS = st.integers(0, 9999)


@cache
def network(name):
    return compiled(*PROGRAMS[name])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def inputs(name, *, empty=False):
    """Ids of all inputs of a program, and which positions are not padding."""
    ids = network(name).every_input(empty=empty)
    return ids, ~padding(ids, network(name).transformer.shape)


def all_reads(name):
    return reads(network(name).transformer, *inputs(name))


def bare(width):
    """A transformer that only gives a compression its width."""
    shape = Shape(
        tokens=3, positions=2, width=width, layers=0, heads=1, head=1, hidden=1, outputs=1
    )
    return Transformer(shape, seed=0).double()


def matrices(networks):
    return torch.stack([own.matrix.detach() for own in networks])


# What is read


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("indices", ["indices:0 indices:1"]),
        (
            "histogram",
            [
                "tokens:a tokens:b tokens:bos one",
                "tokens:a tokens:b output:share",
                "output:0 output:1 output:2",
            ],
        ),
        (
            "shift",
            [
                "tokens:a tokens:b tokens:bos indices:0 indices:1 indices:2 one",
                "",
                "output:a output:b",
            ],
        ),
    ],
)
def test_the_directions_that_are_read_carry_what_each_step_of_the_program_needs(name, expected):
    own = network(name)
    found = directions_read(own.transformer)
    names = [" ".join(own.directions[place] for place in point) for point in found]
    assert names == expected
    read = [point.directions for point in all_reads(name)]
    assert [" ".join(own.directions[place] for place in point) for point in read] == [
        point for point in expected if point
    ]


def read_by_some_weight(frozen):
    """Directions with a weight other than zero to a head, a neuron that writes, or an output."""

    def attended(layer, direction):
        weights = (frozen.query, frozen.key, frozen.value)
        return any(own[layer, :, direction].abs().sum() > 0 for own in weights)

    def entered(layer, direction):
        return any(
            frozen.enter[layer, direction, unit] != 0 and frozen.leave[layer, unit].abs().sum() > 0
            for unit in range(frozen.shape.hidden)
        )

    every, found = range(frozen.shape.width), []
    for layer in range(frozen.shape.layers):
        found += [[own for own in every if read(layer, own)] for read in (attended, entered)]
    return [*found, [own for own in every if frozen.unembed[own].abs().sum() > 0]]


def thinned(seed):
    """A transformer of random weights, most of them zero, with neurons that write nothing."""
    shape = Shape(tokens=4, positions=3, width=6, layers=2, heads=2, head=2, hidden=4, outputs=2)
    frozen, generator = Transformer(shape, seed=seed), seeded(seed)
    with torch.no_grad():
        for weight in frozen.parameters():
            weight *= torch.rand(weight.shape, generator=generator) < 0.15
        frozen.leave *= torch.rand(2, 4, 1, generator=generator) < 0.5
    return frozen


@given(st.one_of(st.sampled_from(sorted(PROGRAMS)), SEEDS))
def test_a_direction_is_read_where_some_weight_takes_it_somewhere(given_):
    frozen = network(given_).transformer if given_ in PROGRAMS else thinned(given_)
    expected = read_by_some_weight(frozen)
    assert [own.tolist() for own in directions_read(frozen)] == expected
    ids = torch.zeros(1, 2, dtype=torch.long)
    found = reads(frozen, ids, ids == 0)
    assert [own.directions.tolist() for own in found] == [own for own in expected if own]


def histogram_states(word):
    """What stands in the stream where a histogram is computed, `[point][position]`."""
    start = [{"tokens:bos": 1, "one": 1}]
    start += [{"one": 1, f"indices:{place}": 1} for place in range(len(word))]
    for state, token in zip(start[1:], word, strict=True):
        state |= {} if token is None else {f"tokens:{token}": 1}
    counts = [None, *(None if token is None else word.count(token) for token in word)]
    shared = [
        state | {"output:share": 1 / (1 + (count or 0))}
        for state, count in zip(start, counts, strict=True)
    ]
    last = [
        state | ({} if count is None else {f"output:{count}": 1})
        for state, count in zip(shared, counts, strict=True)
    ]
    return [start, shared, last]


def words(vocabulary, length):
    return [word for size in range(1, length + 1) for word in product(vocabulary, repeat=size)]


def weights_by_state(point, names):
    """Weights of states, each written as the directions that are on."""
    return {
        frozenset((name, round(value, 3)) for name, value in zip(names, row, strict=True) if value)
        : weight
        for row, weight in zip(point.states.tolist(), point.weights.tolist(), strict=True)
    }  # fmt: skip


@given(st.booleans(), st.one_of(st.none(), st.lists(st.integers(0, 5), min_size=12, max_size=12)))
def test_states_of_a_histogram_are_all_that_its_inputs_make_with_the_weights_asked_for(
    empty, frequency
):
    own, vocabulary = network("histogram"), ("a", "b", None) if empty else ("a", "b")
    some = words(vocabulary, 2)
    if frequency is not None:
        frequency = [1.0 + frequency[0], *map(float, frequency[1 : len(some)])]
    found = reads(
        own.transformer,
        *inputs("histogram", empty=empty),
        None if frequency is None else torch.tensor(frequency),
    )
    assert len(found) == 3
    for point, read in enumerate(found):
        counts = defaultdict(float)
        for word, often in zip(some, frequency or [1.0] * len(some), strict=True):
            for state in histogram_states(word)[point]:
                counts[frozenset((name, round(value, 3)) for name, value in state.items())] += often
        if frequency is None:
            counts = dict.fromkeys(counts, 1.0)
        total = sum(counts.values())
        assert len(read.states) == len(counts)
        assert weights_by_state(read, own.directions) == pytest.approx(
            {state: often / total for state, often in counts.items()}, abs=1e-6
        )
        assert read.weights.sum().item() == pytest.approx(1)


@pytest.mark.parametrize("name", PROGRAMS)
@settings(max_examples=10)
@given(seed=SEEDS)
def test_states_are_those_of_inputs_run_one_by_one_as_often_as_they_occur(name, seed):
    """States that differ by what attention leaks, below a thousandth, may be one or several."""
    own, (ids, present) = network(name), inputs(name, empty=True)
    frequency = torch.rand(len(ids), generator=seeded(seed)) + 0.01
    some = words((*own.vocabulary, None), own.length)
    rest = [len(read) > 0 for read in directions_read(own.transformer)]
    counts = [defaultdict(float) for _ in rest]
    with torch.no_grad():
        for word, often in zip(some, frequency.tolist(), strict=True):
            for point, states in enumerate(own.transformer.points(own.ids([word]))):
                for state in states[0]:
                    key = tuple((state * 100).round().int().tolist())
                    counts[point][key] += often
    counts = [own for own, read in zip(counts, rest, strict=True) if read]
    for read, expected in zip(reads(own.transformer, ids, present, frequency), counts, strict=True):
        total, weights = sum(expected.values()), defaultdict(float)
        for state, weight in zip(read.states, read.weights.tolist(), strict=True):
            weights[tuple((state * 100).round().int().tolist())] += weight
        assert dict(weights) == pytest.approx(
            {state: often / total for state, often in expected.items()}, rel=1e-4
        )
        assert read.weights.sum().item() == pytest.approx(1)


def test_an_input_that_stands_twice_counts_twice_only_by_frequency():
    frozen, (ids, present) = network("histogram").transformer, inputs("histogram")
    twice = torch.cat([ids, ids[-2:]]), torch.cat([present, present[-2:]])
    for once, again in zip(reads(frozen, ids, present), reads(frozen, *twice), strict=True):
        assert all(map(torch.equal, once, again))
    often = torch.ones(len(ids))
    often[-2:] = 2
    even = torch.ones(len(twice[0]))
    for once, again in zip(
        reads(frozen, ids, present, often), reads(frozen, *twice, even), strict=True
    ):
        torch.testing.assert_close(once, again)
        assert len(once.weights.unique()) > 1


def test_positions_that_do_not_count_give_no_states():
    own, (ids, present) = network("histogram"), inputs("histogram")
    present[:, 0] = False
    bos = own.directions.index("tokens:bos")
    assert not any(read.states[:, bos].any() for read in reads(own.transformer, ids, present))
    for read in all_reads("histogram"):
        assert read.states[:, bos].sum() == 1
        assert not read.states[:, own.directions.index("tokens:pad")].any()


# The error of reading


def some_reads(seed, width, points=2):
    """Random states, weights and directions."""
    generator, found = seeded(seed), []
    for _ in range(points):
        count = int(torch.randint(1, 6, (1,), generator=generator))
        states = torch.randn(count, width, generator=generator).double()
        weights = torch.rand(count, generator=generator).double()
        read = torch.randperm(width, generator=generator)[: 1 + count % width].sort().values
        found.append(Read(states, weights / weights.sum(), read))
    return found


def some_matrices(seed, members, neurons, width):
    return torch.randn(members, neurons, width, generator=seeded(seed)).double() / width**0.5


def error_state_by_state(matrix, some, linear):
    total = 0.0
    for states, weights, directions in some:
        for state, weight in zip(states, weights.tolist(), strict=True):
            h = matrix @ state
            for place in directions.tolist():
                seen = (matrix[:, place] @ h).item()
                seen = seen if linear else max(seen, 0.0)
                total += weight * (seen - state[place].item()) ** 2
    return total


SIZES = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(2, 6))


@given(SEEDS, SIZES, st.booleans())
def test_the_error_is_what_a_loop_over_states_and_directions_gives(seed, sizes, linear):
    some, matrix = some_reads(seed, sizes[-1], points=3), some_matrices(seed, *sizes)
    expected = [error_state_by_state(own, some, linear) for own in matrix]
    assert read_error(matrix, some, linear=linear).tolist() == pytest.approx(expected)


@given(SEEDS, SIZES, st.booleans())
def test_the_error_does_not_depend_on_which_neurons_span_the_stream(seed, sizes, linear):
    some, matrix = some_reads(seed, sizes[-1]), some_matrices(seed, *sizes)
    neurons = sizes[1] + 2
    drawn = torch.randn(neurons, neurons, generator=seeded(seed)).double()
    rotated = torch.linalg.qr(drawn).Q[:, : sizes[1]] @ matrix
    torch.testing.assert_close(
        read_error(rotated, some, linear=linear), read_error(matrix, some, linear=linear)
    )


@given(SEEDS, st.integers(2, 6))
def test_a_neuron_for_every_direction_reads_all_but_what_the_relu_cuts_off(seed, width):
    some, whole = some_reads(seed, width), torch.eye(width).double()[None]
    cut = sum(
        (states[:, directions].clamp(max=0).square().sum(1) * weights).sum().item()
        for states, weights, directions in some
    )
    assert read_error(whole, some).item() == pytest.approx(cut)
    assert read_error(whole, some, linear=True).item() == 0
    positive = [own._replace(states=own.states.abs()) for own in some]
    assert read_error(whole, positive).item() == 0


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_error_at_the_first_point_is_what_a_compressed_network_misreads_there(name, linear):
    frozen, (ids, present) = network(name).transformer, inputs(name, empty=True)
    frequency = torch.rand(len(ids), generator=seeded())
    other = Compressed(frozen, 5, seed=1, linear=linear)
    place = next(place for place, own in enumerate(directions_read(frozen)) if len(own))
    directions = directions_read(frozen)[place]
    with torch.no_grad():
        whole = frozen.points(ids)[place]
        missed = (other.read(whole @ other.matrix.T, directions) - whole[..., directions]).square()
        if place == 0:
            torch.testing.assert_close(other.points(ids)[0], whole @ other.matrix.T)
        weights = frequency[:, None] * present
        expected = (missed.sum(-1) * weights).sum() / weights.sum()
        found = read_error(
            matrices([other]), reads(frozen, ids, present, frequency)[:1], linear=linear
        )
    assert found.item() == pytest.approx(expected.item(), rel=1e-3)


def least_linear_error(some, neurons):
    """What a matrix of such a rank misses at least of the states read (Eckart and Young)."""
    values = [
        torch.linalg.svdvals(weights.sqrt()[:, None] * states[:, directions])
        for states, weights, directions in some
    ]
    return sum(own[neurons:].square().sum().item() for own in values)


@given(SEEDS, SIZES)
def test_no_linear_reading_beats_the_singular_values(seed, sizes):
    some = some_reads(seed, sizes[-1], points=3)
    found = read_error(some_matrices(seed, *sizes), some, linear=True)
    assert (found >= least_linear_error(some, sizes[1]) - 1e-9).all()


# Fitting


def one_hot(weights):
    """One direction on at a time, and all of them read."""
    size = len(weights)
    return [Read(torch.eye(size).double(), torch.tensor(weights).double(), torch.arange(size))]


@pytest.mark.parametrize("neurons", [1, 2, 3, 4])
def test_a_linear_fit_reads_as_much_as_the_singular_values_allow(neurons):
    states = torch.randn(9, 5, generator=seeded()).double() * torch.tensor([2, 1.5, 1, 0.7, 0.4])
    some = [Read(states, torch.rand(9, generator=seeded()).double().softmax(0), torch.arange(5))]
    bound = least_linear_error(some, neurons)
    found = compressed(bare(5), some, neurons, seeds=[0, 1], starts=2, steps=300, linear=True)
    errors = read_error(matrices(found), some, linear=True).tolist()
    assert bound > 0.01 and errors == pytest.approx([bound] * 2, rel=1e-3)


@pytest.mark.parametrize(("neurons", "exact"), [(2, False), (3, True), (4, True)])
def test_a_linear_fit_reads_everything_from_as_many_neurons_as_the_rank_of_the_states(
    neurons, exact
):
    factors = torch.randn(10, 3, generator=seeded()).double()
    states = factors @ torch.randn(3, 7, generator=seeded(1)).double() / 2
    some = [Read(states, torch.full((10,), 0.1).double(), torch.arange(7))]
    found = compressed(bare(7), some, neurons, seeds=[0], starts=3, steps=300, linear=True)
    error = read_error(matrices(found), some, linear=True).item()
    assert (error < 1e-4) == exact
    assert error >= least_linear_error(some, neurons) - 1e-9


def test_two_neurons_hold_four_directions_apart_with_the_relu_and_two_without():
    some = one_hot([0.25] * 4)
    rectified = compressed(bare(4), some, 2, seeds=[0, 1], starts=4, steps=300)
    linear = compressed(bare(4), some, 2, seeds=[0, 1], starts=4, steps=300, linear=True)
    assert (read_error(matrices(rectified), some) < 1e-4).all()
    errors = read_error(matrices(linear), some, linear=True).tolist()
    assert errors == pytest.approx([0.5, 0.5], abs=1e-4)


def test_what_comes_seldom_is_what_a_fit_gives_up():
    some = one_hot([0.4, 0.05, 0.3, 0.05, 0.2])
    (found,) = compressed(bare(5), some, 3, seeds=[0], starts=3, steps=400, linear=True)
    assert read_error(matrices([found]), some, linear=True).item() == pytest.approx(0.1, abs=1e-3)
    seen = (found.matrix.T @ found.matrix).diagonal().tolist()
    assert seen == pytest.approx([1, 0, 1, 0, 1], abs=0.05)


@pytest.mark.parametrize("name", ["reversal", "sorting", "histogram", "double"])
def test_half_of_the_neurons_are_enough_for_every_input(name):
    own = network(name)
    found = compressed(
        own.transformer,
        all_reads(name),
        math.ceil(len(own.directions) / 2),
        seeds=[0, 1],
        starts=3,
        steps=300,
    )
    assert [accuracy(member, task(own)) for member in found] == [1.0, 1.0]


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("name", ["sorting", "histogram"])
def test_where_everything_is_read_right_the_whole_network_is_right(name, linear):
    frozen, (ids, present) = network(name).transformer, inputs(name)
    neurons = round(0.65 * frozen.shape.width)
    (found,) = compressed(
        frozen, all_reads(name), neurons, seeds=[0], starts=3, steps=600, linear=linear
    )
    with torch.no_grad():
        assert read_error(matrices([found]), all_reads(name), linear=linear).item() < 1e-6
        points = zip(found.points(ids), frozen.points(ids), directions_read(frozen), strict=True)
        for h, state, directions in points:
            seen, wanted = found.read(h, directions), state[..., directions]
            torch.testing.assert_close(seen[present], wanted[present], atol=0.01, rtol=0)
        torch.testing.assert_close(found(ids)[present], frozen(ids)[present], atol=0.01, rtol=0)


def one_start(frozen, some, neurons, *, seed, steps, linear):
    """W after a plain loop from one start, and its error."""
    matrix = Compressed(frozen, neurons, seed=seed).matrix.detach()
    matrix = (matrix / matrix.norm(dim=0)).requires_grad_()
    optimizer = torch.optim.Adam([matrix], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        error = sum(
            weights @ ((seen if linear else seen.relu()) - states[:, read]).square().sum(1)
            for states, weights, read in some
            for seen in [states @ matrix.T @ matrix[:, read]]
        )
        error.backward()
        optimizer.step()
        schedule.step()
    return matrix.detach(), read_error(matrix.detach()[None], some, linear=linear).item()


@pytest.mark.parametrize("linear", [False, True])
def test_of_several_starts_the_one_with_the_lowest_error_is_kept(linear):
    frozen, some, steps = bare(6), some_reads(4, 6), 30
    found = compressed(frozen, some, 2, seeds=[2, 0], starts=3, steps=steps, linear=linear)
    places = []
    for seed, own in zip([2, 0], found, strict=True):
        each = [
            one_start(frozen, some, 2, seed=START_SEEDS * seed + start, steps=steps, linear=linear)
            for start in range(3)
        ]
        errors = [error for _, error in each]
        places.append(errors.index(min(errors)))
        assert max(errors) > 1.01 * min(errors)
        torch.testing.assert_close(own.matrix.detach(), each[places[-1]][0], rtol=1e-4, atol=1e-5)
    assert any(places), "the first start is the best for all seeds, so the test shows nothing"


@pytest.mark.parametrize("linear", [False, True])
def test_a_member_alone_is_what_it_is_among_others(linear):
    frozen, some = bare(6), some_reads(4, 6)
    options = {"starts": 2, "steps": 50, "linear": linear}
    (alone,) = compressed(frozen, some, 3, seeds=[3], **options)
    others = compressed(frozen, some, 3, seeds=[1, 3], **options)
    torch.testing.assert_close(others[1].matrix, alone.matrix)
    assert not torch.allclose(others[0].matrix, alone.matrix, atol=0.01)


def test_a_seed_gives_the_same_network_again_whatever_else_is_drawn():
    frozen, some = network("histogram").transformer, all_reads("histogram")
    before = [weight.clone() for weight in frozen.parameters()]
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(matrices(compressed(frozen, some, 5, seeds=[0, 7], starts=2, steps=20)))
    assert torch.equal(*found)
    assert all(map(torch.equal, frozen.parameters(), before))


@pytest.mark.parametrize("linear", [False, True])
def test_fitted_networks_have_the_width_and_the_reading_asked_for(linear):
    frozen, some = network("histogram").transformer, all_reads("histogram")
    (found,) = compressed(frozen, some, 4, seeds=[0], starts=1, steps=5, linear=linear)
    assert found.matrix.shape == (4, frozen.shape.width)
    h = torch.randn(50, 4, generator=seeded())
    assert bool((found.read(h, torch.arange(frozen.shape.width)) < 0).any()) == linear
