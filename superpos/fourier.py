"""Fourier structure of networks that compute in a cyclic group (Nanda et al. 2023).

Addition modulo p is cyclic as it stands. So is multiplication, once zero is set aside and the
other residues are put in order of the powers of a generator.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .data.modular import check_prime


def cyclic_order(prime: int, operation: str) -> Tensor:
    """Residues in the order in which the operation is an addition of places.

    Args:
        prime: the modulus.
        operation: "multiply", or one that needs no new order.

    Returns:
        `[prime]`, or `[prime - 1]` without zero for "multiply".

    Raises:
        ValueError: the modulus is not prime.
    """
    check_prime(prime)
    if operation != "multiply":
        return torch.arange(prime)
    for generator in range(1, prime):
        powers = [1]
        while (following := powers[-1] * generator % prime) != 1:
            powers.append(following)
        if len(powers) == prime - 1:  # some residue generates all others
            break
    return torch.tensor(powers)


def embedding_power(embedding: Tensor, order: Tensor) -> Tensor:
    """Power of every frequency in an embedding, its mean set aside.

    Args:
        embedding: one row per residue, `[..., prime, axes]`.
        order: residues in cyclic order, `[size]`.

    Returns:
        Summed over axes and over sine and cosine, frequencies 1 to size // 2,
        `[..., size // 2]`, double.
    """
    waves = torch.fft.rfft(embedding[..., order.to(embedding.device), :].double(), dim=-2)
    power = 2 * waves.abs().square().sum(-1)[..., 1:]
    if len(order) % 2 == 0:
        power[..., -1] /= 2  # the highest frequency has no sine
    return power


def wave(embedding: Tensor, order: Tensor, frequency: int) -> Tensor:
    """Residues as an embedding places them in the plane of one frequency.

    Args:
        embedding: `[prime, axes]`.
        order: residues in cyclic order, `[size]`.
        frequency: 1 to size // 2.

    Returns:
        Coordinates of the residues in their order along the embedding's cosine and sine of the
        frequency, made orthogonal and of length one, `[size, 2]`, double.
    """
    rows = embedding[order.to(embedding.device)].double()
    rows = rows - rows.mean(0)
    angles = 2 * torch.pi * frequency * torch.arange(len(rows), device=rows.device) / len(rows)
    waves = torch.stack([angles.cos(), angles.sin()]).to(rows)
    axes, triangle = torch.linalg.qr((waves @ rows).T)
    plane = rows @ (axes * triangle.diagonal().sign())
    if 2 * frequency == len(rows):
        plane[:, 1] = 0  # the highest frequency has no sine
    return plane


def purity(values: Tensor, order: Tensor) -> Tensor:
    """Share of a function's power that belongs to its strongest frequency.

    A function of two residues has waves in either, and in both together; all those that
    take frequency 0 or plus or minus k in each belong to k. Its mean is set aside.

    Args:
        values: of all pairs (a, b) at a * prime + b, `[prime ** 2, functions]`.
        order: residues in cyclic order, `[size]`.

    Returns:
        `[functions]`, double, between 0 and 1; 0 for a function that does not vary.
    """
    prime = round(values.shape[0] ** 0.5)
    order = order.to(values.device)
    grid = values.double().T.reshape(-1, prime, prime)[:, order][:, :, order]
    power = torch.fft.fft2(grid).abs().square()
    power[:, 0, 0] = 0
    size = len(order)
    shares = []
    for k in range(1, size // 2 + 1):
        own = torch.tensor(sorted({0, k, size - k}), device=values.device)
        shares.append(power[:, own][:, :, own].sum((-2, -1)))
    total = power.sum((-2, -1))
    share = torch.stack(shares).amax(0) / total.clamp_min(1e-300)
    varies = total > 1e-20 * grid.square().sum((-2, -1)).clamp_min(1e-300) * size**2
    return share * varies
