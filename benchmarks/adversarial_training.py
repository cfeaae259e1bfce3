"""Adversarial training: the plain recipe against `superpos.robust_training`.

The plain recipe trains one model after another. A shuffling DataLoader takes images through PIL
and ToTensor one by one, as torchvision's MNIST does; PGD goes through autograd on the model itself;
tensors are contiguous, and torch takes as many threads as it likes. Ours takes the same steps of
the same members: each of several processes trains a cell of its own in one thread, as
`superpos run` does with the engine "processes", or one process uses all threads. On a GPU, an
ensemble of single-layer MLPs is trained at once.

Run it from the project's root. It prints milliseconds per training step and member as medians over
repeats that take turns, and ratios of one run.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from itertools import islice
from multiprocessing.synchronize import Barrier
from typing import NamedTuple

import click
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from superpos.data import Images, load_images
from superpos.image_networks import make_network
from superpos.robust_group import MOMENTUM, PRECISIONS, Group, Training

CELLS = {"standard_mlp": 32, "standard_cnn": 16}
"""Networks that are compared on a CPU, and their widths."""
EPSILONS = (0.0, 0.1, 0.2, 0.3)
ALWAYS, SKIPPING = "plain recipe", "plain recipe, no attack at epsilon 0"


class Seconds(NamedTuple):
    """A duration; on a busy machine the ratio of processor times is the one to trust."""

    wall: float
    cpu: float

    @classmethod
    def now(cls, device: str) -> Seconds:
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return cls(time.perf_counter(), time.process_time())

    def since(self, device: str) -> Seconds:
        now = Seconds.now(device)
        return Seconds(now.wall - self.wall, now.cpu - self.cpu)


def total(parts: list[Seconds]) -> Seconds:
    return Seconds(sum(part.wall for part in parts), sum(part.cpu for part in parts))


@cache
def pictures(count: int, device: str) -> Images:
    """Digits in MNIST's size, repeated until there are so many."""
    digits = load_images("digits")
    index = torch.arange(count) % len(digits.x_train)
    x = functional.interpolate(digits.x_train, (28, 28), mode="bilinear")[index]
    return digits._replace(x_train=x.to(device), y_train=digits.y_train[index].to(device))


class Pictures(Dataset):
    """Images one at a time, as torchvision's MNIST gives them with ToTensor."""

    def __init__(self, images: Images) -> None:
        self.x = (images.x_train[:, 0] * 255).round().to(torch.uint8).cpu()
        self.y = images.y_train.cpu()
        self.transform = transforms.ToTensor()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.x[index].numpy())), int(self.y[index])


def endless(loader: DataLoader) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield from loader


def plain_attack(
    model: nn.Module, x: Tensor, y: Tensor, epsilon: float, training: Training, backward: bool
) -> Tensor:
    """PGD as one would first write it."""
    adversarial = (x + torch.empty_like(x).uniform_(-epsilon, epsilon)).clamp(0, 1)
    for _ in range(training.attack_steps):
        adversarial = adversarial.detach().requires_grad_(True)
        loss = functional.cross_entropy(model(adversarial), y)
        if backward:
            model.zero_grad()
            loss.backward()
            gradient = adversarial.grad
        else:
            gradient = torch.autograd.grad(loss, adversarial)[0]
        moved = adversarial.detach() + training.attack_step * gradient.sign()
        adversarial = (x + (moved - x).clamp(-epsilon, epsilon)).clamp(0, 1)
    return adversarial.detach()


def plain(
    training: Training, member: tuple[float, int], images: Images, attack: bool, steps: int,
    backward: bool,
) -> Seconds:  # fmt: skip
    """Some steps of the plain recipe for one member."""
    (epsilon, seed), device = member, str(images.x_train.device)
    model = make_network(
        training.network, training.width, images.shape, training.classes, seed=seed, device=device
    )
    optimizer = torch.optim.SGD(
        model.parameters(), lr=training.rate, momentum=MOMENTUM, weight_decay=training.weight_decay
    )
    loader = DataLoader(Pictures(images), batch_size=training.batch, shuffle=True)
    began = Seconds.now(device)
    for x, y in islice(endless(loader), steps):
        x, y = x.to(device), y.to(device)
        if attack:
            x = plain_attack(model, x, y, epsilon, training, backward)
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return began.since(device)


def plain_cell(
    training: Training, images: Images, steps: int, backward: bool
) -> dict[str, Seconds]:
    """All members one after another, with and without an attack at epsilon 0."""

    def run(member: tuple[float, int], attack: bool) -> Seconds:
        return plain(training, member, images, attack, steps, backward)

    attacked = [run(member, True) for member in training.members if member[0] > 0]
    zero = [member for member in training.members if member[0] == 0]
    return {
        ALWAYS: total([*attacked, *(run(member, True) for member in zero)]),
        SKIPPING: total([*attacked, *(run(member, False) for member in zero)]),
    }


def ours_cell(training: Training, images: Images, steps: int, at_once: int) -> Seconds:
    """The same steps of all members, so many computed together."""
    members, device, parts = training.members, str(images.x_train.device), []
    for first in range(0, len(members), at_once):
        group = Group(training, images, members[first : first + at_once])
        began = Seconds.now(device)
        for _ in range(steps):
            group._train_step()
            group.step += 1
        parts.append(began.since(device))
    return total(parts)


