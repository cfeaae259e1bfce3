"""The solver's steps: the codes that still fire move together, one batch after another.

A ReLU code that is silent on every sample has no gradient, so it stays silent. After a whole pass
over the data without a sign of life such codes are set aside: what is left moves as it would have,
and a large dictionary costs what its living codes cost.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .device import usable_device
from .given import MOST, check_range, numbers, shown, whole
from .polar import orthogonalized
from .sae import SAE, keep_top, keep_top_of_batch

MOMENTUM = 0.95
PER_CODE = ("encoder", "decoder", "bias")  # what has an axis of codes
ALIGNED = 16  # codes are kept in such multiples, so that all members' rows round alike
WORTH = 0.9  # codes are set aside when fewer than this share is left


class Learner:
    """Autoencoders in training: their weights, and the averages that the steps follow."""

    def __init__(self, sae: SAE, fires: Tensor | None = None) -> None:
        """Begin with all codes, or with those that fire.

        Args:
            sae: changed in place, at the latest by `write`.
            fires: whether any sample activates a code, `[members, dictionary]`.
        """
        self.whole, self.sae, self.kept = sae, sae, None
        self.stretch = math.sqrt(max(1.0, sae.dictionary / sae.neurons))
        names = sae.tensors()
        self.matrices = [name for name in ("encoder", "decoder") if name in names]
        self.vectors = [name for name in ("bias", "offset") if name in names]
        self.first = {name: torch.zeros_like(names[name]) for name in self.matrices + self.vectors}
        self.second = {name: torch.zeros_like(names[name]) for name in self.vectors}
        self.fired = torch.zeros_like(sae.bias, dtype=torch.bool)
        self.steps = 0
        if fires is not None:
            self.fired |= fires
            self.rest()

    def step(self, x: Tensor, l1: Tensor, *, rate: float, bias_rate: Tensor) -> None:
        """One step: matrices along their orthogonalized momentum, vectors as in Adam.

        Args:
            x: batch in the units the autoencoders work in, `[members, batch, neurons]`.
            l1: weight of the mean over the whole dictionary's codes, `[members]` or `[1]`.
            rate: of the matrices.
            bias_rate: of the vectors, `[members]` or `[1]`.
        """
        self.steps += 1
        found = gradients(self.sae, x, l1 / self.whole.dictionary)
        self.fired |= found["bias"] != 0
        for name in self.matrices:
            momentum = self.first[name].mul_(MOMENTUM).add_(found[name])
            direction = orthogonalized(found[name].add_(momentum, alpha=MOMENTUM))
            getattr(self.sae, name).sub_(direction, alpha=rate * self.stretch)
        for name in self.vectors:
            first = self.first[name].lerp_(found[name], 0.1)
            second = self.second[name].lerp_(found[name].square(), 0.001)
            size = (second / (1 - 0.999**self.steps)).sqrt_().add_(1e-12)
            change = first / (1 - 0.9**self.steps) / size
            getattr(self.sae, name).sub_(change * bias_rate[:, None])
        if self.sae.decoder is not None:
            self.sae.decoder.copy_(torch.nn.functional.normalize(self.sae.decoder, dim=-1))

    def rest(self) -> None:
        """Set aside the codes that were silent since this was last called.

        Codes kept by rank are never set aside: one that others outdo may come back.
        """
        fired = self.fired
        most = max(1, int(fired.sum(1).max()))
        width = -(-most // ALIGNED) * ALIGNED
        if width <= WORTH * fired.shape[1] and not self.sae.config.sparse_by_rank:
            order = fired.int().argsort(dim=1, descending=True, stable=True)[:, :width]
            self.write()
            self.kept = order if self.kept is None else self.kept.gather(1, order)
            self.sae = replace(self.sae, **_gathered(self.sae.tensors(), order))
            self.first |= _gathered(self.first, order)
            self.second |= _gathered(self.second, order)
            fired = fired.gather(1, order)
        self.fired = torch.zeros_like(fired)

    def write(self) -> None:
        """Put the codes that were still moving back into their dictionaries."""
        if self.kept is None:
            return
        for name, value in self.sae.tensors().items():
            if name in PER_CODE:
                getattr(self.whole, name).scatter_(1, _like(self.kept, value), value)


def gradients(sae: SAE, x: Tensor, penalty: float | Tensor) -> dict[str, Tensor]:
    """Gradients of the loss on one batch, written out.

    Args:
        sae: autoencoders.
        x: batch in the units they work in, `[members, batch, neurons]`.
        penalty: weight of a sample's summed codes: l1 over the size of the dictionary; a number,
            `[members]` or `[1]`.

    Returns:
        By field of `sae`, the gradient of the mean over members' own batches.
    """
    batch, neurons = x.shape[1:]
    z = torch.baddbmm(sae.bias.unsqueeze(1), x, sae.encoder.mT).relu_()
    if sae.config.architecture == "topk":
        z = keep_top(z, sae.config.kept(neurons))
    elif sae.config.architecture == "batchtopk":
        z = keep_top_of_batch(z, sae.config.kept(neurons))
    error = sae._rebuilt(z).sub_(x).mul_(2 / (batch * neurons))
    decoder = sae.encoder if sae.decoder is None else sae.decoder
    through = torch.bmm(error, decoder.mT)
    if not sae.config.sparse_by_rank:
        penalty = torch.as_tensor(penalty, dtype=x.dtype, device=x.device)
        through.add_(penalty.reshape(-1, 1, 1) / batch)
    through.mul_(z > 0)
    found = {"encoder": torch.bmm(through.mT, x), "bias": through.sum(1)}
    decoder_part = torch.bmm(z.mT, error)
    if sae.decoder is None:
        found["encoder"].add_(decoder_part)
        return found
    return found | {"decoder": decoder_part, "offset": error.sum(1)}


class Order:
    """A member's own endless shuffled order of the samples."""

    def __init__(self, seed: int, samples: int, batch: int) -> None:
        """Begin with a seed.

        Args:
            seed: fixes the order.
            samples: number of samples.
            batch: indices given out at once.
        """
        self.generator = torch.Generator().manual_seed(seed)
        self.samples, self.batch = samples, batch
        self.left = torch.empty(0, dtype=torch.long)

    def next(self) -> Tensor:
        """Indices of the next batch; a remainder too small for a batch is dropped."""
        if len(self.left) < self.batch:
            self.left = torch.randperm(self.samples, generator=self.generator)
        batch, self.left = self.left[: self.batch], self.left[self.batch :]
        return batch

    def skip(self, steps: int) -> None:
        """Go on as if this many batches had been drawn."""
        for _ in range(steps):
            self.next()

    def state(self) -> tuple[Tensor, Tensor]:
        """What `restored` takes to come back to this point."""
        return self.generator.get_state(), self.left

    def restored(self, state: tuple[Tensor, Tensor]) -> Order:
        """The same order, at a point where `state` was asked for."""
        self.generator.set_state(state[0])
        self.left = state[1]
        return self


