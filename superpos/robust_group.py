"""Members of adversarial training that are computed together, and their training step (section 7).

Every step trains on inputs attacked at the member's own epsilon (Madry et al. 2018), which grows
to its value over the first third of training. Members at epsilon 0 are not attacked. From half of
training on, robust accuracy is checked on images held out, and the weights of the best check are
what remains, those of the later one where two are equal.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .attacks import pgd
from .data import Images
from .data.ordering import stratified_order
from .ensemble import Ensemble
from .image_networks import make_network
from .learner import Order
from .networks import accuracy, classification_loss

PRECISIONS = ("float32", "bfloat16")
MOMENTUM = 0.9
MILESTONES = (0.5, 0.75)  # shares of training after which the rate falls tenfold
RAMP = 1 / 3  # share of training over which epsilon grows to its value
CHECKED = 0.5  # share of training after which robust accuracy is checked
SAVED = 120.0  # seconds between checkpoints
ROWS = 256  # images attacked at once where that is free to choose


@dataclass(frozen=True)
class Training:
    """How one task is learned; every pair of an epsilon and a seed is a member."""

    dataset: str
    network: str
    width: int
    classes: int
    epsilons: tuple[float, ...]
    seeds: tuple[int, ...]
    train_size: int | None
    """Training images at most; None takes all."""
    held_out: int
    """Training images that check robust accuracy."""
    steps: int | None
    """Training steps; None takes `epochs`."""
    epochs: int | None
    """Passes over the training images that are not held out."""
    batch: int
    rate: float
    weight_decay: float
    attack_steps: int
    attack_step: float | None
    """Length of a step of PGD; None takes 2.5 epsilon / steps."""
    checks: int
    """Checks of robust accuracy, spread over the second half of training."""
    patience: int
    """Checks without a new best, or one as good, after which training ends."""
    precision: str
    """One of `PRECISIONS`, of forward and backward passes; weights are in single precision."""

    @property
    def members(self) -> list[tuple[float, int]]:
        """Epsilon and seed of every member."""
        return [(epsilon, seed) for epsilon in self.epsilons for seed in self.seeds]


def attacked(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    epsilon: Tensor,
    *,
    steps: int,
    step_size: float | None = None,
    generators: Sequence[torch.Generator],
    rows: int = ROWS,
) -> Tensor:
    """Images attacked by every member at its own epsilon, in slices.

    Args:
        model: members as one function, `[members, batch, ...]` to logits.
        x: images that all members share, `[samples, ...]`.
        y: labels `[samples]`.
        epsilon: `[members]`; at zero, images stay as they are.
        steps: of PGD.
        step_size: of PGD; None takes 2.5 epsilon / steps.
        generators: of random starts, one per member.
        rows: images at once.

    Returns:
        `[members, samples, ...]`.
    """
    parts = []
    for images, labels in zip(x.split(rows), y.split(rows), strict=True):
        own = images.expand(len(epsilon), *images.shape)
        parts.append(
            pgd(
                model, own, labels, epsilon=epsilon, steps=steps, generator=generators,
                step_size=None if step_size is None else epsilon.sign() * step_size,
            )
        )  # fmt: skip
    return torch.cat(parts, 1)


def generators(seeds: Sequence[int], purpose: int, device: torch.device) -> list[torch.Generator]:
    """One source of random starts per member and purpose."""
    return [torch.Generator(device).manual_seed(1000 * (seed + 1) + purpose) for seed in seeds]


def training_steps(training: Training, samples: int) -> int:
    """Training steps, so many images being there."""
    if training.steps is not None:
        return training.steps
    kept = samples - training.held_out
    return training.epochs * (kept // min(training.batch, kept))


@dataclass
class Group:
    """Members that are computed together, at some point of their training."""

    training: Training
    images: Images
    members: Sequence[tuple[float, int]]
    step: int = 0
    history: list[tuple[int, list[float]]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Start every member from its seed, at step 0."""
        training, x = self.training, self.images.x_train
        seeds = [seed for _, seed in self.members]
        networks = [
            make_network(
                training.network, training.width, self.images.shape, training.classes, seed=seed,
                device=x.device,
            )
            for seed in seeds
        ]  # fmt: skip
        self.ensemble = Ensemble(networks, at_once=1 if len(seeds) == 1 else None)
        self.epsilon = torch.tensor([epsilon for epsilon, _ in self.members], device=x.device)
        order = stratified_order(
            self.images.y_train.cpu(), generator=torch.Generator().manual_seed(0)
        )
        self.held, self.kept = order.to(x.device).tensor_split([training.held_out])
        batch = min(training.batch, len(self.kept))
        self.steps = training_steps(training, len(order))
        self.orders = [Order(seed, len(self.kept), batch) for seed in seeds]
        self.starts = generators(seeds, 0, x.device)
        self.optimizer = torch.optim.SGD(
            list(self.ensemble.parameters.values()),
            lr=training.rate, momentum=MOMENTUM, weight_decay=training.weight_decay,
        )  # fmt: skip
        first = math.ceil(CHECKED * self.steps)
        points = torch.linspace(first, self.steps, training.checks + 1)[1:]
        self.checked = {round(point) for point in points.tolist()} | {self.steps}

    def go_on(self, path: Path, bar: tqdm) -> None:
        """Train to the end from where the file left off, if it is there; then write it.

        Raises:
            ValueError: the file is no checkpoint.
        """
        if path.exists():
            self._restore(_checkpoint(path))
        bar.update(self.step)
        saved = time.monotonic()
        while not self._ended():
            self._train_step()
            self.step += 1
            bar.update()
            if self.step in self.checked:
                self._check()
            if time.monotonic() - saved > SAVED:
                self._save(path)
                saved = time.monotonic()
        self._save(path)

    def course(self) -> list[dict[str, Any]]:
        """Per member, the checks' robust accuracies and the step whose weights are kept."""
        steps = [step for step, _ in self.history]
        return [
            {
                "epsilon": epsilon, "seed": seed, "steps": steps[: len(own)],
                "robust_accuracy": own, "best_step": steps[_last_best(own)],
            }
            for (epsilon, seed), own in zip(self.members, self._checks(), strict=True)
        ]  # fmt: skip

    def _checks(self) -> list[list[float]]:
        """Per member, robust accuracies up to where its own training ends."""
        found = []
        for values in zip(*(values for _, values in self.history), strict=True):
            own: list[float] = []
            for value in values:
                if not self._exhausted(own):
                    own.append(value)
            found.append(own)
        return found or [[] for _ in self.members]

    def _exhausted(self, own: list[float]) -> bool:
        return bool(own) and len(own) - 1 - _last_best(own) >= self.training.patience

    def _ended(self) -> bool:
        return self.step >= self.steps or all(self._exhausted(own) for own in self._checks())

    def _train_step(self) -> None:
        training, images = self.training, self.images
        index = self.kept[torch.stack([order.next() for order in self.orders]).to(self.kept.device)]
        x, y = images.x_train[index], images.y_train[index]
        epsilon = self.epsilon * min(1.0, (self.step + 1) / (RAMP * self.steps))
        self.ensemble.mode(False)
        x = self._attacked_batch(x, y, epsilon)
        self.ensemble.mode(True)
        done = self.step / self.steps
        for group in self.optimizer.param_groups:
            group["lr"] = training.rate * 0.1 ** sum(done >= point for point in MILESTONES)
        self.optimizer.zero_grad()
        outputs = self._rounded(self.ensemble)(x)
        classification_loss(outputs, y).mean(-1).sum().backward()
        self.optimizer.step()

    def _attacked_batch(self, x: Tensor, y: Tensor, epsilon: Tensor) -> Tensor:
        """Every member's own batch `[members, batch, ...]`, attacked where its epsilon is not 0."""
        chosen = epsilon.nonzero().squeeze(1)
        if len(chosen) == 0:
            return x
        size = self.training.attack_step
        perturbed = pgd(
            self._rounded(self.ensemble.select(chosen)), x[chosen], y[chosen],
            epsilon=epsilon[chosen], steps=self.training.attack_steps, step_size=size,
            generator=[self.starts[index] for index in chosen.tolist()],
        )  # fmt: skip
        return x.index_copy(0, chosen, perturbed)

    def _check(self) -> None:
        """Robust accuracy on what is held out; copies of the weights that are best so far."""
        training, images = self.training, self.images
        self.ensemble.mode(False)
        seeds = [seed for _, seed in self.members]
        model = self._rounded(self.ensemble.select(torch.arange(len(seeds))))
        x, y = images.x_train[self.held], images.y_train[self.held]
        perturbed = attacked(
            model, x, y, self.epsilon, steps=training.attack_steps,
            step_size=training.attack_step, generators=generators(seeds, 3, x.device),
        )  # fmt: skip
        with torch.no_grad():
            outputs = [model(part) for part in perturbed.split(ROWS, 1)]
        logits = torch.cat(outputs, 1)
        found = accuracy(logits, y)
        found[~logits.isfinite().flatten(1).all(1)] = -1.0  # diverged
        better = [
            not self._exhausted(own) and value >= max(own, default=-1.0)
            for own, value in zip(self._checks(), found.tolist(), strict=True)
        ]
        self.history.append((self.step, found.tolist()))
        now = {**self.ensemble.parameters, **self.ensemble.buffers}
        if not self.best:
            self.best = {name: value.detach().clone() for name, value in now.items()}
        for name, value in now.items():
            chosen = torch.tensor(better, device=value.device)
            self.best[name][chosen] = value.detach()[chosen]

    def _rounded(self, model: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The model with its passes in the precision of the training."""
        if self.training.precision == "float32":
            return model
        kind = self.images.x_train.device.type

        def run(x: Tensor) -> Tensor:
            with torch.autocast(kind, torch.bfloat16):
                return model(x).float()

        return run

    def _save(self, path: Path) -> None:
        state = {
            "step": self.step, "history": self.history, "best": self.best,
            "parameters": {n: v.detach() for n, v in self.ensemble.parameters.items()},
            "buffers": self.ensemble.buffers, "optimizer": self.optimizer.state_dict(),
            "orders": [order.state() for order in self.orders],
            "starts": [generator.get_state() for generator in self.starts],
        }  # fmt: skip
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, path)

    def _restore(self, state: dict[str, Any]) -> None:
        device = self.epsilon.device
        self.step, self.history = state["step"], [tuple(own) for own in state["history"]]
        self.best = {name: value.to(device) for name, value in state["best"].items()}
        with torch.no_grad():
            for kind in ("parameters", "buffers"):
                for name, value in getattr(self.ensemble, kind).items():
                    value.copy_(state[kind][name])
        self.optimizer.load_state_dict(state["optimizer"])
        for order, own in zip(self.orders, state["orders"], strict=True):
            order.restored(own)
        for generator, own in zip(self.starts, state["starts"], strict=True):
            generator.set_state(own)


def _checkpoint(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a file that is none makes the reader raise
        raise ValueError(
            f"{path} is no checkpoint of plain arrays ({type(error).__name__}); remove it, and its "
            "members are trained from the start."
        ) from None


def _last_best(values: list[float]) -> int:
    """Place of the largest value, the last of equal ones."""
    return max(range(len(values)), key=lambda place: (values[place], place))
