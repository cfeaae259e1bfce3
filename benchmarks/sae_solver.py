"""Time to the plain recipe's loss: the plain recipe against `superpos.solver.fit`.

The plain recipe is Adam at 1e-3, batch 128, 800 epochs over a shuffling DataLoader, weights drawn
Xavier-uniform, tied autoencoder, element means, l1 0.1. Its loss after all epochs is the target;
ours is the time to the end of the first round with a loss no higher.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pandas as pd
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from superpos.data import load_images, toy_features
from superpos.networks import mlp
from superpos.sae import SAE, SAEConfig
from superpos.solver import fit

SAMPLES = 10_000
BATCH = 128
TOY_MEMBERS, TOY_FEATURES, TOY_NEURONS = 100, 20, 5
CONFIG = SAEConfig()


class Case(NamedTuple):
    """One comparison."""

    bar: float
    """The plain recipe's time over ours must be at least this."""
    expansion: float
    """Dictionary size over neurons."""
    compared: int
    """Members that the plain recipe is run for; its time is scaled to all of them."""
    activations: Callable[[str], torch.Tensor]
    """Activations `[members, samples, neurons]` made from a data set's name."""


def toy(_: str) -> torch.Tensor:
    """Toy-model activations W f of 100 members, sparsities from 0 to 0.99."""
    generator = torch.Generator().manual_seed(0)
    sparsity = torch.linspace(0, 0.99, TOY_MEMBERS)
    f = toy_features(SAMPLES, TOY_FEATURES, sparsity, generator=generator)
    w = torch.randn(TOY_MEMBERS, TOY_FEATURES, TOY_NEURONS, generator=generator)
    return f @ functional.normalize(w, dim=-1)


def hidden(neurons: int, dataset: str) -> torch.Tensor:
    """Hidden ReLU activations of a briefly trained single-layer MLP, `[1, samples, neurons]`."""
    generator = torch.Generator().manual_seed(0)
    data = load_images(dataset)
    x, y = data.x_train, data.y_train
    if len(x) < SAMPLES:  # digits: fill up with copies shifted by at most one pixel
        pick = torch.randint(len(x), (SAMPLES,), generator=generator)
        shifts = torch.randint(-1, 2, (SAMPLES, 2), generator=generator).tolist()
        pairs = zip(x[pick], shifts, strict=True)
        x, y = torch.stack([image.roll(shift, (-2, -1)) for image, shift in pairs]), y[pick]
    network = mlp(x[0].numel(), neurons, 10, seed=0)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(3):
        for index in torch.randperm(len(x), generator=generator).split(BATCH):
            loss = functional.cross_entropy(network(x[index]), y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return network.relu1(network.linear1(x[:SAMPLES].flatten(1))).unsqueeze(0)


CASES = {
    "toy": Case(20, 8, 3, toy),
    "128": Case(8, 4, 1, lambda dataset: hidden(128, dataset)),
    "512": Case(4, 4, 1, lambda dataset: hidden(512, dataset)),
}


class Seconds(NamedTuple):
    """A duration; on a busy machine the ratio of processor times is the one to trust."""

    wall: float
    """By the clock on the wall."""
    cpu: float
    """Of the processor, summed over threads."""

    @classmethod
    def now(cls) -> Seconds:
        return cls(time.perf_counter(), time.process_time())

    def since(self, scale: float = 1.0) -> Seconds:
        """Time gone by since this point, scaled."""
        now = Seconds.now()
        return Seconds((now.wall - self.wall) * scale, (now.cpu - self.cpu) * scale)


class PlainSAE(nn.Module):
    """The tied autoencoder as one would first write it."""

    def __init__(self, neurons: int, dictionary: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dictionary, neurons))
        self.bias = nn.Parameter(torch.zeros(dictionary))
        nn.init.xavier_uniform_(self.weight, generator=generator)

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        z = functional.relu(functional.linear(x, self.weight, self.bias))
        return functional.mse_loss(z @ self.weight, x) + CONFIG.l1 * z.mean()


def loader(x: torch.Tensor, generator: torch.Generator) -> Iterable[torch.Tensor]:
    """The plain recipe's batches."""
    data = DataLoader(
        TensorDataset(x), batch_size=BATCH, shuffle=True, num_workers=0, generator=generator
    )
    return (batch for (batch,) in data)


