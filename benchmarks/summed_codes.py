"""How near summing codes comes to the machine's own matrix products.

The same product as a dictionary's encoder is timed as torch.mm alone, as codes that are kept and
then summed, and as `summed_codes`, which keeps none. Run it from the project's root. It prints
medians over repeats, the rate of each way, and ratios of one run.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time

import click
import torch

from superpos.magnitudes import PRECISIONS, summed_codes
from superpos.sae import SAE, SAEConfig


@click.command(help=__doc__)
@click.option("--neurons", default=512, show_default=True, help="Pythia-70M has 512.")
@click.option("--dictionary", default=32_768, show_default=True, help="Marks et al. have 32,768.")
@click.option("--tokens", default=2048, show_default=True, help="Tokens of a batch.")
@click.option("--repeats", default=7, show_default=True, help="Repeats of every case.")
@click.option("--threads", default=1, show_default=True, help="Threads of torch on a CPU.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--precision", default="float32", type=click.Choice(PRECISIONS), show_default=True)
def main(
    neurons: int, dictionary: int, tokens: int, repeats: int, threads: int, device: str,
    precision: str,
) -> None:  # fmt: skip
    """Time the ways in turn, repeat by repeat."""
    torch.set_num_threads(threads)
    if precision == "tf32":
        torch.set_float32_matmul_precision("high")
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(tokens, neurons, generator=draw).to(device)
    encoder = torch.randn(1, dictionary, neurons, generator=draw).to(device) / neurons**0.5
    sae = SAE(
        SAEConfig(architecture="untied", expansion=dictionary / neurons), encoder,
        encoder.new_full((1, dictionary), -2.0), encoder, x.new_zeros(1, neurons),
    )  # fmt: skip
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    narrow, weights = x.to(kind), encoder[0].T.to(kind)
    ways = {
        "torch.mm": lambda: torch.mm(narrow, weights),
        "summed_codes": lambda: summed_codes(sae, x, precision=precision),
        "codes kept, then summed": lambda: sae.encode(x).sum(1),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            _wait(device)
            began = time.perf_counter()
            way()
            _wait(device)
            if repeat:  # the first one warms up
                seconds[name].append(time.perf_counter() - began)
    base = statistics.median(seconds["torch.mm"])
    for name, values in seconds.items():
        median = statistics.median(values)
        rate = 2 * tokens * neurons * dictionary / median / 1e9
        print(f"{name}: {median:.3f} s, {rate:.1f} GFLOP/s, {base / median:.0%} of torch.mm's rate")
    before = _peak()
    for _ in range(10):
        summed_codes(sae, x, precision=precision)
    print(f"ten more batches raise peak memory by {_peak() - before:.1f} MB")


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def _peak() -> float:
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e6


if __name__ == "__main__":
    main()
