"""Grokking (paper section 6.3, figure 6b): F and the learning coefficient through a transition.

Networks learn arithmetic modulo a prime, memorize it, and generalize thousands of steps later. At
checkpoints all through training stand F of the hidden layer, from autoencoders fitted in three
ways, and the local learning coefficient, sampled in two.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..checkpoints import SAMPLERS, WAYS, coefficients, dictionaries, embeddings
from ..data import Modular, modular
from ..data.modular import OPERATIONS, check_fraction, check_prime
from ..device import DEVICES
from ..fourier import cyclic_order
from ..ledger import Estimate
from ..modular_networks import Trajectory, checkpoint_steps, trained
from ..sae import SAEConfig
from ..settings import PROFILES, setting
from ..stats import difference, mean_interval
from ..store import plain
from ..sweep import ENGINES
from ..transition import MIDDLE, Decay, Transition, decay, fall, levels, passing, transition
from ..trends import SHORTEST, change_point, effective_pairs, series_correlation, without_trend

SECTION = "grokking"
VERSION = 1
TITLE = "Grokking"

KINDS = ("grokking", "shuffled", "no_decay")
"""`grokking`: the task. `shuffled`: the training pairs have each other's answers, so that there is
nothing to generalize. `no_decay`: the task without weight decay."""
JUDGED = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
CLAIMED = ("recipe", "relay")  # ways that every claim is put to; falls are put to all
MEMORIZED = 0.99  # training accuracy from which on a network counts as having memorized
ABOUT = ("kind", "seed", "accuracy", "memorized")
OF_WAY = ("before", "after", "fall", "rise", "lag", "lag_low", "lag_high")
R_FIELDS = {"r": "value", "low": "low", "high": "high"}
FRAMES = 16  # checkpoints whose embedding is kept


@dataclass(frozen=True)
class Settings:
    """Parameters of the notebook."""

    profile: str = setting("quick", "which profile's values these are", choices=PROFILES)
    prime: int = setting(53, "modulus; a prime number from 5 on", low=5, high=499)
    operation: str = setting("add", "what is learned", choices=tuple(OPERATIONS))
    train_fraction: float = setting(0.4, "share of the pairs that are trained on")
    embedding: int = setting(12, "axes of the embedding", low=2)
    hidden: int = setting(48, "neurons N of the hidden layer", low=2, high=4096)
    steps: int = setting(15_000, "training steps", low=100)
    decay: float = setting(1e-3, "weight decay, added to the gradient", low=0.0)
    rate: float = setting(5e-3, "Adam's learning rate", low=1e-8)
    batch: int = setting(128, "pairs per training step", low=1)
    seeds: int = setting(1, "networks, seeds 0, 1, ...", low=1, high=100)
    checkpoints: int = setting(40, "checkpoints of each network", low=25, high=2000)
    controls: tuple[str, ...] = setting((), "networks that only memorize", choices=KINDS[1:])
    control_seeds: int = setting(3, "networks of each of these kinds", low=2, high=100)
    control_checkpoints: int = setting(60, "checkpoints of each of these", low=25, high=2000)
    expansion: float = setting(4.0, "SAE dictionary over neurons", low=1.0, high=1024.0)
    l1: float = setting(0.1, "SAE penalty", low=0.0)
    sae_starts: int = setting(1, "starts of every converging SAE; the best goes on", low=1)
    sae_steps: int = setting(600, "steps of a round of the SAE solver", low=10)
    passes: int = setting(4, "passes of handing dictionaries on", low=0)
    sae_epochs: int = setting(300, "epochs of SAEs stopped early", low=1)
    chains: int = setting(2, "SGLD chains per checkpoint", low=1, high=1000)
    burn_in: int = setting(150, "steps of a chain that do not count", low=0)
    draws: int = setting(150, "steps of a chain that count", low=1)
    engine: str = setting("serial", "how conditions are run", choices=ENGINES)
    device: str = setting("auto", "where to compute", choices=DEVICES)

    def __post_init__(self) -> None:
        """A modulus must be prime, and pairs must be left to train and to test on."""
        check_prime(self.prime)
        check_fraction(self.train_fraction, self.prime)
        most = max(self.checkpoints, self.control_checkpoints if self.controls else 0)
        if self.steps < 10 * most:
            raise ValueError(
                f"steps is {self.steps} for {most} checkpoints; give at least ten steps for each."
            )


@dataclass(frozen=True)
class Condition:
    """One network. All seeds of its kind are trained together, one is measured."""

    kind: str
    seed: int
    prime: int
    operation: str
    train_fraction: float
    embedding: int
    hidden: int
    steps: int
    decay: float
    rate: float
    batch: int
    seeds: int
    checkpoints: int
    expansion: float
    l1: float
    sae_starts: int
    sae_steps: int
    passes: int
    sae_epochs: int
    chains: int
    burn_in: int
    draws: int


def conditions(settings: Settings) -> list[Condition]:
    """Every network that learns the task, then those that only memorize."""
    own = ("kind", "seed", "seeds", "checkpoints", "decay")
    names = Condition.__dataclass_fields__.keys() - set(own)
    common = {name: getattr(settings, name) for name in names}
    found = []
    for kind in ("grokking", *settings.controls):
        of_task = kind == "grokking"
        seeds = settings.seeds if of_task else settings.control_seeds
        count = settings.checkpoints if of_task else settings.control_checkpoints
        decay = 0.0 if kind == "no_decay" else settings.decay
        for seed in range(seeds):
            about = {"kind": kind, "seed": seed, "seeds": seeds, "decay": decay}
            found.append(Condition(checkpoints=count, **about, **common))
    return found


def run(condition: Condition, *, device: str) -> list[dict[str, Any]]:
    """Train, and measure every checkpoint: one row each.

    The embedding and the chains' traces are kept at some checkpoints: evenly over training, early
    on, and nearest to the middle of the transition.
    """
    whole, even = checkpoint_steps(condition.steps, condition.checkpoints)
    trajectory = _trajectory(replace(condition, seed=0), device)  # all seeds share one call
    networks = [own[condition.seed] for own in trajectory.networks]
    kept = _kept(whole, even, trajectory.test_accuracy[:, condition.seed])
    data = _data(condition, condition.seed, device)
    residues = cyclic_order(condition.prime, condition.operation)
    config = SAEConfig(
        expansion=condition.expansion, l1=condition.l1, starts=condition.sae_starts,
        steps=condition.sae_steps,
    )  # fmt: skip
    columns = {
        "step": whole,
        "even": [step in even for step in whole],
        **{name: getattr(trajectory, name)[:, condition.seed] for name in JUDGED},
        **dictionaries(
            networks, data, residues, config, seed=condition.seed, passes=condition.passes,
            epochs=condition.sae_epochs,
        ),
        **coefficients(
            networks, data, seed=condition.seed, chains=condition.chains,
            burn_in=condition.burn_in, draws=condition.draws, kept=kept,
        ),
        **embeddings(networks, residues, kept=kept),
    }  # fmt: skip
    return [
        {name: plain(values[place]) for name, values in columns.items()}
        for place in range(len(whole))
    ]


def _kept(whole: list[int], even: list[int], accuracy: torch.Tensor) -> list[int]:
    early = [step for step in whole if step < even[1]]
    shown = {*even[:: math.ceil(len(even) / FRAMES)], *early[:: max(1, len(early) // 3)], whole[-1]}
    places = {place for place, step in enumerate(whole) if step in shown}
    return sorted({*places, int((accuracy - MIDDLE).abs().argmin())})


@lru_cache(maxsize=3)
def _trajectory(condition: Condition, device: str) -> Trajectory:
    """Networks of all seeds of a condition's kind."""
    whole, _ = checkpoint_steps(condition.steps, condition.checkpoints)
    return trained(
        [_data(condition, seed, device) for seed in range(condition.seeds)],
        embedding=condition.embedding, hidden=condition.hidden, seeds=range(condition.seeds),
        checkpoints=whole, batch=condition.batch, rate=condition.rate, decay=condition.decay,
    )  # fmt: skip


