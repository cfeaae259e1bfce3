"""Fit sparse autoencoders until the loss stands still.

The plain recipe (Adam, a fixed number of epochs) stops wherever its budget ends, and F depends on
where that is. This solver differs in four ways, each of which `benchmarks/sae_solver.py` measures:

1. the dictionary is stepped along its orthogonalized momentum (Muon, Jordan et al. 2024), so that
   weak and strong directions move at the same speed;
2. l1 starts at half the activations' typical size, at most ten times too strong or too weak, and
   goes to its value over the first half of the first round. A weak penalty thus cools: codes settle
   on few strong features before weak ones may join. A strong one warms up: from the start, it would
   silence codes for good that the minimum needs. Every second start begins at ten times l1;
3. narrow layers get several starts, computed together, of which the one with the lowest loss goes
   on: with the default number of starts, what remains between seeds is below one percent of F;
4. rounds follow until a whole further round changes loss and F by less than a tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from tqdm.auto import tqdm

from .entropy import effective_features
from .given import whole
from .learner import Learner, Order, checked, next_batch, paired_seeds, root_mean_square
from .sae import SAE, SAEConfig, configuration, slices

RATE = 0.01  # of the dictionary at batch 128, for a wide matrix
BIAS_RATE = 2e-3  # Adam's, in units of the activations' root mean square
HEAT = 10.0  # l1 starts at most so many times too strong or too weak
BEGIN = 0.5  # what l1 starts at, in units of the activations' typical size
COOLED = 0.5  # share of the first round after which l1 has its value
POLISH = 0.5  # rate of later rounds against the first


class Fit(NamedTuple):
    """Fitted autoencoders and how the fit went; arrays but `sae` are on the CPU, members first."""

    sae: SAE
    """The autoencoders."""
    loss: torch.Tensor
    """Loss over all samples, `[members]`."""
    features: torch.Tensor
    """Effective features F over all samples, `[members]`; nan where every code is zero."""
    converged: torch.Tensor
    """Whether the last round changed loss and F by less than the tolerance, `[members]`."""
    rounds: torch.Tensor
    """Rounds used, `[members]`."""
    history: torch.Tensor
    """Loss after each round, `[rounds, members]`; a finished member repeats its last value."""


def fit(
    activations: torch.Tensor,
    config: SAEConfig | None = None,
    *,
    seeds: Sequence[int] = (0,),
    device: torch.device | str | None = None,
    at_once: int | None = None,
    progress: bool = False,
) -> Fit:
    """Fit one autoencoder per member until its loss stands still.

    A member's result depends on its activations, its seed and the configuration alone: fitted
    with others or by itself, it gives the same numbers up to rounding.

    Args:
        activations: `[samples, neurons]` shared by all members, one member per seed; or
            `[members, samples, neurons]`.
        config: what to fit; default `SAEConfig()`.
        seeds: one seed per member; a single seed serves any number of members.
        device: where to compute; default where the activations are.
        at_once: autoencoders computed together; default what suits the device.
        progress: show a bar over members.

    Returns:
        The fit, with the autoencoders on `device`.

    Raises:
        TypeError: activations that are no real numbers, or a configuration that is no `SAEConfig`.
        ValueError: wrong shapes, no samples, activations that are not finite or whose size single
            precision cannot fit, seeds that do not match, a dictionary that is too large, or a
            device that is not there.
    """
    config = configuration(config)
    if at_once is not None:
        at_once = whole("at_once", at_once)
    x = checked(activations, device)
    seeds = paired_seeds(x, seeds)
    members = len(seeds)
    plan = plan_of(config, x, at_once)
    group = max(1, plan.at_once // plan.starts)
    parts = []
    with tqdm(total=members, desc="autoencoders", disable=not progress, leave=False) as bar:
        for first in range(0, members, group):
            chosen = slice(first, first + group)
            part = x if x.ndim == 2 else x[chosen]
            parts.append(_fit_group(part, config, plan, seeds[chosen]))
            bar.update(len(seeds[chosen]))
    return _joined(parts)


@dataclass(frozen=True)
class Plan:
    """Sizes that follow from the layer's width and the device."""

    batch: int
    steps: int
    starts: int
    at_once: int
    rate: float


