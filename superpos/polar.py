"""Orthogonalized matrices, the direction in which the solver steps a dictionary."""

from __future__ import annotations

import torch

# An odd polynomial a s + b s^3 + c s^5 that, applied a few times, pulls singular values near one.
POLYNOMIAL, TIMES = (3.4445, -4.7750, 2.0315), 5


def orthogonalized(matrix: torch.Tensor) -> torch.Tensor:
    """Nearest matrices with equal singular values, approximately: the polar factor U V^T.

    The Newton-Schulz polynomial of Jordan et al. (2024) acts on the smaller Gram matrix, so that
    a tall dictionary costs two tall products however often it is applied.

    Args:
        matrix: `[members, rows, columns]`.

    Returns:
        The same shape and singular vectors. Singular values of at least a hundredth of the
        Frobenius norm end between 0.65 and 1.2; zero stays zero.
    """
    if matrix.shape[-2] < matrix.shape[-1]:
        return orthogonalized(matrix.mT).mT
    matrix = matrix / matrix.abs().amax((-2, -1), keepdim=True).clamp_min(1e-30)
    matrix = matrix / (matrix.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = POLYNOMIAL
    gram = torch.bmm(matrix.mT, matrix)
    product = None
    for left in reversed(range(TIMES)):
        factor = torch.bmm(gram, gram).mul_(c).add_(gram, alpha=b)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        product = factor if product is None else torch.bmm(product, factor)
        if left:
            gram = torch.bmm(factor, torch.bmm(gram, factor))
    return torch.bmm(matrix, product)
