"""Squeeze a frozen transformer's residual stream into fewer neurons (paper section 6.2).

The matrix W of `superpos.transformers.Compressed` is fitted to what the frozen sublayers read: at
every point of the stream, the directions that are read there should come out of ReLU(W^T W s) as
they are in the state s. Where all of them do on all states, every sublayer sees and writes
just what it does uncompressed, so that the whole network is exact. Unlike the network's outputs,
this objective has a useful gradient everywhere, and few states are different: a batch holds them
all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import relu

from .transformers import Compressed, Transformer, directions_read

RATE = 0.1  # Adam's, at first
START_SEEDS = 1_000_003  # starts of one seed are so far apart


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
