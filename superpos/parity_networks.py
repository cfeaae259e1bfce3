"""Networks for multi-task sparse parity, with or without dropout (paper sections 5.2 and 6.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .activations import find_sites, read
from .data import Parity
from .ensemble import Ensemble, train
from .learner import Order
from .networks import accuracy, classification_loss, mlp
from .ways import POST, PRE

MODULES = {PRE: "linear1", POST: "relu1"}
"""Where the hidden layer's two sites are read."""


class Networks(NamedTuple):
    """Trained networks and what is measured in them, members first."""

    accuracy: Tensor
    """On the test samples, without dropout, `[members]`."""
    train_accuracy: Tensor
    """On the training samples, `[members]`."""
    activations: dict[str, Tensor]
    """By site, on the training samples, `[members, samples, neurons]`."""


class DropoutMLP(nn.Module):
    """A single-layer perceptron whose pre-activations are multiplied by a given mask."""

    def __init__(self, network: nn.Sequential) -> None:
        """Share the layers of `superpos.networks.mlp`."""
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """Logits `[batch, 1]` for inputs `[batch, inputs]` and a mask `[batch, hidden]`."""
        layers = self.network
        return layers.linear2(layers.relu1(layers.linear1(x) * keep))


def trained(
    data: Parity,
    hidden: int,
    members: Sequence[tuple[float, int]],
    *,
    epochs: int,
    batch: int,
    rate: float,
) -> Networks:
    """Train one network per dropout rate and seed, and read its hidden layer.

    Binary cross-entropy and Adam (paper section 6.1). In training, pre-activations are zeroed
    with the probability of the rate and otherwise divided by one minus it. Networks of one seed
    share their first weights, the order of samples and the draws behind the masks, so that they
    differ by their rate alone.

    Args:
        data: on the device to compute on.
        hidden: neurons of the hidden layer.
        members: dropout rate in [0, 1) and seed of each network.
        epochs: passes over the training samples.
        batch: samples per step; a remainder is left out of its pass.
        rate: Adam's learning rate.

    Returns:
        Accuracies and activations.

    Raises:
        ValueError: a rate is outside [0, 1), epochs are negative, or the batch is empty.
    """
    rates, device = [own for own, _ in members], data.x_train.device
    if not all(0 <= own < 1 for own in rates):
        raise ValueError(f"dropout rates are {rates}; give numbers from 0 to below 1.")
    if epochs < 0 or batch < 1:
        raise ValueError(f"epochs is {epochs} and batch {batch}; give 0 and 1 or more.")
    batch = min(batch, len(data.x_train))
    networks = [mlp(data.inputs, hidden, 2, seed=seed, device=device) for _, seed in members]
    ensemble = Ensemble([DropoutMLP(network) for network in networks])
    train(
        ensemble,
        batches=_batches(data, hidden, members, batch),
        loss=classification_loss,
        optimizer=torch.optim.Adam(list(ensemble.parameters.values()), lr=rate),
        schedule=lambda done: 1.0,
        steps=epochs * (len(data.x_train) // batch),
    )
    networks = [ensemble.member(index).network for index in range(len(members))]
    sites = find_sites(networks[0], data.x_train[:2], list(MODULES.values()))
    shape = len(members), len(data.x_train), hidden
    activations = {site: torch.empty(shape, device=device) for site in MODULES}
    for index, network in enumerate(networks):  # one after another: twice all of them is large
        found = read(network, data.x_train, sites)
        for site, module in MODULES.items():
            activations[site][index] = found[module].squeeze(1)
    return Networks(
        accuracy=_accuracies(networks, data.x_test, data.y_test),
        train_accuracy=_accuracies(networks, data.x_train, data.y_train),
        activations=activations,
    )


def _batches(
    data: Parity, hidden: int, members: Sequence[tuple[float, int]], batch: int
) -> Callable[[int], tuple[Tensor, Tensor, Tensor]]:
    """Inputs, masks and labels of every member, step by step; equal seeds share their draws."""
    device = data.x_train.device
    seeds = sorted({seed for _, seed in members})
    place = torch.tensor([seeds.index(seed) for _, seed in members], device=device)
    rates = torch.tensor([own for own, _ in members], device=device)[:, None, None]
    orders = [Order(seed, len(data.x_train), batch) for seed in seeds]
    masks = [torch.Generator(device).manual_seed(1_000_003 * seed + 1) for seed in seeds]

    def batches(step: int) -> tuple[Tensor, Tensor, Tensor]:
        index = torch.stack([order.next() for order in orders]).to(device)[place]
        drawn = [torch.rand(batch, hidden, generator=own, device=device) for own in masks]
        keep = (torch.stack(drawn)[place] >= rates) / (1 - rates)
        return data.x_train[index], keep, data.y_train[index]

    return batches


def _accuracies(networks: Sequence[nn.Module], x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.stack([accuracy(network(x), y) for network in networks])
