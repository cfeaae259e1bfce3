"""Measure superposition in neural networks.

`measure` says how many effective features each layer of a network carries, and how many of them
per neuron. See `superpos.entropy` for the measure itself, `superpos.sae` and `superpos.solver` for
the autoencoders under it.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "measure": "measurement",
    "Report": "report",
    "Superposition": "report",
    "SAE": "sae",
    "SAEConfig": "sae",
    "Fit": "solver",
    "fit": "solver",
    "DeadCodesError": "entropy",
    "effective_features": "entropy",
    "superposition": "entropy",
    "hill_number": "entropy",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import public names when they are first used, so that `superpos --help` stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"superpos has no {name!r}; it has {', '.join(__all__)}.")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
