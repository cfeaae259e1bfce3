"""Measure superposition: activations, then autoencoders, then entropy, then a report."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import scipy.stats
import torch
from torch import nn
from tqdm.auto import tqdm

from .activations import (
    Reservoir,
    Site,
    find_sites,
    inputs,
    read,
    reiterable,
)
from .device import usable_device
from .entropy import DeadCodesError, effective_features, hill_number
from .evaluation import evaluating
from .given import check_range, shown, whole
from .report import Report, Superposition
from .sae import ROWS, SAE, SAEConfig, configuration
from .solver import Fit, fit

BLOCKS = 10  # parts of the data, for the interval
ORDERS = (0, 1, 2, math.inf)
BATCH = 256  # rows of a tensor read at once
MOST_SEEDS = 10_000
STILL = 1e-12  # share of the squares that a variance is, below which it is rounding


def measure(
    model: nn.Module,
    data: Any,
    sites: Sequence[str] | str | None = None,
    *,
    sae: SAEConfig | None = None,
    seeds: int = 3,
    device: torch.device | str = "auto",
    samples: int = 10_000,
    progress: bool | None = None,
) -> Report:
    """Measure the superposition of a network's layers (paper sections 3 and 4).

    Autoencoders are fitted to a uniform sample of the activations; F is then computed from the
    codes of all of them. Memory does not grow with the data. Data that can be gone through only
    once (a generator) serves the sample alone, and F is computed from that sample, whose rows
    count as independent (positions of one image are not, so the interval is then too narrow).

    Args:
        model: any `torch.nn.Module` on one device. It is run in evaluation mode; its modes and
            place are put back afterwards.
        data: inputs: a tensor `[samples, ...]`, a DataLoader, or an iterable of batches; of
            batches that are tuples, the first element.
        sites: names of modules to measure; default every activation module. For outputs with
            four or more axes, positions are samples and channels (axis 1) neurons.
        sae: what to fit; default `SAEConfig()`, the paper's tied autoencoder.
        seeds: number of autoencoders per site, from whose spread the interval comes.
        device: where to compute; "auto" takes a GPU if there is one.
        samples: activations to fit the autoencoders to, at most; the paper uses 10,000.
        progress: show bars; default only in a terminal.

    Returns:
        A mapping from site to `Superposition`.

    Raises:
        UnknownSite: a site that the network does not have; the message lists those it has.
        TypeError: a model, data, sites or an `sae` of another kind, or a site that gives no
            floating-point tensor.
        ValueError: no data, data that the network cannot be run on or that are other data when
            read again, activations that are not finite or whose size single precision cannot fit,
            a device that is not there, or numbers out of range.
        DeadCodesError: at some site every code is zero.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model is {shown(model)}; give a torch.nn.Module.")
    seeds, samples = whole("seeds", seeds, 1, MOST_SEEDS), whole("samples", samples, 2)
    sae, names, device = configuration(sae), _names(sites), usable_device(device)
    again = reiterable(data)
    home = next((p.device for p in (*model.parameters(), *model.buffers())), None)
    if home is not None and home.type == "meta":
        raise ValueError("the network is on the meta device, without weights; load them first.")
    kind = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    quiet = not (sys.stderr.isatty() if progress is None else progress)
    with evaluating(model):
        try:
            model.to(device)
            batches = tqdm(
                inputs(data, BATCH, device, kind), desc="reading", disable=quiet, leave=False
            )
            wanted, reservoirs, count = _sample(model, batches, names, samples)
            fits = {}
            for site in (bar := tqdm(wanted, disable=quiet, leave=False)):
                bar.set_description(f"fitting {site.name}")
                fits[site.name] = _fitted(site, reservoirs[site.name], sae, seeds)
            sums = {site.name: CodeSums(fits[site.name].sae) for site in wanted}
            if again:
                batches = tqdm(
                    inputs(data, BATCH, device, kind), desc="measuring", disable=quiet, leave=False
                )
                for batch in batches:
                    for name, activations in read(model, batch, wanted).items():
                        with _at(name):
                            sums[name].add(activations)
                found = sums[wanted[-1].name].inputs
                if found != count:
                    raise ValueError(
                        f"data held {count:,} inputs when read first and {found:,} when read "
                        "again; give data that can be read twice, or a generator, which is read "
                        "once."
                    )
            else:
                for name, reservoir in reservoirs.items():
                    sums[name].add(reservoir.rows.unsqueeze(1))
        finally:
            if home is not None:
                model.to(home)
    summaries = {}
    for site in wanted:
        with _at(site.name):
            summaries[site.name] = _summary(site, fits[site.name], sums[site.name])
    return Report(summaries)


