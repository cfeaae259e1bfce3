"""Run conditions, each once, and keep every finished one."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

from tqdm.auto import tqdm

from .engines import Computing, Outcomes, check, opened
from .lease import Watch
from .record import DamagedRecord, Record
from .settings import from_values
from .store import Store
from .task import Failure, Task


class SweepFailed(RuntimeError):
    """Some conditions of a sweep gave no record; the others are finished and stored.

    Attributes:
        failures: One entry per failed condition.
    """

    def __init__(self, failures: Sequence[Failure]) -> None:
        """Collect what failed."""
        super().__init__(failures)
        self.failures = list(failures)

    def __str__(self) -> str:
        """List each failed condition with its traceback; equal tracebacks are shown once."""
        count = len(self.failures)
        parts = [f"{count} condition{'s' if count > 1 else ''} failed; the others are stored:"]
        alike: dict[str, list[str]] = {}
        for failure in self.failures:
            alike.setdefault(failure.traceback, []).append(str(failure.condition))
        parts += ["\n" + "\n".join([*names, text]) for text, names in alike.items()]
        return "\n".join(parts)


def sweep(
    experiment: ModuleType,
    conditions: Iterable[Any],
    *,
    store: Store,
    engine: str = "serial",
    device: str = "cpu",
    workers: int | None = None,
    cpus: int | None = None,
    gpus: float = 0.0,
    address: str | None = None,
    time_limit: float | None = None,
    progress: bool = True,
) -> list[Record]:
    """Run every condition that the store does not hold yet.

    Each record is written as soon as its condition is finished, so that a killed sweep goes on
    where it stopped. Any number of sweeps may share a store: what another one is computing is
    left to it, and taken over if that one ends before it is done.

    Args:
        experiment: A module with ``SECTION``, ``VERSION`` and ``run(condition, *, device)``.
        conditions: Frozen dataclass instances; equal ones are computed once.
        store: Where records are found and kept.
        engine: One of :data:`superpos.settings.ENGINES`. ``processes`` and a time limit use
            processes of this machine, ``ray`` and ``dask`` a cluster, or one made of this
            machine's cores.
        device: Torch device, or ``"auto"`` for a GPU where there is one.
        workers: Conditions computed at a time; by default as many as the cores allow.
        cpus: Cores per condition; by default the cores are shared out (``processes``), or one.
        gpus: GPUs per condition, such as 0.25 for four conditions on each.
        address: Of a running cluster (``ray``, ``dask``).
        time_limit: Seconds a condition may take; one that takes longer is stopped and fails.
        progress: Whether to show a progress bar.

    Returns:
        One record per condition, in the order of ``conditions``.

    Raises:
        SettingsError: If a value is not allowed, the engine does not take an option, its
            package is missing, or its cluster cannot be reached.
        ValueError: If there is no such device on this machine.
        SweepFailed: If conditions gave no record, after all others are finished.
    """
    given = {"engine": engine, "device": device, "workers": workers, "cpus": cpus, "gpus": gpus}
    options = from_values(Computing, {**given, "address": address, "time_limit": time_limit})
    check(options)
    conditions = list(conditions)
    unique = list(dict.fromkeys(conditions))
    found = store.found(experiment.SECTION, experiment.VERSION, unique)
    records: dict[Any, Record] = {}
    for condition, record in zip(unique, found, strict=True):
        if isinstance(record, DamagedRecord):
            warnings.warn(f"{record}; it will be computed again", stacklevel=2)
        elif record is not None:
            records[condition] = record

    failures = []
    task = Task(experiment, store, options.device)
    pending = [condition for condition in unique if condition not in records]
    bar = tqdm(
        total=len(unique),
        initial=len(records),
        desc=experiment.SECTION,
        unit="condition",
        disable=not progress,
    )
    with bar:
        for condition, outcome in _outcomes(task, pending, options, bar):
            if isinstance(outcome, Failure):
                failures.append(outcome)
            else:
                records[condition] = outcome
            bar.update()
    if failures:
        raise SweepFailed(failures)
    return [records[condition] for condition in conditions]


def _outcomes(task: Task, pending: Sequence[Any], options: Computing, bar: tqdm) -> Outcomes:
    """Yield each condition with its record or failure, in the order in which they finish."""
    if not pending:
        return
    watch, elsewhere = Watch(), []
    with opened(task, options) as compute:
        while pending:
            for condition, outcome in compute(pending):
                if outcome is not None:
                    yield condition, outcome
                    continue
                elsewhere.append(condition)
                bar.set_postfix_str(f"{len(elsewhere)} computed by another sweep")
            pending = _freed(task, elsewhere, watch)
            elsewhere = [condition for condition in elsewhere if condition not in pending]


def _freed(task: Task, conditions: Sequence[Any], watch: Watch) -> list[Any]:
    """Wait until other sweeps have left some of these conditions, finished or not."""
    leases = {task.lease(condition): condition for condition in conditions}
    pause = 0.05
    while leases:
        if free := watch.free(leases):
            return [leases[path] for path in free]
        time.sleep(pause)
        pause = min(2 * pause, 2.0)
    return []
