"""Algorithmic tasks (paper section 6.2, figure 5): compiled transformers under compression.

RASP programs are compiled to transformer weights, whose residual stream is then squeezed into N
neurons; beside them stand transformers of the same shape trained from nothing. F of every layer is
measured against N.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .. import rasp
from ..compression import compressed, reads
from ..dictionary import codes
from ..sae import SAEConfig
from ..sequence_tasks import Task, accuracy, answer_loss, indicator_loss, task, trained
from ..settings import PROFILES, setting
from ..solver import fit
from ..sweep import ENGINES
from ..transformers import Compressed, Transformer

SECTION = "algorithmic_tasks"
VERSION = 1
TITLE = "Algorithmic tasks"

TASKS = ("reversal", "sorting")
KINDS = ("compressed", "linear", "end_to_end", "scratch")
"""`compressed`: W fitted to what the frozen sublayers read. `linear`: without the ReLU.
`end_to_end`: W trained on the network's outputs. `scratch`: all weights trained."""
READING = ("compressed", "linear")
BATCH, RATE = 64, {"scratch": 5e-3, "end_to_end": 1e-3}
SAE_STARTS, SAE_ROUNDS = 2, 3  # further rounds change F by a few percent (see the chapter)
ACCURATE = 0.999
"""From this accuracy on a network counts as one that solves its task."""


