"""Adversarial training and superposition (paper section 7), single-layer networks.

Networks are trained against PGD at several epsilons, and F of their hidden layer is measured on
clean inputs and on inputs perturbed at the training epsilon.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
import torch
from torch import Tensor

from ..activations import find_sites, read
from ..attacks import pgd
from ..data import Images, load_images
from ..ensemble import Ensemble, train
from ..ledger import Estimate
from ..networks import accuracy, classification_loss, mlp
from ..sae import SAEConfig
from ..settings import PROFILES, setting
from ..solver import fit
from ..stats import mean_interval, normalized_slope
from ..sweep import ENGINES

SECTION = "adversarial"
VERSION = 1
TITLE = "Adversarial training"

MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4
MILESTONES = (0.5, 0.75)  # shares of training after which the rate falls tenfold
RAMP = 0.5  # share of training over which epsilon grows to its value
SITE = "relu1"


@dataclass(frozen=True)
class Settings:
    """Parameters of the notebook."""

    profile: str = setting("quick", "which profile's values these are", choices=PROFILES)
    dataset: str = setting("digits", "digits, mnist, fashion_mnist, cifar10 or an image folder")
    classes: tuple[int, ...] = setting((2, 5, 10), "numbers of classes, the first k each", low=2)
    hidden: tuple[int, ...] = setting((8, 32), "neurons of the hidden layer", low=1, high=4096)
    epsilons: tuple[float, ...] = setting(
        (0.0, 0.1, 0.2, 0.3), "training epsilons (l-infinity); 0 must be among them", low=0.0
    )
    seeds: tuple[int, ...] = setting((0, 1, 2), "seeds of networks and SAEs", low=0)
    train_size: int | None = setting(None, "training images at most; None takes all", low=10)
    test_size: int | None = setting(None, "test images at most; None takes all", low=10)
    steps: int = setting(400, "training steps", low=1)
    batch: int = setting(256, "images per training step", low=1)
    rate: float = setting(0.1, "learning rate of SGD; the paper has 0.01 and more steps", low=1e-6)
    attack_steps: int = setting(10, "PGD steps in training and for activations", low=1)
    test_attack_steps: int = setting(40, "PGD steps for robust accuracy", low=1)
    samples: int = setting(10_000, "activations per SAE at most", low=100)
    expansion: float = setting(4.0, "SAE dictionary over neurons", low=0.1)
    l1: float = setting(0.1, "SAE penalty", low=0.0)
    starts: int = setting(1, "SAE starts, the best of which counts", low=1, high=64)
    engine: str = setting("serial", "how conditions are run", choices=ENGINES)
    device: str = setting("auto", "cpu, cuda, or auto")

    def __post_init__(self) -> None:
        """Slopes need networks at epsilon 0, at others, and repeats."""
        if 0.0 not in self.epsilons or len(set(self.epsilons)) < 2:
            raise ValueError(f"epsilons are {self.epsilons}; give 0 and at least one other.")
        if len(set(self.seeds)) < 2:
            raise ValueError(f"seeds are {self.seeds}; give at least two, for the intervals.")


@dataclass(frozen=True)
class Condition:
    """One task and width; every epsilon and seed is a member of one ensemble."""

    dataset: str
    classes: int
    hidden: int
    epsilons: tuple[float, ...]
    seeds: tuple[int, ...]
    train_size: int | None
    test_size: int | None
    steps: int
    batch: int
    rate: float
    attack_steps: int
    test_attack_steps: int
    samples: int
    expansion: float
    l1: float
    starts: int


def conditions(settings: Settings) -> list[Condition]:
    """Every number of classes with every width."""
    names = Condition.__dataclass_fields__.keys() - {"classes", "hidden"}
    common = {name: getattr(settings, name) for name in names}
    return [
        Condition(classes=classes, hidden=hidden, **common)
        for classes in settings.classes
        for hidden in settings.hidden
    ]


def run(condition: Condition, *, device: str) -> list[dict[str, Any]]:
    """Train the ensemble, measure accuracy and F of every member on clean and attacked inputs."""
    images = load_images(
        condition.dataset,
        classes=condition.classes,
        train_size=condition.train_size,
        test_size=condition.test_size,
        device=device,
    )
    members = [(epsilon, seed) for epsilon in condition.epsilons for seed in condition.seeds]
    ensemble = trained(condition, images, members)
    epsilon = torch.tensor([epsilon for epsilon, _ in members], device=device)
    steps, attack_steps = condition.attack_steps, condition.test_attack_steps
    x, y = images.x_test, images.y_test
    clean = _evaluated(ensemble, x, y)
    robust = _evaluated(ensemble, x, y, epsilon, attack_steps, _generators(members, 1, device))
    x, y = images.x_train[: condition.samples], images.y_train[: condition.samples]
    attacked = _attacked(ensemble, x, y, epsilon, steps, _generators(members, 2, device))
    networks = [ensemble.member(index) for index in range(len(members))]
    site = find_sites(networks[0], x[:2], [SITE])
    activations = {
        "clean": [read(network, x, site)[SITE] for network in networks],
        "adversarial": [
            read(network, own, site)[SITE] for network, own in zip(networks, attacked, strict=True)
        ],
    }
    config = SAEConfig(expansion=condition.expansion, l1=condition.l1, starts=condition.starts)
    seeds = [seed for _, seed in members]
    stacked = torch.stack(activations["clean"]).squeeze(2)
    fits = {"clean": (fit(stacked, config, seeds=seeds), list(range(len(members))))}
    changed = [index for index, (own, _) in enumerate(members) if own > 0]
    stacked = torch.stack([activations["adversarial"][index] for index in changed]).squeeze(2)
    own_seeds = [seeds[index] for index in changed]
    fits["adversarial"] = (fit(stacked, config, seeds=own_seeds), changed)
    rows = []
    for kind, (fitted, places) in fits.items():
        for place, index in enumerate(places):
            features = fitted.features[place].item()
            rows.append(
                {
                    "epsilon": members[index][0],
                    "seed": seeds[index],
                    "inputs": kind,
                    "features": None if math.isnan(features) else features,
                    "converged": bool(fitted.converged[place]),
                    "accuracy": clean[index].item(),
                    "robust_accuracy": robust[index].item(),
                }
            )
    # At epsilon 0 attacked inputs are the clean ones, and the same seed fits the same autoencoder.
    return rows + [{**row, "inputs": "adversarial"} for row in rows if row["epsilon"] == 0]


def trained(condition: Condition, images: Images, members: Sequence[tuple[float, int]]) -> Ensemble:
    """Adversarially trained single-layer networks, one per (epsilon, seed).

    SGD with momentum 0.9 and weight decay 1e-4, the rate falling tenfold at half and three
    quarters; epsilon grows linearly to its value over the first half (paper section 7).
    """
    device = images.x_train.device
    inputs = images.x_train[0].numel()
    ensemble = Ensemble(
        [
            mlp(inputs, condition.hidden, condition.classes, seed=seed, device=device)
            for _, seed in members
        ]
    )
    final = torch.tensor([epsilon for epsilon, _ in members], device=device)
    starts = _generators(members, 0, device)
    orders = [_orders(len(images.x_train), condition.batch, seed) for _, seed in members]

    def batches(step: int) -> tuple[Tensor, Tensor]:
        index = torch.stack([next(order) for order in orders]).to(device)
        x, y = images.x_train[index], images.y_train[index]
        epsilon = final * min(1.0, (step + 1) / (RAMP * condition.steps))
        x = _attacked_members(ensemble, x, y, epsilon, condition.attack_steps, starts)
        return x, y

    optimizer = torch.optim.SGD(
        list(ensemble.parameters.values()),
        lr=condition.rate,
        momentum=MOMENTUM,
        weight_decay=WEIGHT_DECAY,
    )
    train(
        ensemble,
        batches=batches,
        loss=classification_loss,
        optimizer=optimizer,
        schedule=lambda done: 0.1 ** sum(done >= milestone for milestone in MILESTONES),
        steps=condition.steps,
    )
    return ensemble


def _attacked_members(
    ensemble: Ensemble,
    x: Tensor,
    y: Tensor,
    epsilon: Tensor,
    steps: int,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Inputs `[members, batch, ...]` perturbed; members at epsilon 0 need no attack."""
    chosen = epsilon.nonzero().squeeze(1)
    if len(chosen) == 0:
        return x
    part = ensemble.select(chosen)
    own = [generators[index] for index in chosen.tolist()]
    perturbed = pgd(part, x[chosen], y[chosen], epsilon=epsilon[chosen], steps=steps, generator=own)
    return x.index_copy(0, chosen, perturbed)


