"""Peak memory of `superpos.measure` as data grows: it must stay flat.

Each size runs in a fresh process on batches that are generated as they are asked for, so that the
data themselves take no room.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator

import click
import torch

from superpos import SAEConfig, measure
from superpos.networks import mlp

INPUTS, NEURONS, BATCH = 64, 32, 1000
BAR = 1.2


class Batches:
    """Random inputs that can be gone through any number of times."""

    def __init__(self, samples: int) -> None:
        self.samples = samples

    def __iter__(self) -> Iterator[torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        for _ in range(self.samples // BATCH):
            yield torch.rand(BATCH, INPUTS, generator=generator)


def peak(samples: int) -> float:
    """Peak memory of this process after measuring so many samples, in MiB."""
    config = SAEConfig(steps=200, rounds=1, starts=1)  # the fit's memory does not depend on these
    report = measure(mlp(INPUTS, NEURONS, 10, seed=0), Batches(samples), sae=config, progress=False)
    if report["relu1"].samples != samples:
        raise RuntimeError(f"{report['relu1'].samples} samples were measured, not {samples}.")
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 2**20 if sys.platform == "darwin" else used / 2**10


@click.command()
@click.option("--samples", multiple=True, type=int, default=[100_000, 1_000_000])
@click.option("--one", type=int, hidden=True, help="Measure so many samples in this process.")
def main(samples: tuple[int, ...], one: int | None) -> None:
    """Print the peak memory at each number of samples, and the ratio of the last to the first."""
    if one is not None:
        click.echo(peak(one))
        return
    peaks = []
    for count in samples:
        command = [sys.executable, __file__, "--one", str(count)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(float(done.stdout.split()[-1]))
        click.echo(f"{count:>10,} samples: peak {peaks[-1]:.0f} MiB")
    ratio = peaks[-1] / peaks[0]
    click.echo(f"ratio {ratio:.3f} (bar: at most {BAR})")
    if ratio > BAR:
        raise click.ClickException("memory grows with the data.")


if __name__ == "__main__":
    main()
