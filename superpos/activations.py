"""Read activations at named sites of any torch module, batch by batch.

A site is a module's output, named as the module is. A module that runs several times in one
forward pass (torchvision's ResNets reuse their ReLUs) is several sites: `layer1.0.relu#1`,
`layer1.0.relu#2`. Reading goes through nnsight.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from nnsight import NNsight
from torch import nn

from .given import numbers

ACTIVATIONS = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU),
    *(nn.SiLU, nn.Mish, nn.GLU, nn.Softplus, nn.Softsign, nn.Sigmoid, nn.Tanh, nn.Threshold),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh),
)
"""Modules that are sites by default, with every module whose class is named `...Activation`."""


class Site(NamedTuple):
    """A place in a network where activations are read."""

    name: str
    """What the user calls it: the module's path, with `#n` if the module runs several times."""
    module: str
    """Path of the module."""
    call: int
    """Which of its runs in one forward pass, from zero."""


class UnknownSite(KeyError):
    """A site was asked for that the network does not have."""

    def __str__(self) -> str:
        """The message as it is, without the quotes of a KeyError."""
        return str(self.args[0])


def find_sites(model: nn.Module, batch: Any, names: Sequence[str] | None = None) -> list[Site]:
    """Sites of a network in the order in which they run.

    Args:
        model: any module.
        batch: one batch of inputs, with which the network is run once to see what runs.
        names: the sites wanted; a module's path stands for all its runs. Default: every
            activation module (`ACTIVATIONS`).

    Returns:
        The sites, in order of execution.

    Raises:
        UnknownSite: a name that does not exist or does not run; the message lists those that do.
        ValueError: the network cannot be run on the batch.
    """
    runs = _runs(model, batch)
    counts = {path: runs.count(path) for path in runs}
    seen: dict[str, int] = {}
    sites = []
    for path in runs:
        call = seen[path] = seen.get(path, 0) + 1
        sites.append(Site(f"{path}#{call}" if counts[path] > 1 else path, path, call - 1))
    modules = dict(model.named_modules())
    default = [site for site in sites if _is_activation(modules[site.module])]
    if names is None:
        if not default:
            raise UnknownSite(
                "the network runs no activation module to measure by default; "
                f"name sites yourself. Modules that run: {_listed(sites)}."
            )
        return default
    known = {site.name for site in sites} | set(counts)
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise UnknownSite(
                f"the network has no site {name!r}.{hint} "
                f"Activation sites: {_listed(default)}. All sites: {_listed(sites)}."
            )
    return [site for site in sites if site.name in names or site.module in names]


def read(model: nn.Module, batch: Any, sites: Sequence[Site]) -> dict[str, torch.Tensor]:
    """Activations of one batch.

    Args:
        model: any module; it is run as it is, without gradients.
        batch: one batch of inputs: a tensor, or a mapping of keyword arguments. The network gets
            a copy, which it may change.
        sites: what `find_sites` returned (order of execution matters).

    Returns:
        Per site, activations `[batch, positions, neurons]` in single precision. Outputs with
        four or more axes have their channels on axis 1, all others on the last axis.

    Raises:
        TypeError: a site's output holds no floating-point tensor.
        ValueError: the network cannot be run on the batch.
    """
    network = NNsight(model)
    arguments, keywords = _arguments(batch)
    found: dict[str, Any] = {}
    with torch.no_grad(), _running(batch):
        with network.trace(*arguments, **keywords) as tracer:
            saved = dict().save()
            for site in sites:
                for _ in tracer.iter[site.call : site.call + 1]:
                    saved[site.name] = _copied(network.get(site.module).output)
        found.update(saved)
    return {site.name: _positions(found[site.name], site.name) for site in sites}


def inputs(
    data: Any, batch_size: int, device: torch.device, kind: torch.dtype = torch.float32
) -> Iterator[Any]:
    """Batches of inputs on a device, labels left out.

    Args:
        data: a tensor or array `[samples, ...]`, or an iterable (DataLoader, list, generator) of
            batches; of a batch that is a tuple or list, the first element is the input.
        batch_size: rows per batch of a tensor.
        device: where the batches go.
        kind: floating-point type of the network; floating inputs are cast to it.

    Yields:
        Tensors, or mappings of keyword arguments.

    Raises:
        TypeError: inputs that are no real numbers.
        ValueError: a batch without rows.
    """
    if isinstance(data, torch.Tensor):
        data = numbers("inputs", data)
    whole = isinstance(data, (torch.Tensor, np.ndarray))
    for batch in _cut(data, batch_size) if whole else data:
        x = batch
        if isinstance(batch, (tuple, list)):
            x = batch[0] if batch else ()
        if isinstance(x, Mapping):
            yield {key: _placed(value, device, kind) for key, value in x.items()}
        else:
            yield _placed(x, device, kind)


