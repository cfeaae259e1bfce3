"""Grokking (paper section 6.3, figure 6b): F and the learning coefficient through a transition.

Networks learn arithmetic modulo a prime, memorize it, and generalize thousands of steps later. At
checkpoints all through training stand F of the hidden layer, from autoencoders fitted in three
ways, and the local learning coefficient, sampled in two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch

from ..checkpoints import coefficients, dictionaries, embeddings, plain
from ..data import Modular, modular
from ..data.modular import OPERATIONS, check_fraction, check_prime
from ..fourier import cyclic_order
from ..modular_networks import Trajectory, checkpoint_steps, trained
from ..sae import SAEConfig
from ..settings import PROFILES, setting
from ..sweep import ENGINES

SECTION = "grokking"
VERSION = 1
TITLE = "Grokking"

KINDS = ("grokking", "shuffled", "no_decay")
"""`grokking`: the task. `shuffled`: the training pairs have each other's answers, so that there is
nothing to generalize. `no_decay`: the task without weight decay."""
JUDGED = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
FRAMES = 16  # checkpoints whose embedding is kept


@dataclass(frozen=True)
class Settings:
    """Parameters of the notebook."""

    profile: str = setting("quick", "which profile's values these are", choices=PROFILES)
    prime: int = setting(53, "modulus; a prime number", low=2, high=499)
    operation: str = setting("add", "what is learned", choices=tuple(OPERATIONS))
    train_fraction: float = setting(0.4, "share of the pairs that are trained on")
    embedding: int = setting(12, "axes of the embedding", low=1)
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
    sae_steps: int = setting(1000, "steps of a round of the SAE solver", low=10)
    passes: int = setting(6, "passes of handing dictionaries on", low=0)
    sae_epochs: int = setting(300, "epochs of SAEs stopped early", low=1)
    chains: int = setting(2, "SGLD chains per checkpoint", low=1, high=1000)
    burn_in: int = setting(200, "steps of a chain that do not count", low=0)
    draws: int = setting(200, "steps of a chain that count", low=1)
    engine: str = setting("serial", "how conditions are run", choices=ENGINES)
    device: str = setting("auto", "cpu, cuda, or auto")

    def __post_init__(self) -> None:
        """A modulus must be prime, and pairs must be left to train and to test on."""
        check_prime(self.prime)
        check_fraction(self.train_fraction, self.prime)


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

    The embedding and the chains' traces are kept at some checkpoints, evenly over training.
    """
    whole, even = checkpoint_steps(condition.steps, condition.checkpoints)
    shown = {*even[:: math.ceil(len(even) / FRAMES)], whole[-1]}
    kept = [place for place, step in enumerate(whole) if step in shown]
    trajectory = _trajectory(replace(condition, seed=0), device)  # all seeds share one call
    networks = [own[condition.seed] for own in trajectory.networks]
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
