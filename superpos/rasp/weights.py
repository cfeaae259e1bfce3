"""The weights that carry out a plan.

Every value that an operation can take has a residual direction of its own, which is 1 where a
position holds the value and else 0. A selector becomes an attention head, a map becomes a lookup
table in a ReLU sublayer, and a count is read off the share of attention that goes to the token in
front of the sequence (BOS), which is always selected.
"""

from __future__ import annotations

import math
from collections import Counter

import torch
from torch import Tensor

from ..transformers import Shape, Transformer
from .language import Aggregate, Map, RaspError, SelectorWidth, Value, indices, tokens
from .plan import BOS, ONE, PAD, SHARE, Plan, table


def transformer(plan: Plan, sharpness: float) -> Transformer:
    """Weights of a planned program.

    Args:
        plan: where everything goes.
        sharpness: attention score of a selected position.

    Raises:
        RaspError: a predicate has no answer for some values.
    """
    heads = [node for node in plan.slots if isinstance(node, Aggregate | SelectorWidth)]
    tables = [node for node in plan.slots if isinstance(node, Map | SelectorWidth)]
    head_layers = Counter(_attention_slot(node, plan) // 2 for node in heads)
    units: Counter[int] = Counter()
    for node in tables:
        units[plan.slots[node] // 2] += _units(node, plan)
    shape = Shape(
        tokens=len(plan.values[tokens]) + 3,
        positions=plan.length + 1,
        width=len(plan.directions),
        layers=max(slot // 2 + 1 for slot in plan.slots.values()),
        heads=max(head_layers.values(), default=0),
        head=max((_axes(node, plan) for node in heads), default=0),
        hidden=max(units.values(), default=0),
        outputs=len(plan.values[plan.program]),
    )
    network = Transformer(shape, seed=0)
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
        _write_embedding(network, plan)
        for node in heads:
            layer = _attention_slot(node, plan) // 2
            head_layers[layer] -= 1
            _write_head(network, (layer, head_layers[layer]), node, plan, sharpness)
        for node in tables:
            layer = plan.slots[node] // 2
            units[layer] -= _units(node, plan)
            place = layer, slice(units[layer], units[layer] + _units(node, plan))
            write = _write_table if isinstance(node, Map) else _write_count
            write(network, place, node, plan)
        network.unembed[plan.at(plan.program), range(shape.outputs)] = 1.0
    return network


def _attention_slot(node: Aggregate | SelectorWidth, plan: Plan) -> int:
    return plan.slots[node] - isinstance(node, SelectorWidth)


def _axes(node: Aggregate | SelectorWidth, plan: Plan) -> int:
    """Axes that a head needs: one per query value and one for BOS, and one per fetched value."""
    queries = len(plan.values[node.selector.queries]) + 1
    return max(queries, len(plan.values[node]) if isinstance(node, Aggregate) else 1)


def _units(node: Map | SelectorWidth, plan: Plan) -> int:
    """Neurons that a lookup needs."""
    if isinstance(node, Map):
        return len(table(node, plan.values))
    return 2 * plan.length + 1


def _write_embedding(network: Transformer, plan: Plan) -> None:
    """Tokens and positions as single directions; an empty position has no token direction."""
    size = len(plan.values[tokens])
    network.token[range(size), plan.at(tokens)] = 1.0
    for row, name in ((size + 1, BOS), (size + 2, PAD)):
        network.token[row, plan.directions[f"{tokens.name}:{name}"]] = 1.0
    network.position[range(1, plan.length + 1), plan.at(indices)] = 1.0
    network.position[:, plan.directions[ONE]] = 1.0


def _write_head(
    network: Transformer,
    place: tuple[int, int],
    node: Aggregate | SelectorWidth,
    plan: Plan,
    sharpness: float,
) -> None:
    """A selector as queries and keys, with what it fetches.

    Axis v of a head is on in queries of value v and in keys that such a query selects. Another
    axis lets every query see BOS: as strongly as a selected position where positions are counted,
    half as strongly where BOS is there to fetch nothing from.
    """
    query, key, value, out = (
        weight[place] for weight in (network.query, network.key, network.value,
                                     network.out)
    )  # fmt: skip
    counts = isinstance(node, SelectorWidth)
    bos = plan.directions[f"{tokens.name}:{BOS}"]
    keys, queries = plan.values[node.selector.keys], plan.values[node.selector.queries]
    unit = math.sqrt(network.shape.head)  # attention divides scores by it
    query[plan.at(node.selector.queries), range(len(queries))] = unit
    query[plan.directions[ONE], len(queries)] = unit
    holds = [[_selects(node, own, asked) for asked in queries] for own in keys]
    key[plan.at(node.selector.keys), : len(queries)] = sharpness * torch.tensor(holds).float()
    key[bos, len(queries)] = sharpness if counts else sharpness / 2
    if counts:
        value[bos, 0] = 1.0
        out[0, plan.directions[f"{plan.names[node]}:{SHARE}"]] = 1.0
    else:
        axes = range(len(plan.values[node]))
        value[plan.at(node.values), axes] = 1.0
        out[axes, plan.at(node)] = 1.0


def _selects(node: Aggregate | SelectorWidth, key: Value, query: Value) -> bool:
    """Whether a selector's predicate holds for two values."""
    try:
        return bool(node.selector.predicate(key, query))
    except Exception as error:
        raise RaspError(
            f"the selector of '{node.name}' cannot compare key {key!r} with query {query!r}, "
            f"{type(error).__name__}: {error}; a predicate needs an answer for all values."
        ) from error


def _write_table(network: Transformer, place: tuple[int, slice], node: Map, plan: Plan) -> None:
    """One neuron per entry, on if all its inputs have the entry's values."""
    enter, bias, leave = _neurons(network, place)
    inputs = list(dict.fromkeys(node.inputs))
    spots = [dict(zip(plan.values[own], plan.at(own), strict=True)) for own in inputs]
    results = dict(zip(plan.values[node], plan.at(node), strict=True))
    for unit, (row, result) in enumerate(table(node, plan.values)):
        for spot, value in zip(spots, row, strict=True):
            enter[spot[value], unit] = 1.0
        leave[unit, results[result]] = 1.0
    bias[:] = 1.0 - len(inputs)


def _write_count(
    network: Transformer, place: tuple[int, slice], node: SelectorWidth, plan: Plan
) -> None:
    """From BOS's share of attention, 1 / (1 + count), to the count.

    Two neurons make a ramp from 0 to 1 around each threshold between neighboring shares. They are
    off where the query holds nothing; a last neuron is on where it holds something.
    """
    enter, bias, leave = _neurons(network, place)
    share = plan.directions[f"{plan.names[node]}:{SHARE}"]
    queries, counts = plan.at(node.selector.queries), plan.at(node)
    for count in range(plan.length):
        high, low = 1 / (1 + count), 1 / (2 + count)
        middle, steep = (high + low) / 2, 4 / (high - low)
        gate = steep * (1 - middle) + 0.5  # as large as any share could make a neuron
        for unit, shift, sign in ((2 * count, 0.5, 1.0), (2 * count + 1, -0.5, -1.0)):
            enter[share, unit] = steep
            enter[queries, unit] += gate
            bias[unit] = shift - steep * middle - gate
            leave[unit, counts[count]] += sign
            leave[unit, counts[count + 1]] -= sign
    enter[queries, 2 * plan.length] = 1.0
    leave[2 * plan.length, counts[-1]] = 1.0


def _neurons(network: Transformer, place: tuple[int, slice]) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of some neurons of a layer, for writing."""
    layer, units = place
    weights = network.enter[layer][:, units], network.bias[layer][units]
    return *weights, network.leave[layer][units]
