"""Run conditions, each once, and keep every finished one."""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import joblib
from tqdm.auto import tqdm

from .device import chosen_device
from .provenance import provenance
from .record import DamagedRecord, Record
from .store import Store

ENGINES = ("serial", "processes")
"""How conditions are run: one after another in this process, or several in worker processes."""


@dataclass(frozen=True)
class Failure:
    """A condition that raised an error.

    Attributes:
        condition: The condition.
        error: The error's type and message.
        traceback: The error's traceback as text.
    """

    condition: Any
    error: str
    traceback: str


class SweepFailed(RuntimeError):
    """Some conditions of a sweep raised an error; the others are finished and stored.

    Attributes:
        failures: One entry per failed condition.
    """

    def __init__(self, failures: Sequence[Failure]) -> None:
        """Collect what failed."""
        super().__init__(failures)
        self.failures = list(failures)

    def __str__(self) -> str:
        """List each failed condition with its error."""
        count = len(self.failures)
        parts = [f"{count} condition{'s' if count > 1 else ''} failed; the others are stored:"]
        parts += [f"\n{failure.condition}\n{failure.traceback}" for failure in self.failures]
        return "\n".join(parts)


def sweep(
    experiment: Any,
    conditions: Iterable[Any],
    *,
    store: Store,
    engine: str = "serial",
    workers: int | None = None,
    device: str = "cpu",
    progress: bool = True,
) -> list[Record]:
    """Run every condition that the store does not hold yet.

    Each record is written as soon as its condition is finished, by the process that computed
    it, so that a killed sweep goes on where it stopped.

    Args:
        experiment: A module with ``SECTION``, ``VERSION`` and ``run(condition, *, device)``.
        conditions: Frozen dataclass instances; equal ones are computed once.
        store: Where records are found and kept.
        engine: One of :data:`ENGINES`.
        workers: Number of worker processes of the engine ``processes``; by default one per
            core. The cores are shared out among the workers' threads.
        device: Torch device, or ``"auto"`` for a GPU if there is one.
        progress: Whether to show a progress bar.

    Returns:
        One record per condition, in the order of ``conditions``.

    Raises:
        ValueError: If the engine is unknown or ``workers`` is not positive.
        SweepFailed: If a condition raised, after all others are finished.
    """
    if engine not in ENGINES:
        raise ValueError(f"unknown engine '{engine}'; allowed: {', '.join(ENGINES)}")
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    conditions = list(conditions)
    unique = list(dict.fromkeys(conditions))
    records = {condition: _finished(experiment, condition, store) for condition in unique}
    pending = [condition for condition in unique if records[condition] is None]

    outcomes = _outcomes(experiment, pending, store, engine, workers, chosen_device(device))
    failures = []
    bar = tqdm(
        total=len(unique),
        initial=len(unique) - len(pending),
        desc=experiment.SECTION,
        unit="condition",
        disable=not progress,
    )
    with bar:
        for condition, outcome in outcomes:
            if isinstance(outcome, Failure):
                failures.append(outcome)
            records[condition] = outcome
            bar.update()
    if failures:
        raise SweepFailed(failures)
    return [records[condition] for condition in conditions]


def _finished(experiment: Any, condition: Any, store: Store) -> Record | None:
    """Return the stored record; a damaged one is reported and counts as absent."""
    try:
        return store.read(experiment.SECTION, experiment.VERSION, condition)
    except DamagedRecord as damage:
        warnings.warn(f"{damage}; it will be computed again", stacklevel=3)
        return None


def _outcomes(
    experiment: Any,
    pending: Sequence[Any],
    store: Store,
    engine: str,
    workers: int | None,
    device: str,
) -> Iterator[tuple[Any, Record | Failure]]:
    """Yield each pending condition with its outcome, in the order in which they finish."""
    if engine == "serial" or not pending:
        for condition in pending:
            yield _compute(experiment, condition, store, device)
        return
    cores = joblib.cpu_count()
    workers = min(workers or cores, len(pending))
    threads = max(1, cores // workers)
    with joblib.parallel_config("loky", n_jobs=workers, inner_max_num_threads=threads):
        parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1)
        yield from parallel(
            joblib.delayed(_compute)(experiment, condition, store, device, threads)
            for condition in pending
        )


def _compute(
    experiment: Any, condition: Any, store: Store, device: str, threads: int | None = None
) -> tuple[Any, Record | Failure]:
    """Run one condition and store its record; an error becomes a failure."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    try:
        record = _stored_meanwhile(experiment, condition, store)
        if record is None:
            started = time.perf_counter()
            rows = experiment.run(condition, device=device)
            about = provenance(device=device, seconds=time.perf_counter() - started)
            record = store.write(experiment.SECTION, experiment.VERSION, condition, rows, about)
        return condition, record
    except Exception as error:
        text = "".join(traceback.format_exception(error))
        return condition, Failure(condition, f"{type(error).__name__}: {error}", text)


def _stored_meanwhile(experiment: Any, condition: Any, store: Store) -> Record | None:
    """Return the record that another sweep may have finished since this one began."""
    try:
        return store.read(experiment.SECTION, experiment.VERSION, condition)
    except DamagedRecord:
        return None
