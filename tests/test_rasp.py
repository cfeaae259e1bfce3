"""RASP programs in the interpreter, against plain Python."""

import operator
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from superpos.rasp import (
    Aggregate,
    Map,
    RaspError,
    Select,
    SelectorWidth,
    balanced_brackets,
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

ALL = Select(indices, indices, lambda key, query: True)


def blank(element):
    """Inputs of up to nine tokens, some of them empty."""
    return st.lists(st.one_of(st.none(), element), max_size=9)


def closed_in_order(word):
    """Whether brackets match, by a stack."""
    stack = []
    for token in word:
        if token == "(":
            stack.append(token)
        elif token == ")":
            if not stack:
                return False
            stack.pop()
    return not stack


@given(blank(st.integers()))
def test_reversal_gives_the_input_backwards(word):
    assert evaluate(reversal(), word) == word[::-1]


@given(blank(st.integers(-5, 5)))
def test_sorting_puts_tokens_in_order_and_empty_positions_last(word):
    present = [token for token in word if token is not None]
    expected = sorted(present) + [None] * (len(word) - len(present))
    assert evaluate(sorting(9), word) == expected


@given(st.lists(st.sampled_from([1, 1.0, 2, 2.0, 3]), max_size=9))
def test_sorting_leaves_equal_tokens_in_their_order(word):
    assert list(map(repr, evaluate(sorting(9), word))) == list(map(repr, sorted(word)))


@given(st.lists(st.integers(), max_size=9, unique=True))
def test_different_tokens_are_sorted_without_position_keys(word):
    assert evaluate(sorting_distinct(), word) == sorted(word)


@given(blank(st.sampled_from("abc")))
def test_histogram_counts_each_token(word):
    counts = Counter(word)
    expected = [None if token is None else counts[token] for token in word]
    assert evaluate(histogram(), word) == expected


@given(blank(st.sampled_from("abc")), st.integers(1, 10))
def test_a_shifted_copy_begins_with_nothing(word, by):
    assert evaluate(shifted_copy(by), word) == ([None] * by + word)[: len(word)]


@given(blank(st.sampled_from("abc")))
def test_double_letters_are_equal_neighbors(word):
    found = any(left == right and left is not None for left, right in pairwise(word))
    assert evaluate(double_letter(), word) == [found] * len(word)


@given(blank(st.sampled_from("()")))
def test_brackets_balance_where_a_stack_closes_them_all(word):
    assert evaluate(balanced_brackets(), word) == [closed_in_order(word)] * len(word)


@given(st.lists(st.integers(-5, 5), max_size=9))
def test_a_predicate_takes_the_key_first_and_the_query_second(word):
    ranks = rankdata(word, method="min") - 1
    assert evaluate(SelectorWidth(Select(tokens, tokens, operator.lt)), word) == ranks.tolist()


@given(st.lists(st.integers(0, 8), min_size=9, max_size=9))
def test_an_aggregate_fetches_values_from_where_its_queries_point(word):
    fetch = Aggregate(Select(indices, tokens, operator.eq), tokens * 10)
    assert evaluate(fetch, word) == [10 * word[place] for place in word]


@given(st.lists(st.integers(-9, 9), max_size=9), st.integers(-9, 9))
def test_arithmetic_takes_sequences_and_constants(word, number):
    program = (tokens - indices) * (tokens + number) - number * 2
    expected = [(token - i) * (token + number) - number * 2 for i, token in enumerate(word)]
    assert evaluate(program, word) == expected


def test_a_map_may_take_the_same_sequence_twice():
    assert evaluate(Map(operator.sub, tokens, tokens), [3, None, 5]) == [0, None, 0]


def test_a_function_is_asked_once_per_position_however_often_its_sequence_is_read():
    asked = []
    shared = Map(lambda token: asked.append(token) or token + 1, tokens)
    assert evaluate(shared + shared * shared, [1, 2]) == [6, 12]
    assert asked == [1, 2]


def test_functions_and_predicates_never_see_an_empty_position():
    seen = []
    program = SelectorWidth(
        Select(tokens, tokens + 1, lambda key, query: seen.extend((key, query)) or True)
    )
    assert evaluate(program, [1, None, 5]) == [2, None, 2]
    assert set(seen) == {1, 2, 5, 6}
    assert evaluate(Map(lambda *values: 0, indices, tokens), [1, None]) == [0, None]


def test_a_function_may_leave_a_position_empty():
    evens = Map(lambda token: token if token % 2 == 0 else None, tokens)
    assert evaluate(evens + 1, [1, 2, 3, 4]) == [None, 3, None, 5]


def test_an_aggregate_is_empty_where_nothing_or_only_nothing_is_selected():
    first = Select(indices, tokens, lambda key, query: key == 0 and query > 0)
    assert evaluate(Aggregate(first, indices + 7), [1, 0, None, 1]) == [7, None, None, 7]
    assert evaluate(Aggregate(first, tokens), [None, 1]) == [None, None]


def test_equal_values_have_a_mean():
    assert evaluate(Aggregate(ALL, tokens), ["a", "a", "a"]) == ["a", "a", "a"]


@pytest.mark.parametrize(
    ("word", "values"), [("aab", "'a' and 'b'"), (["b", None], "'b' and None")]
)
def test_an_aggregate_of_different_values_is_refused_with_the_values(word, values):
    with pytest.raises(RaspError, match=f"'mean' selects {values} at once"):
        evaluate(Aggregate(ALL, tokens, name="mean"), word)


def test_different_values_are_refused_even_where_their_mean_is_never_read():
    mixed = Aggregate(ALL, tokens)
    with pytest.raises(RaspError, match="select positions of equal values"):
        evaluate(Map(lambda value: 0, mixed), "ab")


@pytest.mark.parametrize("program", [reversal(), sorting(3), histogram(), balanced_brackets()])
def test_an_empty_input_gives_an_empty_output(program):
    assert evaluate(program, []) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Map(abs), "'map' is a map without an input; give at least one"),
        (lambda: Map(abs, ALL, name="size"), "input 1 of 'size' is Select, not a sequence"),
        (lambda: Map(max, tokens, 3), "input 2 of 'map' is int, not a sequence; give tokens"),
        (lambda: Select(ALL, tokens, operator.eq), "the keys of a selector is Select"),
        (lambda: Select(tokens, "abc", operator.eq), "the queries of a selector is str"),
        (lambda: Aggregate(ALL, ALL, name="mean"), "the values of 'mean' is Select"),
        (lambda: Aggregate(tokens, tokens), "'aggregate' needs a Select to choose positions"),
        (lambda: SelectorWidth(indices, name="size"), "'size' needs a Select to choose"),
        (lambda: tokens.named("input"), "'tokens' has its name already"),
        (lambda: indices.named("input"), "'indices' has its name already"),
        (lambda: evaluate(ALL, "abc"), "the program is Select, not a sequence"),
    ],
)
def test_malformed_programs_are_refused_by_name(make, message):
    with pytest.raises(RaspError, match=message):
        make()


@pytest.mark.parametrize("make", [lambda: tokens + 1, histogram, shifted_copy])
def test_a_name_changes_nothing_else(make):
    program = make()
    renamed = program.named("other")
    assert (renamed.name, type(renamed)) == ("other", type(program))
    assert program.name != "other"
    assert evaluate(renamed, [1, 2, 2]) == evaluate(program, [1, 2, 2])
