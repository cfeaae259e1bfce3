"""Which images stay correctly classified under an ensemble of strong attacks.

PGD may fail because a network hides its gradient, not because it is robust. Croce & Hein (2020,
AutoAttack) let attacks of different kinds loose, one after the other, on the images that still
stand; these are torchattacks' own, but whether an image is broken is judged here.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from .networks import aligned, predictions

ATTACKS = {
    2: ("apgd-ce", "fab-t", "square"),
    3: ("apgd-ce", "apgd-dlr", "fab-t", "square"),
    4: ("apgd-ce", "apgd-t", "fab-t", "square"),
}
"""Attacks in their order, for two classes, three, and four or more.

``apgd-ce`` is PGD with adaptive steps on the cross-entropy, ``apgd-t`` on the targeted difference
of logits ratio, which takes four classes, ``apgd-dlr`` on the untargeted one, which takes three;
with two classes every loss rises and falls with the one logit. ``fab-t`` looks for the nearest
boundary to each other class, ``square`` searches at random on the margin, without gradients.
"""
RESTARTS = 5
"""Starts of each gradient attack where there are fewer than four classes; else one."""
TOLERANCE = 1e-6
"""How far a pixel may lie outside the ball or [0, 1] by rounding."""


def survivors(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float,
    seed: int,
    batch: int = 256,
    steps: int = 100,
    queries: int = 5000,
) -> Tensor:
    """Find the images that no attack of the ensemble breaks (Croce & Hein 2020).

    An image is broken if an attack returns a point that the network misclassifies and that lies
    in the maximum-norm ball and in [0, 1], both up to :data:`TOLERANCE`. A copy of the model is
    attacked in evaluation mode; the model and torch's random state stay as they are.

    Args:
        model: Gives logits `[samples, classes]`; `[samples, 1]` or `[samples]` for two classes.
        x: Images in [0, 1], float32, `[samples, features]`, `[samples, height, width]` or
            `[samples, channels, height, width]`.
        y: Labels `[samples]`.
        epsilon: Radius of the ball, in units of x; at zero nothing is attacked.
        seed: Fixes random starts and the random search.
        batch: Images attacked at once.
        steps: Gradient steps of each start of APGD and FAB.
        queries: Steps of the random search.

    Returns:
        Whether each image is classified correctly and stays so, bool, `[samples]`.

    Raises:
        ImportError: If torchattacks is not installed.
        TypeError: If x is not float32.
        ValueError: If an argument is not among what is allowed, or x leaves [0, 1].
    """
    try:
        import torchattacks
    except ImportError as error:
        raise ImportError(
            "The attacks need the package torchattacks: `pip install 'superpos[attacks]'`."
        ) from error
    _check(x, epsilon, batch=batch, steps=steps, queries=queries)
    model = copy.deepcopy(model).eval().requires_grad_(False)
    with torch.no_grad(), torch.random.fork_rng(range(torch.cuda.device_count())):
        logits, y = aligned(torch.cat([model(part) for part in x.split(batch)]), y)
        if logits.ndim != 2:
            raise ValueError(
                f"Logits of shape {tuple(logits.shape)} are not those of one model: "
                "give one that maps [samples, ...] to [samples, classes]."
            )
        standing, classes = predictions(logits) == y, max(logits.shape[1], 2)
        network = _ForTorchattacks(model, x.shape[1:], logits).eval()
        shared = {"model": network, "eps": epsilon, "seed": seed}
        descent = shared | {"steps": steps, "n_restarts": RESTARTS if classes < 4 else 1}
        targeted = descent | {"n_classes": min(classes, 10)}  # nine targets, the likeliest
        attacks = {
            "apgd-ce": torchattacks.APGD(**descent, loss="ce"),
            "apgd-dlr": torchattacks.APGD(**descent, loss="dlr"),
            "apgd-t": torchattacks.APGDT(**targeted),
            "fab-t": torchattacks.FAB(**targeted, multi_targeted=True),
            "square": torchattacks.Square(**shared, n_queries=queries),
        }
        images, y = x.reshape(len(x), *[1] * (4 - x.ndim), *x.shape[1:]), y.long()
        lowest = (images - epsilon).clamp(min=0) - TOLERANCE
        highest = (images + epsilon).clamp(max=1) + TOLERANCE
        for name in ATTACKS[min(classes, 4)]:
            if epsilon == 0 or not standing.any():
                break
            for part in standing.nonzero().squeeze(1).split(batch):
                found = attacks[name](images[part], y[part])
                inside = ((lowest[part] <= found) & (found <= highest[part])).flatten(1).all(1)
                answers, _ = aligned(model(found.reshape(x[part].shape)), y[part])
                standing[part] = ~inside | (predictions(answers) == y[part])
    return standing


class _ForTorchattacks(nn.Module):
    """A network for images of four axes, with two logits or more.

    Two classes get plus and minus half of one logit, so that both carry its gradient, divided by
    one plus the mean size of clean logits, since large ones flatten the cross-entropy.
    """

    def __init__(self, model: nn.Module, shape: torch.Size, clean: Tensor) -> None:
        super().__init__()
        self.model, self.shape = model, shape
        self.scale = 2 * (1 + clean.abs().mean())

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model(images.reshape(len(images), *self.shape)).reshape(len(images), -1)
        if logits.shape[1] > 2:
            return logits.clone()  # Square writes into them
        half = (logits[:, -1:] - logits[:, :-1].sum(1, keepdim=True)) / self.scale
        return torch.cat([-half, half], 1)


def _check(x: Tensor, epsilon: float, **counts: int) -> None:
    if x.dtype != torch.float32:
        raise TypeError(f"The attacks compute in float32, got {x.dtype}: convert x and the model.")
    if not 2 <= x.ndim <= 4:
        raise ValueError(
            f"x of shape {tuple(x.shape)} is no batch of images: give [samples, features], "
            "[samples, height, width] or [samples, channels, height, width]."
        )
    if not bool(((x >= 0) & (x <= 1)).all()):
        low, high = (value.item() for value in x.aminmax())
        raise ValueError(f"Images range from {low:g} to {high:g}: rescale them to [0, 1].")
    if not 0 <= epsilon < math.inf:
        raise ValueError(f"epsilon must be finite and at least 0, got {epsilon}.")
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is {count}: give at least 1.")