@dataclass(frozen=True)
class Settings:
    """Parameters of the notebook."""

    profile: str = setting("quick", "which profile's values these are", choices=PROFILES)
    tasks: tuple[str, ...] = setting(("reversal",), "programs", choices=TASKS)
    vocabulary: int = setting(3, "tokens 1, 2, ...; the paper has 5", low=2, high=10)
    length: int = setting(4, "positions of the longest input; the paper has 5", low=1, high=8)
    kinds: tuple[str, ...] = setting(
        ("compressed", "scratch"), "kinds of network, at all widths", choices=KINDS
    )
    neurons: tuple[int, ...] = setting(
        (6, 9, 12, 20, 50), "widths N of the stream; at most the uncompressed one", low=1
    )
    compared: tuple[str, ...] = setting(
        ("linear", "end_to_end"), "further kinds, at some widths", choices=KINDS
    )
    compared_neurons: tuple[int, ...] = setting((12,), "these widths", low=1)
    empty: tuple[float, ...] = setting(
        (0.0, 0.9), "probabilities that a position is empty, in the test of sparsity",
        low=0.0, high=0.99,
    )  # fmt: skip
    empty_neurons: tuple[int, ...] = setting((7, 9), "widths of that test", low=1)
    seeds: int = setting(2, "networks of each kind, seeds 0, 1, ...", low=2, high=100)
    starts: int = setting(3, "starts of W per seed; the best is kept", low=1, high=100)
    fit_steps: int = setting(1000, "steps of fitting W to what is read", low=1)
    train_steps: int = setting(600, "steps of training from scratch", low=1)
    end_to_end_steps: int = setting(600, "steps of training W on outputs", low=1)
    expansion: float = setting(4.0, "SAE dictionary over neurons", low=1.0, high=1024.0)
    l1: float = setting(0.1, "SAE penalty", low=0.0)
    samples: int = setting(2048, "states of the stream per SAE", low=100)
    engine: str = setting("serial", "how conditions are run", choices=ENGINES)
    device: str = setting("auto", "cpu, cuda, or auto")

    def __post_init__(self) -> None:
        """A grid needs a point, and inputs must be few enough to try them all."""
        for name in ("tasks", "kinds", "neurons"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; give at least one.")
        inputs = (self.vocabulary + bool(self.empty)) ** self.length
        if inputs > 100_000:
            raise ValueError(
                f"{self.vocabulary} tokens at length {self.length} make {inputs} inputs; all are "
                "tried, so choose fewer tokens or a smaller length (at most 100000 inputs)."
            )


@dataclass(frozen=True)
class Condition:
    """One task, kind and width; its seeds are members of one batch.

    `by_frequency` marks the test of sparsity: a state counts as often as it occurs.
    """

    task: str
    vocabulary: int
    length: int
    kind: str
    neurons: int
    empty: float
    by_frequency: bool
    seeds: int
    starts: int
    steps: int
    expansion: float
    l1: float
    samples: int


def conditions(settings: Settings) -> list[Condition]:
    """The grid of kinds and widths, further kinds at some widths, and the test of sparsity."""
    names = ("vocabulary", "length", "seeds", "starts", "expansion", "l1", "samples")
    common = {name: getattr(settings, name) for name in names}
    points = [
        *itertools.product(settings.kinds, settings.neurons, (0.0,), (False,)),
        *itertools.product(settings.compared, settings.compared_neurons, (0.0,), (False,)),
        *itertools.product(("compressed",), settings.empty_neurons, settings.empty, (True,)),
    ]
    found = []
    for name in settings.tasks:
        widest = len(program(name, settings.vocabulary, settings.length).directions)
        for kind, neurons, empty, by_frequency in points:
            steps = settings.fit_steps
            if kind not in READING:
                scratch = kind == "scratch"
                steps = settings.train_steps if scratch else settings.end_to_end_steps
            point = {"task": name, "kind": kind, "neurons": min(neurons, widest), "steps": steps}
            found.append(Condition(**point, empty=empty, by_frequency=by_frequency, **common))
    return sorted(dict.fromkeys(found), key=lambda own: -own.neurons)


def program(name: str, vocabulary: int, length: int, *, device: str = "cpu") -> rasp.Compiled:
    """One of the `TASKS`, compiled for tokens 1, 2, ...

    Args:
        name: reversal or sorting.
        vocabulary: number of tokens.
        length: positions of the longest input.
        device: where the weights live.
    """
    made = rasp.reversal() if name == "reversal" else rasp.sorting(length)
    return rasp.compiled(made, range(1, vocabulary + 1), length, device=device)


def run(condition: Condition, *, device: str) -> list[dict[str, Any]]:
    """Make the networks, and measure every layer of each."""
    compiled = program(condition.task, condition.vocabulary, condition.length, device=device)
    own = task(compiled, empty=condition.empty)
    networks = _networks(condition, compiled, own)
    ids, present = _drawn(own, condition.samples)
    rows = []
    for seed, network in enumerate(networks):
        with torch.no_grad():
            states = torch.stack([point[present] for point in network.points(ids)[2::2]])
        states = states[:, : condition.samples]
        about = {"seed": seed, "accuracy": accuracy(network, own), "matrix": None}
        if seed == 0 and isinstance(network, Compressed):
            about["matrix"] = network.matrix.detach().cpu().double().numpy().round(3).tolist()
        rows += [{**about, **row} for row in _layers(condition, states, seed)]
    return rows


def _networks(condition: Condition, compiled: rasp.Compiled, own: Task) -> list[nn.Module]:
    """The condition's networks, one per seed."""
    frozen, seeds = compiled.transformer, range(condition.seeds)
    if condition.kind in READING:
        frequency = own.frequency if condition.by_frequency else None
        return compressed(
            frozen, reads(frozen, own.ids, own.present, frequency), condition.neurons,
            seeds=seeds, starts=condition.starts, steps=condition.steps,
            linear=condition.kind == "linear",
        )  # fmt: skip
    if condition.kind == "end_to_end":
        first = [Compressed(frozen, condition.neurons, seed=seed) for seed in seeds]
        loss = indicator_loss
    else:
        shape = replace(frozen.shape, width=condition.neurons)
        first = [Transformer(shape, seed=seed).to(frozen.token.device) for seed in seeds]
        loss = answer_loss
    return trained(
        first, own, loss=loss, seeds=seeds, steps=condition.steps, batch=BATCH,
        rate=RATE[condition.kind],
    )  # fmt: skip


def _drawn(own: Task, samples: int) -> tuple[Tensor, Tensor]:
    """Inputs drawn by their frequency, with their positions that are not padding.

    The same for all networks of a task. Every input has BOS and a token, hence half of `samples`.
    """
    generator = torch.Generator().manual_seed(0)
    index = torch.multinomial(
        own.frequency.cpu(), (samples + 1) // 2, replacement=True, generator=generator
    ).to(own.ids.device)
    return own.ids[index], own.present[index]


def _layers(condition: Condition, states: Tensor, seed: int) -> list[dict[str, Any]]:
    """One row of plain values per layer; states are `[layers, samples, neurons]`."""
    config = SAEConfig(
        expansion=condition.expansion, l1=condition.l1, starts=SAE_STARTS, rounds=SAE_ROUNDS
    )
    result = fit(states, config, seeds=[seed])
    found = codes(result.sae, states)
    rows = []
    for layer in range(len(states)):
        features = result.features[layer].item()
        rows.append(
            {
                "layer": layer + 1,
                "features": features if features == features else None,
                "active": found.active[layer].item(),
                "explained": found.explained[layer].item(),
                "converged": bool(result.converged[layer]),
            }
        )
    return rows