def _attacked(
    ensemble: Ensemble,
    x: Tensor,
    y: Tensor,
    epsilon: Tensor,
    steps: int,
    generators: Sequence[torch.Generator],
    rows: int = 1024,
) -> Tensor:
    """Images attacked by every member at its own epsilon, `[members, samples, ...]`, in slices."""
    parts = []
    for images, labels in zip(x.split(rows), y.split(rows), strict=True):
        own = images.expand(ensemble.members, *images.shape)
        labels = labels.expand(ensemble.members, -1)
        parts.append(_attacked_members(ensemble, own, labels, epsilon, steps, generators))
    return torch.cat(parts, 1)


def _evaluated(
    ensemble: Ensemble,
    x: Tensor,
    y: Tensor,
    epsilon: Tensor | None = None,
    steps: int = 0,
    generators: Sequence[torch.Generator] = (),
) -> Tensor:
    """Accuracy of every member, `[members]`, on clean inputs or under its own attack."""
    with torch.no_grad():
        if epsilon is None:
            own = x.expand(ensemble.members, *x.shape)
        else:
            own = _attacked(ensemble, x, y, epsilon, steps, generators)
        return accuracy(ensemble(own), y)


def _generators(
    members: Sequence[tuple[float, int]], purpose: int, device: str | torch.device
) -> list[torch.Generator]:
    """One source of random starts per member and purpose."""
    return [torch.Generator(device).manual_seed(1000 * seed + purpose) for _, seed in members]


