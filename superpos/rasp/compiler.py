"""From RASP programs to transformer weights, in the manner of Tracr (Lindner et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..transformers import Transformer, padding
from .language import RaspError, SOp, Value, evaluate
from .plan import Plan, planned
from .weights import transformer

MOST_CHECKED = 20_000
"""If there are more inputs of full length, a compiled network is checked on so many random ones."""


class Compiled(NamedTuple):
    """A program as a transformer."""

    program: SOp
    vocabulary: tuple[Value, ...]
    """Tokens that inputs may hold."""
    length: int
    """Positions of the longest input."""
    directions: tuple[str, ...]
    """Names of the residual directions, an operation's name and a value joined by a colon."""
    outputs: tuple[Value, ...]
    """Values that the program may give, in the order of the transformer's outputs."""
    transformer: Transformer

    def __call__(self, inputs: Sequence[Value]) -> list[Value]:
        """Run the network on one input.

        Where the interpreter refuses an input with empty positions, the answer means nothing.

        Args:
            inputs: tokens, one per position; None is an empty position.

        Returns:
            One value per position, None where no output is on.

        Raises:
            ValueError: the input is longer than compiled for, or a token is unknown.
        """
        with torch.no_grad():
            found = classes(self.transformer(self.ids([inputs])))[0, 1 : len(inputs) + 1]
        return [None if own < 0 else self.outputs[own] for own in found.tolist()]

    def ids(self, inputs: Sequence[Sequence[Value]]) -> Tensor:
        """Token ids of inputs, BOS in front, padded to the longest.

        Args:
            inputs: sequences of tokens; None is an empty position.

        Returns:
            `[inputs, positions]`, on the transformer's device.

        Raises:
            ValueError: an input is longer than compiled for, or a token is unknown.
        """
        size = len(self.vocabulary)
        known = {token: number for number, token in enumerate((*self.vocabulary, None))}
        longest = max((len(own) for own in inputs), default=0)
        rows = []
        for own in inputs:
            if len(own) > self.length:
                raise ValueError(
                    f"an input has {len(own)} tokens, and the network was compiled for at most "
                    f"{self.length}; compile the program with a greater length."
                )
            for place, token in enumerate(own):
                if token not in known:
                    allowed = ", ".join(map(repr, self.vocabulary))
                    raise ValueError(
                        f"token {token!r} at position {place} is unknown; allowed are {allowed}, "
                        "and None for an empty position."
                    )
            padding = [size + 2] * (longest - len(own))
            rows.append([size + 1, *(known[token] for token in own), *padding])
        device = self.transformer.token.device
        return torch.tensor(rows, dtype=torch.long, device=device).reshape(len(rows), longest + 1)

    def every_input(self, *, empty: bool = False) -> Tensor:
        """Ids of all inputs, `[inputs, length + 1]`, short ones first.

        Args:
            empty: also those with empty positions.
        """
        size, device = len(self.vocabulary), self.transformer.token.device
        parts = []
        for length in range(1, self.length + 1):
            grid = torch.cartesian_prod(*[torch.arange(size + empty)] * length).reshape(-1, length)
            part = torch.full((len(grid), self.length + 1), size + 2)
            part[:, 0], part[:, 1 : length + 1] = size + 1, grid
            parts.append(part)
        return torch.cat(parts).to(device)


def classes(outputs: Tensor) -> Tensor:
    """The output that is on at every position, -1 where none is.

    Args:
        outputs: `[..., outputs]`.

    Returns:
        `[...]`, int64.
    """
    most, place = outputs.max(-1)
    return torch.where(most > 0.5, place, -1)


def compiled(
    program: SOp,
    vocabulary: Sequence[Value],
    length: int,
    *,
    sharpness: float = 100.0,
    device: torch.device | str = "cpu",
) -> Compiled:
    """Compile a program.

    Args:
        program: the last operation.
        vocabulary: tokens that inputs may hold.
        length: positions of the longest input.
        sharpness: attention score of a selected position against others; BOS has as much where it
            is counted with, and half of it where it stands for "nothing is selected".
        device: where the weights live.

    Returns:
        The network and the names of its residual directions.

    Raises:
        RaspError: the program cannot be compiled; says why.
        ValueError: the vocabulary is empty, repeats a token or holds None, or length is not
            positive.
    """
    vocabulary = tuple(vocabulary)
    if not vocabulary or len(set(vocabulary)) < len(vocabulary) or None in vocabulary:
        raise ValueError(f"the vocabulary is {vocabulary}; give different tokens other than None.")
    if length < 1:
        raise ValueError(f"length is {length}; give at least 1.")
    plan = planned(program, vocabulary, length)
    weights = transformer(plan, sharpness).requires_grad_(False).to(device)
    names, outputs = tuple(plan.directions), tuple(plan.values[program])
    network = Compiled(program, vocabulary, length, names, outputs, weights)
    _check(network, plan)
    return network


def _check(network: Compiled, plan: Plan) -> None:
    """Refuse a program whose aggregates mix values.

    Raises:
        RaspError: some direction is neither 0 nor 1 on some input.
    """
    exact = [number for name, number in plan.directions.items() if name not in plan.shares]
    for ids in _sample(network).split(256):
        with torch.no_grad():
            final = network.transformer.points(ids)[-1][..., exact]
        off = ((final - final.round()).abs() > 0.01).any(-1)
        off &= ~padding(ids, network.transformer.shape)
        if not bool(off.any()):
            continue
        row = ids[off.any(-1)][0, 1:].tolist()
        inputs = [network.vocabulary[own] for own in row if own < len(network.vocabulary)]
        try:
            evaluate(network.program, inputs)
        except RaspError as error:
            raise RaspError(f"for the input {inputs}, {error}") from None
        raise RaspError(
            f"the compiled network is not exact for the input {inputs}; raise the sharpness."
        )


def _sample(network: Compiled) -> Tensor:
    """Ids of all inputs, or of `MOST_CHECKED` random ones if there are more."""
    size, length = len(network.vocabulary), network.length
    if size**length <= MOST_CHECKED:
        return network.every_input()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(size, (MOST_CHECKED, length + 1), generator=generator)
    lengths = torch.randint(1, length + 1, (MOST_CHECKED, 1), generator=generator)
    ids = torch.where(torch.arange(length + 1) > lengths, size + 2, ids)
    ids[:, 0] = size + 1
    return ids.to(network.transformer.token.device)