def plan_of(config: SAEConfig, x: torch.Tensor, at_once: int | None) -> Plan:
    """Wider layers get larger batches, longer rounds and fewer starts."""
    samples, neurons = x.shape[-2:]
    batch = min(samples, max(128, min(256, neurons // 2)))
    steps = config.steps or min(6000, 1000 + 28 * neurons) * 128 // max(128, batch)
    starts = config.starts or (8 if neurons <= 48 else 4 if neurons <= 96 else 1)
    if at_once is None:  # a CPU is fastest while a step's codes stay in its cache
        budget = 2**19 if x.device.type == "cpu" else 2**27
        at_once = max(1, budget // (batch * config.dictionary(neurons)))
    rate = RATE * (batch / 128) ** 0.25 if batch > 128 else RATE
    return Plan(batch, steps, starts, at_once, rate)


def _fit_group(x: torch.Tensor, config: SAEConfig, plan: Plan, seeds: Sequence[int]) -> Fit:
    """Fit members that are computed together: starts, choice of the best, rounds."""
    members = len(seeds)
    orders = [Order(seed, x.shape[-2], plan.batch) for seed in seeds]
    best = _best_start(x, config, plan, seeds, orders)
    loss, features, fires = state_of(best, x)
    history, rounds = [loss.clone()], torch.ones(members, dtype=torch.long)
    active = torch.arange(members)
    power = x.square().mean((-2, -1)).cpu().double() if best.scale is None else torch.ones(1)
    floor = (1e-6 * power).expand(members)
    for _ in range(1, config.rounds):
        part = _own(x, active)
        trial = best.select(active)
        own = [orders[i] for i in active]
        run_round(trial, part, own, plan, rate=POLISH * plan.rate, fires=fires[active])
        new_loss, new_features, new_fires = state_of(trial, part)
        still = stands_still(
            loss[active], new_loss, config.tolerance, floor[active]
        ) & stands_still(features[active], new_features, config.tolerance)
        better = new_loss <= loss[active]
        for name, value in best.tensors().items():
            value[active[better]] = getattr(trial, name)[better]
        loss[active[better]], features[active[better]] = new_loss[better], new_features[better]
        fires[active[better]] = new_fires[better]
        rounds[active] += 1
        history.append(loss.clone())
        active = active[~still]
        if len(active) == 0:
            break
    converged = torch.ones(members, dtype=torch.bool)
    converged[active] = False
    return Fit(best, loss, features, converged, rounds, torch.stack(history))


def _best_start(
    x: torch.Tensor, config: SAEConfig, plan: Plan, seeds: Sequence[int], orders: list[Order]
) -> SAE:
    """First round from several starts per member; the state with the lowest loss of each."""
    starts = [(i, start) for i in range(len(seeds)) for start in range(plan.starts)]
    heats = _first_heats(x, config)
    saved = [order.state() for order in orders]
    kept, losses = [], []
    for first in range(0, len(starts), plan.at_once):
        chosen = starts[first : first + plan.at_once]
        owner = torch.tensor([i for i, _ in chosen])
        part = _own(x, owner)
        sae = _initial(part, config, [seeds[i] * 1_000_003 + start for i, start in chosen])
        shared = {i: Order(0, x.shape[-2], plan.batch).restored(saved[i]) for i, _ in chosen}
        copies = [shared[i] for i, _ in chosen]
        heat = torch.tensor(
            [HEAT if start % 2 else heats[i % len(heats)] for i, start in chosen],
            dtype=torch.float64,  # so that rounding to single precision hides the last digits
        )
        run_round(sae, part, copies, plan, rate=plan.rate, heat=heat)
        losses.append(sae.losses(part)[0])
        kept.append(sae)
    for order, state in zip(orders, saved, strict=True):
        order.restored(state).skip(plan.steps)
    loss = torch.cat(losses).nan_to_num(nan=math.inf).view(len(seeds), plan.starts)
    chosen = loss.argmin(1).cpu() + torch.arange(len(seeds)) * plan.starts
    return _stacked(kept).select(chosen)


def _initial(x: torch.Tensor, config: SAEConfig, seeds: Sequence[int]) -> SAE:
    """Xavier-uniform rows, zero biases; drawn on the CPU so that every device starts alike."""
    neurons, members = x.shape[-1], len(seeds)
    dictionary = config.dictionary(neurons)
    bound = math.sqrt(6 / (neurons + dictionary))
    rows = torch.stack(
        [
            torch.rand(dictionary, neurons, generator=torch.Generator().manual_seed(seed))
            for seed in seeds
        ]
    )
    sae = SAE(config, ((2 * rows - 1) * bound).to(x.device), x.new_zeros(members, dictionary))
    if config.normalize:
        sae.scale = root_mean_square(x).expand(members).clone()
    if config.architecture != "tied":
        sae.decoder = torch.nn.functional.normalize(sae.encoder, dim=-1)
        sae.encoder = sae.decoder.clone()
        mean = x.mean(-2).expand(members, neurons)
        sae.offset = mean.clone() if sae.scale is None else mean / sae.scale[:, None]
    if config.architecture == "batchtopk":
        sae.threshold = x.new_zeros(members)
    return sae


def _first_heats(x: torch.Tensor, config: SAEConfig) -> list[float]:
    """What l1 is multiplied by at first; per member, or one number if they share activations.

    The typical size is that of an element of a sample, samples weighted by their norms, so that
    empty ones do not count.
    """
    if config.l1 == 0 or config.sparse_by_rank:
        return [1.0]
    norms = x.reshape(-1, *x.shape[-2:]).norm(dim=-1).double()
    typical = norms.square().sum(-1) / norms.sum(-1).clamp_min(1e-300) / math.sqrt(x.shape[-1])
    if config.normalize:
        typical = typical / root_mean_square(x).double()
    return (BEGIN * typical / config.l1).clamp(1 / HEAT, HEAT).tolist()


def run_round(
    sae: SAE,
    x: torch.Tensor,
    orders: Sequence[Order],
    plan: Plan,
    *,
    rate: float,
    heat: torch.Tensor | None = None,
    fires: torch.Tensor | None = None,
) -> None:
    """One schedule of steps, the rate falling to zero along a cosine. Changes `sae` in place.

    `heat` `[members]` is what l1 is multiplied by at the start, if it is not to be constant;
    `fires` `[members, dictionary]` says which codes any sample activates, where that is known.
    """
    config = sae.config
    heat = torch.ones(1) if heat is None else heat
    unit = root_mean_square(x) if sae.scale is None else x.new_ones(1)
    learner = Learner(sae, fires)
    a_pass = math.ceil(x.shape[-2] / plan.batch)
    window = max(
        2 * a_pass, a_pass + 100
    )  # holds a whole pass; after 100 steps no momentum is left
    for step in range(plan.steps):
        done = step / plan.steps
        cosine = 0.5 * (1 + math.cos(math.pi * done))
        l1 = config.l1 * heat ** max(0.0, 1 - done / COOLED)
        learner.step(
            next_batch(x, orders, sae.scale),
            l1.to(x),
            rate=rate * cosine,
            bias_rate=unit * (BIAS_RATE * cosine * rate / RATE),
        )
        if (step + 1) % max(window, plan.steps // 10) == 0:
            learner.rest()
    learner.write()
    if config.architecture == "batchtopk":
        sae.threshold = _thresholds(sae, x)


def _thresholds(sae: SAE, x: torch.Tensor) -> torch.Tensor:
    """Per member, the pre-activation below which codes are off so that k are on on average."""
    k, samples = sae.config.kept(sae.neurons), x.shape[-2]
    open_sae = replace(sae, config=replace(sae.config, architecture="untied"))
    thresholds = []
    for member in range(sae.members):
        one = open_sae.select([member])
        part = x if x.ndim == 2 else x[member : member + 1]
        z = torch.cat([one.encode(rows).flatten() for rows in slices(part)])
        last = z.numel() - k * samples  # so many codes are off
        thresholds.append(z.kthvalue(last).values if last > 0 else z.new_zeros(()))
    return torch.stack(thresholds)


def state_of(sae: SAE, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss and F of every member on the CPU, F nan where every code is zero; which codes fire."""
    loss, sums = sae.losses(x)
    features = torch.full_like(loss, math.nan)
    alive = sums.sum(-1) > 0
    if bool(alive.any()):
        features[alive] = effective_features(sums[alive])
    return loss.cpu(), features.cpu(), sums > 0


def stands_still(
    old: torch.Tensor, new: torch.Tensor, tolerance: float, floor: torch.Tensor | None = None
) -> torch.Tensor:
    """Whether values changed by less than a share or a floor; nan twice counts as still."""
    allowed = tolerance * old.abs()
    unchanged = (new - old).abs() <= (allowed if floor is None else allowed.maximum(floor))
    return unchanged | (old.isnan() & new.isnan())


def _own(x: torch.Tensor, members: torch.Tensor) -> torch.Tensor:
    """Activations of some members; those that all share stay as they are."""
    if x.ndim == 2 or (len(members) == len(x) and torch.equal(members, torch.arange(len(x)))):
        return x
    return x[members.to(x.device)]


def _stacked(saes: Sequence[SAE]) -> SAE:
    """Autoencoders of one configuration as one."""
    names = saes[0].tensors()
    return replace(saes[0], **{name: torch.cat([getattr(s, name) for s in saes]) for name in names})


def _joined(parts: Sequence[Fit]) -> Fit:
    """Fits of groups of members as one."""
    longest = max(len(part.history) for part in parts)
    histories = [
        torch.cat([p.history, p.history[-1:].expand(longest - len(p.history), -1)]) for p in parts
    ]
    return Fit(
        sae=_stacked([part.sae for part in parts]),
        loss=torch.cat([part.loss for part in parts]),
        features=torch.cat([part.features for part in parts]),
        converged=torch.cat([part.converged for part in parts]),
        rounds=torch.cat([part.rounds for part in parts]),
        history=torch.cat(histories, dim=1),
    )