def begin(barrier: Barrier) -> None:
    """Make a process one of several that each have one core."""
    global together
    torch.set_num_threads(1)
    together = barrier


def ours_beside_others(training: Training, count: int, steps: int) -> Seconds:
    """A cell in one of several processes, begun when all of them are ready."""
    images = pictures(count, "cpu")
    together.wait()
    return ours_cell(training, images, steps, 1)


def ours_in_processes(
    pool: ProcessPoolExecutor, processes: int, training: Training, count: int, steps: int
) -> dict[str, Seconds]:
    """Every process trains a whole cell; the time of one cell is a share of the slowest's."""
    jobs = [pool.submit(ours_beside_others, training, count, steps) for _ in range(processes)]
    found = [job.result() for job in jobs]
    wall = max(own.wall for own in found) / processes
    name = f"ours, {processes} processes of one thread"
    return {name: Seconds(wall, total(found).cpu / processes)}


def ours_alone(training: Training, images: Images, steps: int) -> dict[str, Seconds]:
    """One process with all threads."""
    name = f"ours, one process of {torch.get_num_threads()} threads"
    return {name: ours_cell(training, images, steps, 1)}


def compare(
    ways: list[Callable[[], dict[str, Seconds]]], repeats: int, updates: int
) -> dict[str, Seconds]:
    """Median milliseconds of every way per step and member; the first repeat warms up."""
    seconds: dict[str, list[Seconds]] = {}
    for repeat in range(repeats + 1):
        for way in ways:
            for name, found in way().items():
                if repeat:
                    seconds.setdefault(name, []).append(found)
    return {
        name: Seconds(
            *(1000 * statistics.median(own) / updates for own in zip(*values, strict=True))
        )
        for name, values in seconds.items()
    }


def show(name: str, found: dict[str, Seconds], bar: float) -> None:
    """One table; ratios are the plain recipe's time over a way's, on the wall and of processors."""
    print(f"\n{name}: bar {bar:g}x")
    head = ("ms", "processor ms", "plain / way", "processor", "skipping / way", "processor")
    print(f"{'':42}" + "".join(f"{each:>16}" for each in head))
    for way, own in found.items():
        values = [f"{own.wall:.2f}", f"{own.cpu:.2f}"]
        for base in (found[ALWAYS], found[SKIPPING]):
            values += [f"{base.wall / own.wall:.2f}", f"{base.cpu / own.cpu:.2f}"]
        print(f"{way:42}" + "".join(f"{each:>16}" for each in values))


@click.command(help=__doc__)
@click.option("--network", type=click.Choice([*CELLS]), help="Only this one, on a CPU.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--steps", default=5, show_default=True, help="Training steps that are timed.")
@click.option("--repeats", default=5, show_default=True, help="Repeats of every way.")
@click.option("--attack-steps", default=40, show_default=True, help="Steps of PGD; paper: 40.")
@click.option("--batch", default=128, show_default=True, help="Images per step.")
@click.option("--images", default=10_000, show_default=True, help="Training images.")
@click.option("--processes", default=2, show_default=True, help="Processes of ours on a CPU.")
@click.option(
    "--members",
    default=24,
    type=click.IntRange(4),
    show_default=True,
    help="Members at once on a GPU.",
)
@click.option("--precision", default="float32", type=click.Choice(PRECISIONS), show_default=True,
              help="Of ours; the plain recipe is in float32.")  # fmt: skip
@click.option("--backward", is_flag=True,
              help="Attack the plain recipe's way with loss.backward(), which also computes the "
              "parameters' gradients, instead of autograd.grad.")  # fmt: skip
def main(
    network: str | None, device: str, steps: int, repeats: int, attack_steps: int, batch: int,
    images: int, processes: int, members: int, precision: str, backward: bool,
) -> None:  # fmt: skip
    """Time the ways in turn, repeat by repeat."""

    def cell(name: str, width: int, seeds: int) -> Training:
        return Training(
            dataset="digits", network=name, width=width, classes=10, epsilons=EPSILONS,
            seeds=tuple(range(seeds)), train_size=None, held_out=100, steps=1000, epochs=None,
            batch=batch, rate=0.01, weight_decay=1e-4, attack_steps=attack_steps, attack_step=0.01,
            checks=1, patience=1, precision=precision,
        )  # fmt: skip

    data = pictures(images, device)
    if device != "cpu":
        training = cell("mlp", 32, members // len(EPSILONS))
        count = len(training.members)

        def at_once() -> dict[str, Seconds]:
            return {f"ours, {count} at once": ours_cell(training, data, steps, count)}

        found = compare(
            [partial(plain_cell, training, data, steps, backward), at_once], repeats, count * steps
        )
        show(f"mlp 32 on {torch.cuda.get_device_name(device)}", found, 20)
        return
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    with ProcessPoolExecutor(processes, context, begin, (barrier,)) as pool:
        for name in [network] if network else CELLS:
            training = cell(name, CELLS[name], 3)
            ways = [
                partial(plain_cell, training, data, steps, backward),
                partial(ours_in_processes, pool, processes, training, images, steps),
                partial(ours_alone, training, data, steps),
            ]
            found = compare(ways, repeats, len(training.members) * steps)
            show(f"{name} {CELLS[name]}", found, 1.5)


if __name__ == "__main__":
    main()