def reiterable(data: Any) -> bool:
    """Whether data can be gone through twice (a generator cannot)."""
    if isinstance(data, (torch.Tensor, np.ndarray)):
        return True
    if isinstance(data, Mapping) or not isinstance(data, Iterable):
        raise TypeError(
            f"data is a {type(data).__name__}; give a tensor, an array, or an iterable of batches "
            "(a list, for a single batch)."
        )
    return not isinstance(data, Iterator)


class Reservoir:
    """A uniform sample of a stream of rows, of bounded size.

    Every row gets a random key; the rows with the largest keys are kept. Memory does not grow
    with the stream, and the sample does not depend on how the stream is cut into batches.
    """

    def __init__(self, size: int, generator: torch.Generator) -> None:
        """Keep at most `size` rows; keys are drawn from `generator` (on the CPU)."""
        self.size = size
        self.generator = generator
        self.keys = torch.empty(0, dtype=torch.float64)
        self.rows: torch.Tensor | None = None

    def add(self, rows: torch.Tensor) -> None:
        """Offer rows `[rows, neurons]`.

        Raises:
            ValueError: rows of another width than those before them.
        """
        if self.rows is not None and rows.shape[1] != self.rows.shape[1]:
            raise ValueError(
                f"a batch has {rows.shape[1]} neurons, one before it {self.rows.shape[1]}; give "
                "batches of which all have the same."
            )
        keys = torch.rand(len(rows), generator=self.generator, dtype=torch.float64)
        if len(self.keys) == self.size:
            chosen = keys > self.keys.min()
            keys, rows = keys[chosen], rows[chosen.to(rows.device)]
        if self.rows is None:
            self.rows = rows.new_empty(0, rows.shape[1])
        self.keys = torch.cat([self.keys, keys])
        self.rows = torch.cat([self.rows, rows])
        if len(self.keys) > self.size:
            top = self.keys.topk(self.size).indices.sort().values
            self.keys, self.rows = self.keys[top], self.rows[top.to(self.rows.device)]


def _runs(model: nn.Module, batch: Any) -> list[str]:
    """Paths of all modules but the root, in the order in which they finish one forward pass."""
    runs: list[str] = []
    handles = [
        module.register_forward_hook(lambda *_, path=path: runs.append(path))
        for path, module in model.named_modules()
        if path
    ]
    try:
        arguments, keywords = _arguments(batch)
        with torch.no_grad(), _running(batch):
            model(*arguments, **keywords)
    finally:
        for handle in handles:
            handle.remove()
    return runs


def _arguments(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Copies of a batch as a network's arguments, for it may change them in place."""
    if isinstance(batch, Mapping):
        return (), {name: value.clone() for name, value in batch.items()}
    return (batch.clone(),), {}


@contextmanager
def _running(batch: Any) -> Iterator[None]:
    """Say what a network was given where it cannot be run on it."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a user's network raises
        parts = batch if isinstance(batch, Mapping) else {"": batch}
        given = ", ".join(
            f"{name} {tuple(x.shape)} of {str(x.dtype).removeprefix('torch.')}".strip()
            for name, x in parts.items()
        )
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"the network cannot be run on a batch of inputs {given} ({type(error).__name__}: "
            f"{reason}); give inputs of the shape and kind that it takes (whole numbers are for "
            "networks that begin with an embedding, floating-point numbers for all others)."
        ) from error


def _cut(data: Any, rows: int) -> Iterator[Any]:
    """Batches of a tensor or an array, which may lie in a file; at least one."""
    if data.ndim == 0:
        yield data
        return
    for first in range(0, max(1, len(data)), rows):
        yield data[first : first + rows]


def _placed(value: Any, device: torch.device, kind: torch.dtype) -> torch.Tensor:
    """A tensor on the device, floating values in the network's type."""
    tensor = numbers("inputs", value)
    if tensor.ndim == 0 or len(tensor) == 0:
        raise ValueError(
            f"a batch of inputs has shape {tuple(tensor.shape)}; give tensors [rows, ...] with at "
            "least one row."
        )
    return tensor.to(device, kind if tensor.is_floating_point() else tensor.dtype)


def _is_activation(module: nn.Module) -> bool:
    return isinstance(module, ACTIVATIONS) or type(module).__name__.endswith("Activation")


def _listed(sites: Sequence[Site]) -> str:
    return ", ".join(site.name for site in sites) or "none"


def _copied(output: Any) -> Any:
    """A copy of a module's (first) output, so that in-place changes further on do not reach it."""
    first = output[0] if isinstance(output, (tuple, list)) and output else output
    return first.clone() if isinstance(first, torch.Tensor) else first


def _positions(output: Any, name: str) -> torch.Tensor:
    """Output as `[batch, positions, neurons]`."""
    if not isinstance(output, torch.Tensor) or not output.is_floating_point():
        raise TypeError(f"site {name!r} gives no floating-point tensor; choose another site.")
    if output.ndim < 2:
        raise TypeError(f"site {name!r} gives shape {tuple(output.shape)}; it has no neurons axis.")
    if output.ndim >= 4:
        output = output.movedim(1, -1)
    return output.float().reshape(len(output), -1, output.shape[-1])
