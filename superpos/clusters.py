"""Ray and Dask: a cluster that is running, or one of this machine's cores made for a sweep."""

from __future__ import annotations

import importlib
import socket
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any

from .engines import Computing, Engine, Outcomes, workers_here
from .settings import SettingsError
from .task import Outcome, Task, failure
from .worker import ATTEMPTS, Worker

_AHEAD = 256  # conditions handed to a cluster at a time, where nothing else is said
_local = threading.local()


def opened(task: Task, options: Computing) -> AbstractContextManager[Engine]:
    """Open Ray or Dask; see :func:`superpos.engines.opened`."""
    task = replace(task, device=options.device, threads=options.cpus or 1)
    return {"ray": _ray, "dask": _dask}[options.engine](task, options)


@contextmanager
def _ray(task: Task, options: Computing) -> Iterator[Engine]:
    ray = _package("ray", "ray")
    _must_answer(options.address, "Ray cluster")
    cpus = options.cpus or 1
    own = not ray.is_initialized()
    if own:
        here = {"include_dashboard": False, "num_cpus": cpus * workers_here(options)}
        try:
            ray.init(
                options.address or "local",
                log_to_driver=False,
                logging_level="ERROR",
                **({} if options.address else here),
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise SettingsError(f"no Ray cluster answers at '{options.address}': {error}") from None
    remote = ray.remote(num_cpus=cpus, num_gpus=options.gpus, max_retries=ATTEMPTS - 1)(compute)
    shared = ray.put(task)

    def run(conditions: Sequence[Any]) -> Outcomes:
        waiting, running = deque(conditions), {}
        try:
            while waiting or running:
                while waiting and len(running) < (options.workers or _AHEAD):
                    condition = waiting.popleft()
                    running[remote.remote(shared, condition, options.time_limit)] = condition
                (ready,), _ = ray.wait(list(running))
                condition = running.pop(ready)
                try:
                    yield condition, ray.get(ready)
                except ray.exceptions.RayError as error:
                    yield condition, failure(condition, error)
        finally:
            for left in running:
                ray.cancel(left, force=True)

    try:
        yield run
    finally:
        if own:
            ray.shutdown()


@contextmanager
def _dask(task: Task, options: Computing) -> Iterator[Engine]:
    dask = _package("distributed", "dask")
    if options.gpus and not options.address:
        raise SettingsError(
            "on Dask, 'gpus' needs the 'address' of a cluster whose workers were started with "
            "--resources GPU=1; on this machine, use the engine 'processes'"
        )
    _must_answer(options.address, "Dask scheduler")
    resources = {"GPU": options.gpus} if options.gpus else None
    with ExitStack() as stack:
        address = options.address or stack.enter_context(
            dask.LocalCluster(
                n_workers=workers_here(options), threads_per_worker=1, dashboard_address=None
            )
        )
        try:
            client = stack.enter_context(dask.Client(address))
        except (OSError, ValueError) as error:
            raise SettingsError(f"no Dask scheduler at '{options.address}': {error}") from None

        def run(conditions: Sequence[Any]) -> Outcomes:
            waiting, running, finished = deque(conditions), {}, dask.as_completed()
            try:
                while waiting or running:
                    while waiting and len(running) < (options.workers or _AHEAD):
                        condition = waiting.popleft()
                        future = client.submit(
                            compute, task, condition, options.time_limit,
                            pure=False, resources=resources,
                        )  # fmt: skip
                        running[future] = condition
                        finished.add(future)
                    future = next(finished)
                    condition, error = running.pop(future), future.exception()
                    yield condition, failure(condition, error) if error else future.result()
            finally:
                client.cancel(list(running))

        yield run


def compute(task: Task, condition: Any, time_limit: float | None) -> Outcome:
    """Compute a condition on a cluster.

    Under a time limit, and where a worker computes several in threads that would share torch's
    random numbers, as Dask's do, this happens in a process of its own.
    """
    if time_limit is None and threading.current_thread() is threading.main_thread():
        return task(condition)
    if not hasattr(_local, "worker"):
        _local.worker = Worker(task.threads)
    return _local.worker.run(task, condition, time_limit)


def _must_answer(address: str | None, what: str) -> None:
    """Refuse an address ``host:port`` at which nothing listens, before long waits for it."""
    host, _, port = (address or "").removeprefix("tcp://").rpartition(":")
    if host and port.isdigit() and "/" not in host:
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise SettingsError(f"no {what} answers at '{address}': {error}") from None


def _package(name: str, engine: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SettingsError(
            f"engine '{engine}' is not installed ({error}); run pip install -e '.[cluster]'"
        ) from None
