"""Adversarial training and superposition (paper section 7).

Networks are trained against PGD at several epsilons, and F of every ReLU's layer is measured on
clean inputs and on inputs attacked at the training epsilon.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from ..data import Images, load_images
from ..data.images import check_classes
from ..data.ordering import stratified_order
from ..engines import Computing
from ..hypotheses import claimed
from ..image_networks import CNNS, CONNECTED, RESNET, SINGLE, make_network
from ..ledger import Estimate
from ..networks import accuracy
from ..record import plain
from ..robust_features import Fitting, features_of
from ..robust_group import PRECISIONS, ROWS, Training, attacked, generators
from ..robust_training import load_members, train_members
from ..robustness import tidy
from ..sae import ARCHITECTURES
from ..settings import PROFILES, setting
from ..stock import stocked
from ..strong_attack import survivors

SECTION = "adversarial"
VERSION = 2
TITLE = "Adversarial training"
CHECKS = 10
"""Of robust accuracy in the second half of training; the best weights are kept."""
TEST_ATTACK_STEPS = 40
"""Of PGD on what is measured, in every profile."""


class Recipe(NamedTuple):
    """What the paper has for a data set (section 7)."""

    epsilons: tuple[float, ...]
    attack_steps: int
    attack_step: float
    epochs: int
    rate: float
    weight_decay: float


GRAY = Recipe((0.0, 0.1, 0.2, 0.3), 40, 0.01, 100, 0.01, 1e-4)
COLOR = Recipe((0.0, 0.01, 0.02, 0.03), 10, 2 / 255, 200, 0.1, 5e-4)
PAPER = {"mnist": GRAY, "fashion_mnist": GRAY, "cifar10": COLOR}
"""Per data set; others are treated as MNIST is, and stand in for it."""


@dataclass(frozen=True)
class Settings(Computing):
    """Parameters of the notebook."""

    profile: str = setting("quick", "which profile's values these are", choices=PROFILES)
    datasets: tuple[str, ...] = setting(
        ("digits",), "digits, mnist, fashion_mnist, cifar10 or image folders"
    )
    cnn_datasets: tuple[str, ...] = setting((), "those of the CNNs")
    resnet_datasets: tuple[str, ...] = setting((), "those of ResNet-18, most classes only")
    classes: tuple[int, ...] = setting((2, 3, 5, 10), "numbers of classes, the first k each", low=2)
    mlp: tuple[int, ...] = setting((8, 16, 32), "widths of single-layer MLPs", low=1)
    standard_mlp: tuple[int, ...] = setting((), "widths h of MLPs with 4h, 2h and h", low=1)
    cnn: tuple[int, ...] = setting((), "filters of single-layer CNNs", low=1)
    standard_cnn: tuple[int, ...] = setting((), "filters of standard CNNs", low=1)
    resnet18: tuple[int, ...] = setting((), "filters of ResNet-18's stem; 64 is usual", low=1)
    epsilons: tuple[float, ...] | None = setting(
        None, "training epsilons (l-infinity), 0 among them; None takes the paper's", high=1.0
    )
    seeds: tuple[int, ...] = setting((0, 1, 2), "seeds of networks and SAEs", low=0)
    train_size: int | None = setting(None, "training images at most; None takes all", low=10)
    test_size: int | None = setting(None, "test images at most; None takes all", low=10)
    held_out: int = setting(100, "training images that check robust accuracy", low=1)
    steps: int | None = setting(300, "training steps; None takes the paper's epochs", low=1)
    batch: int = setting(128, "images per training step; the paper has 256", low=1)
    rate: float | None = setting(0.1, "learning rate; None takes the paper's", low=1e-6)
    attack_steps: int | None = setting(
        5, "PGD steps of 2.5 epsilon / steps; None takes the paper's steps", low=1
    )
    patience: int = setting(10, "checks without a new best that end training", low=1)
    cnn_precision: str = setting(
        "float32", "of the passes that train convolutional networks", choices=PRECISIONS
    )
    images: int = setting(10_000, "training images whose activations are measured, at most", low=10)
    cnn_images: int = setting(2000, "the same of convolutional networks, at most", low=10)
    auto_images: int = setting(
        0, "test images of AutoAttack, on each standard network's first seed", low=0
    )
    samples: int = setting(10_000, "activations an SAE is fitted to, at most", low=100)
    architecture: str = setting("tied", "of SAEs", choices=ARCHITECTURES)
    expansion: float = setting(4.0, "SAE dictionary over neurons", low=0.1, high=1024.0)
    l1: float = setting(0.1, "SAE penalty", low=0.0)
    starts: int | None = setting(
        1, "SAE starts, the best of which counts; None suits the width", low=1, high=64
    )
    sae_steps: int | None = setting(None, "steps of an SAE's round; None suits the width", low=1)
    sae_rounds: int = setting(3, "rounds at most; fewer if one changes nothing", low=1)
    compared: tuple[int, ...] = setting((), "widths of MLPs whose SAEs are varied", low=1)
    other_l1: tuple[float, ...] = setting((), "penalties to compare with", low=0.0)
    other_expansions: tuple[float, ...] = setting(
        (), "expansions to compare with", low=0.1, high=1024.0
    )
    other_architectures: tuple[str, ...] = setting(
        (), "architectures to compare with", choices=ARCHITECTURES
    )
    other_rounds: tuple[int, ...] = setting((), "rounds of an SAE to compare with", low=1)
    other_epochs: tuple[int, ...] = setting((), "passes of the plain recipe to compare with", low=1)
    normalized: bool = setting(False, "compare with normalized activations")

    def __post_init__(self) -> None:
        """Slopes need networks at epsilon 0, at others, and repeats; tasks must be possible."""
        if self.epsilons is not None and (
            0.0 not in self.epsilons
            or len(set(self.epsilons)) < max(2, len(self.epsilons))
            or min(self.epsilons) < 0
        ):
            raise ValueError(
                f"epsilons are {self.epsilons}; give 0 and others up to 1, all different."
            )
        if len(set(self.seeds)) < max(2, len(self.seeds)):
            raise ValueError(f"seeds are {self.seeds}; give at least two, all different.")
        if not _tasks(self):
            raise ValueError(
                "there is no network to train; give a data set and a width for at least one."
            )
        if missing := set(self.compared) - set(self.mlp):
            raise ValueError(f"compared has {sorted(missing)}; give widths that mlp has.")
        for dataset, network, _, classes in _tasks(self):
            make_network(network, 1, check_classes(dataset, classes), 2, seed=0)


@dataclass(frozen=True)
class Condition:
    """One task and network; every epsilon and seed is a member."""

    training: Training
    test_size: int | None
    test_attack_steps: int
    images: int
    auto_images: int
    fitting: Fitting


def conditions(settings: Settings) -> list[Condition]:
    """Every task with every network, then other ways of fitting on some of them."""
    usual = Fitting(
        settings.architecture, settings.expansion, settings.l1, False, settings.starts,
        settings.sae_steps, settings.sae_rounds, None, settings.samples,
    )  # fmt: skip
    ways = [
        *(replace(usual, l1=l1) for l1 in settings.other_l1),
        *(replace(usual, expansion=expansion) for expansion in settings.other_expansions),
        *(replace(usual, architecture=name) for name in settings.other_architectures),
        *([replace(usual, normalize=True)] if settings.normalized else []),
        *(replace(usual, rounds=rounds) for rounds in settings.other_rounds),
        *(replace(usual, epochs=epochs) for epochs in settings.other_epochs),
    ]
    others = [way for way in dict.fromkeys(ways) if way != usual]
    tasks = _tasks(settings)
    varied = [task for task in tasks if task[1] == "mlp" and task[2] in settings.compared]
    return [
        *(_condition(settings, *task, usual) for task in tasks),
        *(
            _condition(settings, *task, fitting)
            for fitting in others
            for task in varied
            if task[0] == settings.datasets[0]
        ),
    ]


def _tasks(settings: Settings) -> list[tuple[str, str, int, int]]:
    """Data set, network, width and classes; fully connected networks and narrow ones first."""
    families = (
        (settings.datasets, CONNECTED, settings.classes),
        (settings.cnn_datasets, CNNS, settings.classes),
        (settings.resnet_datasets, (RESNET,), (max(settings.classes, default=0),)),
    )
    return [
        (dataset, network, width, classes)
        for datasets, networks, numbers in families
        for dataset in datasets
        for network in networks
        for width in getattr(settings, network)
        for classes in numbers
    ]


def _condition(
    settings: Settings, dataset: str, network: str, width: int, classes: int, fitting: Fitting
) -> Condition:
    recipe = PAPER.get(dataset, GRAY)
    paper, convolutional = settings.attack_steps is None, network not in CONNECTED
    training = Training(
        dataset=dataset,
        network=network,
        width=width,
        classes=classes,
        epsilons=settings.epsilons or recipe.epsilons,
        seeds=settings.seeds,
        train_size=settings.train_size,
        held_out=settings.held_out,
        steps=settings.steps,
        epochs=recipe.epochs if settings.steps is None else None,
        batch=settings.batch,
        rate=settings.rate or recipe.rate,
        weight_decay=recipe.weight_decay,
        attack_steps=settings.attack_steps or recipe.attack_steps,
        attack_step=recipe.attack_step if paper else None,
        checks=CHECKS,
        patience=settings.patience,
        precision=settings.cnn_precision if convolutional else "float32",
    )
    return Condition(
        training=training,
        test_size=settings.test_size,
        test_attack_steps=TEST_ATTACK_STEPS,
        images=settings.cnn_images if convolutional else settings.images,
        auto_images=settings.auto_images if network not in SINGLE else 0,
        fitting=fitting,
    )


def run(condition: Condition, *, device: str) -> list[dict[str, Any]]:
    """F of every layer of every member, with its accuracies.

    One row per layer, member and kind of inputs: what `superpos.robust_features.features_of`
    gives, with `accuracy`, `robust_accuracy` (PGD at the member's epsilon) and the `best_step` of
    training. Of the first seed's robust members also, on so many images as `auto_images` says,
    `auto_accuracy` under an ensemble of attacks and `auto_pgd_accuracy` under PGD.
    """
    training = condition.training
    images, networks, course = _trained(training, condition.test_size, device)
    attack_steps = condition.test_attack_steps
    about = [
        {**_accuracies(network, *member, images, attack_steps, condition.auto_images), **own}
        for network, member, own in zip(networks, training.members, course, strict=True)
    ]
    if condition.auto_images:
        own = training.seeds[0]
        for network, (epsilon, seed), row in zip(networks, training.members, about, strict=True):
            if epsilon > 0 and seed == own:
                x, y = (
                    images.x_test[: condition.auto_images],
                    images.y_test[: condition.auto_images],
                )
                stands = survivors(network, x, y, epsilon=epsilon, seed=seed)
                row["auto_accuracy"] = plain(stands.float().mean())
    rows = features_of(
        networks, training.members, images.x_train[: condition.images],
        images.y_train[: condition.images], fitting=condition.fitting,
        attack_steps=attack_steps, progress=True,
    )  # fmt: skip
    by_member = dict(zip(training.members, about, strict=True))
    return [{**row, **by_member[row["epsilon"], row["seed"]]} for row in rows]


def estimates(frame: pd.DataFrame, settings: Settings) -> dict[str, Estimate]:
    """Values for the claims; those that a run's grid cannot give are left out.

    Of other data sets than the paper's they say so by `stand_in`.
    """
    table = tidy(frame)
    others = [] if table.empty else sorted(set(table["dataset"]) - PAPER.keys())
    about = f"{', '.join(others)} in place of MNIST" if others else ""
    return {name: own._replace(stand_in=about) for name, own in claimed(table).items()}


@lru_cache(maxsize=1)
def _trained(
    training: Training, test_size: int | None, device: str
) -> tuple[Images, list[nn.Module], list[dict[str, Any]]]:
    """Data, trained members and the course of their training; trained when first asked for."""
    images = _mixed(
        load_images(training.dataset, classes=training.classes, device=device),
        training.train_size, test_size,
    )  # fmt: skip
    kind = torch.device(device).type
    folder = stocked(
        "robust_networks",
        {"version": VERSION, "device": kind, "images": _digest(images), **asdict(training)},
        lambda folder: train_members(training, images, folder, progress=True),
        resumable=True,
    )
    networks = load_members(training, images.shape, folder, device)
    course = json.loads((folder / "course.json").read_text(encoding="utf-8"))
    return images, networks, [{"best_step": own["best_step"]} for own in course]


def _mixed(images: Images, train_size: int | None, test_size: int | None) -> Images:
    """At most so many images, in an order whose every beginning has each class in its share."""
    train, test = (
        stratified_order(y.cpu(), generator=torch.Generator().manual_seed(0))[:size].to(y.device)
        for y, size in ((images.y_train, train_size), (images.y_test, test_size))
    )
    return images._replace(
        x_train=images.x_train[train], y_train=images.y_train[train],
        x_test=images.x_test[test], y_test=images.y_test[test],
    )  # fmt: skip


def _digest(images: Images) -> str:
    """Sixteen digits that tell training images from others."""
    x = (images.x_train * 255).round().to(torch.uint8).cpu().numpy()
    return hashlib.sha256(x.tobytes() + images.y_train.cpu().numpy().tobytes()).hexdigest()[:16]


def _accuracies(
    network: nn.Module, epsilon: float, seed: int, images: Images, attack_steps: int, first: int
) -> dict[str, float | None]:
    """Test accuracy, the same under PGD, and that of the first so many images."""
    x, y = images.x_test, images.y_test
    perturbed = attacked(
        lambda own: network(own[0])[None], x, y, x.new_tensor([epsilon]), steps=attack_steps,
        generators=generators([seed], 1, x.device),
    )[0]  # fmt: skip
    clean, robust = _logits(network, x), _logits(network, perturbed)
    return {
        "accuracy": plain(accuracy(clean, y)),
        "robust_accuracy": plain(accuracy(robust, y)),
        "auto_accuracy": None,
        "auto_pgd_accuracy": plain(accuracy(robust[:first], y[:first])) if first else None,
    }


def _logits(network: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([network(part) for part in x.split(ROWS)])