def sliced(x: torch.Tensor, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """The same batches without the DataLoader's per-sample work."""
    yield from x[torch.randperm(len(x), generator=generator)].split(BATCH)


def plain(
    x: torch.Tensor, dictionary: int, epochs: int, seed: int, fast: bool, timed: int, name: str
) -> tuple[PlainSAE, Seconds]:
    """Train one member with the plain recipe.

    Returns:
        The autoencoder, and the time that all epochs take with the DataLoader. With `fast`,
        the epochs run on sliced batches, and the time is that of a few DataLoader epochs, scaled.
    """
    generator = torch.Generator().manual_seed(seed)
    model = PlainSAE(x.shape[1], dictionary, generator)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def epoch(batches: Iterable[torch.Tensor]) -> None:
        for batch in batches:
            loss = model.loss(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    if not fast:
        timed = epochs
    started = Seconds.now()
    for _ in range(timed):
        epoch(loader(x, generator))
    seconds = started.since(epochs / timed)
    with click.progressbar(range(epochs - timed), label=f"{name}: plain recipe") as bar:
        for _ in bar:
            epoch(sliced(x, generator))
    return model, seconds


def judged(model: PlainSAE, x: torch.Tensor) -> tuple[float, float]:
    """Loss over all samples and F, computed by the same code as ours."""
    sae = SAE(CONFIG, model.weight.detach()[None], model.bias.detach()[None])
    loss, sums = sae.losses(x)
    shares = sums / sums.sum()
    return loss.item(), torch.special.entr(shares).sum().exp().item()


def rounds(x: torch.Tensor, config: SAEConfig, seeds: list[int]) -> list[dict]:
    """Our solver stopped after one round, after two, and so on until it converges."""
    rows = []
    for count in range(1, config.rounds + 1):
        limited = SAEConfig(expansion=config.expansion, rounds=count)
        started = Seconds.now()
        result = fit(x, limited, seeds=seeds)
        rows.append({"rounds": count, "seconds": started.since(), "fit": result})
        if bool(result.converged.all()):
            break
    return rows


def compare(
    name: str, dataset: str, epochs: int, fast: bool, timed: int, seeds: int, long: bool
) -> dict:
    """One case, both ways, in one process."""
    case = CASES[name]
    x = case.activations(dataset)
    members, _, neurons = x.shape
    config = SAEConfig(expansion=case.expansion)
    chosen = torch.linspace(0, members - 1, case.compared).round().long().tolist()
    trained = [
        plain(x[i], config.dictionary(neurons), epochs, 0, fast, timed, name) for i in chosen
    ]
    scale = members / len(chosen)
    plain_time = Seconds(
        scale * sum(seconds.wall for _, seconds in trained),
        scale * sum(seconds.cpu for _, seconds in trained),
    )
    judgements = [judged(model, x[i]) for (model, _), i in zip(trained, chosen, strict=True)]
    target = torch.tensor([loss for loss, _ in judgements], dtype=torch.float64)
    ours = rounds(x, config, list(range(members)))
    steps = []
    for row in ours:
        losses = row["fit"].loss[chosen]
        steps.append(
            {
                "rounds": row["rounds"],
                "seconds": row["seconds"].wall,
                "cpu_seconds": row["seconds"].cpu,
                "losses": losses.tolist(),
                "over_target": (losses / target).tolist(),
                "reached": bool((losses <= target).all()),
                "converged_share": row["fit"].converged.double().mean().item(),
            }
        )
    first = next((step for step in steps if step["reached"]), None)
    result = {
        "case": name,
        "dataset": "-" if name == "toy" else dataset,
        "bar": case.bar,
        "members": members,
        "compared": chosen,
        "plain_seconds": plain_time.wall,
        "plain_cpu_seconds": plain_time.cpu,
        "plain_time_is": "a few DataLoader epochs, scaled" if fast else "all epochs",
        "plain_losses": target.tolist(),
        "plain_features": [features for _, features in judgements],
        "rounds": steps,
        "seconds_to_target": first and first["seconds"],
        "ratio": first and plain_time.wall / first["seconds"],
        "cpu_ratio": first and plain_time.cpu / first["cpu_seconds"],
        "seconds_to_convergence": ours[-1]["seconds"].wall,
        "features": ours[-1]["fit"].features[chosen].tolist(),
    }
    if seeds > 1:
        spread = torch.stack(
            [fit(x[chosen], config, seeds=[1000 + s]).features for s in range(seeds)]
        )
        result["seed_features"] = spread.tolist()
        result["seed_spread"] = ((spread.amax(0) - spread.amin(0)) / spread.mean(0)).tolist()
    if long:
        result["long_features"], result["long_change"] = against_longer(x[chosen], config, ours)
    return result


def against_longer(x: torch.Tensor, config: SAEConfig, ours: list[dict]) -> tuple[list, list]:
    """F of a fit with ten times the steps a round and as many rounds, and ours relative to it."""
    done = ours[-1]
    steps = 10 * min(3000, 1000 + 16 * x.shape[-1])  # ten times SAEConfig.steps's default
    longer = SAEConfig(expansion=config.expansion, steps=steps, rounds=done["rounds"])
    features = fit(x, longer, seeds=[2000]).features
    usual = fit(x, config, seeds=[2000]).features
    return features.tolist(), (usual / features - 1).tolist()


def table(results: list[dict]) -> pd.DataFrame:
    """One row per case."""
    rows = []
    for r in results:
        rows.append(
            {
                "case": r["case"],
                "members": r["members"],
                "plain s": f"{r['plain_seconds']:.0f}",
                "ours to target s": f"{r['seconds_to_target'] or float('nan'):.1f}",
                "to convergence s": f"{r['seconds_to_convergence']:.1f}",
                "ratio": f"{r['ratio']:.1f}x" if r["ratio"] else "not reached",
                "CPU ratio": f"{r['cpu_ratio']:.1f}x" if r["ratio"] else "not reached",
                "bar": f"{r['bar']:g}x",
                "loss/plain": f"{max(r['rounds'][-1]['over_target']):.4f}",
                "F plain": " ".join(f"{f:.1f}" for f in r["plain_features"]),
                "F ours": " ".join(f"{f:.1f}" for f in r["features"]),
                "F seeds": f"{100 * max(r['seed_spread']):.1f}%" if "seed_spread" in r else "-",
                "F vs 10x": f"{100 * max(map(abs, r['long_change'])):.1f}%"
                if "long_change" in r
                else "-",
            }
        )
    return pd.DataFrame(rows)


@click.command()
@click.option("--case", "names", multiple=True, type=click.Choice(list(CASES)), default=["toy"])
@click.option("--dataset", default="digits", show_default=True, help="digits or mnist.")
@click.option("--epochs", default=800, show_default=True, help="Epochs of the plain recipe.")
@click.option(
    "--fast-plain",
    is_flag=True,
    help="Find the plain recipe's loss on sliced batches and time only a few DataLoader epochs.",
)
@click.option("--timed-epochs", default=5, show_default=True, help="With --fast-plain.")
@click.option("--seeds", default=1, show_default=True, help="Fits for the spread of F.")
@click.option("--long", is_flag=True, help="Compare F with a ten times longer fit.")
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path))
def main(
    names: tuple[str, ...],
    dataset: str,
    epochs: int,
    fast_plain: bool,
    timed_epochs: int,
    seeds: int,
    long: bool,
    path: Path | None,
) -> None:
    """Time `superpos.solver.fit` against the plain recipe, side by side."""
    results = []
    for name in names:
        result = compare(name, dataset, epochs, fast_plain, timed_epochs, seeds, long)
        results.append(result)
        for step in result["rounds"]:
            click.echo(
                f"{name}: {step['rounds']} round(s) {step['seconds']:.1f} s, loss over plain "
                + " ".join(f"{value:.4f}" for value in step["over_target"])
            )
    click.echo(table(results).to_string(index=False))
    click.echo(
        f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    )
    click.echo(
        "Plain times are "
        + (f"{timed_epochs} DataLoader epochs scaled to {epochs}" if fast_plain else "measured")
        + ", in toy for 3 members scaled to 100. F seeds: (max - min) / mean, worst member."
    )
    if path:
        path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
