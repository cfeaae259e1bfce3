"""What batching buys the explorer of toy models: one move of a slider trains models of all
sparsities together, or one after the other; and what drawing adds.

Run it from the project's root. It prints seconds as medians over repeats, and ratios of one run.
"""

from __future__ import annotations

import statistics
import time

import click
import torch

from superpos import playground
from superpos.picture import png
from superpos.toy_networks import train_toy_models


@click.command(help=__doc__)
@click.option("--features", default=20, show_default=True, help="Features M.")
@click.option("--neurons", default=5, show_default=True, help="Neurons N.")
@click.option("--repeats", default=5, show_default=True, help="Repeats of every case.")
def main(features: int, neurons: int, repeats: int) -> None:
    """Time the two ways and the drawing in turn, repeat by repeat."""
    torch.set_num_threads(1)
    sparsities = torch.tensor(playground.SPARSITIES)
    options = {
        "features": features, "neurons": neurons, "decay": 0.7, "steps": playground.STEPS,
        "seed": 0,
    }  # fmt: skip
    models = train_toy_models(sparsities, **options)
    ways = {
        "all sparsities together": lambda: train_toy_models(sparsities, **options),
        "one sparsity after the other": lambda: [
            train_toy_models(each, **options) for each in sparsities.split(1)
        ],
        "drawing": lambda: png(playground.toy_figure(models, 6, neurons), dpi=110),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - began)
    base = statistics.median(next(iter(seconds.values())))
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name}: {median:.2f} s, {median / base:.2f} times the first")


if __name__ == "__main__":
    main()
