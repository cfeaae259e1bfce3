"""What fitted dictionaries look like: which codes live, how alike their directions are, and how
many neurons carry each."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .entropy import effective_features
from .sae import SAE, slices


class Codes(NamedTuple):
    """What autoencoders do with activations, members first."""

    sums: Tensor
    """Codes summed over samples, `[members, dictionary]`, double."""
    active: Tensor
    """Codes that are on in an average sample, `[members]`."""
    explained: Tensor
    """Share of the activations' variance that is rebuilt, `[members]`; negative if the mean
    would rebuild more."""

    @property
    def living(self) -> Tensor:
        """Whether any sample activates a code, `[members, dictionary]`."""
        return self.sums > 0


def codes(sae: SAE, x: Tensor) -> Codes:
    """Sum up the codes of activations, one member and slice of samples at a time.

    Args:
        sae: autoencoders.
        x: `[samples, neurons]` or `[members, samples, neurons]`.

    Raises:
        ValueError: activations of another number of members.
    """
    if x.ndim == 3 and len(x) != sae.members:
        raise ValueError(f"activations have {len(x)} members, the SAE {sae.members}.")
    device = sae.encoder.device
    sums = torch.zeros(sae.members, sae.dictionary, dtype=torch.float64, device=device)
    active, error = (sums.new_zeros(sae.members) for _ in range(2))
    for member in range(sae.members):  # one after another: all their codes at once are large
        one = sae.select([member])
        for rows in slices(x if x.ndim == 2 else x[member : member + 1]):
            z = one.encode(rows)
            sums[member] += z.sum((0, 1)).double()
            active[member] += (z > 0).sum()
            error[member] += (one.decode(z) - rows).square_().sum().double()
    total = (x - x.mean(-2, keepdim=True)).double().square().sum((-2, -1))
    return Codes(sums, active / x.shape[-2], 1 - error / total)


def directions(sae: SAE) -> Tensor:
    """Unit rows of the decoder, `[members, dictionary, neurons]`; a row of zeros stays zero."""
    rows = sae.encoder if sae.decoder is None else sae.decoder
    return torch.nn.functional.normalize(rows, dim=-1)


def nearest_cosines(directions: Tensor, living: Tensor) -> list[Tensor]:
    """Cosine of every living direction with the nearest other living one.

    Codes that split one feature point nearly the same way, so that their cosine is near 1.

    Args:
        directions: unit vectors, `[members, dictionary, neurons]`.
        living: which count, `[members, dictionary]`.

    Returns:
        For each member, rising cosines `[living codes]`, empty with fewer than two.
    """
    found = []
    for rows, alive in zip(directions, living, strict=True):
        rows = rows[alive]
        cosines = rows @ rows.T
        cosines.fill_diagonal_(-2.0)
        empty = rows.new_empty(0)
        found.append(cosines.amax(1).sort().values if len(rows) > 1 else empty)
    return found


def neurons_per_direction(directions: Tensor) -> Tensor:
    """Number of neurons that carry a direction: exp(entropy) of its squared entries.

    A direction along one neuron has 1; one spread evenly over all N neurons has N. The paper
    explains its results on dropout by redundant encoding (section 6.1); this shows it.

    Args:
        directions: vectors that are not zero, `[..., neurons]`.

    Returns:
        `[...]`, double, between 1 and the number of neurons.

    Raises:
        DeadCodesError: a direction is zero.
    """
    return effective_features(directions.double().square())
