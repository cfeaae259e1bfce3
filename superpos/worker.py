"""A process that computes one condition at a time, and can be stopped."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cloudpickle

from .lease import free_if_dead
from .task import Failure, Outcome, Task, failure

ATTEMPTS = 3
"""How often a condition is begun whose process dies."""
_GRACE = 1.0  # seconds after the time limit in which a process writes where it is
_IDLE = 300.0  # seconds without work after which a process ends
_PDEATHSIG = 1  # Linux's option by which a process is killed when its parent ends


class Worker:
    """A process of its own for conditions, started when first needed.

    Args:
        threads: Cores that it may use, by default as many as torch takes.
    """

    def __init__(self, threads: int | None = None) -> None:
        """Start nothing yet."""
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        self._environment = {} if threads is None else dict.fromkeys(names, str(threads))
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._closed = False

    def run(self, task: Task, condition: Any, time_limit: float | None = None) -> Outcome:
        """Compute a condition in the worker's process.

        A process that dies, killed for its memory or otherwise, is replaced, and the condition
        begun again, at most :data:`ATTEMPTS` times in all.

        Args:
            task: What to do.
            condition: With what.
            time_limit: Seconds it may take; then the process is killed.

        Returns:
            The condition's outcome; a failure if the process died or the time was up.
        """
        for _ in range(ATTEMPTS):
            if self._closed:
                break
            try:
                if time_limit is None:
                    return self._answer(None, task, condition)
                return self._within(time_limit, task, condition)
            except (EOFError, ConnectionError):
                self._stop()
                free_if_dead(task.lease(condition))
            except Exception as error:  # such as a condition that cannot be sent
                return failure(condition, error)
        text = f"WorkerDied: its process ended {ATTEMPTS} times on the way; was memory short?"
        return Failure(condition, text, f"{text}\n")

    def close(self) -> None:
        """Kill the process, whatever it is doing."""
        self._closed = True
        self._stop()

    def _within(self, time_limit: float, task: Task, condition: Any) -> Outcome:
        with tempfile.TemporaryDirectory(prefix="superpos-") as folder:
            stack = Path(folder) / "stack"
            try:
                limit = time_limit + _GRACE
                return self._answer(limit, _watched, time_limit, stack, task, condition)
            except TimeoutError:
                self._stop()
                free_if_dead(task.lease(condition))
                text = f"TimeLimit: it took longer than the {time_limit:g} s it may"
                return Failure(condition, text, f"{_stack_of_task(stack)}\n{text}\n")

    def _answer(self, limit: float | None, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in the process; starting it counts for no limit."""
        work = cloudpickle.dumps((function, arguments))
        pipe = self._pipe or self._start()
        pipe.send_bytes(work)
        if not pipe.poll(limit):
            raise TimeoutError
        return cloudpickle.loads(pipe.recv_bytes())

    def _start(self) -> Connection:
        self._pipe, theirs = Pipe()
        number = theirs.fileno()
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"from superpos.worker import serve; serve({number}, {os.getpid()})",
            ],
            pass_fds=[number],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl+C is for the driver, which ends this one
            env={
                **os.environ,
                **self._environment,
                "PYTHONSAFEPATH": "1",
                "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
            },
        )
        theirs.close()
        self._pipe.recv_bytes()  # it is ready
        return self._pipe

    def _stop(self) -> None:
        process, self._process, self._pipe = self._process, None, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with all that it started
        process.wait()


def serve(number: int, parent: int) -> None:
    """Do what comes through a pipe, until it is closed; what a worker's process runs.

    Args:
        number: File descriptor of the pipe's end.
        parent: The process that started this one, which ends with it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    import torch  # noqa: F401  # seconds that no condition's time limit should count

    pipe = Connection(number)
    pipe.send_bytes(b"")
    with contextlib.suppress(EOFError):
        while pipe.poll(_IDLE):
            function, arguments = cloudpickle.loads(pipe.recv_bytes())
            pipe.send_bytes(cloudpickle.dumps(function(*arguments)))


def _end_with(parent: int) -> None:
    """End this process when its parent has ended, even in the middle of work."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _watched(time_limit: float, stack: Path, task: Task, condition: Any) -> Outcome:
    """Compute a condition; if the time is up before, write where it is."""
    with stack.open("w") as file:
        faulthandler.dump_traceback_later(time_limit, file=file)
        try:
            return task(condition)
        finally:
            faulthandler.cancel_dump_traceback_later()


def _stack_of_task(file: Path) -> str:
    """Return where the condition was when its time was up, out of all threads' stacks."""
    stacks = file.read_text().split("\n\n") if file.is_file() else []
    return next((stack for stack in stacks if "in _computed" in stack), "".join(stacks))
