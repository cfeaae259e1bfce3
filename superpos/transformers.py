"""Small transformers whose residual stream can be read, whole or compressed (paper section 6.2).

No layer norm and no causal mask; an attention sublayer and then a ReLU sublayer in every layer.
Compiled RASP programs and networks trained from scratch are of this one class. `Compressed` runs
a frozen one in a narrower residual stream.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, relu


@dataclass(frozen=True)
class Shape:
    """Sizes of a transformer."""

    tokens: int
    """Rows of the token embedding."""
    positions: int
    """Rows of the position embedding."""
    width: int
    """Residual directions or neurons."""
    layers: int
    heads: int
    head: int
    """Axes of a query, key or value."""
    hidden: int
    """Neurons of a ReLU sublayer."""
    outputs: int


class Transformer(nn.Module):
    """A transformer that reads token ids; `pad`, the last of them, is never attended to.

    Attributes:
        token, position: embeddings, `[tokens, width]` and `[positions, width]`.
        query, key, value: `[layers, heads, width, head]`.
        out: `[layers, heads, head, width]`.
        enter, bias, leave: of the ReLU sublayers, `[layers, width, hidden]`, `[layers, hidden]`
            and `[layers, hidden, width]`.
        unembed: `[width, outputs]`.
    """

    def __init__(self, shape: Shape, *, seed: int) -> None:
        """Draw weights of variance one over the number of inputs; biases are zero.

        Args:
            shape: sizes.
            seed: fixes the weights.
        """
        super().__init__()
        self.shape = shape
        generator = torch.Generator().manual_seed(seed)

        def drawn(*size: int, inputs: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(size, generator=generator) / math.sqrt(inputs))

        layers, heads, width, head = shape.layers, shape.heads, shape.width, shape.head
        self.token = drawn(shape.tokens, width, inputs=width)
        self.position = drawn(shape.positions, width, inputs=width)
        self.query = drawn(layers, heads, width, head, inputs=width)
        self.key = drawn(layers, heads, width, head, inputs=width)
        self.value = drawn(layers, heads, width, head, inputs=width)
        self.out = drawn(layers, heads, head, width, inputs=head)
        self.enter = drawn(layers, width, shape.hidden, inputs=width)
        self.bias = nn.Parameter(torch.zeros(layers, shape.hidden))
        self.leave = drawn(layers, shape.hidden, width, inputs=shape.hidden)
        self.unembed = drawn(width, shape.outputs, inputs=width)

    def forward(self, ids: Tensor) -> Tensor:
        """Outputs `[batch, positions, outputs]` for ids `[batch, positions]`."""
        return self.points(ids)[-1] @ self.unembed

    def points(self, ids: Tensor) -> list[Tensor]:
        """The residual stream wherever it is read.

        Args:
            ids: `[batch, positions]`.

        Returns:
            2 layers + 1 tensors `[batch, positions, width]`: before each sublayer and at the end.
            Every second one lies between layers.
        """
        x = self.token[ids] + self.position[: ids.shape[-1]]
        states = [x]
        for layer in range(self.shape.layers):
            weights = self.query[layer], self.key[layer], self.value[layer]
            x = x + attention(x, x, x, *weights, self.out[layer], padding(ids, self.shape))
            states.append(x)
            x = x + lookup(x, self.enter[layer], self.bias[layer], self.leave[layer])
            states.append(x)
        return states


def padding(ids: Tensor, shape: Shape) -> Tensor:
    """Which positions are padding, `[batch, positions]`: those with the last of the ids."""
    return ids == shape.tokens - 1


def attention(
    q: Tensor, k: Tensor, v: Tensor,
    query: Tensor, key: Tensor, value: Tensor, out: Tensor, masked: Tensor,
) -> Tensor:  # fmt: skip
    """What all heads of a layer write to the stream.

    Args:
        q, k, v: what queries, keys and values are made from, `[batch, positions, inputs]`.
        query, key, value: `[heads, inputs, head]`.
        out: `[heads, head, outputs]`.
        masked: positions that no query sees, `[batch, positions]`.

    Returns:
        `[batch, positions, outputs]`.
    """
    q, k, v = (_per_head(*pair) for pair in ((q, query), (k, key), (v, value)))
    scores = q @ k.mT / math.sqrt(query.shape[-1])
    scores = scores.masked_fill(masked[..., None, None, :], -torch.inf)
    fetched = (scores.softmax(-1) @ v).transpose(-3, -2).flatten(-2)
    return fetched @ out.flatten(0, 1)


def _per_head(x: Tensor, weight: Tensor) -> Tensor:
    """`[batch, heads, positions, head]` from `[batch, positions, inputs]`, as one product."""
    heads, _, head = weight.shape
    flat = x @ weight.transpose(0, 1).flatten(1)
    return flat.unflatten(-1, (heads, head)).transpose(-3, -2)


def lookup(x: Tensor, enter: Tensor, bias: Tensor, leave: Tensor) -> Tensor:
    """What a ReLU sublayer writes for inputs `[batch, positions, inputs]`."""
    return relu(x @ enter + bias) @ leave


ATTENTION = ("query", "key", "value", "out")
LOOKUP = ("enter", "bias", "leave")


class Compressed(nn.Module):
    """A frozen transformer whose M residual directions share N neurons (paper section 6.2).

    Everything that is written to the stream passes through W, and everything that is read from it
    passes back through its transpose: a sublayer f changes h to h + W f(ReLU(W^T h)).
    Only W is trained.

    Attributes:
        matrix: W, `[neurons, directions]`.
    """

    def __init__(
        self, frozen: Transformer, neurons: int, *, seed: int, linear: bool = False
    ) -> None:
        """Draw W, with columns of length one, so that every direction reads itself as 1.

        Args:
            frozen: the transformer, on the device and in the precision to compute in. Its weights
                are not trained.
            neurons: width N of the stream.
            seed: fixes the first W.
            linear: read W^T h without the ReLU (Lindner et al. 2023).

        Raises:
            ValueError: neurons is not positive.
        """
        super().__init__()
        if neurons < 1:
            raise ValueError(f"neurons is {neurons}; give at least 1.")
        directions = frozen.shape.width
        generator = torch.Generator().manual_seed(seed)
        drawn = normalize(torch.randn(neurons, directions, generator=generator), dim=0)
        self.matrix = nn.Parameter(drawn.to(frozen.token))
        self.linear = linear
        self._shape, self._layers = frozen.shape, _layers(frozen)
        self._token, self._position = frozen.token.detach(), frozen.position.detach()
        self._outputs = directions_read(frozen)[-1]
        self._unembed = frozen.unembed.detach()[self._outputs]

    def forward(self, ids: Tensor) -> Tensor:
        """Outputs `[batch, positions, outputs]` for ids `[batch, positions]`."""
        return self.read(self.points(ids)[-1], self._outputs) @ self._unembed

    def read(self, h: Tensor, directions: Tensor) -> Tensor:
        """Some directions of a state `[..., neurons]`, as a sublayer sees them."""
        seen = h @ self.matrix[:, directions]
        return seen if self.linear else relu(seen)

    def points(self, ids: Tensor) -> list[Tensor]:
        """The compressed stream wherever it is read.

        Args:
            ids: `[batch, positions]`.

        Returns:
            2 layers + 1 tensors `[batch, positions, neurons]`, as in `Transformer.points`.
        """
        token, position = self._token @ self.matrix.mT, self._position @ self.matrix.mT
        h = token[ids] + position[: ids.shape[-1]]
        masked = padding(ids, self._shape)
        states = [h]
        for layer in self._layers:
            if len(layer.writes["out"]):
                inputs = [self.read(h, layer.reads[name]) for name in ATTENTION[:3]]
                weights = [layer.weights[name] for name in ATTENTION]
                written = attention(*inputs, *weights, masked)
                h = h + written @ self.matrix[:, layer.writes["out"]].mT
            states.append(h)
            if len(layer.writes["leave"]):
                x = self.read(h, layer.reads["enter"])
                written = lookup(x, *(layer.weights[name] for name in LOOKUP))
                h = h + written @ self.matrix[:, layer.writes["leave"]].mT
            states.append(h)
        return states


def directions_read(frozen: Transformer) -> list[Tensor]:
    """Directions whose values matter at each of the stream's points, in rising order."""
    found = []
    for layer in _layers(frozen):
        reads = [layer.reads[name] for name in ATTENTION[:3]]
        found += [torch.cat(reads).unique(), layer.reads["enter"]]
    return [*found, frozen.unembed.any(1).nonzero()[:, 0]]


