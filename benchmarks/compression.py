"""What batching buys when W is fitted: widths one by one, padded together, and seeds one by one.

Run it from the project's root. It prints seconds as medians over repeats, and ratios of one run.
"""

from __future__ import annotations

import statistics
import time

import click
import torch

from superpos.compression import read_error, reads
from superpos.experiments.algorithmic_tasks import program
from superpos.sequence_tasks import task


@click.command(help=__doc__)
@click.option("--steps", default=100, show_default=True, help="Adam steps that are timed.")
@click.option("--repeats", default=5, show_default=True, help="Repeats of every case.")
@click.option("--members", default=20, show_default=True, help="Matrices per width.")
def main(steps: int, repeats: int, members: int) -> None:
    """Time the three ways in turn, repeat by repeat."""
    torch.set_num_threads(1)
    compiled = program("reversal", 5, 5)
    own = task(compiled)
    points = reads(compiled.transformer, own.ids, own.present)
    widths, directions = (4, 8, 12, 16, 20, 30, 40), len(compiled.directions)

    def fit(count: int, neurons: int) -> None:
        matrix = torch.randn(count, neurons, directions, requires_grad=True)
        optimizer = torch.optim.Adam([matrix], lr=1e-3)
        for _ in range(steps):
            optimizer.zero_grad()
            read_error(matrix, points).sum().backward()
            optimizer.step()

    ways = {
        "seeds together, widths one by one": lambda: [fit(members, n) for n in widths],
        "all together, narrow ones padded": lambda: fit(members * len(widths), max(widths)),
        "all one by one": lambda: [fit(1, n) for n in widths for _ in range(members)],
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
