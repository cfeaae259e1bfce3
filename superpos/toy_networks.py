"""Toy models of superposition, all of them trained at once (paper section 5.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from .data import nonempty_toy_features
from .entropy import superposition, weight_features

BATCH = 256  # samples per training step
RATE = 1e-2  # Adam's, falling to zero along a cosine
CHECKPOINTS = 12  # of psi along training, spaced evenly in the logarithm of the steps


@dataclass
class ToyModels:
    """Trained toy models."""

    weights: torch.Tensor
    """W, `[members, neurons, features]`."""
    biases: torch.Tensor
    """b, `[members, features]`."""
    path: list[tuple[int, list[float]]]
    """psi of W of every member after so many steps."""


def train_toy_models(
    sparsities: torch.Tensor,
    *,
    features: int,
    neurons: int,
    decay: float,
    steps: int,
    seed: int,
) -> ToyModels:
    """Train toy models on all sparsities at once (paper section 5.1).

    The loss is the expectation of sum_i decay^i (f_i - f'_i)^2. Sparse models see empty samples
    nearly always, so the empty sample enters exactly, weighted by its probability, and batches
    hold samples that are not empty. Gradients are written out; members share the draws.

    Args:
        sparsities: probability that a feature is zero, `[members]`, in [0, 1).
        features: M.
        neurons: N.
        decay: importance of feature i is decay ** i.
        steps: Adam steps.
        seed: fixes weights and draws; members start from the same weights.

    Returns:
        The models, on the device of `sparsities`.
    """
    device, members = sparsities.device, len(sparsities)
    generator = torch.Generator(device).manual_seed(seed)
    bound = math.sqrt(6 / (neurons + features))
    start = torch.rand(neurons, features, generator=torch.Generator().manual_seed(seed))
    weights = ((2 * start - 1) * bound).to(device).repeat(members, 1, 1)
    biases = torch.zeros(members, features, device=device)
    importance = decay ** torch.arange(features, device=device)
    empty = sparsities.double() ** features
    odds = (empty / (1 - empty)).float().unsqueeze(1)  # of an empty sample
    state = [(p, torch.zeros_like(p), torch.zeros_like(p)) for p in (weights, biases)]
    marks = {round(x) for x in np.geomspace(1, max(1, steps), CHECKPOINTS)} | {0}
    path = []

    def mark(step: int) -> None:
        if step in marks:
            path.append((step, superposition(weight_features(weights), neurons).tolist()))

    for step in range(steps):
        mark(step)
        f = nonempty_toy_features(BATCH, features, sparsities, generator=generator)
        x = torch.bmm(f, weights.mT)
        output = torch.baddbmm(biases.unsqueeze(1), x, weights).relu_()
        error = (output - f).mul_(2 * importance / BATCH).mul_(output > 0)
        through = torch.bmm(torch.bmm(error, weights.mT).mT, f)
        gradients = (
            torch.bmm(x.mT, error).add_(through),
            error.sum(1) + 2 * odds * importance * biases.relu(),
        )
        rate = RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
        for (parameter, first, second), gradient in zip(state, gradients, strict=True):
            first.lerp_(gradient, 0.1)
            second.lerp_(gradient.square(), 0.001)
            size = (second / (1 - 0.999 ** (step + 1))).sqrt_().add_(1e-12)
            parameter.sub_(first / size, alpha=rate / (1 - 0.9 ** (step + 1)))
    mark(steps)
    return ToyModels(weights, biases, path)
