"""Where a sweep's conditions are computed: here, in processes, or on a Ray or Dask cluster.

An engine is a function of a task and a :class:`Computing`. As a context manager it gives a
function from conditions to an iterator over conditions with their outcomes, in the order in
which they finish.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

import joblib

from .device import DEVICES, usable_device
from .settings import ENGINES, SettingsError, setting
from .task import Outcome, Task
from .worker import Worker

Outcomes: TypeAlias = Iterator[tuple[Any, Outcome]]
Engine: TypeAlias = Callable[[Sequence[Any]], Outcomes]


@dataclass(frozen=True)
class Computing:
    """How conditions are computed; no result depends on it."""

    engine: str = setting("serial", "how conditions are run", choices=ENGINES, decides=False)
    device: str = setting("auto", "where to compute", choices=DEVICES, decides=False)
    workers: int | None = setting(
        None, "conditions computed at a time; by default what the cores allow", low=1, decides=False
    )
    cpus: int | None = setting(
        None,
        "cores per condition; by default shared out, or one on a cluster",
        low=1,
        decides=False,
    )
    gpus: float = setting(0.0, "GPUs per condition, such as 0.25", low=0.0, decides=False)
    address: str | None = setting(None, "address of a Ray or Dask cluster", decides=False)
    time_limit: float | None = setting(
        None, "seconds a condition may take", low=0.001, high=2e6, decides=False
    )


COMPUTING = tuple(field.name for field in fields(Computing))
"""Names of the parameters that say how to compute, and never what."""

_TAKES = {
    "serial": {"time_limit"},
    "processes": {"workers", "cpus", "gpus", "time_limit"},
    "ray": {"workers", "cpus", "gpus", "address", "time_limit"},
    "dask": {"workers", "cpus", "gpus", "address", "time_limit"},
}


def check(options: Computing) -> None:
    """Refuse options that the engine does not take.

    Raises:
        SettingsError: If there are any.
    """
    takes = _TAKES[options.engine]
    for name in sorted(set().union(*_TAKES.values()) - takes):
        if getattr(options, name) not in (None, 0.0):
            others = ", ".join(engine for engine in ENGINES if name in _TAKES[engine])
            raise SettingsError(f"engine '{options.engine}' takes no '{name}'; {others} do")


def opened(task: Task, options: Computing) -> AbstractContextManager[Engine]:
    """Open the engine that the options name.

    Raises:
        ValueError: If there is no such device here.
        SettingsError: If the engine's package is missing, its cluster is not there, or GPUs
            cannot be shared as asked.
    """
    if options.engine in ("serial", "processes") and options.device not in ("auto", "cpu"):
        usable_device(options.device)
    if options.engine == "serial":
        return _serial(task, options)
    if options.engine == "processes":
        return _processes(task, options)
    from . import clusters

    return clusters.opened(task, options)


@contextmanager
def _serial(task: Task, options: Computing) -> Iterator[Engine]:
    if options.time_limit is None:
        yield lambda conditions: ((condition, task(condition)) for condition in conditions)
        return
    worker = Worker()
    try:
        yield lambda conditions: (
            (condition, worker.run(task, condition, options.time_limit)) for condition in conditions
        )
    finally:
        worker.close()


@contextmanager
def _processes(task: Task, options: Computing) -> Iterator[Engine]:
    devices = worker_devices(options.device, options.gpus, workers_here(options))
    threads = options.cpus or max(1, joblib.cpu_count() // len(devices))
    workers = [Worker(threads) for _ in devices]
    idle: queue.SimpleQueue[tuple[Worker, str]] = queue.SimpleQueue()
    for pair in zip(workers, devices, strict=True):
        idle.put(pair)

    def compute(condition: Any) -> tuple[Any, Outcome]:
        worker, device = idle.get()
        try:
            here = replace(task, device=device, threads=threads)
            return condition, worker.run(here, condition, options.time_limit)
        finally:
            idle.put((worker, device))

    pool = ThreadPoolExecutor(len(workers))
    try:
        yield lambda conditions: _results(pool, compute, conditions)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.close()
        pool.shutdown()


def _results(
    pool: ThreadPoolExecutor, compute: Callable[[Any], Any], conditions: Iterable[Any]
) -> Iterator[Any]:
    for future in as_completed([pool.submit(compute, condition) for condition in conditions]):
        yield future.result()


def workers_here(options: Computing) -> int:
    """Return how many conditions this machine computes at a time: as many as its cores allow."""
    return options.workers or max(1, joblib.cpu_count() // (options.cpus or 1))


def worker_devices(device: str, gpus: float, workers: int) -> list[str]:
    """Return one device for each worker process of this machine.

    Args:
        device: What was asked for: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        gpus: Share of a GPU that each worker takes; 0 leaves the device as it is.
        workers: Workers wanted; fewer come back where the GPUs have no room for more.

    Raises:
        SettingsError: If a share is asked for that no GPU here can give.
    """
    if gpus == 0:
        return [device] * workers
    import torch

    count = torch.cuda.device_count()
    if gpus > 1 or count == 0 or device not in ("auto", "cuda"):
        raise SettingsError(
            f"gpus={gpus:g} on device '{device}' cannot be had from {count} CUDA devices here: "
            "in processes a condition takes at most one whole GPU"
        )
    return [f"cuda:{worker % count}" for worker in range(min(workers, count * int(1 / gpus)))]
