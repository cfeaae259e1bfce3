"""Compiled RASP programs: transformers that do what the interpreter does."""

import operator
import random
from collections import Counter
from functools import cache
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superpos.rasp import (
    Aggregate,
    Map,
    RaspError,
    Select,
    SelectorWidth,
    balanced_brackets,
    classes,
    compiled,
    double_letter,
    evaluate,
    histogram,
    indices,
    reversal,
    shifted_copy,
    sorting,
    sorting_distinct,
    tokens,
)
from superpos.rasp.language import parents

ALL = Select(indices, indices, lambda key, query: True)
FIVE = (1, 2, 3, 4, 5)


def words(vocabulary, length):
    """All inputs, short ones first."""
    return [list(word) for n in range(1, length + 1) for word in product(vocabulary, repeat=n)]


def outputs(network, inputs):
    """What a network gives for every input, all computed in one batch."""
    with torch.no_grad():
        found = classes(network.transformer(network.ids(inputs))).tolist()
    return [
        [None if own < 0 else network.outputs[own] for own in row[1 : len(word) + 1]]
        for word, row in zip(inputs, found, strict=True)
    ]


def operations(program):
    """Tokens, indices and the operations of a program, by name."""
    found = {"tokens": tokens, "indices": indices, program.name: program}
    for own in parents(program):
        found |= operations(own)
    return found


PROGRAMS = [
    (reversal(), FIVE, 5),
    (reversal(), "a", 3),
    (reversal(), "ab", 1),
    (sorting(5), FIVE, 5),
    (sorting(1), FIVE, 1),
    (sorting_distinct(), FIVE, 5),
    (histogram(), "abc", 5),
    (shifted_copy(), "abc", 5),
    (shifted_copy(3), "abc", 5),
    (double_letter(), "abc", 5),
    (balanced_brackets(), "()", 8),
    (tokens, "abc", 2),
    (indices, "ab", 3),
    (tokens + tokens, FIVE, 3),
]


@pytest.mark.parametrize(("program", "vocabulary", "length"), PROGRAMS)
def test_networks_do_what_the_interpreter_does_on_every_input(program, vocabulary, length):
    network, inputs = compiled(program, vocabulary, length), words(vocabulary, length)
    assert torch.equal(network.every_input(), network.ids(inputs))
    assert outputs(network, inputs) == [evaluate(program, word) for word in inputs]


@pytest.mark.parametrize(
    ("program", "vocabulary", "length"),
    [(own, vocabulary[:3], min(length, 4)) for own, vocabulary, length in PROGRAMS],
)
def test_directions_are_on_exactly_where_operations_have_their_values(program, vocabulary, length):
    network, inputs = compiled(program, vocabulary, length), words((*vocabulary, None), length)
    with torch.no_grad():
        final = network.transformer.points(network.ids(inputs))[-1]
    place_of = {name: place for place, name in enumerate(network.directions)}
    expected = torch.zeros_like(final)
    expected[..., place_of["one"]] = expected[:, 0, place_of["tokens:bos"]] = 1
    for name, operation in operations(program).items():
        counts = isinstance(operation, SelectorWidth)
        for row, word in enumerate(inputs):
            for place, value in enumerate([None, *evaluate(operation, word)]):
                if place and value is not None:
                    expected[row, place, place_of[f"{name}:{value}"]] = 1
                if counts:
                    expected[row, place, place_of[f"{name}:share"]] = 1 / (1 + (value or 0))
    for row, word in enumerate(inputs):
        used = slice(len(word) + 1)
        torch.testing.assert_close(final[row, used], expected[row, used], rtol=0, atol=1e-4)


LARGER = {
    "reversal": (reversal(), tuple(range(14)), 4),
    "sorting": (sorting(4), tuple(range(-5, 6)), 4),
    "different": (sorting_distinct(), tuple(range(10)), 4),
    "histogram": (histogram(), tuple("abcdefghijkl"), 4),
    "shift": (shifted_copy(2), tuple("abcdefghijkl"), 4),
    "double": (double_letter(), tuple("abcdefgh"), 4),
    "brackets": (balanced_brackets(), tuple("()"), 9),
    "sampled": (reversal(), tuple(range(9)), 6),  # more inputs than are checked on compiling
}


