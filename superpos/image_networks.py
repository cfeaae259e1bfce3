"""The paper's networks for images by name (section 7), and how large each can be."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .networks import cnn, mlp
from .resnet import resnet18

CONNECTED = ("mlp", "standard_mlp")
CNNS = ("cnn", "standard_cnn")
RESNET = "resnet18"
SINGLE, STANDARD = ("mlp", "cnn"), ("standard_mlp", "standard_cnn")
NETWORKS = (*CONNECTED, *CNNS, RESNET)
"""`width` is h of the MLPs, and the number of the first convolution's filters of the others."""


def make_network(
    name: str,
    width: int,
    shape: tuple[int, int, int],
    classes: int,
    *,
    seed: int,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """One of the paper's networks (section 7) with its initial weights.

    Args:
        name: one of `NETWORKS`.
        width: neurons h of MLPs (the standard one has 4h, 2h and h); filters of the first
            convolution of the others.
        shape: channels, height and width of the images.
        classes: number of classes; two share a single logit.
        seed: fixes the weights.
        device: where they live.

    Raises:
        ValueError: an unknown name, or sizes that the network cannot take.
    """
    channels, height, across = shape
    common: dict[str, Any] = {"seed": seed, "device": device}
    if name == "mlp":
        return mlp(channels * height * across, width, classes, **common)
    if name == "standard_mlp":
        return mlp(channels * height * across, (4 * width, 2 * width, width), classes, **common)
    if name not in NETWORKS:
        raise ValueError(f"Unknown network {name!r}: use one of {', '.join(NETWORKS)}.")
    if height != across:
        raise ValueError(
            f"Images are {height} by {across}: {name} takes square ones; crop them, or use an mlp."
        )
    if name == RESNET:
        return resnet18(channels, height, width, classes, **common)
    return cnn(channels, height, width, classes, standard=name == "standard_cnn", **common)
