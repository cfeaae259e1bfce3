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
from ..compression import Compressed, compressed, directions_read, reads
from ..device import DEVICES
from ..dictionary import codes
from ..entropy import effective_features
from ..ledger import Estimate
from ..sae import SAEConfig
from ..sequence_tasks import Task, accuracy, answer_loss, indicator_loss, task, trained
from ..settings import PROFILES, setting
from ..solver import fit
from ..stats import mean_interval
from ..sweep import ENGINES
from ..transformers import Transformer

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
SHARPNESS = 20.0  # of attention: what is not selected gets e^-10 of it, enough for these programs
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
    length: int = setting(3, "positions of the longest input; the paper has 5", low=1, high=8)
    kinds: tuple[str, ...] = setting(
        ("compressed", "scratch"), "kinds of network, at all widths", choices=KINDS[:2]
    )
    neurons: tuple[int, ...] = setting(
        (6, 8, 10, 12, 14), "widths N of the stream; at most the uncompressed one", low=1
    )
    compared: tuple[str, ...] = setting(
        ("linear", "end_to_end"), "further kinds, at some widths", choices=KINDS[3:]
    )
    compared_neurons: tuple[int, ...] = setting((12,), "these widths", low=1)
    empty: tuple[float, ...] = setting(
        (0.0, 0.9), "probabilities that a position is empty, in the test of sparsity",
        low=0.0, high=0.99,
    )  # fmt: skip
    empty_neurons: tuple[int, ...] = setting((10,), "widths of that test", low=1)
    seeds: int = setting(2, "networks of each kind, seeds 0, 1, ...", low=2, high=100)
    starts: int = setting(3, "starts of W per seed; the best is kept", low=1, high=100)
    fit_steps: int = setting(1000, "steps of fitting W to what is read", low=1)
    train_steps: int = setting(400, "steps of training from scratch", low=1)
    end_to_end_steps: int = setting(400, "steps of training W on outputs", low=1)
    expansion: float = setting(4.0, "SAE dictionary over neurons", low=1.0, high=1024.0)
    l1: float = setting(0.1, "SAE penalty", low=0.0)
    samples: int = setting(2048, "states of the stream per SAE", low=100)
    engine: str = setting("serial", "how conditions are run", choices=ENGINES)
    device: str = setting("auto", "where to compute", choices=DEVICES)

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
    """The grid of kinds and widths, further kinds at some widths, and the test of sparsity.

    The compiled network itself is measured where the grid reaches its width.
    """
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
        whole = [("compiled", widest, 0.0, False)] if max(settings.neurons) >= widest else []
        for kind, neurons, empty, by_frequency in points + whole:
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
    tokens = range(1, vocabulary + 1)
    return rasp.compiled(made, tokens, length, sharpness=SHARPNESS, device=device)


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


def counted(name: str, vocabulary: int, length: int, *, needed: bool) -> list[float]:
    """Effective features in each layer of an uncompressed program, counted directly.

    A residual direction is a feature; its share is its share of their summed activations.

    Args:
        name, vocabulary, length: as in `program`.
        needed: count only directions that a later layer or the output still reads.
    """
    compiled = program(name, vocabulary, length)
    inputs, read = task(compiled), directions_read(compiled.transformer)
    weights = (inputs.present * inputs.frequency[:, None]).flatten()
    found = []
    for layer, point in enumerate(compiled.transformer.points(inputs.ids)[2::2], start=1):
        sums = weights @ point.double().flatten(0, 1)
        if needed:
            sums = sums[torch.cat(read[2 * layer :]).unique()]
        found.append(effective_features(sums).item())
    return found


