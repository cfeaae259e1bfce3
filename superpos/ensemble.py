"""Many small networks of one architecture computed as one.

Members differ in their weights and share everything else. They are computed through
`torch.func.vmap`, all at once or a few at a time, or one after another without it: a matter of
memory and speed, not of the result. On a GPU, where launches dominate, many at once are faster; on
a CPU wide layers fill the cores by themselves and go faster one by one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.modules.batchnorm import _BatchNorm


class Ensemble:
    """Networks of one architecture with their weights stacked.

    Attributes:
        parameters: Weights by name, `[members, ...]`, each a leaf that requires gradients.
        buffers: What networks keep beside weights, `[members, ...]`.
        members: Number of networks.
        at_once: Members computed together at most; None for all, 1 for one after another.
    """

    def __init__(self, networks: Sequence[nn.Module], *, at_once: int | None = None) -> None:
        """Stack networks.

        Args:
            networks: modules of one architecture on one device. Buffers that change (those of batch
                normalization) need `at_once=1`.
            at_once: members computed together; default all.

        Raises:
            ValueError: there are no networks, or `at_once` is not positive.
        """
        if not networks:
            raise ValueError("an ensemble needs at least one network.")
        self.parameters, self.buffers = stack_module_state(list(networks))
        self.members = len(networks)
        self._networks = list(networks)
        self.at_once = at_once
        if at_once is not None and at_once < 1:
            raise ValueError(f"at_once is {at_once}; give at least 1.")

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Outputs of every member for its own inputs.

        Args:
            inputs: what a network takes, each `[members, batch, ...]`.

        Returns:
            `[members, batch, outputs]`.

        Raises:
            ValueError: the inputs are not for so many members, or networks with batch
                normalization in training mode are not computed one after another.
        """
        for x in inputs:
            if x.shape[0] != self.members:
                raise ValueError(f"inputs have {x.shape[0]} members, the ensemble {self.members}.")
        return self._outputs(self.parameters, self.buffers, *inputs)

    def _outputs(
        self, weights: dict[str, Tensor], buffers: dict[str, Tensor], *inputs: Tensor
    ) -> Tensor:
        """Outputs of stacked networks, at most `at_once` of them together."""
        if self.at_once != 1:
            if any(isinstance(m, _BatchNorm) and m.training for m in self._networks[0].modules()):
                raise ValueError(
                    "Batch normalization keeps statistics of its own while it is trained: such "
                    "networks are computed one after another; make the ensemble with at_once=1."
                )
            return vmap(self._one, chunk_size=self.at_once)(weights, buffers, *inputs)
        outputs = []
        for index, own in enumerate(zip(*inputs, strict=True)):
            # Kernels of convolutions with channels last make them up to twice as fast on a CPU.
            kernels = {name: _channels_last(value[index]) for name, value in weights.items()}
            states = {name: value[index] for name, value in buffers.items()}
            outputs.append(self._one(kernels, states, *own))
        return torch.stack(outputs)

    def _one(
        self, weights: dict[str, Tensor], buffers: dict[str, Tensor], *inputs: Tensor
    ) -> Tensor:
        return functional_call(self._networks[0], {**weights, **buffers}, inputs)

    def mode(self, training: bool) -> None:
        """Training or evaluation mode, for layers that differ in them."""
        self._networks[0].train(training)

    def select(self, members: Tensor) -> Callable[..., Tensor]:
        """Some members as a function of their own inputs, with copies of their present weights."""
        weights = {name: value.detach()[members] for name, value in self.parameters.items()}
        buffers = {name: value[members] for name, value in self.buffers.items()}
        return lambda *inputs: self._outputs(weights, buffers, *inputs)

    def member(self, index: int) -> nn.Module:
        """One network with its present weights, for reading; it does not share them."""
        network = copy.deepcopy(self._networks[index])
        with torch.no_grad():
            for name, value in network.named_parameters():
                value.copy_(self.parameters[name][index])
            for name, value in network.named_buffers():
                value.copy_(self.buffers[name][index])
        return network


def train(
    ensemble: Ensemble,
    *,
    batches: Callable[[int], tuple[Tensor, ...]],
    loss: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    schedule: Callable[[float], float],
    steps: int,
) -> None:
    """Train all members together; their losses add up, so that none sees another's gradient.

    Args:
        ensemble: the networks, changed in place.
        batches: from the step to one or more inputs `[members, batch, ...]` and, last, targets
            `[members, batch]`.
        loss: from outputs and targets to losses `[members, batch]`; averaged over the batch.
        optimizer: over `ensemble.parameters.values()`, elementwise (SGD, Adam).
        schedule: from the share of training done to a factor on the learning rate.
        steps: number of steps.
    """
    rates = [group["lr"] for group in optimizer.param_groups]
    for step in range(steps):
        *inputs, y = batches(step)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * schedule(step / steps)
        optimizer.zero_grad()
        loss(ensemble(*inputs), y).mean(-1).sum().backward()
        optimizer.step()


def _channels_last(kernel: Tensor) -> Tensor:
    return kernel.to(memory_format=torch.channels_last) if kernel.ndim == 4 else kernel
