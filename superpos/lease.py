"""Leases: of several sweeps on one store, one computes a condition while the others leave it.

A lease is a small file beside the record to come. Its holder rewrites it every few seconds. One
that no longer changes belongs to nobody, and so does one whose process was on this machine and
is gone. Ages are told by how long a lease has been seen unchanged, so that no two clocks need
agree. Where all of this fails, a condition is computed twice and either record is right.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from .files import AnyPath, content, create, write_whole

BEAT = 5.0
"""Seconds between two signs of life."""
TERM = 60.0
"""Seconds without a sign of life after which a lease is free."""


@contextmanager
def lease(path: AnyPath) -> Iterator[bool]:
    """Hold a lease while a block runs.

    Args:
        path: The lease's file.

    Yields:
        Whether it was free; if not, another process holds it, and nothing is to be done.

    Raises:
        OSError: If the file cannot be written.
    """
    owner = uuid.uuid4().hex
    if not create(path, _sign(owner, 0)):
        free_if_dead(path)
        if not create(path, _sign(owner, 0)):
            yield False
            return
    _start_beating()
    _held[path] = owner
    try:
        yield True
    finally:
        with _lock, contextlib.suppress(Exception):  # an outage; then the lease runs out
            del _held[path]
            if _owner(content(path)) == owner:
                path.unlink(missing_ok=True)


def free_if_dead(path: AnyPath) -> None:
    """Remove a lease whose holder was a process of this machine and has ended."""
    with contextlib.suppress(Exception):  # an outage; then the lease runs out
        seen = content(path)
        if seen is not None and _is_dead(seen):
            _remove_if(path, seen)


class Watch:
    """What one process has seen of others' leases."""

    def __init__(self) -> None:
        """Start with nothing seen."""
        self._seen: dict[AnyPath, tuple[bytes, float]] = {}

    def free(self, paths: Iterable[AnyPath]) -> list[AnyPath]:
        """Return the leases that nobody holds; a lease whose holder is gone is removed."""
        found = []
        for path in paths:
            with contextlib.suppress(Exception):  # an outage: ask again later
                if self._is_free(path):
                    found.append(path)
        return found

    def _is_free(self, path: AnyPath) -> bool:
        seen = content(path)
        if seen is None or _is_dead(seen):
            _remove_if(path, seen)
            return True
        before, since = self._seen.get(path, (b"", 0.0))
        if seen != before:
            self._seen[path] = seen, time.monotonic()
            return False
        if time.monotonic() - since < TERM:
            return False
        _remove_if(path, seen)
        return True


_held: dict[AnyPath, str] = {}  # the leases that this process holds, with their owners
_lock = threading.Lock()  # no sign of life while a lease is given back


@functools.cache
def _start_beating() -> None:
    threading.Thread(target=_beat, name="leases", daemon=True).start()


def _beat() -> None:
    """Give a sign of life for every lease held, except where another process has taken it."""
    for count in itertools.count(1):
        time.sleep(BEAT)
        for path, owner in list(_held.items()):
            with _lock, contextlib.suppress(Exception):  # an outage; if it lasts, it runs out
                if path in _held and _owner(content(path)) == owner:
                    write_whole(path, _sign(owner, count))


def _sign(owner: str, count: int) -> bytes:
    sign = {"owner": owner, "place": _place(), "pid": os.getpid(), "beat": count}
    return json.dumps(sign).encode()


@functools.cache
def _place() -> str:
    """Name the machine, since when it runs, and the namespace in which process numbers hold."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{platform.node()} {boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return platform.node()


def _fields(seen: bytes | None) -> dict[str, object]:
    try:
        fields = json.loads(seen or b"{}")
    except ValueError:  # caught while it was being written
        return {}
    return fields if isinstance(fields, dict) else {}


def _owner(seen: bytes | None) -> object:
    return _fields(seen).get("owner")


def _is_dead(seen: bytes) -> bool:
    """Whether the holder was a process of this machine and has ended."""
    fields = _fields(seen)
    pid = fields.get("pid")
    if fields.get("place") != _place() or not isinstance(pid, int):
        return False
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def _remove_if(path: AnyPath, seen: bytes | None) -> None:
    """Remove the lease if it is still the one that was seen."""
    if seen is not None and content(path) == seen:
        path.unlink(missing_ok=True)
