"""The paper's networks (section 7) and how their logits are judged.

Networks are plain ``nn.Sequential`` models whose layers have names, so that sites are called
``relu1``, ``relu2``, ... A task of two classes has a single logit.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import skip_init


def mlp(
    inputs: int,
    hidden: int | Sequence[int],
    classes: int,
    *,
    seed: int,
    device: torch.device | str = "cpu",
) -> nn.Sequential:
    """Make a multilayer perceptron with a ReLU after every hidden layer.

    The paper's single-layer network is ``mlp(784, h, k)``, its standard network
    ``mlp(784, (4 * h, 2 * h, h), k)`` (paper section 7).

    Args:
        inputs: Number of input values; inputs `[batch, ...]` are flattened to `[batch, inputs]`.
        hidden: Neurons of the hidden layer, or of each hidden layer in turn.
        classes: Number of classes, at least 2; two classes share a single logit.
        seed: Fixes the initial weights, whatever the device.
        device: Where the parameters live.

    Returns:
        A network from `[batch, ...]` to logits `[batch, classes]` (`[batch, 1]` for two classes)
        with the modules ``flatten, linear1, relu1, linear2, ...``.

    Raises:
        ValueError: If a size is not positive or there are fewer than two classes.
    """
    widths = (hidden,) if isinstance(hidden, int) else tuple(hidden)
    check_sizes(inputs=inputs, hidden=min(widths, default=0))
    layers: dict[str, nn.Module] = {"flatten": nn.Flatten()}
    previous = inputs
    for number, width in enumerate(widths, start=1):
        layers[f"linear{number}"] = skip_init(nn.Linear, previous, width)
        layers[f"relu{number}"] = nn.ReLU()
        previous = width
    layers[f"linear{len(widths) + 1}"] = skip_init(nn.Linear, previous, logit_count(classes))
    return _initialized(layers, seed).to(device)


def cnn(
    channels: int,
    size: int,
    filters: int,
    classes: int,
    *,
    seed: int,
    standard: bool = False,
    device: torch.device | str = "cpu",
) -> nn.Sequential:
    """Make one of the paper's convolutional networks (paper section 7).

    The single-layer network is conv 5x5 - ReLU - maxpool - linear. The standard network is
    conv 3x3 (c filters) - ReLU - maxpool - conv 3x3 (2c) - ReLU - maxpool - linear 4c - ReLU -
    linear. Convolutions keep the image's size, each maxpool halves it.

    Args:
        channels: Channels of the input images.
        size: Height and width of the input images, at least 2 (4 for the standard network).
        filters: Number c of filters of the first convolution.
        classes: Number of classes, at least 2; two classes share a single logit.
        seed: Fixes the initial weights, whatever the device.
        standard: The standard network instead of the single-layer one.
        device: Where the parameters live.

    Returns:
        A network from `[batch, channels, size, size]` to logits `[batch, classes]` (`[batch, 1]`
        for two classes); its sites are ``relu1``, and ``relu2`` and ``relu3`` if standard.

    Raises:
        ValueError: If a size is too small or there are fewer than two classes.
    """
    check_sizes(channels=channels, filters=filters, size=size // (4 if standard else 2))
    logits = logit_count(classes)
    if standard:
        layers = {
            "conv1": skip_init(nn.Conv2d, channels, filters, 3, padding=1),
            "relu1": nn.ReLU(),
            "pool1": nn.MaxPool2d(2),
            "conv2": skip_init(nn.Conv2d, filters, 2 * filters, 3, padding=1),
            "relu2": nn.ReLU(),
            "pool2": nn.MaxPool2d(2),
            "flatten": nn.Flatten(),
            "linear1": skip_init(nn.Linear, 2 * filters * (size // 4) ** 2, 4 * filters),
            "relu3": nn.ReLU(),
            "linear2": skip_init(nn.Linear, 4 * filters, logits),
        }
    else:
        layers = {
            "conv1": skip_init(nn.Conv2d, channels, filters, 5, padding=2),
            "relu1": nn.ReLU(),
            "pool1": nn.MaxPool2d(2),
            "flatten": nn.Flatten(),
            "linear1": skip_init(nn.Linear, filters * (size // 2) ** 2, logits),
        }
    return _initialized(layers, seed).to(device)


def classification_loss(logits: Tensor, y: Tensor) -> Tensor:
    """Compute each sample's cross-entropy, binary where there is a single logit.

    Args:
        logits: `[..., batch, classes]`; a single logit as `[..., batch, 1]`, or as
            `[..., batch]` if y has as many axes.
        y: Labels `[batch]`, shared by all members, or `[..., batch]`: 0 and 1 for a single
            logit, else 0 to classes - 1.

    Returns:
        Losses in nats, `[..., batch]`.

    Raises:
        ValueError: If the labels' shape does not fit the logits.
    """
    logits, y = aligned(logits, y)
    if logits.shape[-1] == 1:
        logits = logits.squeeze(-1)
        return functional.binary_cross_entropy_with_logits(
            logits, y.to(logits.dtype), reduction="none"
        )
    losses = functional.cross_entropy(logits.flatten(0, -2), y.flatten().long(), reduction="none")
    return losses.view(y.shape)


def predictions(logits: Tensor) -> Tensor:
    """Name the most likely class of every sample.

    Args:
        logits: `[..., batch, classes]`, a single logit as `[..., batch, 1]`.

    Returns:
        Class numbers `[..., batch]`, int64; a single logit above zero is class 1.
    """
    if logits.shape[-1] == 1:
        return (logits.squeeze(-1) > 0).long()
    return logits.argmax(-1)


def accuracy(logits: Tensor, y: Tensor) -> Tensor:
    """Compute the share of samples whose most likely class is their label.

    Args:
        logits: As for :func:`classification_loss`.
        y: As for :func:`classification_loss`.

    Returns:
        Accuracies between 0 and 1, one per member: `[...]`.

    Raises:
        ValueError: If the labels' shape does not fit the logits.
    """
    logits, y = aligned(logits, y)
    return (predictions(logits) == y).to(logits.dtype).mean(-1)


def aligned(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Give logits their class axis and every member its labels.

    Args:
        logits: As for :func:`classification_loss`.
        y: As for :func:`classification_loss`.

    Returns:
        Logits `[..., batch, classes]` and labels `[..., batch]`.

    Raises:
        ValueError: If the labels' shape does not fit the logits.
    """
    if logits.ndim == y.ndim:
        logits = logits.unsqueeze(-1)
    samples = logits.shape[:-1]
    if y.ndim == 0 or samples[len(samples) - y.ndim :] != y.shape:
        raise ValueError(
            f"Labels of shape {tuple(y.shape)} do not fit logits of shape {tuple(logits.shape)}: "
            "give logits [batch, classes] and labels [batch], or logits [members, batch, classes] "
            "and labels [batch] or [members, batch]."
        )
    return logits, y.expand(samples)


def _initialized(layers: dict[str, nn.Module], seed: int) -> nn.Sequential:
    """Draw weights and biases as PyTorch does by default, uniform within 1 / sqrt(fan-in)."""
    generator = torch.Generator().manual_seed(seed)
    for layer in layers.values():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            bound = 1 / math.sqrt(layer.weight[0].numel())
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return nn.Sequential(OrderedDict(layers))


def logit_count(classes: int) -> int:
    """Outputs of a classifier: one for two classes, otherwise one each; at least two are needed."""
    if classes < 2:
        raise ValueError(f"A network of {classes} classes was asked for: give at least 2.")
    return 1 if classes == 2 else classes


def check_sizes(**sizes: int) -> None:
    """Raise ValueError, which names it, for a size of a layer below 1."""
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(
                f"{name} is too small: every layer of the network needs at least one value."
            )
