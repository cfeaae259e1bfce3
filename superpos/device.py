"""Where to compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def chosen_device(device: torch.device | str) -> torch.device | str:
    """A device, with "auto" standing for a GPU if there is one."""
    if device != "auto":
        return device
    import torch  # here, so that the command line starts without it

    return "cuda" if torch.cuda.is_available() else "cpu"
