"""Adversarial training of the paper's networks (section 7): many members, resumable.

A task's members are trained in groups, one after another; :mod:`superpos.robust_group` says how.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm.auto import tqdm

from .data import Images
from .files import write_json
from .image_networks import RESNET, make_network
from .robust_group import Group, Training, training_steps

NARROW = 4096  # weights of a layer below which a CPU computes many members faster together


def train_members(
    training: Training,
    images: Images,
    folder: Path,
    *,
    at_once: int | None = None,
    progress: bool = False,
) -> None:
    """Train every member and write the weights into a folder.

    What lies in the folder from an earlier attempt that was stopped is gone on with: at the
    group of members that was being trained, at its last checkpoint. The result is the same.

    Args:
        training: what to train.
        images: its data.
        folder: where `weights.safetensors` (every weight `[members, ...]`) and `course.json`
            (per member the robust accuracy of each check, and the step of the best) go.
        at_once: members computed together; default all on a GPU (one for networks with batch
            normalization), one on a CPU unless the networks are very narrow.
        progress: show a bar over steps.

    Raises:
        ValueError: more images held out than there are, or a network that cannot take them.
    """
    if not 1 <= training.held_out < len(images.x_train):
        raise ValueError(
            f"held_out is {training.held_out}: there are {len(images.x_train)} training images, "
            "so give at least 1 and fewer than that."
        )
    if at_once is None:
        at_once = len(training.members) if _pays_together(training, images) else 1
    if at_once < 1:
        raise ValueError(f"at_once is {at_once}; give at least 1.")
    if not (folder / "course.json").exists():  # written last
        _train_groups(training, images, folder, at_once, progress)
    for path in folder.glob("members_*.pt"):
        path.unlink()


def _train_groups(
    training: Training, images: Images, folder: Path, at_once: int, progress: bool
) -> None:
    """Train the members, so many at once, and write what is asked for."""
    members = training.members
    steps = training_steps(training, len(images.x_train))
    best, course, paths = [], [], []
    with tqdm(
        total=steps * math.ceil(len(members) / at_once), desc="adversarial training",
        disable=not progress, mininterval=3.0, leave=False,
    ) as bar:  # fmt: skip
        for first in range(0, len(members), at_once):
            paths.append(folder / f"members_{first}_{at_once}.pt")
            group = Group(training, images, members[first : first + at_once])
            group.go_on(paths[-1], bar)
            best.append({name: value.cpu() for name, value in group.best.items()})
            course += group.course()
            bar.n = steps * len(paths)
    joined = {name: torch.cat([own[name] for own in best]).contiguous() for name in best[0]}
    save_file(joined, folder / "weights.safetensors")
    write_json(folder / "course.json", course)


def load_members(
    training: Training, shape: tuple[int, int, int], folder: Path, device: torch.device | str
) -> list[nn.Module]:
    """The trained members, in evaluation mode, in the order of `Training.members`."""
    weights = load_file(folder / "weights.safetensors")
    networks = []
    for index, (_, seed) in enumerate(training.members):
        network = make_network(training.network, training.width, shape, training.classes, seed=seed)
        network.load_state_dict({name: value[index] for name, value in weights.items()})
        network.to(device, memory_format=torch.channels_last).eval()
        networks.append(network.requires_grad_(False))
    return networks


def _pays_together(training: Training, images: Images) -> bool:
    """Whether members computed together are faster: where a step's launches are most of it."""
    if training.network == RESNET:
        return False
    if images.x_train.device.type != "cpu":
        return True
    return training.network == "mlp" and images.x_train[0].numel() * training.width <= NARROW
