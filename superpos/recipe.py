"""The plain recipe: Adam for a fixed number of epochs, wherever that ends.

This is how the paper fits its autoencoders (section 4; its parity chapters use 300 epochs and an
untied decoder). It is here to be compared with `superpos.solver.fit`, which goes on until the loss
stands still. The untied decoder's rows are free here, as in the authors' code: then scaling codes
down and rows up lowers the l1 term for ever, so that the loss has no minimum to converge to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from .learner import Order, checked, gradients, next_batch, paired_seeds, root_mean_square
from .sae import SAE, SAEConfig, configuration

RATE = 1e-3
BATCH = 128


def fit_for_epochs(
    activations: torch.Tensor,
    config: SAEConfig | None = None,
    *,
    epochs: Sequence[int] = (300,),
    seeds: Sequence[int] = (0,),
    batch: int = BATCH,
    device: torch.device | str | None = None,
) -> list[SAE]:
    """Fit tied or untied autoencoders by Adam (rate 1e-3) for so many epochs.

    Weights start Xavier-uniform, biases at zero; batches come in a shuffled order of the samples.
    As with `fit`, a member's result depends on its own activations and seed alone.

    Args:
        activations: `[samples, neurons]` shared by all members, one member per seed; or
            `[members, samples, neurons]`.
        config: architecture, dictionary and l1; what concerns convergence has no meaning here.
        epochs: rising numbers of passes over the samples after which a copy is kept.
        seeds: one seed per member; a single seed serves any number of members.
        batch: samples per step; a remainder smaller than this is left out of its pass.
        device: where to compute; default where the activations are.

    Returns:
        The autoencoders after each number of epochs.

    Raises:
        ValueError: an architecture without l1, epochs that do not rise from at least 1, an empty
            batch, or as in `fit`.
    """
    config = configuration(config)
    if config.sparse_by_rank:
        raise ValueError(f"the plain recipe has no {config.architecture}; take tied or untied.")
    if not epochs or list(epochs) != sorted(set(epochs)) or epochs[0] < 1:
        raise ValueError(f"epochs are {tuple(epochs)}; give rising numbers of at least 1.")
    if batch < 1:
        raise ValueError(f"batch is {batch}; give at least 1 sample.")
    x = checked(activations, device)
    seeds = paired_seeds(x, seeds)
    samples, batch = x.shape[-2], min(batch, x.shape[-2])
    orders = [Order(seed, samples, batch) for seed in seeds]
    sae = _initial(x, config, seeds)
    weights = [value for name, value in sae.tensors().items() if name != "scale"]
    optimizer = torch.optim.Adam(weights, lr=RATE)
    kept = []
    for epoch in range(1, epochs[-1] + 1):
        for _ in range(samples // batch):
            inputs = next_batch(x, orders, sae.scale)
            found = gradients(sae, inputs, config.l1 / sae.dictionary)
            for name, gradient in found.items():
                getattr(sae, name).grad = gradient
            optimizer.step()
        if epoch in epochs:
            kept.append(_copied(sae))
    return kept


def _initial(x: torch.Tensor, config: SAEConfig, seeds: Sequence[int]) -> SAE:
    """Xavier-uniform matrices and zero biases, drawn on the CPU for every device alike."""
    neurons, members = x.shape[-1], len(seeds)
    dictionary = config.dictionary(neurons)
    bound = math.sqrt(6 / (neurons + dictionary))
    count = 1 if config.architecture == "tied" else 2
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    drawn = torch.stack([torch.rand(count, dictionary, neurons, generator=g) for g in generators])
    matrices = [((2 * part - 1) * bound).to(x.device).contiguous() for part in drawn.unbind(1)]
    sae = SAE(config, matrices[0], x.new_zeros(members, dictionary))
    if config.normalize:
        sae.scale = root_mean_square(x).expand(members).clone()
    if count == 2:
        sae.decoder, sae.offset = matrices[1], x.new_zeros(members, neurons)
    return sae


def _copied(sae: SAE) -> SAE:
    """A copy that training leaves alone."""
    return replace(sae, **{name: value.detach().clone() for name, value in sae.tensors().items()})
