"""Peak memory of `measure` and of the adversarial chapter's `features_of` as data grow: flat.

Each size runs in a fresh process on data that take no room themselves: batches that are generated
as they are asked for, or one image seen many times.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator

import click
import torch

from superpos import SAEConfig, measure
from superpos.networks import cnn, mlp
from superpos.robust_features import Fitting, features_of

INPUTS, NEURONS, BATCH = 64, 32, 1000
SIZE, FILTERS = 28, 8
BAR = 1.2


class Batches:
    """Random inputs that can be gone through any number of times."""

    def __init__(self, samples: int) -> None:
        self.samples = samples

    def __iter__(self) -> Iterator[torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        for _ in range(self.samples // BATCH):
            yield torch.rand(BATCH, INPUTS, generator=generator)


def measured(samples: int) -> None:
    """Measure an MLP on so many inputs."""
    config = SAEConfig(steps=200, rounds=1, starts=1)  # the fit's memory does not depend on these
    report = measure(mlp(INPUTS, NEURONS, 10, seed=0), Batches(samples), sae=config, progress=False)
    if report["relu1"].samples != samples:
        raise RuntimeError(f"{report['relu1'].samples} samples were measured, not {samples}.")


def adversarial(images: int) -> None:
    """Measure a CNN on so many images; each has `SIZE` squared activations of every filter."""
    x = torch.rand(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    fitting = Fitting(
        architecture="tied", expansion=4.0, l1=0.1, normalize=False, starts=1, steps=200, rounds=1,
        epochs=None, samples=10_000,
    )  # fmt: skip
    features_of(
        [cnn(1, SIZE, FILTERS, 10, seed=0).eval()], [(0.0, 0)], x.expand(images, -1, -1, -1),
        torch.zeros(images, dtype=torch.long), fitting=fitting, attack_steps=1,
    )  # fmt: skip


WAYS = {"measure": (measured, (100_000, 1_000_000)), "features_of": (adversarial, (1000, 10_000))}
"""What is run, and at how many samples or images."""


def peak(way: str, samples: int) -> float:
    """Peak memory of this process after measuring so many samples, in MiB."""
    WAYS[way][0](samples)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 2**20 if sys.platform == "darwin" else used / 2**10


@click.command()
@click.option("--one", type=(str, int), hidden=True, help="What to run in this process, and size.")
def main(one: tuple[str, int] | None) -> None:
    """Print the peak memory at two sizes of data, and their ratio."""
    if one is not None:
        click.echo(peak(*one))
        return
    ratios = []
    for way, (_, sizes) in WAYS.items():
        peaks = []
        for count in sizes:
            command = [sys.executable, __file__, "--one", way, str(count)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            peaks.append(float(done.stdout.split()[-1]))
            click.echo(f"{way}, {count:,} samples: peak {peaks[-1]:.0f} MiB")
        ratios.append(peaks[-1] / peaks[0])
        click.echo(f"ratio {ratios[-1]:.3f} (bar: at most {BAR})")
    if max(ratios) > BAR:
        raise click.ClickException("memory grows with the data.")


if __name__ == "__main__":
    main()
