"""Autoencoders along a series of layers, such as the checkpoints of a training run.

The loss of a sparse autoencoder has many minima. Two whose losses differ by a few percent can
differ by a quarter in F, and which one a start leads to varies from layer to layer. Where each
layer resembles the next, a good dictionary can be handed on: every autoencoder may begin again
from the dictionary of a layer nearby, if that has a lower loss on its own activations. What is kept
is always what has the lowest loss, so handing on can lower losses but never raise one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .learner import Order, checked
from .sae import SAE, SAEConfig, configuration
from .solver import POLISH, Fit, fit, plan_of, run_round, stands_still, state_of

REACH = (1, 2, 4, 8)
"""How far along the series a dictionary may come from, in layers."""
MARGIN = 1e-6  # share by which a loss must be lower; rounding alone makes none


def relay(
    activations: Tensor,
    config: SAEConfig | None = None,
    *,
    seed: int = 0,
    passes: int = 12,
    reach: Sequence[int] = REACH,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> tuple[Fit, Fit]:
    """Fit one autoencoder per layer of a series, then hand dictionaries on along it.

    In every pass, a layer goes on for a round of the solver from the dictionary with the lowest
    loss on its activations, its own or one of a layer in reach, until nothing changes any more.

    Args:
        activations: of layers in their order, `[layers, samples, neurons]`.
        config: what to fit. Each layer begins with the best of `config.starts`.
        seed: of starts and batches, the same for all layers.
        passes: passes at most.
        reach: distances over which dictionaries are handed on.
        device: where to compute; default where the activations are.
        progress: show a bar over passes.

    Returns:
        The fits that layers reach on their own, as `superpos.solver.fit`, and those after handing
        on. A layer of the latter has converged if a whole round changed its loss and F by less than
        the tolerance and no dictionary in reach has a lower loss.

    Raises:
        ValueError: activations that are not those of a series, or as in `fit`.
    """
    config = configuration(config)
    if config.normalize or config.architecture == "batchtopk":
        raise ValueError(
            "autoencoders that normalize, and batchtopk ones, hold numbers of their own layer and "
            "cannot be handed on; take another architecture, without normalize."
        )
    x = checked(activations, device)
    if x.ndim != 3:
        raise ValueError(
            f"activations have shape {tuple(x.shape)}; give [layers, samples, neurons]."
        )
    if not reach or min(reach) < 1 or passes < 0:
        raise ValueError(
            f"reach is {tuple(reach)} and passes {passes}; give distances of at least one layer, "
            "and no negative number of passes."
        )
    own = fit(x, config, seeds=[seed])
    series = _Series(x, config, own, seed)
    for _ in tqdm(range(passes), desc="passes", disable=not progress, leave=False):
        if not series.hand_on(reach):
            break
    return own, series.fit(reach)


class _Series:
    """Autoencoders of a series while dictionaries are handed on."""

    def __init__(self, x: Tensor, config: SAEConfig, own: Fit, seed: int) -> None:
        self.x, self.config, self.plan = x, config, plan_of(config, x, None)
        self.sae = own.sae.select(torch.arange(len(x)))
        self.loss, self.features = own.loss.clone(), own.features.clone()
        self.still, self.rounds = own.converged.clone(), own.rounds.clone()
        self.history = [own.loss.clone()]
        self.orders = [Order(seed, x.shape[1], self.plan.batch) for _ in x]
        self.new = torch.ones(len(x), dtype=torch.bool)  # dictionaries the others have not seen

    def hand_on(self, reach: Sequence[int]) -> bool:
        """One pass; says whether any layer moved."""
        source = self._sources(reach)
        self.still &= source == torch.arange(len(source))
        active = (~self.still).nonzero().squeeze(1)
        if len(active) == 0:
            return False
        self.new = torch.zeros_like(self.still)
        before = self.sae.select(torch.arange(len(source)))  # a pass hands on what it found
        for chosen in active.split(self.plan.at_once):
            self._go_on(before.select(source[chosen]), chosen)
        self.history.append(self.loss.clone())
        return True

    def _sources(self, reach: Sequence[int]) -> Tensor:
        """For every layer, the layer whose dictionary has the lowest loss on it, `[layers]`."""
        layers = torch.arange(len(self.x))
        source, lowest = layers.clone(), self.loss.clone()
        for offset in (sign * far for far in sorted(set(reach)) for sign in (-1, 1)):
            other = layers + offset
            inside = (other >= 0) & (other < len(layers))
            asked = layers[inside][self.new[other[inside]]]
            if len(asked) == 0:
                continue
            loss = self.sae.select(other[asked]).losses(self.x[asked])[0].cpu().to(lowest.dtype)
            better = loss < lowest[asked] * (1 - MARGIN)
            source[asked[better]], lowest[asked[better]] = other[asked[better]], loss[better]
        return source

    def _go_on(self, trial: SAE, chosen: Tensor) -> None:
        """A round of some layers from the given dictionaries; kept where the loss is lower."""
        x = self.x[chosen.to(self.x.device)]
        first = trial.select(torch.arange(len(chosen)))
        loss, features, fires = state_of(trial, x)
        run_round(
            trial, x, [self.orders[i] for i in chosen], self.plan,
            rate=POLISH * self.plan.rate, fires=fires,
        )  # fmt: skip
        new_loss, new_features, _ = state_of(trial, x)
        tolerance, floor = self.config.tolerance, 1e-6 * x.square().mean((-2, -1)).cpu().double()
        self.still[chosen] = stands_still(features, new_features, tolerance)
        self.still[chosen] &= stands_still(loss, new_loss, tolerance, floor)
        self._keep(first, chosen, loss, features)
        self._keep(trial, chosen, new_loss, new_features)
        self.rounds[chosen] += 1

    def _keep(self, sae: SAE, chosen: Tensor, loss: Tensor, features: Tensor) -> None:
        """Take over dictionaries for some layers where their loss is lower."""
        better = loss < self.loss[chosen]
        kept = chosen[better]
        for name, value in self.sae.tensors().items():
            value[kept.to(value.device)] = getattr(sae, name)[better.to(value.device)]
        self.loss[kept], self.features[kept] = loss[better], features[better]
        self.new[kept] = True

    def fit(self, reach: Sequence[int]) -> Fit:
        """What has been reached; where a better dictionary is in reach, it has not converged."""
        if len(self.history) > 1:
            self.still &= self._sources(reach) == torch.arange(len(self.x))
        return Fit(
            self.sae, self.loss, self.features, self.still, self.rounds, torch.stack(self.history)
        )
