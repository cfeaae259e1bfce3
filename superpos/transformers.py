"""Small transformers whose residual stream can be read (paper section 6.2).

No layer norm and no causal mask; an attention sublayer and then a ReLU sublayer in every layer.
Compiled RASP programs and networks trained from scratch are of this one class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import relu


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
        masked = padding(ids, self.shape)
        states = [x]
        for layer in range(self.shape.layers):
            weights = self.query[layer], self.key[layer], self.value[layer]
            x = x + attention(x, x, x, *weights, self.out[layer], masked)
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
