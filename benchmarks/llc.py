"""What batching buys when learning coefficients are sampled: all together, one network at a time,
one chain at a time.

Run it from the project's root. It prints seconds as medians over repeats, and ratios of one run.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

import click
import torch

from superpos.data import modular
from superpos.llc import SGLD, llc
from superpos.modular_networks import TwoPathMLP
from superpos.networks import classification_loss


@click.command(help=__doc__)
@click.option("--networks", default=24, show_default=True, help="Networks to sample around.")
@click.option("--chains", default=4, show_default=True, help="Chains per network.")
@click.option("--steps", default=50, show_default=True, help="Steps of every chain.")
@click.option("--repeats", default=5, show_default=True, help="Repeats of every case.")
def main(networks: int, chains: int, steps: int, repeats: int) -> None:
    """Time the three ways in turn, repeat by repeat."""
    torch.set_num_threads(1)
    data = modular(53)
    x, y = data.pairs[data.train], data.answers[data.train]
    own = [TwoPathMLP(53, 12, 48, seed=seed) for seed in range(networks)]
    sampler = SGLD(chains=chains, draws=steps, burn_in=0)
    alone = replace(sampler, chains=1)

    def one_by_one(sampler: SGLD, repeats: int) -> None:
        for network in own:
            for seed in range(repeats):
                llc([network], x, y, classification_loss, sampler, seed=seed)

    ways = {
        "all networks and chains together": lambda: llc(own, x, y, classification_loss, sampler),
        "one network at a time, its chains together": lambda: one_by_one(sampler, 1),
        "one chain at a time": lambda: one_by_one(alone, chains),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            began = time.process_time()
            way()
            seconds[name].append(time.process_time() - began)
    base = statistics.median(next(iter(seconds.values())))
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name}: {median:.2f} s of processor time, {median / base:.2f} times the first")


if __name__ == "__main__":
    main()