def next_batch(x: Tensor, orders: Sequence[Order], scale: Tensor | None) -> Tensor:
    """Next batch of every member in the units its autoencoder works in.

    Args:
        x: `[samples, neurons]` or `[members, samples, neurons]`.
        orders: one per member; members that share one get the same samples.
        scale: what activations are divided by, `[members]`, or None.

    Returns:
        `[members, batch, neurons]`.
    """
    drawn = {order: order.next() for order in dict.fromkeys(orders)}
    index = torch.stack([drawn[order] for order in orders]).to(x.device)
    if x.ndim == 2:
        batch = x[index]
    else:
        batch = x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
    return batch if scale is None else batch / scale[:, None, None]


def root_mean_square(x: Tensor) -> Tensor:
    """Root mean square of each member's activations, never zero.

    Args:
        x: `[samples, neurons]` or `[members, samples, neurons]`.

    Returns:
        `[1]` if all members share the activations, else `[members]`.
    """
    return x.square().mean((-2, -1)).sqrt().clamp_min(1e-12).reshape(-1)


def checked(activations: Tensor, device: torch.device | str | None) -> Tensor:
    """Activations in single precision on the device.

    Args:
        activations: `[samples, neurons]` or `[members, samples, neurons]`.
        device: default where they are.

    Raises:
        TypeError: no real numbers.
        ValueError: another shape, no samples, activations that are not finite or whose size single
            precision cannot fit, or a device that is not there.
    """
    x = numbers("activations", activations).detach()
    if x.ndim not in (2, 3) or 0 in x.shape:
        raise ValueError(
            f"activations have shape {tuple(x.shape)}; give [samples, neurons] or "
            "[members, samples, neurons] with at least one of each."
        )
    check_range(x)
    return x.to(device=x.device if device is None else usable_device(device), dtype=torch.float32)


def paired_seeds(x: Tensor, seeds: Sequence[int]) -> list[int]:
    """One seed per member.

    Args:
        x: `[samples, neurons]`, one member per seed, or `[members, samples, neurons]`.
        seeds: one for all members, or one each.

    Raises:
        ValueError: another number of seeds, or one that is no whole number.
    """
    if not isinstance(seeds, Iterable):
        raise ValueError(f"seeds is {shown(seeds)}; give a list of whole numbers, such as [0].")
    seeds = [whole("a seed", seed, -MOST) for seed in seeds]
    members = x.shape[0] if x.ndim == 3 else len(seeds)
    seeds = seeds * members if len(seeds) == 1 else seeds
    if members == 0 or len(seeds) != members:
        raise ValueError(f"{len(seeds)} seeds for {members} members; give one, or one per member.")
    return seeds


def _gathered(tensors: dict[str, Tensor], order: Tensor) -> dict[str, Tensor]:
    """Some codes of what has an axis of codes."""
    return {
        name: value.gather(1, _like(order, value))
        for name, value in tensors.items()
        if name in PER_CODE
    }


def _like(order: Tensor, value: Tensor) -> Tensor:
    """An index of codes `[members, codes]` for a tensor with further axes."""
    return order if value.ndim == 2 else order.unsqueeze(-1).expand(-1, -1, value.shape[-1])
