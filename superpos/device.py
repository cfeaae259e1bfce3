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
        found = torch.device(chosen_device(device))
        if found.type == "meta" or (found.type == "cuda" and (found.index or 0) >= _gpus()):
            raise ValueError
        torch.empty(0, device=found)
    except Exception:  # a device that is missing or none at all raises errors of many kinds
        there = ", ".join(["'auto'", "'cpu'", *(f"'cuda:{number}'" for number in range(_gpus()))])
        message = f"device is {str(device)!r}, which is not here; give one of {there}."
        raise ValueError(message) from None
    return found


def _gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
