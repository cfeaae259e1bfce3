"""What is measured at the checkpoints of networks for modular arithmetic (paper section 6.3).

Every function returns columns: one value per checkpoint, by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .data import Modular
from .dictionary import codes
from .entropy import effective_features, hill_number, participation_ratio
from .fourier import embedding_power, purity, wave
from .llc import SGLD, llc
from .modular_networks import TwoPathMLP
from .networks import classification_loss
from .relay import relay
from .sae import SAE, SAEConfig
from .ways import POST, PRE, fitted

WAYS = {
    "recipe": "untied, stopped early",
    "starts": "tied, each on its own",
    "relay": "tied, handed on",
}
"""Ways of fitting autoencoders to checkpoints, with their labels. `recipe` is that of
`superpos.ways`; `starts` fits every checkpoint by itself until it stands still; `relay` hands the
dictionaries of `starts` on along the checkpoints (`superpos.relay`)."""
SAMPLERS = {
    "local": {"rate": 1e-4, "inverse_temperature": 46.0, "localization": 100.0},
    "wide": {"rate": 3e-3, "inverse_temperature": 2.0, "localization": 5.0},
}
"""Settings of SGLD. Chains of `local` stay near the checkpoint, those of `wide` do not."""
CEILING = 2.0
"""A chain is lost when its loss is above that of guessing, ln(prime), times this. In `local` that
counts as divergence; in `wide`, where it happens to all, it is counted apart."""
POINTS = 40  # points of a trace that are kept
ORDERS = {"features": 1.0, "hill0": 0.0, "hill2": 2.0, "hill_infinity": math.inf}


def dictionaries(
    networks: Sequence[TwoPathMLP],
    data: Modular,
    residues: Tensor,
    config: SAEConfig,
    *,
    seed: int,
    passes: int,
    epochs: int,
) -> dict[str, Any]:
    """F of the hidden layer, and what goes with it, for every way of fitting.

    Autoencoders see all pairs, in a shuffled order; the recipe sees the first of them.

    Args:
        networks: one per checkpoint.
        data: the pairs.
        residues: in cyclic order, as `superpos.fourier.cyclic_order` gives them.
        config: of the tied autoencoders; dictionary and l1 of all.
        seed: of the order, of starts and of batches.
        passes: of handing on.
        epochs: of the recipe.

    Returns:
        For every way `features`, `hill0`, `hill2`, `hill_infinity`, `explained`, `active` and
        `loss`, followed by `_` and its name, all over the samples it was fitted to; `converged` and
        `rounds` of the tied ones; `purity_neurons` and `purity_codes`, how nearly neurons and codes
        of `relay` follow a single frequency; and of the activations `rms`, their root mean square,
        and `dimension`, the participation ratio of their covariance.
    """
    pairs = data.pairs
    # a stream of its own: that of the split would put the training pairs first
    generator = torch.Generator().manual_seed(1_000_003 * seed + 500_009)
    order = torch.randperm(len(pairs), generator=generator)
    with torch.no_grad():
        pre = torch.stack([network.pre(pairs[order.to(pairs.device)]) for network in networks])
        sites = {PRE: pre, POST: networks[0].activation(pre)}
    (early,) = fitted("recipe", sites, config, seeds=[seed] * len(networks), epochs=(epochs,))
    starts, handed = relay(sites[POST], config, seed=seed, passes=passes)
    back = order.argsort().to(pairs.device)
    grids = [x[back] for x in sites[POST]]
    return {
        **_described("recipe", early.sae, early.x),
        **_described("starts", starts.sae, sites[POST]),
        **_described("relay", handed.sae, sites[POST]),
        "converged_starts": starts.converged,
        "converged_relay": handed.converged,
        "rounds_starts": starts.rounds,
        "rounds_relay": handed.rounds,
        "rms": sites[POST].square().mean((-2, -1)).sqrt(),
        "dimension": _known(
            participation_ratio, torch.stack([torch.cov(x.double().T) for x in grids])
        ),
        "purity_neurons": [purity(x, residues).mean() for x in grids],
        "purity_codes": [
            _code_purity(handed.sae.select([place]), x, residues) for place, x in enumerate(grids)
        ],
    }


def coefficients(
    networks: Sequence[TwoPathMLP],
    data: Modular,
    *,
    seed: int,
    chains: int,
    burn_in: int,
    draws: int,
    kept: Collection[int],
) -> dict[str, Any]:
    """Local learning coefficients on the training pairs, by every one of the `SAMPLERS`.

    Args:
        networks: one per checkpoint.
        data: the pairs.
        seed: of noise and batches.
        chains, burn_in, draws: as in `superpos.llc.SGLD`.
        kept: places of the checkpoints whose traces are kept.

    Returns:
        For every sampler `llc`, its `error` over chains (checkpoints share their noise, so that
        neighbors err alike), each of the `chains`, how many of them `diverged` or were `lost`,
        their last `distance` and, where kept, their thinned `trace` in units of the coefficient.
    """
    ceiling = CEILING * math.log(int(data.pairs.max()) + 1)
    columns: dict[str, Any] = {}
    for number, (name, values) in enumerate(SAMPLERS.items()):
        sampler = SGLD(
            **values, chains=chains, burn_in=burn_in, draws=draws,
            ceiling=ceiling if name == "local" else math.inf,
        )  # fmt: skip
        found = llc(
            networks, data.pairs[data.train], data.answers[data.train], classification_loss,
            sampler, seed=len(SAMPLERS) * seed + number,
        )  # fmt: skip
        level = found.initial[:, None] + found.trace[..., burn_in:].double().mean(-1)
        pieces = found.trace.tensor_split(min(POINTS, found.trace.shape[-1]), dim=-1)
        thin = sampler.inverse_temperature * torch.stack([own.mean(-1) for own in pieces], -1)
        columns |= {
            f"llc_{name}": found.mean, f"error_{name}": found.error,
            f"chains_{name}": [_rounded(own) for own in found.chains],
            f"diverged_{name}": found.diverged.sum(-1),
            f"lost_{name}": (~(level <= ceiling)).sum(-1),
            f"distance_{name}": found.distance.mean(-1), f"trace_{name}": _where(kept, thin),
        }  # fmt: skip
    return columns


def embeddings(
    networks: Sequence[TwoPathMLP], residues: Tensor, *, kept: Collection[int]
) -> dict[str, Any]:
    """Fourier structure of the embedding.

    Args:
        networks: one per checkpoint.
        residues: in cyclic order.
        kept: places of the checkpoints whose `power` and `plane` are kept.

    Returns:
        `weight_norm`, the norm of all weights; `frequencies`, their effective number, exp(entropy)
        of the shares of power; `strongest`, the strongest one at the last checkpoint; `power`, the
        shares; `plane`, the residues in the plane of the strongest one.
    """
    rows = torch.stack([network.embedding.weight.detach() for network in networks]).cpu()
    power = embedding_power(rows, residues)
    strongest = int(power[-1].argmax()) + 1
    norms = [
        torch.cat([value.detach().flatten() for value in n.parameters()]).norm() for n in networks
    ]
    return {
        "weight_norm": norms,
        "frequencies": _known(effective_features, power),
        "strongest": [strongest] * len(networks),
        "power": _where(kept, power / power.sum(-1, keepdim=True)),
        "plane": _where(kept, torch.stack([wave(own, residues, strongest) for own in rows])),
    }


def _described(way: str, sae: SAE, x: Tensor) -> dict[str, Any]:
    """Columns of one way of fitting; nan where every code is zero."""
    found = codes(sae, x)
    columns: dict[str, Any] = {
        f"loss_{way}": sae.losses(x)[0],
        f"explained_{way}": found.explained,
        f"active_{way}": found.active,
    }
    for name, q in ORDERS.items():
        columns[f"{name}_{way}"] = _known(partial(hill_number, order=q), found.sums)
    return columns


def _known(measure: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """A measure of every checkpoint's values; nan where all of them are zero."""
    alive = values.flatten(1).any(1)
    found = values.new_full((len(values),), math.nan, dtype=torch.float64)
    if bool(alive.any()):
        found[alive] = measure(values[alive])
    return found


def _code_purity(sae: SAE, x: Tensor, residues: Tensor) -> Tensor:
    """Mean purity of one autoencoder's codes, by their shares of the magnitude."""
    z = sae.encode(x)[0]
    return (purity(z, residues) * z.double().sum(0)).sum() / z.double().sum()


def _where(kept: Collection[int], values: Tensor) -> list[list | None]:
    """Rounded lists at the places that are kept, else None."""
    return [_rounded(own) if place in kept else None for place, own in enumerate(values)]


def _rounded(values: Tensor) -> list:
    """Nested lists of four digits after the point; None for what is not finite."""
    if values.ndim > 1:
        return [_rounded(own) for own in values]
    numbers = values.double().cpu().numpy().round(4).tolist()
    return [number if math.isfinite(number) else None for number in numbers]