class _Layer(NamedTuple):
    """A frozen layer without its zeros."""

    weights: dict[str, Tensor]
    reads: dict[str, Tensor]
    """Directions that queries, keys, values and the ReLU sublayer read."""
    writes: dict[str, Tensor]
    """Directions that the two sublayers write."""


def _layers(frozen: Transformer) -> list[_Layer]:
    weights = {name: getattr(frozen, name).detach() for name in (*ATTENTION, *LOOKUP)}
    return [
        _trimmed({name: own[layer] for name, own in weights.items()})
        for layer in range(frozen.shape.layers)
    ]


def _trimmed(weights: dict[str, Tensor]) -> _Layer:
    """A layer's weights without directions that it leaves alone, and without idle neurons."""
    busy = weights["leave"].any(1)
    enter, leave = weights["enter"][:, busy], weights["leave"][busy]
    weights = weights | {"enter": enter, "bias": weights["bias"][busy], "leave": leave}
    reads = {name: weights[name].any(-1).any(0).nonzero()[:, 0] for name in ATTENTION[:3]}
    reads["enter"] = enter.any(1).nonzero()[:, 0]
    writes = {
        "out": weights["out"].any(0).any(0).nonzero()[:, 0],
        "leave": leave.any(0).nonzero()[:, 0],
    }
    for name in ATTENTION[:3]:
        weights[name] = weights[name][:, reads[name]]
    weights["out"] = weights["out"][..., writes["out"]]
    weights["enter"] = enter[reads["enter"]]
    weights["leave"] = leave[:, writes["leave"]]
    return _Layer(weights, reads, writes)
