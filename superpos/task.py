"""What an engine is given to do: compute one condition and store its record."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeAlias

from .device import chosen_device
from .files import AnyPath
from .lease import lease
from .provenance import provenance
from .record import DamagedRecord, Record
from .store import Store


@dataclass(frozen=True)
class Failure:
    """A condition that gave no record.

    Attributes:
        condition: The condition.
        error: The error's type and message.
        traceback: The error's traceback as text.
    """

    condition: Any
    error: str
    traceback: str


Outcome: TypeAlias = Record | Failure | None
"""What became of a condition; None if another sweep is computing it."""


@dataclass(frozen=True)
class Task:
    """How to compute one condition of an experiment, anywhere.

    Attributes:
        experiment: A module with ``SECTION``, ``VERSION`` and ``run(condition, *, device)``.
        store: Where the record goes.
        device: Torch device, or ``"auto"`` for a GPU where there is one.
        threads: Cores of the processor to use, by default as many as torch takes.
    """

    experiment: ModuleType
    store: Store
    device: str = "cpu"
    threads: int | None = None

    def __call__(self, condition: Any) -> Outcome:
        """Compute a condition and store its record, unless another sweep is at it."""
        about = self.experiment.SECTION, self.experiment.VERSION, condition
        try:
            with lease(self.lease(condition)) as ours:
                if not ours:
                    return None
                return self._stored(*about) or self._computed(*about)
        except Exception as error:
            return failure(condition, error)

    def lease(self, condition: Any) -> AnyPath:
        """Return the file by which a sweep says that it is at a condition."""
        return self.store.lease(self.experiment.SECTION, self.experiment.VERSION, condition)

    def _stored(self, *about: Any) -> Record | None:
        """Return the record that another sweep may have finished since this one began."""
        try:
            return self.store.read(*about)
        except DamagedRecord:
            return None

    def _computed(self, section: str, version: int, condition: Any) -> Record:
        if self.threads is not None:
            import torch

            torch.set_num_threads(self.threads)
        device = str(chosen_device(self.device))
        started = time.perf_counter()
        rows = self.experiment.run(condition, device=device)
        about = provenance(device=device, seconds=time.perf_counter() - started)
        return self.store.write(section, version, condition, rows, about)


def failure(condition: Any, error: BaseException) -> Failure:
    """Describe an error as a condition's failure."""
    text = "".join(traceback.format_exception(error))
    return Failure(condition, f"{type(error).__name__}: {error}", text)
