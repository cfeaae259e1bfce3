"""Sparse autoencoders, batched over a leading members axis.

Four architectures share one set of formulas: `tied` and `untied` ReLU autoencoders with an l1
penalty, and `topk` and `batchtopk`, which keep a fixed number of codes instead. All arrays carry
members first: `[members, samples, neurons]` for activations, `[members, samples, dictionary]`
for codes. `superpos.solver.fit` trains them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

ARCHITECTURES = ("tied", "untied", "topk", "batchtopk")
"""`tied`: z = ReLU(W x + b), x' = W^T z (paper section 3). `untied`: own decoder with unit rows and
an output bias. `topk` (Gao et al. 2024): untied, only the k largest codes of a sample, no l1.
`batchtopk` (Bussmann et al. 2024): the k times batch largest codes of a batch, no l1."""

BY_RANK = ("topk", "batchtopk")
"""The architectures that keep codes by rank; they have k in place of l1."""

ROWS = 4096  # samples encoded at once where a whole data set is read


@dataclass(frozen=True)
class SAEConfig:
    """What is fitted, and how long the solver may try.

    Measures of different layers compare only under one configuration (paper section 4).
    """

    architecture: str = "tied"
    """One of `ARCHITECTURES`."""
    expansion: float = 4.0
    """Dictionary size over number of neurons; the paper uses 4, and 8 for toy models."""
    l1: float = 0.1
    """Weight of the mean magnitude of all code elements against the mean squared error."""
    k: int | None = None
    """Codes kept per sample by `topk` and `batchtopk`; None takes a quarter of the neurons."""
    normalize: bool = False
    """Divide activations by their root mean square first. This changes the measure."""
    starts: int | None = None
    """Independent starts, the best of which goes on; None takes 8 up to 48 neurons, 4 up
    to 96, and 1 beyond."""
    steps: int | None = None
    """Steps of one round of the solver; None takes 1,000 + 28 per neuron, at most 6,000 with
    batches of 128 (up to 256 neurons), fewer with larger ones."""
    rounds: int = 6
    """Rounds at most; the solver stops earlier when a round changes nothing."""
    tolerance: float = 0.01
    """Converged when a whole round changes the loss and F by less than this share."""

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if self.architecture not in ARCHITECTURES:
            allowed = ", ".join(ARCHITECTURES)
            raise ValueError(f"architecture is {self.architecture!r}; allowed are {allowed}.")
        for name in ("expansion", "tolerance"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; give a positive number.")
        if not 0 <= self.l1 < math.inf:
            raise ValueError(f"l1 is {self.l1}; give a number that is zero or more.")
        for name in ("k", "starts", "steps", "rounds"):
            value = getattr(self, name)
            if value is not None and (value < 1 or value != int(value)):
                raise ValueError(f"{name} is {value}; give a whole number of at least 1.")

    @property
    def sparse_by_rank(self) -> bool:
        """Whether codes are kept by rank (topk, batchtopk) rather than by an l1 penalty."""
        return self.architecture in BY_RANK

    def dictionary(self, neurons: int) -> int:
        """Dictionary size for a layer of this many neurons, at least one."""
        return max(1, round(self.expansion * neurons))

    def kept(self, neurons: int) -> int:
        """Number of codes kept per sample by topk and batchtopk.

        Raises:
            ValueError: k is larger than the dictionary.
        """
        k = self.k if self.k is not None else max(1, neurons // 4)
        if k > self.dictionary(neurons):
            size = self.dictionary(neurons)
            raise ValueError(f"k is {k}, but the dictionary has only {size} codes; lower k.")
        return k


@dataclass(eq=False)
class SAE:
    """Trained autoencoders of one configuration, one per member."""

    config: SAEConfig
    """What was fitted."""
    encoder: torch.Tensor
    """`[members, dictionary, neurons]`; for `tied` the decoder too."""
    bias: torch.Tensor
    """Encoder bias, `[members, dictionary]`."""
    decoder: torch.Tensor | None = None
    """`[members, dictionary, neurons]`, with unit rows if `fit` made it; None for `tied`."""
    offset: torch.Tensor | None = None
    """Output bias, `[members, neurons]`; None for `tied`."""
    threshold: torch.Tensor | None = None
    """`batchtopk` only: pre-activations at or below it are off, `[members]`."""
    scale: torch.Tensor | None = None
    """Root mean square that activations are divided by, `[members]`; None without `normalize`."""

    @property
    def members(self) -> int:
        """Number of members."""
        return self.encoder.shape[0]

    @property
    def neurons(self) -> int:
        """Number of neurons of the layer."""
        return self.encoder.shape[2]

    @property
    def dictionary(self) -> int:
        """Number of codes."""
        return self.encoder.shape[1]

    def tensors(self) -> dict[str, torch.Tensor]:
        """The arrays that are present, by field name."""
        return {
            field.name: value
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), torch.Tensor)
        }

    def select(self, members: Sequence[int] | torch.Tensor) -> SAE:
        """Copies of some members, in the given order."""
        index = torch.as_tensor(members, device=self.encoder.device)
        return replace(self, **{name: value[index] for name, value in self.tensors().items()})

    def to(self, device: torch.device | str) -> SAE:
        """The same autoencoders on a device."""
        return replace(self, **{name: value.to(device) for name, value in self.tensors().items()})

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Codes of activations.

        Args:
            x: `[samples, neurons]` for all members alike, or `[members, samples, neurons]`.

        Returns:
            Non-negative codes, `[members, samples, dictionary]`.

        Raises:
            ValueError: the shape fits neither form.
        """
        return self._codes(self._inputs(x))

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Activations rebuilt from codes, in the units of the original activations.

        Args:
            z: `[members, samples, dictionary]`.

        Returns:
            `[members, samples, neurons]`.
        """
        rebuilt = self._rebuilt(z)
        return rebuilt if self.scale is None else rebuilt * self.scale[:, None, None]

    def losses(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and summed codes of every member over a whole data set, in slices of samples.

        The loss is the mean over all elements of (x - x')^2 plus l1 times the mean over all
        elements of z, in the units the autoencoder works in (normalized ones with `normalize`).

        Args:
            x: `[samples, neurons]` or `[members, samples, neurons]`.

        Returns:
            Loss `[members]` and codes summed over samples `[members, dictionary]`, both double.
        """
        error = torch.zeros(self.members, dtype=torch.float64, device=self.encoder.device)
        sums = error.new_zeros(self.members, self.dictionary)
        for rows in slices(x):
            inputs = self._inputs(rows)
            z = self._codes(inputs)
            error += (self._rebuilt(z) - inputs).square_().sum((1, 2)).double()
            sums += z.sum(1).double()
        samples = x.shape[-2]
        loss = error / (samples * self.neurons)
        if not self.config.sparse_by_rank:
            loss = loss + self.config.l1 * sums.sum(-1) / (samples * self.dictionary)
        return loss, sums

    def save(self, path: Path | str) -> None:
        """Write weights and configuration to one safetensors file."""
        tensors = {name: value.contiguous().cpu() for name, value in self.tensors().items()}
        save_file(tensors, str(path), metadata={"superpos.sae": json.dumps(asdict(self.config))})

    @classmethod
    def load(cls, path: Path | str, device: torch.device | str = "cpu") -> SAE:
        """Read what `save` wrote. Nothing is unpickled.

        Raises:
            ValueError: the file holds no autoencoder of ours.
        """
        try:
            with safe_open(str(path), framework="pt", device=str(device)) as file:
                text = (file.metadata() or {}).get("superpos.sae")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path} is no safetensors file: {error}.") from None
        if text is None:
            raise ValueError(f"{path} holds no superpos autoencoder; SAE.save writes those.")
        return cls(SAEConfig(**json.loads(text)), **tensors)

    def _inputs(self, x: torch.Tensor) -> torch.Tensor:
        """Activations as `[members, samples, neurons]`, normalized if the configuration says so."""
        if x.ndim not in (2, 3) or x.shape[-1] != self.neurons:
            raise ValueError(
                f"activations have shape {tuple(x.shape)}; this autoencoder takes "
                f"[samples, {self.neurons}] or [{self.members}, samples, {self.neurons}]."
            )
        if x.ndim == 3 and x.shape[0] not in (1, self.members):
            raise ValueError(f"activations have {x.shape[0]} members, the SAE {self.members}.")
        x = x.to(self.encoder.dtype).expand(self.members, *x.shape[-2:])
        return x if self.scale is None else x / self.scale[:, None, None]

    def _rebuilt(self, z: torch.Tensor) -> torch.Tensor:
        """Decoder output in the units the autoencoder works in."""
        if self.decoder is None:
            return torch.bmm(z, self.encoder)
        return torch.baddbmm(self.offset.unsqueeze(1), z, self.decoder)

    def _codes(self, inputs: torch.Tensor) -> torch.Tensor:
        """Codes of prepared activations, as in use (not as in training, for batchtopk)."""
        pre = torch.baddbmm(self.bias.unsqueeze(1), inputs, self.encoder.mT)
        if self.config.architecture == "topk":
            return keep_top(pre.relu_(), self.config.kept(self.neurons))
        if self.config.architecture == "batchtopk":
            return pre.relu_() * (pre > self.threshold[:, None, None])
        return pre.relu_()


def keep_top(z: torch.Tensor, k: int) -> torch.Tensor:
    """Codes with all but the k largest of each sample set to zero, `[..., dictionary]`."""
    values, index = z.topk(k, dim=-1)
    return torch.zeros_like(z).scatter_(-1, index, values)


def keep_top_of_batch(z: torch.Tensor, k: int) -> torch.Tensor:
    """Codes with all but the k * samples largest of each member set to zero.

    Args:
        z: `[members, samples, dictionary]`, non-negative.
        k: mean number of codes kept per sample.
    """
    flat = z.flatten(1)
    return keep_top(flat, min(k * z.shape[1], flat.shape[1])).view_as(z)


def slices(x: torch.Tensor, rows: int = ROWS) -> Iterator[torch.Tensor]:
    """Slices of activations `[..., samples, neurons]` with at most this many samples."""
    for first in range(0, x.shape[-2], rows):
        yield x[..., first : first + rows, :]
