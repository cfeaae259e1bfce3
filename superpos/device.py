"""Where to compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda", *(f"cuda:{number}" for number in range(8)))
"""Devices that a section's parameters may name."""


def chosen_device(device: torch.device | str) -> torch.device | str:
    """A device, with "auto" standing for a GPU if there is one."""
    if device != "auto":
        return device
    import torch  # here, so that the command line starts without it

    return "cuda" if torch.cuda.is_available() else "cpu"


def usable_device(device: torch.device | str) -> torch.device:
    """A device that is there, with "auto" standing for a GPU if there is one.

    Raises:
        ValueError: there is no such device; the message lists those there are.
    """
    import torch

    try:
        found = torch.empty(0, device=torch.device(chosen_device(device))).device
    except Exception:  # a device that is missing or none at all raises errors of many kinds
        found = None
    if found is None or found.type == "meta" or (found.type == "cpu" and found.index):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        there = ", ".join(["'auto'", "'cpu'", *(f"'cuda:{number}'" for number in range(count))])
        raise ValueError(f"device is {str(device)!r}, which is not here; give one of {there}.")
    return found