@cache
def larger(name):
    return compiled(*LARGER[name])


@pytest.mark.parametrize("name", LARGER)
@settings(max_examples=25)
@given(data=st.data())
def test_networks_do_what_the_interpreter_does_on_larger_inputs_with_blanks(name, data):
    program, vocabulary, length = LARGER[name]
    token = st.sampled_from((*vocabulary, None))
    inputs = data.draw(st.lists(st.lists(token, max_size=length), min_size=1, max_size=20))
    if name == "different":
        inputs = [list(dict.fromkeys(word)) for word in inputs]
    assert outputs(larger(name), inputs) == [evaluate(program, word) for word in inputs]


def test_blanks_of_an_input_come_last_when_it_is_sorted():
    network = compiled(sorting(5), FIVE, 5)
    assert network([4, None, 2, None, 4]) == [2, 4, 4, None, None]
    assert network([]) == []


# Random programs. Functions and predicates have an answer for everything, so that a program can
# only be refused because an aggregate mixes values, or because a map never gives one.


def scrambled(seed, results):
    """A function without a pattern."""

    @cache
    def function(*arguments):
        return random.Random(f"{seed} {arguments}").choice(results)

    return function


PREDICATES = [
    operator.eq,
    lambda key, query: str(key) < str(query),
    lambda key, query: True,
    lambda key, query: False,
]


@st.composite
def programs(draw):
    """A few operations, each reading any of the last three, tokens or indices."""
    nodes = [tokens, indices]
    seeds = st.integers(0, 999)
    for _ in range(draw(st.integers(1, 7))):
        node = st.sampled_from((*nodes[2:][-3:], tokens, indices))
        kind = draw(st.sampled_from(["map", "fetch", "count", "aggregate"]))
        if kind == "map":
            results = draw(st.lists(st.sampled_from([0, 1, 2, "a", None]), min_size=1))
            inputs = draw(st.lists(node, min_size=1, max_size=2))
            nodes.append(Map(scrambled(draw(seeds), results), *inputs))
            continue
        predicate = draw(st.sampled_from([*PREDICATES, scrambled(draw(seeds), [True, False])]))
        keys = indices if kind == "fetch" else draw(node)
        predicate = operator.eq if kind == "fetch" else predicate
        selector = Select(keys, draw(node), predicate)
        nodes.append(
            SelectorWidth(selector) if kind == "count" else Aggregate(selector, draw(node))
        )
    return nodes[-1]


def interpreted(program, word):
    """The interpreter's values, or the error."""
    try:
        return evaluate(program, word)
    except RaspError as error:
        return error


@settings(max_examples=300)
@given(
    program=programs(),
    vocabulary=st.sampled_from([(0, 1), ("a", "b"), (2, "a", "b")]),
    length=st.integers(1, 3),
)
def test_random_programs_are_compiled_exactly_or_refused_rightly(program, vocabulary, length):
    wrong = [
        word
        for word in words(vocabulary, length)
        if isinstance(interpreted(program, word), RaspError)
    ]
    try:
        network = compiled(program, vocabulary, length)
    except RaspError as error:
        if "is None for all values" not in str(error):
            assert any(f"for the input {word}, '" in str(error) for word in wrong)
        return
    assert not wrong
    inputs = [
        word
        for word in words((*vocabulary, None), length)
        if isinstance(interpreted(program, word), list)
    ]
    assert outputs(network, inputs) == [evaluate(program, word) for word in inputs]