def _orders(samples: int, batch: int, seed: int) -> Iterator[Tensor]:
    """Endless shuffled batches of indices."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(samples, generator=generator)
        size = min(batch, samples)
        yield from (order[i : i + size] for i in range(0, samples - size + 1, size))


def slopes(frame: pd.DataFrame) -> pd.DataFrame:
    """Normalized slope of F over epsilon per task, width and seed (paper section 7).

    Clean and adversarial observations are pooled within a seed, so that its networks at
    different epsilons, which started alike, stay together.
    """
    alive = frame.dropna(subset=["features"])
    rows = [
        {
            "classes": classes,
            "hidden": hidden,
            "seed": seed,
            "slope": normalized_slope(group["epsilon"], group["features"]),
        }
        for (classes, hidden, seed), group in alive.groupby(["classes", "hidden", "seed"])
        if (group["epsilon"] == 0).any() and (group["epsilon"] > 0).any()
    ]
    return pd.DataFrame(rows, columns=["classes", "hidden", "seed", "slope"])


def ratios(frame: pd.DataFrame) -> pd.DataFrame:
    """F over F of the same seed on clean inputs at epsilon 0, with its interval over seeds."""
    keys = ["classes", "hidden", "seed"]
    base = frame[(frame["epsilon"] == 0) & (frame["inputs"] == "clean")]
    both = frame.merge(base[[*keys, "features"]], on=keys, suffixes=("", "_base"))
    both["ratio"] = both["features"] / both["features_base"]
    rows = []
    for point, group in both.dropna(subset=["ratio"]).groupby(
        ["classes", "hidden", "inputs", "epsilon"]
    ):
        ratio = mean_interval(group["ratio"])
        robust = mean_interval(group["robust_accuracy"])
        rows.append(
            {
                **dict(zip(["classes", "hidden", "inputs", "epsilon"], point, strict=True)),
                "ratio": ratio.value,
                "low": ratio.low,
                "high": ratio.high,
                "robust": robust.value,
                "robust_low": max(0.0, robust.low),
                "robust_high": min(1.0, robust.high),
                "accuracy": group["accuracy"].mean(),
                "features": group["features"].mean(),
            }
        )
    return pd.DataFrame(rows)


def estimates(frame: pd.DataFrame, settings: Settings) -> dict[str, Estimate]:
    """Values for the claims; those that a run's grid cannot give are left out."""
    table = slopes(frame)
    values = {}
    rising = [_positive(own["slope"]) for _, own in table.groupby(["classes", "hidden"])]
    if rising:
        share = scipy.stats.binomtest(sum(rising), len(rising))
        interval = share.proportion_ci(method="wilson")
        low, high = float(interval.low), float(interval.high)
        values["share_rising"] = Estimate(float(share.statistic), low, high)
    rank = {classes: place for place, classes in enumerate(sorted(settings.classes), start=1)}
    if table["classes"].nunique() > 1:
        values["complexity_slope"] = _over(table, table["classes"].map(rank))
    if table["hidden"].nunique() > 1:
        values["capacity_slope"] = _over(table, np.log(table["hidden"]))
    points = ratios(frame)
    two = points[(points["classes"] == 2) & (points["hidden"] == max(settings.hidden))]
    if len(two := two[two["epsilon"] > 0]):
        values["two_class_peak"] = _estimate(two.loc[two["ratio"].idxmax()])
    ten = points[(points["classes"] == 10) & (points["epsilon"] == max(settings.epsilons))]
    if len(ten):
        values["ten_class_fall"] = _estimate(ten.loc[ten["ratio"].idxmin()])
    return values


def _positive(slopes: pd.Series) -> bool:
    """Whether a mean slope is above zero by more than its standard error."""
    return bool(slopes.mean() > scipy.stats.sem(slopes))


def _over(table: pd.DataFrame, x: pd.Series) -> Estimate:
    """Slope of the normalized slopes over x, fitted within each seed, interval over seeds."""
    fits = [
        scipy.stats.linregress(x[group.index], group["slope"]).slope
        for _, group in table.groupby("seed")
        if x[group.index].nunique() > 1
    ]
    return mean_interval(fits)


def _estimate(point: pd.Series) -> Estimate:
    note = "an extreme point's own interval"
    return Estimate(float(point["ratio"]), float(point["low"]), float(point["high"]), note)
