"""Summed codes of a stream of documents: no code is kept, and sums over parts add up.

Encoding with a large dictionary is what measuring a language model costs. Here a block of codes is
computed while it fits into the processor's cache, rectified, summed over its samples, and
overwritten by the next block.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from .entropy import effective_features
from .sae import SAE, slices

PRECISIONS = ("float32", "tf32", "bfloat16")
"""What codes are computed in; sums are single precision within a block, double beyond."""
CPU_BLOCK = (512, 1024)  # samples and codes of a block; about the size of a core's cache
GPU_BLOCK = (8192, 16_384)


def summed_codes(
    sae: SAE, x: Tensor, ends: Sequence[int] | None = None, *, precision: str = "float32"
) -> Tensor:
    """Codes summed over samples (the sums of paper section 3), without keeping the codes.

    Args:
        sae: autoencoders, of any architecture.
        x: activations for all members alike, `[samples, neurons]`.
        ends: rising places up to which the sums run; default all samples.
        precision: one of `PRECISIONS`; `tf32` matters on a GPU only, and `bfloat16` to
            autoencoders whose codes are not kept by rank.

    Returns:
        Sums over the samples before each end, `[members, ends, dictionary]`, double.

    Raises:
        ValueError: an unknown precision, activations of another shape, or ends that do not rise
            within the samples.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; allowed are {', '.join(PRECISIONS)}.")
    ends = [len(x)] if ends is None else list(ends)
    if ends != sorted(ends) or ends[:1] < [0] or ends[-1] > len(x):
        raise ValueError(f"ends are {ends}; they must rise from 0 to at most {len(x)} samples.")
    if x.ndim != 2:
        raise ValueError(f"activations have shape {tuple(x.shape)}; give [samples, neurons].")
    x = sae._inputs(x)
    found = x.new_zeros(sae.members, len(ends), sae.dictionary, dtype=torch.float64)
    with _precision(precision):
        for place, (first, last) in enumerate(zip([0, *ends], ends, strict=False)):
            for member in range(sae.members):
                if last > first:
                    _add(sae, member, x[member, first:last], found[member, place], precision)
    return found.cumsum(1)


def _add(sae: SAE, member: int, x: Tensor, total: Tensor, precision: str) -> None:
    """Add the summed codes of one member on prepared samples `[samples, neurons]`."""
    if sae.config.architecture == "topk":  # ranks need a sample's whole row
        one = sae.select([member])
        for rows in slices(x):
            total += one._codes(rows[None])[0].double().sum(0)
        return
    kind = torch.bfloat16 if precision == "bfloat16" else x.dtype
    samples, codes = CPU_BLOCK if x.device.type == "cpu" else GPU_BLOCK
    bias = sae.bias[member]
    if precision != "float32" and sae.offset is not None:  # take the mean off before rounding
        x, bias = x - sae.offset[member], bias + sae.encoder[member] @ sae.offset[member]
    weights, bias, rows = sae.encoder[member].to(kind), bias[:, None].to(kind), x.to(kind)
    silent = 0.0 if sae.threshold is None else float(sae.threshold[member])
    buffer = rows.new_empty(min(codes, sae.dictionary) * min(samples, len(rows)))
    for first in range(0, sae.dictionary, codes):
        own, shift = weights[first : first + codes], bias[first : first + codes]
        for part in slices(rows, samples):
            z = buffer[: len(own) * len(part)].view(len(own), len(part))
            torch.addmm(shift, own, part.T, out=z)
            z = z.relu_() if silent <= 0 else torch.threshold_(z, silent, 0.0)
            total[first : first + codes] += z.sum(1, dtype=torch.float32)


@contextmanager
def _precision(name: str) -> Iterator[None]:
    """TF32 for matrix products where asked for."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def points(last: int) -> list[int]:
    """Numbers of documents at which F is read off: 1, 2, 5, 10, ... and the last."""
    series = (m * 10**power for power in range(len(str(last))) for m in (1, 2, 5))
    return sorted({*(number for number in series if number < last), last})


@dataclass
class Magnitudes:
    """Summed codes of one autoencoder over documents, and F at points on the way."""

    sae: SAE
    """One member."""
    at: Sequence[int] = ()
    """Numbers of documents at which F is kept, rising."""
    precision: str = "float32"
    codes: Tensor = field(init=False)
    """Sums, `[dictionary]`, double, on the autoencoder's device."""
    documents: int = 0
    tokens: int = 0
    curve: dict[int, float] = field(default_factory=dict)
    """F after so many documents, nan while every code is zero."""

    def __post_init__(self) -> None:
        """Start at zero."""
        if self.sae.members != 1:
            raise ValueError(f"the SAE has {self.sae.members} members; sums are of one.")
        self.codes = self.sae.bias.new_zeros(self.sae.dictionary, dtype=torch.float64)

    def add(self, x: Tensor, lengths: Sequence[int]) -> None:
        """Add documents.

        Args:
            x: their activations, one document after the other, `[tokens, neurons]`.
            lengths: tokens of each.

        Raises:
            ValueError: lengths that do not add up, or an activation that is not finite.
        """
        ends = np.cumsum(lengths).tolist()
        if not ends or ends[-1] != len(x):
            raise ValueError(f"lengths add up to {ends[-1:]}, there are {len(x)} tokens.")
        if not bool(torch.isfinite(x).all()):
            raise ValueError("activations contain nan or infinity.")
        inside = [n for n in self.at if self.documents < n <= self.documents + len(lengths)]
        places = [ends[n - self.documents - 1] for n in inside]
        sums = summed_codes(self.sae, x, [*places, len(x)], precision=self.precision)[0]
        for number, reached in zip(inside, self.codes + sums[:-1], strict=True):
            self.curve[number] = features_or_nan(reached)
        self.codes += sums[-1]
        self.documents += len(lengths)
        self.tokens += len(x)


def features_or_nan(codes: Tensor) -> float:
    """F, or nan where every code is zero."""
    return effective_features(codes).item() if bool((codes > 0).any()) else math.nan


def packed(values: Tensor) -> str:
    """Single-precision numbers `[n]` as text (base64, little-endian)."""
    return base64.b64encode(values.cpu().numpy().astype("<f4").tobytes()).decode("ascii")


def unpacked(text: str) -> Tensor:
    """What `packed` wrote, double.

    Raises:
        ValueError: it did not write that.
    """
    values = np.frombuffer(base64.b64decode(text, validate=True), "<f4")
    return torch.from_numpy(values.astype(np.float64))
