"""F of adversarially trained networks on clean and on attacked inputs (paper section 7).

Activations stream: autoencoders are fitted to a uniform sample of each layer's activations, and
F comes from the codes of all of them, read a second time where the sample did not hold them all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from .activations import Reservoir, Site, find_sites, read
from .layers import layer_parameters
from .magnitudes import features_or_nan, summed_codes
from .recipe import fit_for_epochs
from .record import plain
from .robust_group import ROWS, attacked, generators
from .sae import SAE, SAEConfig
from .solver import fit, state_of

KINDS = ("clean", "adversarial")
"""Of inputs."""


@dataclass(frozen=True)
class Fitting:
    """How autoencoders are fitted."""

    architecture: str
    expansion: float
    l1: float
    normalize: bool
    starts: int | None
    """Starts of the solver, the best of which counts; None takes what suits the width."""
    steps: int | None
    """Steps of a round of the solver; None takes what suits the width."""
    rounds: int
    """Rounds at most."""
    epochs: int | None
    """Passes of the plain recipe instead of the solver; None takes the solver."""
    samples: int
    """Activations fitted to at most."""

    @property
    def config(self) -> SAEConfig:
        """The autoencoders' own part."""
        return SAEConfig(
            architecture=self.architecture, expansion=self.expansion, l1=self.l1,
            normalize=self.normalize, starts=self.starts, steps=self.steps, rounds=self.rounds,
        )  # fmt: skip


