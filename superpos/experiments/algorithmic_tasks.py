"""Algorithmic tasks (paper section 6.2, figure 5): compiled transformers under compression.

RASP programs are compiled to transformer weights, whose residual stream is then squeezed into N
neurons; beside them stand transformers of the same shape trained from nothing. F of every layer is
measured against N.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from .. import rasp
from ..compression import compressed, reads
from ..dictionary import codes
from ..entropy import effective_features
from ..ledger import Estimate
from ..sae import SAEConfig
from ..sequence_tasks import Task, accuracy, answer_loss, indicator_loss, task, trained
from ..settings import PROFILES, setting
from ..solver import fit
from ..stats import mean_interval
from ..sweep import ENGINES
from ..transformers import Compressed, Transformer, directions_read

SECTION = "algorithmic_tasks"
VERSION = 1
TITLE = "Algorithmic tasks"

TASKS = ("reversal", "sorting")
KINDS = ("compressed", "scratch", "compiled", "linear", "end_to_end")
"""`compressed`: W fitted to what the frozen sublayers read. `scratch`: all weights trained.
`compiled`: the program itself. `linear`: W fitted to be read without the ReLU. `end_to_end`: W
trained on the network's outputs."""
READING = ("compressed", "linear")  # kinds whose W is fitted to what is read
ALWAYS = ("compiled", "compressed", "scratch")  # kinds whose F is measured even where they fail
BATCH, RATE = 64, {"scratch": 5e-3, "end_to_end": 1e-3}
MEASURES = ("layer", "features", "active", "explained", "converged")
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
        ("compressed", "scratch"), "kinds of network, at all widths", choices=KINDS[:2]
    )
    neurons: tuple[int, ...] = setting(
        (6, 9, 12, 20, 50), "widths N of the stream; at most the uncompressed one", low=1
    )
    compared: tuple[str, ...] = setting(
        ("linear", "end_to_end"), "further kinds, at some widths", choices=KINDS[3:]
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
    names = ("vocabulary", "length", "seeds", "expansion", "l1", "samples")
    common = {name: getattr(settings, name) for name in names}
    steps = {
        "compiled": 0, "compressed": settings.fit_steps, "linear": settings.fit_steps,
        "scratch": settings.train_steps, "end_to_end": settings.end_to_end_steps,
    }  # fmt: skip
    points = [
        *itertools.product(settings.kinds, settings.neurons, (0.0,), (False,)),
        *itertools.product(settings.compared, settings.compared_neurons, (0.0,), (False,)),
        *itertools.product(("compressed",), settings.empty_neurons, settings.empty, (True,)),
    ]
    found = []
    for name in settings.tasks:
        widest = len(program(name, settings.vocabulary, settings.length).directions)
        for kind, neurons, empty, by_frequency in [*points, ("compiled", widest, 0.0, False)]:
            point = {"task": name, "kind": kind, "neurons": min(neurons, widest), "empty": empty}
            own = {"starts": settings.starts if kind in READING else 1, "steps": steps[kind]}
            found.append(Condition(**point, by_frequency=by_frequency, **own, **common))
    return sorted(dict.fromkeys(found), key=lambda own: -own.neurons)


def program(name: str, vocabulary: int, length: int, *, device: str = "cpu") -> rasp.Compiled:
    """One of the `TASKS`, compiled for tokens 1, 2, ...

    Args:
        name: reversal or sorting.
        vocabulary: number of tokens.
        length: positions of the longest input.
        device: where the weights live.

    Raises:
        ValueError: there is no such task.
    """
    if name not in TASKS:
        raise ValueError(f"task is {name!r}; allowed are {', '.join(TASKS)}.")
    made = rasp.reversal() if name == "reversal" else rasp.sorting(length)
    return rasp.compiled(made, range(1, vocabulary + 1), length, device=device)


def run(condition: Condition, *, device: str) -> list[dict[str, Any]]:
    """Make the networks, and measure every layer of each.

    Of kinds that are only compared, and in the test of sparsity, a network that fails has one row
    without F, for layer 0.
    """
    compiled = program(condition.task, condition.vocabulary, condition.length, device=device)
    inputs = task(compiled, empty=condition.empty)
    networks = _networks(condition, compiled, inputs)
    ids, present = _drawn(inputs, condition.samples)
    always = condition.kind in ALWAYS and not condition.by_frequency
    rows = []
    for seed, network in enumerate(networks):
        about = {"seed": seed, "accuracy": accuracy(network, inputs), "matrix": None}
        if not always and about["accuracy"] < ACCURATE:
            rows.append({**about, **dict.fromkeys(MEASURES), "layer": 0})
            continue
        with torch.no_grad():
            states = torch.stack([point[present] for point in network.points(ids)[2::2]])
        layers = _layers(condition, states[:, : condition.samples], seed)
        rows += [{**about, **layer} for layer in layers]
    if condition.kind == "compressed" and always:
        rows[0]["matrix"] = networks[0].matrix.detach().cpu().double().numpy().round(3).tolist()
    return rows


def _networks(condition: Condition, compiled: rasp.Compiled, inputs: Task) -> list[nn.Module]:
    """The condition's networks, one per seed."""
    frozen, seeds = compiled.transformer, range(condition.seeds)
    if condition.kind == "compiled":
        return [frozen for _ in seeds]
    if condition.kind in READING:
        frequency = inputs.frequency if condition.by_frequency else None
        return compressed(
            frozen, reads(frozen, inputs.ids, inputs.present, frequency), condition.neurons,
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
        first, inputs, loss=loss, seeds=seeds, steps=condition.steps, batch=BATCH,
        rate=RATE[condition.kind],
    )  # fmt: skip


def _drawn(inputs: Task, samples: int) -> tuple[Tensor, Tensor]:
    """Inputs drawn by their frequency, with their positions that are not padding.

    The same for all networks of a task. Every input has two such positions or more, so that half as
    many inputs hold enough samples.
    """
    generator = torch.Generator().manual_seed(0)
    index = torch.multinomial(
        inputs.frequency.cpu(), (samples + 1) // 2, replacement=True, generator=generator
    ).to(inputs.ids.device)
    return inputs.ids[index], inputs.present[index]


def _layers(condition: Condition, states: Tensor, seed: int) -> list[dict[str, Any]]:
    """One row of plain values per layer; states are `[layers, samples, neurons]`."""
    config = SAEConfig(expansion=condition.expansion, l1=condition.l1)
    result = fit(states, config, seeds=[seed])
    found = codes(result.sae, states)
    rows = []
    for layer in range(len(states)):
        features = result.features[layer].item()
        values = (
            layer + 1, features if features == features else None, found.active[layer].item(),
            found.explained[layer].item(), bool(result.converged[layer]),
        )  # fmt: skip
        rows.append(dict(zip(MEASURES, values, strict=True)))
    return rows


def carried(name: str, vocabulary: int, length: int) -> list[float]:
    """Effective features that each layer of an uncompressed program hands on, counted directly.

    Each residual direction that is still read in a later layer, or as output, is a feature; its
    share is its share of their summed activations.

    Args:
        name, vocabulary, length: as in `program`.
    """
    compiled = program(name, vocabulary, length)
    own, read = task(compiled), directions_read(compiled.transformer)
    points = compiled.transformer.points(own.ids)[2::2]
    found = []
    for layer, point in enumerate(points, start=1):
        still = torch.cat(read[2 * layer :]).unique()
        weights = (own.present * own.frequency[:, None]).flatten()
        found.append(effective_features(weights @ point.double().flatten(0, 1)[:, still]).item())
    return found


def networks(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per network.

    Returns:
        Columns of the condition and `seed`, `accuracy`, `solves`; `psi`, its mean over layers,
        and `psi_highest`, that of the layer with most. A layer whose codes are all dead has F = 0.
    """
    names = ["task", "kind", "neurons", "empty", "by_frequency", "seed", "accuracy"]
    psi = frame["features"].astype(float).fillna(0.0) / frame["neurons"]
    groups = frame.assign(psi=psi).groupby(names)["psi"]
    table = groups.agg(psi="mean", psi_highest="max").reset_index()
    return table.assign(solves=table["accuracy"] >= ACCURATE)


def plain(table: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Rows of one kind outside the test of sparsity."""
    return table[(table["kind"] == kind) & ~table["by_frequency"].astype(bool)]


def narrowest(table: pd.DataFrame) -> pd.DataFrame:
    """For every task and seed, the narrowest network that solves as all wider ones do.

    Args:
        table: rows of `networks` of one kind, or of one share of empty positions.
    """
    found = []
    for _, rows in table.groupby(["task", "seed"]):
        rows = rows.sort_values("neurons", ascending=False)
        solving = rows[rows["solves"].cummin()]
        if len(solving):
            found.append(solving.iloc[-1])
    return pd.DataFrame(found, columns=table.columns)


def estimates(frame: pd.DataFrame, settings: Settings) -> dict[str, Estimate]:
    """Values for the claims. What a run does not hold has no value."""
    table = networks(frame)
    values: dict[str, Estimate | None] = {}
    for kind in ("compressed", "scratch"):
        rows = plain(table, kind)
        edge = narrowest(rows)
        widest = rows.groupby("task")["neurons"].transform("max") == rows["neurons"]
        if max(settings.neurons) >= max(_directions(settings).values()):
            values[f"uncompressed_{kind}"] = _over_seeds(rows[widest], settings, "psi")
        values[f"approach_{kind}"] = _over_seeds(edge, settings, "psi")
        values[f"beyond_{kind}"] = _over_seeds(edge, settings, "psi_highest")
        values[f"width_{kind}"] = _over_seeds(edge, settings, "neurons", ("reversal",))
    values |= _intrinsic(frame, table, settings)
    values |= _sparsity(table, settings)
    return {name: value for name, value in values.items() if value is not None}


def _directions(settings: Settings) -> dict[str, int]:
    sizes = settings.vocabulary, settings.length
    return {name: len(program(name, *sizes).directions) for name in settings.tasks}


def _over_seeds(
    rows: pd.DataFrame, settings: Settings, column: str, tasks: Sequence[str] = ()
) -> Estimate | None:
    """Mean over tasks of a column, t over seeds; None unless every task and seed has a row."""
    tasks = tasks or settings.tasks
    rows = rows[rows["task"].isin(tasks)]
    cells = rows.pivot_table(index="seed", columns="task", values=column, aggfunc="mean")
    if cells.shape != (settings.seeds, len(tasks)) or cells.isna().any(axis=None):
        return None
    found = mean_interval(cells.mean(axis=1))
    same = found.low == found.high
    return found._replace(note="the same for all seeds") if same else found


def _intrinsic(
    frame: pd.DataFrame, table: pd.DataFrame, settings: Settings
) -> dict[str, Estimate | None]:
    """F of the narrowest compressed reversal by layers, and of sorting."""
    rows = frame.assign(features=frame["features"].astype(float).fillna(0.0))
    at = ["task", "seed", "neurons"]
    early, found = rows["layer"] < rows.groupby("task")["layer"].transform("max"), {}
    for name, chosen in (("early", early), ("last", ~early)):
        edge = narrowest(plain(table, "compressed"))[at]
        own = plain(rows[chosen], "compressed").merge(edge, on=at)
        found[f"reversal_{name}"] = _over_seeds(own, settings, "features", ("reversal",))
    solving = plain(table[table["solves"]], "scratch")[at]
    own = plain(rows, "scratch").merge(solving, on=at)
    found["sorting_scratch"] = _over_seeds(own, settings, "features", ("sorting",))
    for task_name, kind in (("reversal", "scratch"), ("sorting", "compressed")):
        own = plain(rows[rows["task"] == task_name], kind)
        own = own[own["neurons"] == own["neurons"].max()]
        found[f"wide_{task_name}_{kind}"] = _over_seeds(own, settings, "features", (task_name,))
    return found


def _sparsity(table: pd.DataFrame, settings: Settings) -> dict[str, Estimate | None]:
    """Psi of the narrowest solving networks on the sparsest inputs, and against dense ones."""
    rows = table[table["by_frequency"].astype(bool)]
    if len(settings.empty) < 2 or min(settings.empty) > 0 or not settings.empty_neurons:
        return {}
    dense, sparse = (
        narrowest(rows[rows["empty"] == share])
        for share in (min(settings.empty), max(settings.empty))
    )
    both = dense.merge(sparse, on=["task", "seed"], suffixes=("_dense", ""))
    return {
        "sparse_beyond": _over_seeds(sparse, settings, "psi_highest"),
        "sparse_gain": _over_seeds(
            both.assign(gain=both["psi_highest"] - both["psi_highest_dense"]), settings, "gain"
        ),
        "sparse_width": _over_seeds(
            both.assign(fewer=both["neurons_dense"] - both["neurons"]), settings, "fewer"
        ),
    }