@pytest.mark.parametrize(
    ("program", "vocabulary", "length", "directions", "layers"),
    [
        (reversal(), 5, 5, 45, 4),
        (reversal(), 3, 3, 29, 4),
        (reversal(), 3, 4, 35, 4),
        (reversal(), 3, 5, 41, 4),
        (reversal(), 4, 5, 43, 4),
        (sorting(5), 5, 5, 50, 3),
        (sorting(3), 3, 3, 26, 3),
        (sorting(5), 3, 5, 36, 3),
        (sorting_distinct(), 5, 5, 25, 2),
    ],
)
def test_networks_have_the_sizes_that_tracr_gives_them(
    program, vocabulary, length, directions, layers
):
    network = compiled(program, range(1, vocabulary + 1), length)
    assert len(network.directions) == network.transformer.shape.width == directions
    assert network.transformer.shape.layers == layers
    assert network.outputs == tuple(range(1, vocabulary + 1))


@pytest.mark.parametrize(
    ("program", "hidden", "counts"),
    [
        (reversal(), 30, {"length": 7, "opposite": 10, "mirror": 10}),
        (sorting(5), 25, {"key": 25, "target": 7}),
    ],
)
def test_every_operation_has_a_direction_for_each_of_its_values(program, hidden, counts):
    network = compiled(program, FIVE, 5)
    common = {"tokens": 7, "indices": 5, "one": 1, "output": 5}
    assert Counter(name.split(":")[0] for name in network.directions) == common | counts
    assert (network.transformer.shape.heads, network.transformer.shape.hidden) == (1, hidden)


def test_operations_of_one_name_have_directions_of_their_own():
    program = (indices + 1).named("next") + (indices + 2).named("next") + (tokens * 3)
    network = compiled(program, (0, 1), 2)
    assert len(set(network.directions)) == len(network.directions)
    heads = list(dict.fromkeys(name.split(":")[0] for name in network.directions))
    assert heads == ["tokens", "indices", "one", "next", "next_2", "map", "map_2", "map_3"]
    shadow = compiled((tokens + 1).named("tokens"), (0, 1), 2)
    assert shadow.directions[-2:] == ("tokens_2:1", "tokens_2:2")
    assert shadow([1, 0]) == [2, 1]


def test_weights_are_frozen_and_empty_values_have_no_direction():
    network = compiled(Map(lambda token: token if token > 1 else None, tokens), (1, 2), 2)
    assert network.directions[-1] == "map:2" and network.outputs == (2,)
    assert network([1, 2]) == [None, 2]
    assert not any(weight.requires_grad for weight in network.transformer.parameters())


@cache
def reversed_digits():
    return compiled(reversal(), FIVE, 5)


@given(st.lists(st.lists(st.sampled_from((*FIVE, None)), max_size=5), min_size=1, max_size=8))
def test_a_padded_batch_gives_what_each_input_gives_alone(inputs):
    network = reversed_digits()
    assert outputs(network, inputs) == [network(word) for word in inputs]
    ids = network.ids(inputs)
    longest = max(map(len, inputs))
    assert ids.shape == (len(inputs), longest + 1)
    number = {token: place for place, token in enumerate((*FIVE, None))}
    for row, word in zip(ids.tolist(), inputs, strict=True):
        assert row == [6, *map(number.get, word), *[7] * (longest - len(word))]


def test_an_output_is_a_class_only_where_one_is_on():
    given = torch.tensor([[[0.0, 1.0], [0.4, 0.2]], [[0.9, 0.1], [0.0, 0.0]]])
    assert classes(given).tolist() == [[1, -1], [0, -1]]


def mixed(values):
    return Aggregate(ALL, values, name="mean")


