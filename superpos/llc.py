"""Local learning coefficient: how fast the volume of good weights around a minimum grows.

The coefficient of weights w* is estimated from samples of the tempered posterior near them (Lau et
al. 2023; paper section 6.3)::

    llc = n beta (E[L(w)] - L(w*)),    w ~ exp(-n beta L(w) - localization / 2 |w - w*|^2)

by stochastic-gradient Langevin dynamics (SGLD, Welling and Teh 2011). All networks and all chains
are computed in one batch. Every network sees the same batches and the same noise, so that what
differs between two checkpoints does not hang on the draws, and the loss at w* of a batch is
subtracted from its loss at w, which leaves less noise than subtracting the loss over all samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from tqdm.auto import tqdm


@dataclass(frozen=True)
class SGLD:
    """How chains are run.

    The step is ``w <- w - rate / 2 (n beta grad L + localization (w - w*)) + sqrt(rate) noise``
    with standard normal noise.
    """

    rate: float = 1e-4
    """Step size, in squared units of the weights."""
    inverse_temperature: float = 46.0
    """n beta. Watanabe's is n / ln n, of the samples or of a batch: 46 belongs to 256."""
    localization: float = 100.0
    """Pull back to w*; chains without any loss end about 1 / sqrt(localization) away per weight."""
    chains: int = 4
    """Chains per network, started at w*."""
    draws: int = 200
    """Steps that count."""
    burn_in: int = 200
    """Steps before them that do not."""
    batch: int = 256
    """Samples per step, drawn with replacement."""
    ceiling: float = math.inf
    """Loss above which a chain has diverged; the mean over its draws counts."""

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        for name in ("rate", "inverse_temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; give a positive number.")
        if not 0 <= self.localization < math.inf:
            raise ValueError(
                f"localization is {self.localization}; give zero or a positive number."
            )
        if self.rate * self.localization >= 4:
            raise ValueError(
                f"rate {self.rate} times localization {self.localization} is 4 or more, so that "
                "every chain runs away from w*; lower either."
            )
        if not self.ceiling > 0:
            raise ValueError(f"ceiling is {self.ceiling}; give a positive loss, or infinity.")
        for name, least in (("chains", 1), ("draws", 1), ("burn_in", 0), ("batch", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} is {value}; give a whole number of at least {least}.")


class Coefficients(NamedTuple):
    """Local learning coefficients and how their chains went; on the CPU, networks first."""

    mean: Tensor
    """Mean over the chains that did not diverge, `[networks]`; nan if all did."""
    error: Tensor
    """Standard error of that mean over chains, `[networks]`; nan with fewer than two."""
    chains: Tensor
    """Every chain's own estimate, `[networks, chains]`; nan where it diverged."""
    diverged: Tensor
    """Whether a chain's loss became infinite, nan, or larger than the ceiling, same shape."""
    initial: Tensor
    """Loss L(w*) over all samples, `[networks]`."""
    trace: Tensor
    """Excess loss of every step's batch over its loss at w*, `[networks, chains, steps]`, burn-in
    first."""
    distance: Tensor
    """Distance of a chain's last weights from w*, `[networks, chains]`."""


def llc(
    networks: Sequence[nn.Module],
    inputs: Tensor,
    targets: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    sampler: SGLD | None = None,
    *,
    seed: int = 0,
    at_once: int | None = None,
    progress: bool = False,
) -> Coefficients:
    """Estimate the local learning coefficient of every network.

    A network's result depends on its weights, the samples, the sampler, the seed and the kind of
    device alone, up to rounding, whatever the others are.

    Args:
        networks: modules of one architecture on one device, whose buffers do not change as they
            are computed; all their parameters are sampled.
        inputs: what a network takes, `[samples, ...]`, on the networks' device.
        targets: `[samples, ...]`.
        loss: from outputs `[networks, batch, ...]` and targets `[networks, batch, ...]` to losses
            `[networks, batch]`.
        sampler: how chains are run; default `SGLD()`.
        seed: of batches and noise.
        at_once: chains computed together at most, but at least those of one network; default what
            suits the device.
        progress: show a bar over groups of networks.

    Raises:
        ValueError: no networks, no samples, targets of another number, or `at_once` below 1.
    """
    sampler = sampler or SGLD()
    if not networks:
        raise ValueError("there are no networks; give at least one.")
    if len(inputs) == 0 or len(inputs) != len(targets):
        raise ValueError(
            f"there are {len(inputs)} inputs and {len(targets)} targets; give one target for each "
            "of at least one input."
        )
    if at_once is None:
        at_once = 64 if inputs.device.type == "cpu" else 4096
    if at_once < 1:
        raise ValueError(f"at_once is {at_once}; give at least 1.")
    group = max(1, at_once // sampler.chains)
    model = _Flat(networks[0], inputs, targets, loss)
    parts = []
    bar = tqdm(total=len(networks), desc="learning coefficients", disable=not progress, leave=False)
    with bar:
        for first in range(0, len(networks), group):
            part = networks[first : first + group]
            with torch.enable_grad():
                parts.append(_sampled(model, part, sampler, seed))
            bar.update(len(part))
    return Coefficients(*(torch.cat(values) for values in zip(*parts, strict=True)))


class _Flat:
    """Losses of networks whose parameters are rows of one matrix."""

    def __init__(
        self,
        network: nn.Module,
        inputs: Tensor,
        targets: Tensor,
        loss: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        self.inputs, self.targets, self.loss = inputs, targets, loss
        self.network = network
        self.shapes = {name: value.shape for name, value in network.named_parameters()}

    def losses(self, weights: Tensor, buffers: dict[str, Tensor], index: Tensor) -> Tensor:
        """Losses `[networks, chains, batch]` of weights `[networks, chains, parameters]`.

        Every network has its own buffers; all see the samples `index` `[chains, batch]`.
        """
        chains = vmap(self._outputs, in_dims=(0, None, 0))
        outputs = vmap(chains, in_dims=(0, 0, None))(weights, buffers, self.inputs[index])
        targets = self.targets[index].expand(len(weights), *index.shape, *self.targets.shape[1:])
        return self.loss(outputs.flatten(0, 1), targets.flatten(0, 1)).view(targets.shape[:3])

    def _outputs(self, weights: Tensor, buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        parts = weights.split([shape.numel() for shape in self.shapes.values()])
        named = zip(self.shapes.items(), parts, strict=True)
        own = {name: part.view(shape) for (name, shape), part in named}
        return functional_call(self.network, {**own, **buffers}, (x,))


def _flat(network: nn.Module) -> Tensor:
    return torch.cat([value.detach().flatten() for value in network.parameters()])


def _sampled(
    model: _Flat, networks: Sequence[nn.Module], sampler: SGLD, seed: int
) -> tuple[Tensor, ...]:
    """Run all chains of some networks."""
    center = torch.stack([_flat(network) for network in networks])
    _, buffers = stack_module_state(list(networks))
    samples, device = len(model.inputs), center.device
    generators = [
        torch.Generator(device).manual_seed(1_000_003 * seed + 700_001 + chain)
        for chain in range(sampler.chains)
    ]
    whole = torch.arange(samples, device=device)
    with torch.no_grad():
        parts = [
            model.losses(center[:, None], buffers, part[None])[:, 0] for part in whole.split(4096)
        ]
    at_center = torch.cat(parts, 1)  # `[networks, samples]`
    start = center[:, None].expand(-1, sampler.chains, -1)
    weights, trace = start.clone(), []
    for _ in range(sampler.burn_in + sampler.draws):
        index = torch.stack(
            [
                torch.randint(samples, (sampler.batch,), generator=own, device=device)
                for own in generators
            ]
        )
        noise = torch.stack(
            [torch.randn(center.shape[1], generator=own, device=device) for own in generators]
        )
        weights.requires_grad_()
        losses = model.losses(weights, buffers, index)
        (gradient,) = torch.autograd.grad(losses.mean(-1).sum(), weights)
        trace.append((losses.detach() - at_center[:, index]).mean(-1))
        drift = sampler.inverse_temperature * gradient + sampler.localization * (
            weights.detach() - start
        )
        weights = weights.detach() - sampler.rate / 2 * drift + math.sqrt(sampler.rate) * noise
    return _summary(torch.stack(trace, -1), at_center.mean(-1), weights - start, sampler)


def _summary(trace: Tensor, initial: Tensor, moved: Tensor, sampler: SGLD) -> tuple[Tensor, ...]:
    """The fields of `Coefficients`."""
    excess = trace[..., sampler.burn_in :].double().mean(-1)
    highest = sampler.ceiling - initial[:, None]
    diverged = ~(excess <= highest) | ~trace.isfinite().all(-1)
    chains = (sampler.inverse_temperature * excess).masked_fill(diverged, math.nan)
    left = (~diverged).sum(-1)
    mean = chains.nanmean(-1)
    spread = (chains - mean[:, None]).square().nansum(-1) / (left - 1)
    error = (spread / left).sqrt().masked_fill(left < 2, math.nan)
    fields = (mean, error, chains, diverged, initial, trace, moved.norm(dim=-1))
    return tuple(field.cpu() for field in fields)