class CodeSums:
    """Streaming sums over samples from which F and its companions follow.

    Inputs are dealt out at random to ten blocks, whose spread gives the sampling error of F. Sums
    over different data add up: after `a.merge(b)`, F is that of one pass over both.
    """

    def __init__(self, sae: SAE) -> None:
        """Start at zero for these autoencoders."""
        self.sae = sae
        self.inputs = 0
        self.samples = 0
        self.generator = torch.Generator().manual_seed(0)  # deals inputs out
        options = {"dtype": torch.float64, "device": sae.encoder.device}
        self.codes = torch.zeros(BLOCKS, sae.members, sae.dictionary, **options)
        self.active = torch.zeros(sae.members, **options)
        self.error = torch.zeros(sae.members, **options)
        self.total = torch.zeros(sae.neurons, **options)
        self.squares = torch.zeros(sae.neurons, **options)

    def add(self, activations: torch.Tensor) -> None:
        """Add activations `[inputs, positions, neurons]`.

        Raises:
            ValueError: an activation is nan, infinite, or too large for single precision.
        """
        check_range(activations, low=0.0)
        number, positions = activations.shape[:2]
        block = torch.randint(BLOCKS, (number,), generator=self.generator)
        block = block.repeat_interleave(positions)
        flat = activations.flatten(0, 1)
        for first in range(0, len(flat), ROWS):
            self._add_rows(flat[first : first + ROWS], block[first : first + ROWS])
        self.inputs += number
        self.samples += len(flat)

    def _add_rows(self, rows: torch.Tensor, block: torch.Tensor) -> None:
        z = self.sae.encode(rows)
        dealt = torch.nn.functional.one_hot(block, BLOCKS).to(z)
        self.codes += torch.einsum("rb,mrd->bmd", dealt, z).double()
        self.active += (z > 0).sum((1, 2))
        self.error += (self.sae.decode(z) - rows).square_().sum((1, 2)).double()
        self.total += rows.double().sum(0)
        self.squares += rows.double().square().sum(0)

    def merge(self, other: CodeSums) -> None:
        """Add the sums of other data for the same autoencoders."""
        for name in ("inputs", "samples", "codes", "active", "error", "total", "squares"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def features(self, blocks: Sequence[int] | None = None) -> torch.Tensor:
        """F of every member, from all blocks or some, `[members]`."""
        codes = self.codes if blocks is None else self.codes[list(blocks)]
        return effective_features(codes.sum(0))


def features_interval(sums: CodeSums, level: float = 0.95) -> tuple[float, float]:
    """Interval of the mean F from the spread over seeds and a jackknife over blocks of inputs.

    The two variances add up, with degrees of freedom after Satterthwaite (1946). With one seed,
    only the sampling error is known; with fewer than ten inputs, or codes alive in one block
    only, only the spread over seeds.

    Args:
        sums: sums over the data.
        level: coverage.

    Returns:
        Low and high, cut to 1 <= F <= dictionary size.
    """
    values = sums.features()
    mean, count = values.mean().item(), len(values)
    between = values.var().item() / count if count > 1 else 0.0
    within = 0.0
    left_out = [[b for b in range(BLOCKS) if b != out] for out in range(BLOCKS)]
    alive = all(bool((sums.codes[blocks].sum((0, 2)) > 0).all()) for blocks in left_out)
    if sums.inputs >= BLOCKS and alive:
        jackknife = torch.stack([sums.features(blocks).mean() for blocks in left_out])
        within = (BLOCKS - 1) * jackknife.var(correction=0).item()
    variance = between + within
    if variance == 0:
        return mean, mean
    spread = between**2 / max(1, count - 1) + within**2 / (BLOCKS - 1)
    half = scipy.stats.t.ppf(0.5 + level / 2, variance**2 / spread) * math.sqrt(variance)
    return max(1.0, float(mean - half)), min(float(sums.sae.dictionary), float(mean + half))


def _names(sites: Sequence[str] | str | None) -> list[str] | None:
    """Names of sites as a list, None for the default."""
    if sites is None:
        return None
    names = [sites] if isinstance(sites, str) or not isinstance(sites, Iterable) else list(sites)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"sites is {shown(sites)}; give names of modules, such as ['relu1'].")
    if not any(names):
        raise ValueError("sites is empty; name at least one, or leave it out for the default.")
    return names


