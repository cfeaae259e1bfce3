"""Multi-task sparse parity (paper sections 5.2 and 6.1)."""

from __future__ import annotations

from numbers import Real
from typing import NamedTuple

import numpy as np
import psutil
import torch
from torch import Tensor

from ..device import usable_device
from ..given import MOST, is_whole, whole
from .ordering import stratified_order

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")

# At the peak a value of the input is held as a byte in the table of bits, as another in the rows
# picked from it, and as a float32; a sample's stratum, places and label take some int64.
_BYTES_PER_VALUE = 6
_BYTES_PER_SAMPLE = 80


class Parity(NamedTuple):
    """Multi-task sparse parity, split into training and test samples."""

    tasks: int
    """Number of tasks."""

    bits: int
    """Number of bits of each task."""

    x_train: Tensor
    """Training inputs `[samples, tasks + tasks * bits]`, float32, 0 or 1: which task is active
    (one-hot), then the bits of task 0, of task 1, ..."""

    y_train: Tensor
    """Training labels `[samples]`, int64: the parity of the bits of the active task."""

    x_test: Tensor
    """Test inputs, as the training inputs."""

    y_test: Tensor
    """Test labels, as the training labels."""

    @property
    def inputs(self) -> int:
        """Number of values of an input."""
        return self.tasks * (1 + self.bits)


