"""RASP, a language for what a transformer can compute (Weiss et al. 2021), and its interpreter.

A program is an expression over sequences. Its leaves are `tokens` and `indices`; `Map` applies a
function at every position, `Select` compares keys with queries, `Aggregate` fetches values from
the selected positions and `SelectorWidth` counts them.

A position may hold nothing, which is written None: nothing in, nothing out. A function never sees
None, no comparison holds for it, and counting for a query of None gives None.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

Value = Hashable | None
"""What a position holds; None is nothing."""


class RaspError(ValueError):
    """A program that means nothing on an input, or that no transformer can be compiled to."""


class SOp:
    """A sequence operation: from an input to one value per position.

    `+`, `-` and `*` with another sequence or a constant make a `Map`.
    """

    name: str

    def named(self, name: str) -> Any:
        """The same operation under a name, which its residual directions carry.

        Raises:
            RaspError: it is `tokens` or `indices`.
        """
        if not parents(self):
            raise RaspError(f"'{self.name}' has its name already; name what is made from it.")
        return replace(self, name=name)

    def __add__(self, other: Any) -> Map:
        """Add a sequence or a constant at every position."""
        return _arithmetic(operator.add, self, other)

    def __sub__(self, other: Any) -> Map:
        """Subtract a sequence or a constant at every position."""
        return _arithmetic(operator.sub, self, other)

    def __mul__(self, other: Any) -> Map:
        """Multiply with a sequence or a constant at every position."""
        return _arithmetic(operator.mul, self, other)


@dataclass(frozen=True, eq=False)
class _Leaf(SOp):
    """What every program begins with."""

    name: str


tokens = _Leaf("tokens")
"""The input itself."""
indices = _Leaf("indices")
"""Positions 0, 1, 2, ..."""


@dataclass(frozen=True, eq=False)
class Map(SOp):
    """A function of the values that one or more sequences have at the same position."""

    function: Callable[..., Value]
    inputs: tuple[SOp, ...]
    name: str = "map"

    def __init__(self, function: Callable[..., Value], *inputs: SOp, name: str = "map") -> None:
        """Apply `function` to the values of `inputs`.

        Raises:
            RaspError: there is no input, or one is not a sequence.
        """
        if not inputs:
            raise RaspError(f"'{name}' is a map without an input; give at least one sequence.")
        for number, value in enumerate(inputs, start=1):
            _check_sequence(value, f"input {number} of '{name}'")
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "inputs", inputs)
        object.__setattr__(self, "name", name)

    def named(self, name: str) -> Map:
        """The same map under a name, which its residual directions carry."""
        return Map(self.function, *self.inputs, name=name)


@dataclass(frozen=True, eq=False)
class Select:
    """For every query position, the key positions for which a predicate holds.

    Attributes:
        keys: what is looked at.
        queries: what it is compared with.
        predicate: from a key's and a query's value to whether the key is selected, such as
            `operator.eq` or `operator.lt`.
    """

    keys: SOp
    queries: SOp
    predicate: Callable[[Any, Any], bool]

    def __post_init__(self) -> None:
        """Keys and queries are sequences."""
        _check_sequence(self.keys, "the keys of a selector")
        _check_sequence(self.queries, "the queries of a selector")


@dataclass(frozen=True, eq=False)
class Aggregate(SOp):
    """The value at the selected positions; None where nothing is selected.

    RASP averages the values; here they must be equal, so that the average is one of them.
    """

    selector: Select
    values: SOp
    name: str = "aggregate"

    def __post_init__(self) -> None:
        """A selector and a sequence."""
        _check_selector(self.selector, self.name)
        _check_sequence(self.values, f"the values of '{self.name}'")


@dataclass(frozen=True, eq=False)
class SelectorWidth(SOp):
    """The number of selected positions."""

    selector: Select
    name: str = "width"

    def __post_init__(self) -> None:
        """A selector."""
        _check_selector(self.selector, self.name)


def parents(program: SOp) -> tuple[SOp, ...]:
    """The sequences that an operation reads."""
    if isinstance(program, Map):
        return program.inputs
    if isinstance(program, Aggregate):
        return program.selector.keys, program.selector.queries, program.values
    if isinstance(program, SelectorWidth):
        return program.selector.keys, program.selector.queries
    return ()


def evaluate(program: SOp, inputs: Sequence[Value]) -> list[Value]:
    """Interpret a program.

    Args:
        program: the last operation.
        inputs: tokens, one per position; None is an empty position.

    Returns:
        One value per position.

    Raises:
        RaspError: the program is not a sequence, or an aggregate selects different values.
    """
    _check_sequence(program, "the program")
    known: dict[int, list[Value]] = {}

    def values(node: SOp) -> list[Value]:
        if id(node) not in known:
            known[id(node)] = _step(node, list(inputs), [values(own) for own in parents(node)])
        return known[id(node)]

    return values(program)


def _step(node: SOp, inputs: list[Value], known: list[list[Value]]) -> list[Value]:
    """One operation, given the values of what it reads."""
    if node is tokens:
        return inputs
    if node is indices:
        return list(range(len(inputs)))
    if isinstance(node, Map):
        rows = zip(*known, strict=True)
        return [None if None in row else node.function(*row) for row in rows]
    keys, queries, *values = known
    chosen = [_selected(node.selector, keys, query) for query in queries]
    if isinstance(node, SelectorWidth):
        return [
            None if query is None else len(places)
            for query, places in zip(queries, chosen, strict=True)
        ]
    return [_common(node, [values[0][place] for place in places]) for places in chosen]


def _selected(selector: Select, keys: list[Value], query: Value) -> list[int]:
    """Positions of the keys that are selected for one query."""
    if query is None:
        return []
    return [
        place
        for place, key in enumerate(keys)
        if key is not None and selector.predicate(key, query)
    ]


def _common(node: Aggregate, values: list[Value]) -> Value:
    """The one value that all selected positions hold."""
    if not values:
        return None
    for value in values:
        if value != values[0]:
            raise RaspError(
                f"'{node.name}' selects {values[0]!r} and {value!r} at once, and their mean is "
                "neither; select positions of equal values."
            )
    return values[0]


def _arithmetic(function: Callable[[Any, Any], Any], left: SOp, right: Any) -> Map:
    if isinstance(right, SOp):
        return Map(function, left, right)
    return Map(lambda value: function(value, right), left)


def _check_sequence(value: Any, what: str) -> None:
    if not isinstance(value, SOp):
        raise RaspError(
            f"{what} is {type(value).__name__}, not a sequence; give tokens, indices, a Map, an "
            "Aggregate or a SelectorWidth."
        )


def _check_selector(value: Any, name: str) -> None:
    if not isinstance(value, Select):
        raise RaspError(f"'{name}' needs a Select to choose positions, not {value!r}.")
