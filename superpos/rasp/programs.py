"""RASP programs: the paper's two (section 6.2) and some more."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from .language import Aggregate, Map, Select, SelectorWidth, SOp, indices, tokens

OPEN, CLOSE = "(", ")"


def reversal() -> SOp:
    """The input backwards: position i gets the token of position length - i - 1."""
    length = SelectorWidth(Select(indices, indices, _always), name="length")
    opposite = (length - indices).named("opposite")
    mirror = (opposite - 1).named("mirror")
    return Aggregate(Select(indices, mirror, operator.eq), tokens, name="output")


def sorting(length: int) -> SOp:
    """Whole numbers in rising order, equal ones in the order in which they stand.

    Args:
        length: no input is longer. A key, token + index / length, is a number of its own at
            every position, so that duplicates find places of their own.

    Raises:
        ValueError: length is not positive.
    """
    if length < 1:
        raise ValueError(f"length is {length}; give at least 1.")
    keys = Map(lambda token, index: token + index / length, tokens, indices, name="key")
    return _placed(keys)


def sorting_distinct() -> SOp:
    """The input in rising order, if no token stands twice."""
    return _placed(tokens)


def histogram() -> SOp:
    """How often the token of a position stands in the input."""
    return SelectorWidth(Select(tokens, tokens, operator.eq), name="output")


def shifted_copy(by: int = 1) -> SOp:
    """The token so many positions before; nothing at the first positions."""
    before = Select(indices, indices, lambda key, query: key == query - by)
    return Aggregate(before, tokens, name="output")


def double_letter() -> SOp:
    """Whether any two neighbors are equal; the same answer at every position."""
    doubled = Map(operator.eq, tokens, shifted_copy().named("previous"), name="doubled")
    count = SelectorWidth(Select(doubled, indices, lambda key, _: key), name="doubles")
    return Map(lambda number: number > 0, count, name="output")


def balanced_brackets() -> SOp:
    """Whether the brackets "(" and ")" match; the same answer at every position.

    They do if no position has closed more than it opened, and the last one has closed all.
    """
    place = Map(lambda token, index: (token, index), tokens, indices, name="place")
    opened, closed = (
        SelectorWidth(Select(place, indices, _until(bracket)), name=name)
        for bracket, name in ((OPEN, "opened"), (CLOSE, "closed"))
    )
    depth = (opened - closed).named("depth")
    wrong = SelectorWidth(Select(depth, indices, lambda key, _: key < 0), name="wrong")
    length = SelectorWidth(Select(indices, indices, _always), name="length")
    last = (length - 1).named("last")
    final = Aggregate(Select(indices, last, operator.eq), depth, name="final")
    return Map(lambda bad, left: bad == 0 and left == 0, wrong, final, name="output")


def _placed(keys: SOp) -> SOp:
    """Every token at the position that so many smaller keys leave to it."""
    target = SelectorWidth(Select(keys, keys, operator.lt), name="target")
    return Aggregate(Select(target, indices, operator.eq), tokens, name="output")


def _always(key: Any, query: Any) -> bool:
    return True


def _until(bracket: str) -> Callable[[tuple[str, int], int], bool]:
    return lambda key, query: key[0] == bracket and key[1] <= query
