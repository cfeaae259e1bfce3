"""Squeeze a frozen transformer's residual stream into fewer neurons (paper section 6.2).

The matrix W of `Compressed` is fitted to what the frozen sublayers read: at every point of the
stream, the directions that are read there should come out of ReLU(W^T W s) as they are in the state
s. Where all of them do on all states, every sublayer sees and writes just what it does
uncompressed, so that the whole network is exact. Steep attention and thresholds stay out of this
objective, and few states are different: a batch holds them all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, relu

from .transformers import Transformer, attention, lookup, padding

RATE = 0.1  # Adam's, at first
START_SEEDS = 1_000_003  # starts of one seed are so far apart
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
        self._outputs = _outputs(frozen)
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
    return [*found, _outputs(frozen)]


def _outputs(frozen: Transformer) -> Tensor:
    """Directions that are read as output."""
    return frozen.unembed.any(1).nonzero()[:, 0]


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


class Read(NamedTuple):
    """What is read at one point of the stream."""

    states: Tensor
    """Different states of the uncompressed stream, `[states, directions]`."""
    weights: Tensor
    """How much each state counts, `[states]`, adding up to one."""
    directions: Tensor
    """The directions that are read, `[read]`."""


def reads(
    frozen: Transformer, ids: Tensor, present: Tensor, frequency: Tensor | None = None
) -> list[Read]:
    """What a transformer's sublayers and outputs read.

    Args:
        frozen: the uncompressed transformer.
        ids: inputs, `[inputs, positions]`.
        present: positions that count, `[inputs, positions]`.
        frequency: how often each input comes, `[inputs]`; a state then counts as often as it
            occurs. By default all different states count the same.

    Returns:
        One entry for each point at which anything is read.
    """
    found = []
    with torch.no_grad():
        points = frozen.points(ids)
    for state, directions in zip(points, directions_read(frozen), strict=True):
        if len(directions) == 0:
            continue
        state = state[present]
        # Attention leaks a little to what is not selected; states that differ by that are one.
        keys, place = (state * 1e3).round().unique(dim=0, return_inverse=True)
        counts = place.bincount().to(state)
        states = torch.zeros_like(keys).index_add_(0, place, state) / counts[:, None]
        weights = torch.ones(len(states), dtype=torch.float64, device=ids.device)
        if frequency is not None:
            each = frequency.double()[:, None].expand_as(present)[present]
            weights = torch.zeros_like(weights).scatter_add_(0, place, each)
        found.append(Read(states, (weights / weights.sum()).to(state), directions))
    return found


def read_error(matrix: Tensor, reads: Sequence[Read], *, linear: bool = False) -> Tensor:
    """Squared error of what is read, summed over directions and points, averaged over states.

    Args:
        matrix: W of every member, `[members, neurons, directions]`.
        reads: what should be read.
        linear: read without the ReLU.

    Returns:
        `[members]`.
    """
    total = matrix.new_zeros(len(matrix))
    for states, weights, directions in reads:
        seen = states @ matrix.mT @ matrix[:, :, directions]
        seen = seen if linear else relu(seen)
        total = total + (seen - states[:, directions]).square().sum(-1) @ weights
    return total


def compressed(
    frozen: Transformer,
    reads: Sequence[Read],
    neurons: int,
    *,
    seeds: Sequence[int],
    starts: int,
    steps: int,
    linear: bool = False,
) -> list[Compressed]:
    """Fit W for every seed; of several starts the one with the lowest error is kept.

    Args:
        frozen: the uncompressed transformer.
        reads: what it reads.
        neurons: width N of the compressed stream.
        seeds: one per member.
        starts: starts per seed, fitted together.
        steps: Adam steps on all states, the rate falling to zero along a cosine.
        linear: read without the ReLU.

    Returns:
        One network per seed.

    Raises:
        ValueError: there is not at least one neuron, seed and start.
    """
    if not seeds or starts < 1:
        raise ValueError(f"{len(seeds)} seeds and {starts} starts; give at least one of each.")
    networks = [
        Compressed(frozen, neurons, seed=START_SEEDS * seed + start, linear=linear)
        for seed in seeds
        for start in range(starts)
    ]
    matrix = torch.stack([network.matrix.detach() for network in networks]).requires_grad_()
    optimizer = torch.optim.Adam([matrix], lr=RATE)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.zero_grad()
        read_error(matrix, reads, linear=linear).sum().backward()
        optimizer.step()
    with torch.no_grad():
        errors = read_error(matrix, reads, linear=linear).view(len(seeds), starts)
        kept = errors.nan_to_num(nan=torch.inf).argmin(1).tolist()
        for seed, start in enumerate(kept):
            networks[seed * starts + start].matrix.copy_(matrix[seed * starts + start])
    return [networks[seed * starts + start] for seed, start in enumerate(kept)]
