"""Arithmetic modulo a prime: all pairs of residues, some to train on (paper section 6.3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..device import usable_device
from ..given import MOST, real, whole

MOST_PRIME = 10_000
"""The largest modulus: its hundred million pairs take gigabytes."""
OPERATIONS = {"add": "a + b", "subtract": "a - b", "multiply": "a * b"}
"""Operations by name, as formulas."""


class Modular(NamedTuple):
    """All pairs of residues in one order, and which of them are trained on."""

    pairs: Tensor
    """a and b, `[prime ** 2, 2]`, int64; pair a * prime + b is (a, b)."""
    answers: Tensor
    """What is taught and asked, `[prime ** 2]`, int64."""
    train: Tensor
    """Indices of the training pairs, `[training pairs]`."""
    test: Tensor
    """Indices of all others."""


def modular(
    prime: int,
    operation: str = "add",
    *,
    train_fraction: float = 0.4,
    seed: int = 0,
    shuffled: bool = False,
    device: torch.device | str = "cpu",
) -> Modular:
    """All pairs (a, b) with `a` operation `b` modulo a prime, split at random.

    Args:
        prime: the modulus; residues are 0 to prime - 1.
        operation: one of `OPERATIONS`.
        train_fraction: share of the pairs that are trained on, between 0 and 1.
        seed: of the split, and of the shuffle.
        shuffled: give the training pairs each other's answers at random, so that there is nothing
            to learn from them but themselves. Test pairs keep their right answers.
        device: where the tensors live.

    Raises:
        ValueError: the modulus is not prime, there is no such operation, or the share leaves no
            pair to train on or none to test on.
    """
    check_prime(prime)
    device, seed = usable_device(device), whole("seed", seed, -MOST)
    if operation not in tuple(OPERATIONS):
        raise ValueError(f"operation is {operation!r}; allowed are {', '.join(OPERATIONS)}.")
    count = check_fraction(train_fraction, prime)
    residues = torch.arange(prime)
    pairs = torch.cartesian_prod(residues, residues)
    a, b = pairs.unbind(1)
    answers = {"add": a + b, "subtract": a - b, "multiply": a * b}[operation] % prime
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(pairs), generator=generator)
    train, test = order[:count], order[count:]
    if shuffled:
        answers[train] = answers[train[torch.randperm(count, generator=generator)]]
    return Modular(*(part.to(device) for part in (pairs, answers, train, test)))


def check_prime(prime: int) -> None:
    """Refuse a modulus that is not prime.

    Raises:
        ValueError: names the nearest primes.
    """
    prime = whole("prime", prime, -MOST, MOST_PRIME)
    if not is_prime(prime):
        below = next((n for n in range(prime - 1, 1, -1) if is_prime(n)), None)
        above = next(n for n in range(max(prime, 1) + 1, 2 * max(prime, 1) + 2) if is_prime(n))
        near = f"{below} or {above}" if below else str(above)
        raise ValueError(f"prime is {prime}, which is not a prime number; the nearest is {near}.")


def check_fraction(train_fraction: float, prime: int) -> int:
    """Number of training pairs.

    Raises:
        ValueError: the share is outside (0, 1), or leaves training or test without a pair.
    """
    total = prime**2
    allowed = "a number between 0 and 1, such as 0.4: some pairs must be left to test on"
    train_fraction = real("train_fraction", train_fraction, allowed, lambda share: 0 < share < 1)
    count = int(train_fraction * total)
    if count < 1:
        raise ValueError(
            f"train_fraction is {train_fraction}, which is less than one of {total} pairs; "
            f"give at least {2 / total:.2g}."
        )
    return count


def is_prime(number: int) -> bool:
    """Whether a whole number is prime, by trial division."""
    return number > 1 and all(number % n for n in range(2, int(number**0.5) + 1))