def features_of(
    networks: Sequence[nn.Module],
    members: Sequence[tuple[float, int]],
    x: Tensor,
    y: Tensor,
    *,
    fitting: Fitting,
    attack_steps: int,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """F of every layer of every member, on clean inputs and on inputs attacked at its epsilon.

    Args:
        networks: of one architecture, in evaluation mode.
        members: epsilon and seed of each.
        x: images `[samples, channels, height, width]` in [0, 1].
        y: labels `[samples]`.
        fitting: how autoencoders are fitted; a network's seed is its autoencoders' too.
        attack_steps: of PGD on the inputs.
        progress: show a bar over networks and layers.

    Returns:
        One row per layer, member and kind of inputs: `site`, its place `layer` from 1, `neurons`,
        `parameters` that feed it, `epsilon`, `seed`, `inputs`, `features` F (None where every
        code is zero or an activation is not finite), `fit_loss`, and whether the autoencoder
        `converged`. At epsilon 0 attacked inputs are the clean ones.
    """
    sites = find_sites(networks[0], x[:2])
    parameters = layer_parameters(networks[0], x[:2], sites)
    rows = []
    with tqdm(
        total=len(KINDS) * (len(networks) + len(sites)), disable=not progress, leave=False,
        desc="autoencoders", mininterval=3.0,
    ) as bar:  # fmt: skip
        for kind in KINDS:
            views = [
                _View(network, epsilon, seed, x, y, attack_steps if kind != "clean" else 0)
                for network, (epsilon, seed) in zip(networks, members, strict=True)
                if kind == "clean" or epsilon > 0
            ]
            found = _measured(views, sites, fitting, bar)
            rows += [
                {**row, "inputs": kind, "parameters": parameters[row["site"]]} for row in found
            ]
    return rows + [{**row, "inputs": KINDS[1]} for row in rows if row["epsilon"] == 0]


class _Sample(NamedTuple):
    """Activations `[kept, neurons]` of so many seen."""

    kept: Tensor
    seen: int


class _View(NamedTuple):
    """A member and its inputs, which are the same whenever they are asked for."""

    network: nn.Module
    epsilon: float
    seed: int
    x: Tensor
    y: Tensor
    attack_steps: int
    """0 for clean inputs."""

    def batches(self) -> Iterator[Tensor]:
        """Inputs, a few at a time."""
        epsilon = self.x.new_tensor([self.epsilon])
        starts = generators([self.seed], 2, self.x.device)
        for images, labels in zip(self.x.split(ROWS), self.y.split(ROWS), strict=True):
            if not self.attack_steps:
                yield images
                continue
            yield attacked(
                lambda own: self.network(own[0])[None], images, labels, epsilon,
                steps=self.attack_steps, generators=starts,
            )[0]  # fmt: skip

    def sampled(self, sites: Sequence[Site], size: int) -> dict[str, _Sample]:
        """A uniform sample of every layer's activations."""
        reservoirs = {s.name: Reservoir(size, torch.Generator().manual_seed(0)) for s in sites}
        seen = dict.fromkeys(reservoirs, 0)
        for batch in self.batches():
            for name, activations in read(self.network, batch, sites).items():
                rows = activations.flatten(0, 1)
                reservoirs[name].add(rows)
                seen[name] += len(rows)
        return {name: _Sample(own.rows, seen[name]) for name, own in reservoirs.items()}


def _measured(
    views: Sequence[_View], sites: Sequence[Site], fitting: Fitting, bar: tqdm
) -> list[dict[str, Any]]:
    """F of every layer of every view; None for a network that has diverged."""
    samples = []
    for view in views:
        samples.append(view.sampled(sites, fitting.samples))
        bar.update()
    finite = [
        place
        for place, own in enumerate(samples)
        if all(bool(one.kept.isfinite().all()) for one in own.values())
    ]
    alive, seeds = [views[place] for place in finite], [views[place].seed for place in finite]
    fits = {}
    for site in sites:
        own = [samples[place][site.name] for place in finite]
        fits[site.name] = _fitted(own, fitting, seeds) if own else None
        bar.update()
    if finite:
        _with_all_codes(fits, samples[finite[0]], alive, sites)
    rows = []
    for layer, site in enumerate(sites, start=1):
        found = fits[site.name]
        for place, view in enumerate(views):
            known = finite.index(place) if place in finite else None
            rows.append(
                {
                    "site": site.name, "layer": layer, "epsilon": view.epsilon, "seed": view.seed,
                    "neurons": samples[place][site.name].kept.shape[1],
                    "features": None if known is None else plain(found.features[known]),
                    "fit_loss": None if known is None else plain(found.loss[known]),
                    "converged": known is not None and bool(found.converged[known]),
                }
            )  # fmt: skip
    return rows


class _Fitted(NamedTuple):
    """Autoencoders of all members at one layer, and what they found, `[members]`."""

    sae: SAE
    features: Tensor
    loss: Tensor
    converged: Tensor


def _fitted(samples: Sequence[_Sample], fitting: Fitting, seeds: Sequence[int]) -> _Fitted:
    """Autoencoders fitted to samples; F, loss and convergence there."""
    x = torch.stack([own.kept for own in samples])
    if fitting.epochs is None:
        found = fit(x, fitting.config, seeds=seeds)
        return _Fitted(found.sae, found.features, found.loss, found.converged)
    sae = fit_for_epochs(x, fitting.config, epochs=(fitting.epochs,), seeds=seeds)[0]
    loss, features, _ = state_of(sae, x)
    return _Fitted(sae, features, loss, torch.zeros(len(samples), dtype=torch.bool))


def _with_all_codes(
    fits: dict[str, _Fitted],
    samples: dict[str, _Sample],
    views: Sequence[_View],
    sites: Sequence[Site],
) -> None:
    """Put F of all activations where the sample did not hold them all. Changes `fits`."""
    partly = [site for site in sites if samples[site.name].seen > len(samples[site.name].kept)]
    for index, view in enumerate(views if partly else ()):
        own = {site.name: fits[site.name].sae.select([index]) for site in partly}
        codes = dict.fromkeys(own, 0.0)
        for batch in view.batches():
            for name, activations in read(view.network, batch, partly).items():
                codes[name] += summed_codes(own[name], activations.flatten(0, 1))[0, -1]
        for name, found in codes.items():
            whole = bool(found.isfinite().all())  # what the sample left out may not be
            fits[name].features[index] = features_or_nan(found) if whole else math.nan
