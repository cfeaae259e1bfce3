"""How large the layers between sites are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .activations import Site, UnknownSite
from .evaluation import evaluating


class _Uses(TorchDispatchMode):
    """Adds up the sizes of parameters as operations first take them."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__()
        self.unused = {id(parameter): parameter.numel() for parameter in parameters}
        self.used = 0

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        for value in tree_leaves((args, kwargs)):
            self.used += self.unused.pop(id(value), 0)
        return operation(*args, **(kwargs or {}))


def layer_parameters(model: nn.Module, x: Any, sites: Sequence[Site]) -> dict[str, int]:
    """Count the parameters that feed each site.

    A site's layer is all that runs after the site before it and up to the site itself; so a
    ResNet's second ReLU of a block has the second convolution, its batch norm and the skip. A
    parameter counts where an operation first takes it and nowhere else; what first runs after the
    last site counts nowhere. The paper weights layers by these counts (section 7).

    Args:
        model: Any module; it is run once in evaluation mode without gradients and left as it was.
        x: One batch of inputs: a tensor, or a mapping of keyword arguments.
        sites: What :func:`superpos.activations.find_sites` returned.

    Returns:
        Number of parameters per site name, in the order of ``sites``; 0 where a site follows
        another with no parameter between them.

    Raises:
        UnknownSite: If the network does not run a site.
    """
    modules = dict(model.named_modules())
    names = {(site.module, site.call): site.name for site in sites}
    calls = dict.fromkeys((site.module for site in sites if site.module in modules), 0)
    counts: dict[str, int] = {}
    uses = _Uses(model.parameters())

    def finished(path: str, *_: Any) -> None:
        name = names.get((path, calls[path]))
        calls[path] += 1
        if name is not None:
            counts[name], uses.used = uses.used, 0

    handles = [modules[path].register_forward_hook(partial(finished, path)) for path in calls]
    try:
        with evaluating(model), torch.no_grad(), uses:
            model(**x) if isinstance(x, Mapping) else model(x)
    finally:
        for handle in handles:
            handle.remove()
    for site in sites:
        if site.name not in counts:
            raise UnknownSite(
                f"the network does not run a site {site.name!r}; "
                "give sites that find_sites names for this network."
            )
    return {site.name: counts[site.name] for site in sites}