@pytest.mark.parametrize("vocabulary", ["ab", range(30)])
def test_a_program_that_mixes_values_is_refused_with_an_input_that_shows_it(vocabulary):
    with pytest.raises(RaspError, match=r"for the input \[.+\], 'mean' selects") as caught:
        compiled(mixed(tokens), vocabulary, 4)
    word = [token for token in vocabulary if repr(token) in str(caught.value).split("]")[0]]
    with pytest.raises(RaspError, match="'mean' selects"):
        evaluate(mixed(tokens), word)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (Map(lambda value: 0, mixed(tokens)), r"for the input \['.', '.'.*\], 'mean' selects"),
        (mixed(shifted_copy()), r"for the input \['.', '.'.*\], 'mean' selects None and '.'"),
        (
            Map(lambda token, index: 6 // (index - 1), tokens, indices, name="ratio"),
            r"'ratio' has no value for \('a', 1\), ZeroDivisionError: .*; a map needs",
        ),
        (Map(lambda token: [token], tokens, name="box"), r"'box' has no value for \('a'\), TypeE"),
        (Map(lambda token: None, tokens, name="void"), "'void' is None for all values"),
        (
            SelectorWidth(Select(tokens, indices, operator.lt), name="less"),
            "the selector of 'less' cannot compare key 'a' with query 0, TypeError",
        ),
        (
            Map(lambda *_: 0, *[indices + number for number in range(15)], name="all"),
            "'all' needs a lookup table of 14348907 entries, more than 20000",
        ),
        (
            Map(lambda *own: own, *[indices + number for number in range(7)]),
            "the program needs 2216 residual directions, more than 2000; use a smaller",
        ),
        (Map(lambda token: {"a": 1, "b": "1"}[token], tokens), "would be called 'map:1'"),
        (ALL, "a Select is not a program; give a sequence operation"),
        (operator.eq, "is not a program"),
    ],
)
def test_programs_that_cannot_be_compiled_are_refused_with_a_reason(program, message):
    with pytest.raises(RaspError, match=message):
        compiled(program, "ab", 3)


@pytest.mark.parametrize(
    ("vocabulary", "name"),
    [((1, "1"), "tokens:1"), (("bos", "a"), "tokens:bos"), (("a", "pad"), "tokens:pad")],
)
def test_tokens_that_are_written_alike_are_refused(vocabulary, name):
    with pytest.raises(RaspError, match=f"two residual directions would be called '{name}'; give"):
        compiled(histogram(), vocabulary, 2)


@pytest.mark.parametrize("vocabulary", ["", "aba", (1, True), ("a", None)])
def test_a_vocabulary_holds_different_tokens(vocabulary):
    with pytest.raises(ValueError, match=r"the vocabulary is .*; give different tokens other than"):
        compiled(histogram(), vocabulary, 2)


@pytest.mark.parametrize("length", [0, -1])
def test_an_input_has_at_least_one_position(length):
    with pytest.raises(ValueError, match=f"length is {length}; give at least 1"):
        compiled(histogram(), "ab", length)


def test_inputs_that_a_network_was_not_compiled_for_are_refused_with_what_is_allowed():
    network = compiled(histogram(), "ab", 2)
    with pytest.raises(ValueError, match=r"an input has 3 tokens, .* compiled for at most 2; comp"):
        network("aba")
    message = "token 'c' at position 1 is unknown; allowed are 'a', 'b', and None for an empty"
    with pytest.raises(ValueError, match=message):
        network.ids(["ab", "ac"])
    assert network.ids([]).shape == (0, 1) and network.ids([""]).tolist() == [[3]]


def test_attention_too_soft_to_be_exact_is_refused():
    with pytest.raises(RaspError, match=r"not exact for the input \[.*\]"):
        compiled(reversal(), "ab", 5, sharpness=5)
    assert compiled(reversal(), "ab", 5, sharpness=20)("abbab") == list("babba")


def test_many_inputs_are_checked_by_a_sample(monkeypatch):
    count = SelectorWidth(Select(tokens, indices, lambda key, query: key == "b"))
    mixed_once = mixed(Map(lambda number, index: index * (number == 6), count, indices))
    with pytest.raises(RaspError, match=r"for the input \['b', 'b', 'b', 'b', 'b', 'b'\], 'mean'"):
        compiled(mixed_once, "ab", 6)
    monkeypatch.setattr("superpos.rasp.compiler.MOST_CHECKED", 3)
    assert compiled(mixed_once, "ab", 6)("bbabbb") == [0] * 6
    with pytest.raises(RaspError, match="'mean' selects"):
        compiled(mixed(indices), "ab", 6)