def sparse_parity(
    tasks: int = 3,
    bits: int = 4,
    *,
    samples: int | None = None,
    train_share: float = 0.8,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Parity:
    """Make the data of multi-task sparse parity (paper sections 5.2 and 6.1).

    An input names one task and holds the bits of all; its label is the parity of the bits of the
    task named.

    Args:
        tasks: Number of tasks.
        bits: Number of bits of each task.
        samples: How many different inputs to draw at random, as many of each task and label to
            within one; all ``tasks * 2 ** (tasks * bits)`` if None.
        train_share: Share of the samples to train on. Both splits have each task and label in
            its share to within one sample.
        seed: Fixes the inputs drawn, their order and the split.
        device: Where the tensors live.

    Returns:
        The inputs and labels of both splits; no input is in both or twice in one.

    Raises:
        ValueError: If a number or the device is not among what is allowed, or a split would be
            empty.
        MemoryError: If the samples would not fit in the memory available.
    """
    device, seed = usable_device(device), whole("seed", seed, -MOST)
    plain = (int(value) if is_whole(value) else value for value in (tasks, bits, samples))
    tasks, bits, samples = plain  # whose products cannot overflow
    _check(tasks, bits, samples, train_share)
    count = tasks << (tasks * bits) if samples is None else samples
    cut = round(train_share * count)
    if not 0 < cut < count:
        raise ValueError(
            f"train_share is {train_share}: of {count:,} samples it leaves none to "
            f"{'test' if cut else 'train'} on, so give another share or more samples."
        )
    generator = torch.Generator().manual_seed(seed)
    strata = torch.arange(2 * tasks).repeat_interleave(_stratum_sizes(count, tasks))
    table = _bit_table(strata, tasks, bits, generator)
    order = stratified_order(strata, generator=generator)
    splits = []
    for part in (order[:cut], order[cut:]):
        task, label = strata[part] // 2, strata[part] % 2
        splits += [_inputs(task, table[part], tasks).to(device), label.to(device)]
    return Parity(tasks, bits, *splits)


def _check(tasks: int, bits: int, samples: int | None, train_share: float) -> None:
    for name, value in (("tasks", tasks), ("bits", bits)):
        if not is_whole(value) or value < 1:
            raise ValueError(f"{name} is {value}: give 1 or more.")
    if not isinstance(train_share, Real) or not 0 < train_share < 1:
        raise ValueError(f"train_share is {train_share}: give a share above 0 and below 1.")
    fits = is_whole(samples) and samples >= 2 and not _exceeds(samples, tasks, tasks * bits)
    if samples is not None and not fits:
        raise ValueError(
            f"samples is {samples}: {tasks} x {bits} bits have {_number(tasks, tasks * bits)} "
            "inputs, so give 2 (one to train and one to test on) to that many, or None for all."
        )
    _check_memory(tasks, bits, samples)


def _check_memory(tasks: int, bits: int, samples: int | None) -> None:
    factor, power = (tasks, tasks * bits) if samples is None else (samples, 0)
    wanted = f"{_number(factor, power)} {'inputs' if samples is None else 'samples'}"
    factor *= _BYTES_PER_VALUE * tasks * (1 + bits) + _BYTES_PER_SAMPLE
    available = psutil.virtual_memory().available
    if not _exceeds(available + 1, factor, power):
        remedy = "draw some of them with samples=" if samples is None else "give fewer samples"
        raise MemoryError(
            f"{wanted} of {tasks} x {bits} bits need {_size(factor, power)} of memory and "
            f"{_size(available)} are available: {remedy}."
        )


def _exceeds(value: int, factor: int, power: int) -> bool:
    """Whether value > factor * 2^power, without a number of so many digits."""
    return value.bit_length() > power and value > factor << power


def _number(factor: int, power: int) -> str:
    """Write factor * 2^power."""
    return f"{factor << power:,}" if power < 64 else f"{factor} x 2^{power}"


def _size(factor: int, power: int = 0) -> str:
    """Write factor * 2^power bytes."""
    exponent = max(power + factor.bit_length() - 1, 0)
    step = exponent // 10
    if step >= len(_UNITS):
        return f"at least 2^{exponent} bytes"
    return f"{(factor << power) / 1024**step:.1f} {_UNITS[step]}"


def _stratum_sizes(count: int, tasks: int) -> Tensor:
    """Share samples out to strata, ``2 * task + label``, evenly over tasks and over labels too.

    What is left over goes to the tasks in turn, label 0 and label 1 in turn; then, if there is
    more, to each task's other label.
    """
    each, left = divmod(count, 2 * tasks)
    task, label = torch.arange(tasks)[:, None], torch.arange(2)
    turn = task + tasks * ((task + label) % 2)
    return (each + (turn < left).long()).flatten()


def _bit_table(strata: Tensor, tasks: int, bits: int, generator: torch.Generator) -> Tensor:
    """Draw different inputs for sorted strata `[samples]`: bits `[samples, tasks * bits]`.

    All bits but the last of the active task are free; that one makes the label.
    """
    table = torch.empty(len(strata), tasks * bits, dtype=torch.uint8)
    present, sizes = (part.tolist() for part in strata.unique_consecutive(return_counts=True))
    for stratum, rows in zip(present, table.split(sizes), strict=True):
        task, label = divmod(stratum, 2)
        first, last = task * bits, task * bits + bits - 1
        free = _different_rows(len(rows), tasks * bits - 1, generator)
        rows[:, :last], rows[:, last + 1 :] = free[:, :last], free[:, last:]
        rows[:, last] = (free[:, first:last].sum(1) + label) % 2
    return table


def _different_rows(count: int, width: int, generator: torch.Generator) -> Tensor:
    """Draw rows of bits `[count, width]`, uint8, no two alike, every set of them as likely."""
    if (4 * count).bit_length() > width:  # a quarter of the 2^width rows or more: number them
        codes = torch.randperm(2**width, generator=generator)[:count].numpy()
        octets = codes.astype("<i8", copy=False).view(np.uint8).reshape(count, 8)
        return torch.from_numpy(np.unpackbits(octets, axis=1, count=width, bitorder="little"))
    rows = torch.empty(count, width, dtype=torch.uint8)
    again = torch.ones(count, dtype=torch.bool)
    while left := int(again.sum()):
        rows[again] = torch.randint(2, (left, width), dtype=torch.uint8, generator=generator)
        again = _repeats(rows)
    return rows


def _repeats(rows: Tensor) -> Tensor:
    """Mark the rows of bits `[rows, width]` that equal an earlier one, `[rows]`."""
    octets = np.packbits(rows.numpy(), axis=1)
    words = np.pad(octets, ((0, 0), (0, -octets.shape[1] % 8))).view(np.int64)
    order = np.lexsort(words.T)
    repeats = torch.zeros(len(rows), dtype=torch.bool)
    alike = (words[order[1:]] == words[order[:-1]]).all(1)
    repeats[torch.from_numpy(order[1:][alike])] = True
    return repeats


def _inputs(task: Tensor, bits: Tensor, tasks: int) -> Tensor:
    """Put the one-hot task `[samples]` before the bits `[samples, tasks * bits]`, float32."""
    inputs = torch.zeros(len(task), tasks + bits.shape[1])
    inputs[:, tasks:] = bits
    return inputs.scatter_(1, task[:, None], 1)
