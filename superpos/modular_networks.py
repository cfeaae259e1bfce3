"""Networks for modular arithmetic, kept at checkpoints all through training (paper section 6.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from .data import Modular
from .ensemble import Ensemble, train
from .learner import Order
from .networks import classification_loss

EARLY = 5  # one checkpoint in so many lies before the first even step


class TwoPathMLP(nn.Module):
    """One embedding for both operands, one linear path for each into a shared hidden layer."""

    def __init__(self, prime: int, embedding: int, hidden: int, *, seed: int) -> None:
        """Draw embeddings from a standard normal, other weights uniformly as torch does.

        Args:
            prime: residues, and outputs.
            embedding: axes of the embedding.
            hidden: neurons of the hidden layer.
            seed: fixes the weights.
        """
        super().__init__()
        self.embedding = nn.Embedding(prime, embedding)
        self.left, self.right = nn.Linear(embedding, hidden), nn.Linear(embedding, hidden)
        self.activation = nn.GELU()
        self.out = nn.Linear(hidden, prime, bias=False)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.embedding.weight.normal_(generator=generator)
            for layer in (self.left, self.right, self.out):
                bound = layer.in_features**-0.5
                for value in layer.parameters():
                    value.uniform_(-bound, bound, generator=generator)

    def pre(self, pairs: Tensor) -> Tensor:
        """Pre-activations of the hidden layer `[batch, hidden]` for pairs `[batch, 2]`."""
        first, second = self.embedding(pairs).unbind(-2)
        return self.left(first) + self.right(second)

    def forward(self, pairs: Tensor) -> Tensor:
        """Logits `[batch, prime]` for pairs of residues `[batch, 2]`."""
        return self.out(self.activation(self.pre(pairs)))


class Trajectory(NamedTuple):
    """Networks at their checkpoints; arrays are `[checkpoints, members]`."""

    steps: list[int]
    """Steps done at each checkpoint."""
    networks: list[list[TwoPathMLP]]
    """Networks by checkpoint, then by member."""
    train_loss: Tensor
    """Mean cross-entropy on the training pairs, in nats."""
    test_loss: Tensor
    """The same on the test pairs."""
    train_accuracy: Tensor
    """Share of training pairs whose largest logit is the answer."""
    test_accuracy: Tensor
    """The same for test pairs."""


def checkpoint_steps(steps: int, count: int) -> tuple[list[int], list[int]]:
    """When to keep a network: four fifths of the checkpoints evenly, one fifth before the second.

    Memorizing takes a small share of the steps, which even spacing would miss: the early ones rise
    by a constant factor from 10 on.

    Args:
        steps: length of training.
        count: number of checkpoints, at most; early ones that coincide count once.

    Returns:
        All checkpoints, and the evenly spaced ones among them, which begin with 0 and end with
        `steps`.

    Raises:
        ValueError: fewer than two checkpoints, or more than steps.
    """
    if count < 2 or steps < count - count // EARLY - 1:
        raise ValueError(
            f"{count} checkpoints of {steps} steps cannot be kept apart; give at least two "
            "checkpoints, and as many steps."
        )
    even = np.linspace(0, steps, count - count // EARLY).round().astype(int).tolist()
    early = np.geomspace(min(10, even[1]), even[1], count // EARLY, endpoint=False)
    return sorted({*even, *early.round().astype(int).tolist()}), even


def trained(
    data: Sequence[Modular],
    *,
    embedding: int,
    hidden: int,
    seeds: Sequence[int],
    checkpoints: Sequence[int],
    batch: int,
    rate: float,
    decay: float,
) -> Trajectory:
    """Train one network per seed, all together, and keep copies.

    Cross-entropy and Adam, with weight decay added to the gradient (not AdamW).

    Args:
        data: each network's own, of one prime, one number of training pairs and one device.
        embedding, hidden: sizes, as in `TwoPathMLP`.
        seeds: of weights and batches, one per network.
        checkpoints: rising numbers of steps after which to keep copies.
        batch: pairs per step; a remainder is left out of its pass over the training pairs.
        rate: Adam's learning rate.
        decay: weight decay.

    Raises:
        ValueError: seeds do not match the data.
    """
    if len(seeds) != len(data):
        raise ValueError(f"{len(seeds)} seeds for {len(data)} data sets; give one for each.")
    pairs, prime = data[0].pairs, int(data[0].pairs.max()) + 1
    answers, known = (torch.stack([getattr(own, n) for own in data]) for n in ("answers", "train"))
    ensemble = Ensemble(
        [
            TwoPathMLP(prime, embedding, hidden, seed=1_000_003 * seed).to(pairs.device)
            for seed in seeds
        ]
    )
    size = min(batch, known.shape[1])
    orders = [Order(1_000_003 * seed + 1, known.shape[1], size) for seed in seeds]

    def batches(step: int) -> tuple[Tensor, Tensor]:
        index = torch.stack([order.next() for order in orders]).to(pairs.device)
        chosen = known.gather(1, index)
        return pairs[chosen], answers.gather(1, chosen)

    optimizer = torch.optim.Adam(
        list(ensemble.parameters.values()), lr=rate, weight_decay=decay, fused=True
    )
    networks, judged, done = [], [], 0
    for step in checkpoints:
        train(
            ensemble, batches=batches, loss=classification_loss, optimizer=optimizer,
            schedule=lambda share: 1.0, steps=step - done,
        )  # fmt: skip
        done = step
        networks.append([ensemble.member(index) for index in range(len(data))])
        judged.append(_judged(ensemble, pairs, answers, known))
    columns = (torch.stack(column) for column in zip(*judged, strict=True))
    return Trajectory(list(checkpoints), networks, *columns)


def _judged(ensemble: Ensemble, pairs: Tensor, answers: Tensor, known: Tensor) -> list[Tensor]:
    """Losses on training and test pairs, then accuracies, each `[members]` on the CPU."""
    with torch.no_grad():
        logits = ensemble(pairs.expand(ensemble.members, *pairs.shape))
        losses = classification_loss(logits, answers)
        right = (logits.argmax(-1) == answers).to(losses.dtype)
    train_set = torch.zeros_like(right).scatter_(1, known, 1)
    test_set = 1 - train_set
    return [
        ((values * part).sum(1) / part.sum(1)).cpu()
        for values in (losses, right)
        for part in (train_set, test_set)
    ]
