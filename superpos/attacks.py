"""FGSM and PGD: one loop, one step rule for each norm (paper section 7).

A step rule knows how to draw a random start, which way to step and how to project back into the
ball; the loop around it is written once (Madry et al. 2018).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .evaluation import evaluating
from .networks import aligned, classification_loss

Model = Callable[[Tensor], Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


def pgd(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float | Tensor,
    steps: int,
    step_size: float | Tensor | None = None,
    norm: str = "linf",
    random_start: bool = True,
    targeted: bool = False,
    loss: Loss | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
) -> Tensor:
    """Perturb inputs by projected gradient ascent on the loss (Madry et al. 2018).

    An ``nn.Module`` is attacked in evaluation mode; its modes, its parameters' ``requires_grad``
    and ``grad`` are afterwards what they were. If every epsilon is zero, nothing is drawn, the
    model is not called and a copy of x is returned.

    Args:
        model: A module or function from inputs to logits: `[batch, *features]` to
            `[batch, classes]`, or for an ensemble `[members, batch, *features]` to
            `[members, batch, classes]`. The axes of the logits before the last are the sample
            axes of x; all later axes of x are features.
        x: Inputs within the bounds, floating point.
        y: Labels, or the classes to be reached if targeted; `[batch]` or `[members, batch]`.
        epsilon: Radius of the ball. A tensor's axes are the leading axes of x: `[members]` or
            `[members, batch]` for an ensemble, `[batch]` for a single model. Where it is zero,
            x is returned unchanged.
        steps: Number of gradient steps, at least 1.
        step_size: Length of a step in the norm, shaped like epsilon; 2.5 epsilon / steps if None.
        norm: ``"linf"`` or ``"l2"`` (over all features of a sample).
        random_start: Start at a uniformly random point of the ball instead of at x.
        targeted: Lower the loss towards y instead of raising it.
        loss: Maps logits and y to losses, whose sum is followed;
            :func:`superpos.networks.classification_loss` if None.
        bounds: Lowest and highest allowed input value.
        generator: Source of the random start, on the device of x; or one for each index of the
            first axis of x, so that a member starts in an ensemble where it starts alone.

    Returns:
        Perturbed inputs, shaped like x, inside the ball and the bounds, without gradient.

    Raises:
        TypeError: If x is not floating point.
        ValueError: If an argument is not among what is allowed, or x leaves the bounds.
    """
    _check_inputs(x, bounds)
    if norm not in _RULES:
        raise ValueError(f"Unknown norm {norm!r}: use one of {', '.join(_RULES)}.")
    if steps < 1:
        raise ValueError(f"steps is {steps}: an attack needs at least 1.")
    radius = _leading(epsilon, x, "epsilon")
    if not radius.any():
        return x.detach().clone()
    radius = radius.to(x.device)
    if step_size is None:
        stride = 2.5 * radius / steps
    else:
        stride = _leading(step_size, x, "step_size").to(x.device)

    with evaluating(model), torch.no_grad():
        rule = _RULES[norm](model, x.detach(), y, radius, bounds)
        adversarial = x.detach().clone()
        if random_start:
            adversarial = rule.project(adversarial.add_(rule.start(generator)))
        for _ in range(steps):
            gradient = _input_gradient(model, adversarial, y, loss or classification_loss)
            direction = rule.direction(gradient)
            adversarial.addcmul_(direction, stride, value=-1 if targeted else 1)
            adversarial = rule.project(adversarial)
    return adversarial


def fgsm(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float | Tensor,
    norm: str = "linf",
    targeted: bool = False,
    loss: Loss | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Tensor:
    """Perturb inputs by one full gradient step (Goodfellow et al. 2015).

    This is :func:`pgd` with one step of length epsilon from x itself.

    Args:
        model: As for :func:`pgd`.
        x: As for :func:`pgd`.
        y: As for :func:`pgd`.
        epsilon: As for :func:`pgd`.
        norm: As for :func:`pgd`.
        targeted: As for :func:`pgd`.
        loss: As for :func:`pgd`.
        bounds: As for :func:`pgd`.

    Returns:
        Perturbed inputs, shaped like x, inside the ball and the bounds, without gradient.

    Raises:
        TypeError: If x is not floating point.
        ValueError: If an argument is not among what is allowed, or x leaves the bounds.
    """
    return pgd(
        model,
        x,
        y,
        epsilon=epsilon,
        steps=1,
        step_size=epsilon,
        norm=norm,
        random_start=False,
        targeted=targeted,
        loss=loss,
        bounds=bounds,
    )


class _Linf:
    """Step rule of the maximum norm: every feature on its own."""

    def __init__(
        self, model: Model, x: Tensor, y: Tensor, epsilon: Tensor, bounds: tuple[float, float]
    ) -> None:
        self.epsilon, self.shape = epsilon, x.shape
        self.lowest = (x - epsilon).clamp_(min=bounds[0])
        self.highest = (x + epsilon).clamp_(max=bounds[1])

    def start(self, generator: torch.Generator | Sequence[torch.Generator] | None) -> Tensor:
        uniform = _draw(torch.rand, self.shape, self.lowest, generator)
        return uniform.mul_(2).sub_(1).mul_(self.epsilon)

    def direction(self, gradient: Tensor) -> Tensor:
        return gradient.sign_()

    def project(self, adversarial: Tensor) -> Tensor:
        return torch.clamp(adversarial, self.lowest, self.highest, out=adversarial)


class _L2:
    """Step rule of the Euclidean norm over the features of a sample."""

    def __init__(
        self, model: Model, x: Tensor, y: Tensor, epsilon: Tensor, bounds: tuple[float, float]
    ) -> None:
        # Only the logits tell which axes of x are samples; one forward pass finds out.
        samples = aligned(model(x), y)[1].ndim
        if any(size > 1 for size in epsilon.shape[samples:]):
            raise ValueError(
                f"epsilon varies between features of a sample (shape {tuple(epsilon.shape)}): "
                f"its axes may be the first {samples} of x only."
            )
        self.x, self.epsilon, self.bounds = x, epsilon, bounds
        self.features = tuple(range(samples, x.ndim))
        self.tiny = torch.finfo(x.dtype).tiny

    def start(self, generator: torch.Generator | Sequence[torch.Generator] | None) -> Tensor:
        normal = _draw(torch.randn, self.x.shape, self.x, generator)
        one_a_sample = self._norm(normal).shape
        uniform = _draw(torch.rand, one_a_sample, self.x, generator)
        dimensions = normal.numel() / uniform.numel()
        return self.direction(normal) * (self.epsilon * uniform ** (1 / dimensions))

    def direction(self, gradient: Tensor) -> Tensor:
        # Scaled by the largest entry first, so that squares of small gradients do not vanish.
        largest = gradient.abs().amax(self.features, keepdim=True)
        scaled = gradient / largest.clamp_min(self.tiny)
        return scaled / self._norm(scaled).clamp_min(self.tiny)

    def project(self, adversarial: Tensor) -> Tensor:
        delta = adversarial - self.x
        shrink = (self.epsilon / self._norm(delta).clamp_min(self.tiny)).clamp_max(1)
        return (self.x + delta * shrink).clamp_(*self.bounds)

    def _norm(self, values: Tensor) -> Tensor:
        return torch.linalg.vector_norm(values, dim=self.features, keepdim=True)


_RULES = {"linf": _Linf, "l2": _L2}


def _input_gradient(model: Model, x: Tensor, y: Tensor, loss: Loss) -> Tensor:
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        total = loss(model(x), y).sum()
    return torch.autograd.grad(total, x)[0]


def _draw(
    sample: Callable[..., Tensor],
    shape: Sequence[int],
    like: Tensor,
    generator: torch.Generator | Sequence[torch.Generator] | None,
) -> Tensor:
    options = {"dtype": like.dtype, "device": like.device}
    if generator is None:
        raise ValueError(
            "A random start needs a generator: pass "
            "generator=torch.Generator(x.device).manual_seed(seed), or random_start=False."
        )
    if isinstance(generator, torch.Generator):
        return sample(shape, generator=generator, **options)
    if len(generator) != shape[0]:
        raise ValueError(
            f"{len(generator)} generators were given for {shape[0]} entries of the first axis "
            "of x: pass one for each, or a single torch.Generator."
        )
    return torch.stack([sample(shape[1:], generator=one, **options) for one in generator])


def _leading(value: float | Tensor, x: Tensor, name: str) -> Tensor:
    """Check a radius and give it an axis of size one for every further axis of x."""
    value = torch.as_tensor(value, dtype=x.dtype)
    if not bool(((value >= 0) & value.isfinite()).all()):
        raise ValueError(f"{name} must be finite and at least 0, got {value.tolist()}.")
    axes_fit = value.ndim < x.ndim and all(
        size in (1, wanted) for size, wanted in zip(value.shape, x.shape, strict=False)
    )
    if not axes_fit:
        raise ValueError(
            f"{name} of shape {tuple(value.shape)} does not fit the leading axes of x, "
            f"{tuple(x.shape)}: give a number, [members], [members, batch] or [batch]."
        )
    return value.reshape(value.shape + (1,) * (x.ndim - value.ndim))


def _check_inputs(x: Tensor, bounds: tuple[float, float]) -> None:
    low, high = bounds
    if not (low < high and math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"bounds must be two finite numbers, lower first, got {bounds}.")
    if not x.is_floating_point():
        raise TypeError(f"Attacks need floating-point inputs, got {x.dtype}: convert x first.")
    smallest, largest = (value.item() for value in x.aminmax())
    if not (low <= smallest and largest <= high):
        raise ValueError(
            f"Inputs range from {smallest:g} to {largest:g}, outside the bounds {low:g} to "
            f"{high:g}: rescale x or pass its own bounds."
        )