def networks(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per network.

    Returns:
        Columns `task`, `kind`, `neurons`, `empty`, `by_frequency`, `seed`, `accuracy` and
        `solves`; `F` and `psi`, means over layers, and `psi_highest`, psi of the layer with most.
        Layers whose codes are all dead, and networks that were not measured, have none.
    """
    names = ["task", "kind", "neurons", "empty", "by_frequency", "seed", "accuracy"]
    rows = frame.assign(F=frame["features"].astype(float))
    rows = rows.assign(psi=rows["F"] / rows["neurons"], psi_highest=rows["F"] / rows["neurons"])
    ways = {"F": "mean", "psi": "mean", "psi_highest": "max"}
    table = rows.groupby(names).agg(ways).reset_index()
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
    values: dict[str, Estimate | None] = {
        "uncompressed_compiled": _over_seeds(plain(table, "compiled"), settings, "psi")
    }
    for kind in ("compressed", "scratch"):
        values |= _edge(plain(table, kind), kind, settings)
    values |= _counts(frame, table, settings)
    values |= _sparsity(table, settings)
    return {name: value for name, value in values.items() if value is not None}


def _edge(rows: pd.DataFrame, kind: str, settings: Settings) -> dict[str, Estimate | None]:
    """What becomes of a kind between the widest networks and the narrowest that solve."""
    edge = narrowest(rows)
    wide = rows[rows["neurons"] == rows.groupby("task")["neurons"].transform("max")]
    both = edge.merge(wide, on=["task", "seed"], suffixes=("", "_wide"))
    both = both.assign(rise=both["psi"] - both["psi_wide"], share=both["F_wide"] / both["F"])
    found = {
        f"rise_{kind}": _over_seeds(both, settings, "rise"),
        f"approach_{kind}": _over_seeds(edge, settings, "psi"),
        f"beyond_{kind}": _over_seeds(edge, settings, "psi_highest"),
        f"intrinsic_{kind}": _over_seeds(both, settings, "share"),
        f"width_{kind}": _over_seeds(edge, settings, "neurons", ("reversal",)),
    }
    if _holds_whole_width(settings):
        found[f"uncompressed_{kind}"] = _over_seeds(wide, settings, "psi")
    return found


def _counts(
    frame: pd.DataFrame, table: pd.DataFrame, settings: Settings
) -> dict[str, Estimate | None]:
    """F of the narrowest networks that solve, reversal's by layers, and of the widest ones."""
    rows = frame[frame["layer"] > 0].assign(F=lambda own: own["features"].astype(float))
    early, found = rows["layer"] < rows.groupby("task")["layer"].transform("max"), {}
    at, edge = ["task", "seed", "neurons"], narrowest(plain(table, "compressed"))
    for name, chosen in (("early", early), ("last", ~early)):
        layers = plain(rows[chosen], "compressed").merge(edge[at], on=at)
        found[f"reversal_{name}"] = _over_seeds(layers, settings, "F", ("reversal",))
    edge = narrowest(plain(table, "scratch"))
    found["sorting_scratch"] = _over_seeds(edge, settings, "F", ("sorting",))
    if _holds_whole_width(settings):
        for name, kind in (("reversal", "scratch"), ("sorting", "compressed")):
            wide = plain(table[table["task"] == name], kind)
            wide = wide[wide["neurons"] == wide["neurons"].max()]
            found[f"wide_{name}_{kind}"] = _over_seeds(wide, settings, "F", (name,))
    return found


def _sparsity(table: pd.DataFrame, settings: Settings) -> dict[str, Estimate | None]:
    """The narrowest networks that solve, on the sparsest inputs against dense ones."""
    rows = table[table["by_frequency"].astype(bool)]
    if len(settings.empty) < 2 or min(settings.empty) > 0 or not settings.empty_neurons:
        return {}
    at = ["task", "seed"]
    dense, sparse = (
        narrowest(rows[rows["empty"] == share])[[*at, "neurons", "psi_highest"]]
        for share in (0.0, max(settings.empty))
    )
    both = dense.merge(sparse, on=at, how="left", suffixes=("_dense", ""))
    at_least = both["neurons"].astype(float).fillna(max(settings.empty_neurons) + 1)
    both = both.assign(
        gain=(both["psi_highest"] - both["psi_highest_dense"]).astype(float),
        fewer=both["neurons_dense"].astype(float) - at_least,
    )
    return {
        "sparse_gain": _over_seeds(both, settings, "gain"),
        "sparse_width": _over_seeds(both, settings, "fewer"),
    }


def _holds_whole_width(settings: Settings) -> bool:
    """Whether the grid reaches the uncompressed width of every task."""
    sizes = settings.vocabulary, settings.length
    widest = [len(program(name, *sizes).directions) for name in settings.tasks]
    return max(settings.neurons) >= max(widest)


def _over_seeds(
    rows: pd.DataFrame, settings: Settings, column: str, tasks: Sequence[str] = ()
) -> Estimate | None:
    """Mean over tasks of a column, t over seeds; None unless every task and seed has a value."""
    tasks = tasks or settings.tasks
    rows = rows[rows["task"].isin(tasks)]
    rows = rows.assign(value=rows[column].astype(float)).dropna(subset=["value"])
    cells = rows.pivot_table(index="seed", columns="task", values="value", aggfunc="mean")
    if cells.shape != (settings.seeds, len(tasks)) or cells.isna().any(axis=None):
        return None
    found = mean_interval(cells.mean(axis=1))
    same = found.low == found.high
    return found._replace(note="the same for all seeds") if same else found