@contextmanager
def _at(site: str) -> Iterator[None]:
    """Name the site in a refusal."""
    try:
        yield
    except ValueError as error:  # of which DeadCodesError is one
        raise type(error)(f"at site {site!r}: {error}") from error


def _sample(
    model: nn.Module, batches: Any, names: Sequence[str] | None, samples: int
) -> tuple[list[Site], dict[str, Reservoir], int]:
    """One pass over the data: the sites, a uniform sample of each, and the number of inputs."""
    count = 0
    sites: list[Site] = []
    reservoirs: dict[str, Reservoir] = {}
    for batch in batches:
        if not sites:
            sites = find_sites(model, batch, names)
            reservoirs = {
                site.name: Reservoir(samples, torch.Generator().manual_seed(0)) for site in sites
            }
        found = read(model, batch, sites)
        for name, activations in found.items():
            with _at(name):
                reservoirs[name].add(activations.flatten(0, 1))
        count += len(found[sites[-1].name])
    if not sites:
        raise ValueError("data holds no batch; give at least one.")
    return sites, reservoirs, count


def _fitted(site: Site, reservoir: Reservoir, sae: SAEConfig, seeds: int) -> Fit:
    """Autoencoders for one site."""
    with _at(site.name):
        result = fit(reservoir.rows, sae, seeds=range(seeds))
    if bool(result.features.isnan().any()):
        if bool(result.loss.isnan().any()):
            raise ValueError(
                f"at site {site.name!r} the fit diverged: numbers grew too large for single "
                "precision. Lower l1, or rescale the activations."
            )
        raise DeadCodesError(
            f"at site {site.name!r} every code is zero. Lower l1 (activations that are small "
            "against it cost more to encode than to ignore), set SAEConfig(normalize=True), or "
            "check that the activations are not all zero."
        )
    return result


def _summary(site: Site, result: Fit, sums: CodeSums) -> Superposition:
    """The figures of one site."""
    codes = sums.codes.sum(0)
    values = sums.features()
    mean = values.mean().item()
    variance = (sums.squares - sums.total.square() / sums.samples).sum()
    varies = bool(variance > STILL * sums.squares.sum())
    half = range(0, BLOCKS, 2)
    known = sums.inputs >= BLOCKS and bool((sums.codes[list(half)].sum((0, 2)) > 0).all())
    return Superposition(
        site=site.name,
        features=mean,
        neurons=sums.sae.neurons,
        interval=features_interval(sums),
        by_seed=tuple(values.tolist()),
        hill={order: hill_number(codes, order).mean().item() for order in ORDERS},
        explained_variance=(1 - sums.error.mean() / variance).item() if varies else math.nan,
        mean_active=(sums.active.mean() / sums.samples).item(),
        dead_share=(codes == 0).double().mean().item(),
        samples=sums.samples,
        converged=bool(result.converged.all()),
        half_change=sums.features(half).mean().item() / mean - 1 if known else math.nan,
    )
