"""Sequence tasks that a compiled program defines, and training networks for them (section 6.2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .ensemble import Ensemble, train
from .rasp import Compiled, classes
from .transformers import padding

WARM_UP = 0.05  # share of the steps in which the rate rises


class Task(NamedTuple):
    """All inputs of a task, how often each comes, and what is right."""

    ids: Tensor
    """Token ids, `[inputs, positions]`; BOS comes first, padding last."""
    frequency: Tensor
    """How often each input comes, `[inputs]`, adding up to one."""
    answers: Tensor
    """The right output at every position, -1 where there is none, `[inputs, positions]`."""
    asked: Tensor
    """Positions of tokens, `[inputs, positions]`; not BOS and not padding."""
    present: Tensor
    """Positions that are not padding, `[inputs, positions]`."""


def task(compiled: Compiled, *, empty: float = 0.0) -> Task:
    """The task that a compiled program solves.

    All lengths come equally often. At every position stands any token, or with a probability
    nothing.

    Args:
        compiled: the program, which gives the answers.
        empty: probability that a position is empty.

    Returns:
        The task, on the program's device.

    Raises:
        ValueError: `empty` is outside [0, 1).
    """
    if not 0 <= empty < 1:
        raise ValueError(f"empty is {empty}; give a probability from 0 to below 1.")
    ids = compiled.every_input(empty=empty > 0)
    size = len(compiled.vocabulary)
    present = ~padding(ids, compiled.transformer.shape)
    asked = present & (ids <= size)
    lengths, holes = asked.sum(1), (ids == size).sum(1)
    token = ((1 - empty) / size) ** (lengths - holes).double()
    frequency = token * empty ** holes.double() / compiled.length
    with torch.no_grad():
        answers = torch.cat([classes(compiled.transformer(part)) for part in ids.split(512)])
    return Task(ids, frequency, answers.where(asked, -1), asked, present)


def accuracy(network: nn.Module, task: Task) -> float:
    """Share of tokens that a network gets right, inputs weighted by their frequency.

    Where the program has an answer, the largest output must be the right one. Where it has none,
    because a position is empty, no output may exceed one half; the lower of the two shares counts.

    Args:
        network: from ids to outputs `[inputs, positions, outputs]`.
        task: the task.
    """
    with torch.no_grad():
        outputs = torch.cat([network(part) for part in task.ids.split(512)])
    most, place = outputs.max(-1)
    answered, silent = task.asked & (task.answers >= 0), task.asked & (task.answers < 0)
    shares = [
        _weighted(right, where, task.frequency)
        for right, where in ((place == task.answers, answered), (most <= 0.5, silent))
        if bool(where.any())
    ]
    return min(shares)


def _weighted(right: Tensor, where: Tensor, frequency: Tensor) -> float:
    weights = where * frequency[:, None]
    return ((right * weights).sum() / weights.sum()).item()


def answer_loss(outputs: Tensor, answers: Tensor) -> Tensor:
    """Cross-entropy of every member's inputs, averaged over the positions that have an answer.

    Positions without one do not count: nothing teaches a network to be silent there.

    Args:
        outputs: `[members, batch, positions, outputs]`.
        answers: `[members, batch, positions]`.

    Returns:
        `[members, batch]`.
    """
    losses = cross_entropy(
        outputs.movedim(-1, 1), answers.clamp_min(0), reduction="none"
    )  # `[members, batch, positions]`
    asked = answers >= 0
    return (losses * asked).sum(-1) / asked.sum(-1).clamp_min(1)


def indicator_loss(outputs: Tensor, answers: Tensor) -> Tensor:
    """Squared distance of outputs from the answers as ones and zeros; shapes as `answer_loss`."""
    wanted = torch.nn.functional.one_hot(answers.clamp_min(0), outputs.shape[-1])
    asked = answers >= 0
    losses = (outputs - wanted).square().sum(-1)
    return (losses * asked).sum(-1) / asked.sum(-1).clamp_min(1)


def trained(
    networks: Sequence[nn.Module],
    task: Task,
    *,
    loss: Callable[[Tensor, Tensor], Tensor],
    seeds: Sequence[int],
    steps: int,
    batch: int,
    rate: float,
) -> list[nn.Module]:
    """Train networks together, each on its own stream of inputs, with Adam.

    The rate rises over the first steps and falls to zero along a cosine.

    Args:
        networks: of one architecture, on the task's device.
        task: what they learn.
        loss: `answer_loss` or `indicator_loss`.
        seeds: one per network; fixes its inputs.
        steps: number of steps.
        batch: inputs per step.
        rate: Adam's highest learning rate.

    Returns:
        The trained networks; those given are left as they are.
    """
    ensemble = Ensemble(networks)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    frequency = task.frequency.cpu()

    def batches(step: int) -> tuple[Tensor, Tensor]:
        drawn = [
            torch.multinomial(frequency, batch, replacement=True, generator=own)
            for own in generators
        ]
        index = torch.stack(drawn).to(task.ids.device)
        return task.ids[index], task.answers[index]

    def schedule(done: float) -> float:
        return min(1.0, (done + 1 / steps) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * done))

    train(
        ensemble,
        batches=batches,
        loss=loss,
        optimizer=torch.optim.Adam(list(ensemble.parameters.values()), lr=rate),
        schedule=schedule,
        steps=steps,
    )
    return [ensemble.member(index) for index in range(len(networks))]