def _data(condition: Condition, seed: int, device: torch.device | str) -> Modular:
    return modular(
        condition.prime, condition.operation, train_fraction=condition.train_fraction, seed=seed,
        shuffled=condition.kind == "shuffled", device=device,
    )  # fmt: skip


def networks(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per network: when it memorizes and generalizes, and what becomes of F and the LLC.

    Returns:
        `kind`, `seed`; `memorized`, `begin`, `middle`, `end` in steps, nan for what never comes;
        `accuracy`, the last on test pairs. For every way `before`, `after` and `fall` around the
        transition, `rise` while memorizing, and, where F takes a step down afterwards, `lag`, its
        distance from the middle of the transition in lengths of the transition, with `lag_low` and
        `lag_high`. For every sampler `peak`, `early` and `order` (`superpos.transition.Decay`).
    """
    found = []
    for (kind, seed), rows in frame.groupby(["kind", "seed"]):
        rows = _evenly(rows)
        around = transition(rows["step"], rows["test_accuracy"])
        about = {"kind": kind, "seed": seed, "accuracy": rows["test_accuracy"].iloc[-1]}
        memorized = passing(rows["step"], rows["train_accuracy"], MEMORIZED)
        about["memorized"] = math.nan if memorized is None else memorized
        if around is not None:
            about |= around._asdict()
            for way in WAYS:
                about |= {f"{k}_{way}": v for k, v in _of_way(rows, way, around, memorized).items()}
            for name in SAMPLERS:
                course = decay(rows["step"], rows[f"llc_{name}"].astype(float), around)
                about |= {f"{key}_{name}": value for key, value in course._asdict().items()}
        found.append(about)
    names = [f"{name}_{way}" for way in WAYS for name in OF_WAY]
    names += [f"{name}_{sampler}" for sampler in SAMPLERS for name in Decay._fields]
    return pd.DataFrame(found, columns=[*ABOUT, *Transition._fields, *names])


def _evenly(rows: pd.DataFrame) -> pd.DataFrame:
    """A network's evenly spaced checkpoints, in their order."""
    return rows[rows["even"].astype(bool)].sort_values("step")


def _of_way(
    rows: pd.DataFrame, way: str, around: Transition, memorized: float | None
) -> dict[str, float]:
    """What becomes of one network's F, as `networks` says."""
    steps, values = rows["step"].to_numpy(), rows[f"features_{way}"].astype(float).to_numpy()
    before, after = levels(steps, values, around)
    found = {"before": before, "after": after, "fall": fall(steps, values, around)}
    if memorized is None:
        return found
    found["rise"] = np.interp(memorized, steps, values) / values[0] - 1
    later = (steps >= memorized) & np.isfinite(values)
    change = change_point(steps[later], values[later]) if later.sum() >= SHORTEST else None
    if change is not None and change.size.value < 0:
        length = around.end - around.begin
        lag, low, high = ((own - around.middle) / length for own in change.time[:3])
        found |= {"lag": lag, "lag_low": low, "lag_high": high}
    return found


def correlations(frame: pd.DataFrame, way: str, sampler: str) -> pd.DataFrame:
    """r(F, LLC) over the evenly spaced checkpoints of every network that learns the task.

    Returns:
        Columns `seed`; `r`, `low`, `high`, with an interval that respects autocorrelation,
        and `pairs`, how many independent ones it rests on; the same followed by `_detrended` after
        the slow trend of each series is removed.
    """
    found = []
    for seed, rows in frame[frame["kind"] == "grokking"].groupby("seed"):
        rows = _evenly(rows).dropna(subset=[f"features_{way}", f"llc_{sampler}"])
        x, y = (rows[name].astype(float) for name in (f"features_{way}", f"llc_{sampler}"))
        about = {"seed": seed}
        for ending, a, b in (("", x, y), ("_detrended", without_trend(x), without_trend(y))):
            r = series_correlation(a, b)
            about |= {f"{name}{ending}": getattr(r, field) for name, field in R_FIELDS.items()}
            about[f"pairs{ending}"] = effective_pairs(a, b)
        found.append(about)
    return pd.DataFrame(found)


def control_falls(frame: pd.DataFrame, way: str) -> list[float]:
    """How far F falls in each network that only memorizes, at the times when others generalize.

    The mean over the transitions of all networks that learn the task and have one, of the fall
    over the same steps. A control that generalizes after all is none.
    """
    table = networks(frame[frame["kind"] == "grokking"])
    around = [Transition(*row) for row in table[list(Transition._fields)].dropna().to_numpy()]
    falls = []
    for _, rows in frame[frame["kind"] != "grokking"].groupby(["kind", "seed"]):
        rows = _evenly(rows)
        if not around or transition(rows["step"], rows["test_accuracy"]) is not None:
            continue
        values = rows[f"features_{way}"].astype(float)
        falls.append(float(np.mean([fall(rows["step"], values, each) for each in around])))
    return [value for value in falls if math.isfinite(value)]


def estimates(frame: pd.DataFrame, settings: Settings) -> dict[str, Estimate]:
    """Values for the claims. What a run does not hold has no value.

    Intervals are over networks that reach the transition; notes say how many of all those are.
    """
    table = networks(frame)
    table = table[table["kind"] == "grokking"]
    asked = [f"{name}_{way}" for name in ("fall", "lag") for way in WAYS]
    asked += [f"{name}_{way}" for name in ("before", "rise") for way in CLAIMED]
    asked += [f"{name}_{sampler}" for name in ("peak", "early", "order") for sampler in SAMPLERS]
    found = {name: _over(table[name]) for name in asked}
    for way, sampler in itertools.product(CLAIMED, SAMPLERS):
        found[f"r_{way}_{sampler}"] = _correlation(correlations(frame, way, sampler))
    for way in WAYS:
        falls = table[f"fall_{way}"].dropna()
        found[f"control_{way}"] = difference(falls, control_falls(frame, way))
    return {name: value for name, value in found.items() if value is not None}


def _over(values: pd.Series) -> Estimate | None:
    """Mean over networks; the note says how many have a value if not all do."""
    known = values.dropna().astype(float)
    if len(known) == 0:
        return None
    count = "" if len(known) == len(values) else f"{len(known)} of {len(values)} networks"
    if len(known) == 1:
        value = float(known.iloc[0])
        return Estimate(value, value, value, f"{count or 'one network'}, no interval")
    mean = mean_interval(known)
    return mean._replace(note="; ".join(part for part in (count, mean.note) if part))


def _correlation(rows: pd.DataFrame) -> Estimate:
    """Mean of networks' correlations, taken over Fisher's z; of one, with its own interval."""
    each = ", ".join(
        f"{r:.2f} ({detrended:.2f} without the trend)"
        for r, detrended in zip(rows["r"], rows["r_detrended"], strict=True)
    )
    if len(rows) == 1:
        return Estimate(*(float(rows[name].iloc[0]) for name in R_FIELDS), f"one network: {each}")
    mean = mean_interval(np.arctanh(rows["r"]))
    return Estimate(*np.tanh(mean[:3]).tolist(), f"by seed {each}")
