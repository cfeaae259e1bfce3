"""Where a compiled program's values, sublayers and residual directions go."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection
from typing import NamedTuple

from .language import (
    Aggregate,
    Map,
    RaspError,
    SelectorWidth,
    SOp,
    Value,
    indices,
    parents,
    tokens,
)

BOS, PAD, ONE, SHARE = "bos", "pad", "one", "share"
"""The token in front, the token behind, what is always on, and BOS's share of attention."""
MOST_DIRECTIONS = 2000
"""A program that needs more residual directions is refused."""
MOST_ENTRIES = 20_000
"""A map whose lookup table needs more entries is refused."""


class Plan(NamedTuple):
    """What goes where."""

    program: SOp
    length: int
    values: dict[SOp, list[Value]]
    """The values that every operation can take, in order of computation."""
    names: dict[SOp, str]
    slots: dict[SOp, int]
    """The sublayer that computes an operation; even for attention, odd for a lookup."""
    directions: dict[str, int]
    """Residual directions by name."""

    @property
    def shares(self) -> set[str]:
        """Names of the directions that hold BOS's share of attention."""
        counts = [name for node, name in self.names.items() if isinstance(node, SelectorWidth)]
        return {f"{name}:{SHARE}" for name in counts}

    def at(self, node: SOp) -> list[int]:
        """Residual directions of an operation's values."""
        return [self.directions[f"{self.names[node]}:{value}"] for value in self.values[node]]


def planned(program: SOp, vocabulary: tuple[Value, ...], length: int) -> Plan:
    """Lay out a program.

    Args:
        program: the last operation.
        vocabulary: tokens that inputs may hold.
        length: positions of the longest input.

    Raises:
        RaspError: it is no sequence operation, a map has no value for some or for all inputs, or
            its values are too many or written alike.
    """
    values: dict[SOp, list[Value]] = {tokens: list(vocabulary), indices: list(range(length))}
    slots: dict[SOp, int] = {tokens: -1, indices: -1}
    names: dict[SOp, str] = {tokens: tokens.name, indices: indices.name}
    for node in _in_order(program):
        if node not in values:
            values[node] = _values(node, values, length)
            slots[node] = _slot(node, max(slots[own] for own in parents(node)))
            names[node] = _unused(node.name, names.values())
    directions = [f"{names[tokens]}:{value}" for value in (*vocabulary, BOS, PAD)]
    directions += [f"{names[indices]}:{value}" for value in range(length)] + [ONE]
    for node in list(values)[2:]:
        directions += [f"{names[node]}:{value}" for value in values[node]]
        if isinstance(node, SelectorWidth):
            directions.append(f"{names[node]}:{SHARE}")
    if len(directions) > MOST_DIRECTIONS:
        raise RaspError(
            f"the program needs {len(directions)} residual directions, more than "
            f"{MOST_DIRECTIONS}; use a smaller vocabulary or length, or maps with fewer values."
        )
    places = {name: place for place, name in enumerate(directions)}
    if len(places) < len(directions):
        twice = next(name for name in places if directions.count(name) > 1)
        raise RaspError(
            f"two residual directions would be called '{twice}'; give values that are written "
            f"differently, and no token '{BOS}' or '{PAD}'."
        )
    return Plan(program, length, values, names, slots, places)


def _in_order(program: SOp) -> list[SOp]:
    """The operations of a program, each after those that it reads."""
    if not isinstance(program, SOp):
        raise RaspError(f"a {type(program).__name__} is not a program; give a sequence operation.")
    found: dict[SOp, None] = {}

    def visit(node: SOp) -> None:
        if node not in found:
            for own in parents(node):
                visit(own)
            found[node] = None

    visit(program)
    return list(found)


def _values(node: SOp, values: dict[SOp, list[Value]], length: int) -> list[Value]:
    """Every value that an operation can take, apart from None."""
    if isinstance(node, SelectorWidth):
        return list(range(length + 1))
    if isinstance(node, Aggregate):
        return values[node.values]
    found = dict.fromkeys(value for _, value in table(node, values))
    if not found:
        raise RaspError(f"'{node.name}' is None for all values of its inputs; give it a value.")
    try:
        return sorted(found)
    except TypeError:
        return list(found)


def table(node: Map, values: dict[SOp, list[Value]]) -> list[tuple[tuple[Value, ...], Value]]:
    """A map's lookup table: values of its different inputs, and the result if it is not None."""
    inputs = list(dict.fromkeys(node.inputs))
    entries = math.prod(len(values[own]) for own in inputs)
    if entries > MOST_ENTRIES:
        raise RaspError(
            f"'{node.name}' needs a lookup table of {entries} entries, more than {MOST_ENTRIES}; "
            "give its inputs fewer values."
        )
    table = []
    for row in itertools.product(*(values[own] for own in inputs)):
        arguments = [row[inputs.index(own)] for own in node.inputs]
        try:
            value = node.function(*arguments)
            hash(value)
        except Exception as error:
            shown = ", ".join(map(repr, arguments))
            raise RaspError(
                f"'{node.name}' has no value for ({shown}), {type(error).__name__}: {error}; a "
                "map needs a hashable value, or None, for all values of its inputs."
            ) from error
        if value is not None:
            table.append((row, value))
    return table


def _slot(node: SOp, after: int) -> int:
    """The first sublayer of the right kind after what the operation reads; a count's last one."""
    if isinstance(node, Map):
        return after + 1 if after % 2 == 0 else after + 2
    attention = after + 1 if after % 2 else after + 2
    return attention + 1 if isinstance(node, SelectorWidth) else attention


def _unused(name: str, taken: Collection[str]) -> str:
    numbered = (name if number == 1 else f"{name}_{number}" for number in itertools.count(1))
    return next(own for own in numbered if own not in taken)
