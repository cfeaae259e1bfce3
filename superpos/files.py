"""Files written whole or not at all, on a disk or wherever fsspec reaches."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from upath import UPath

AnyPath = Path | UPath
"""A path on this machine, or one in a file system of fsspec's."""


def folder(place: AnyPath | str) -> AnyPath:
    """Return a folder's path.

    Args:
        place: A path, or the URL of a folder in any file system that fsspec knows, such as
            ``s3://bucket/results`` or ``file:///scratch/results``.

    Returns:
        A path of this machine for a path or a ``file:`` URL, else a ``UPath``, which has the
        methods of a path.

    Raises:
        ValueError: If fsspec has no such file system, or lacks the package that reaches it.
    """
    text = str(place)
    if isinstance(place, UPath) or "://" not in text:
        return Path(place) if isinstance(place, str) else place
    try:
        path = UPath(text, use_listings_cache=False)
        if path.protocol in ("file", "local"):
            return Path(path.path)
        path.fs  # noqa: B018  # raises where the package is missing
    except (ValueError, ImportError) as error:
        raise ValueError(f"results cannot be kept in {text}: {error}") from None
    return path


def is_remote(path: AnyPath) -> bool:
    """Return whether a path lies in a file system of fsspec's instead of this machine's."""
    return isinstance(path, UPath)


def write_whole(path: AnyPath, data: bytes) -> None:
    """Write a file whole or not at all; makes the folder.

    On a disk, the data are on it when this returns. In an object store, nothing is there
    before the whole object is.

    Args:
        path: The file.
        data: Its content.

    Raises:
        OSError: If it cannot be written; what was there before stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_remote(path):
        file = path.fs.open(path.path, "wb", autocommit=False)
        with file:
            file.write(data)
        file.commit()
        return
    partial = path.with_name(f".{path.stem}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: AnyPath, content: Any) -> None:
    """Write JSON whole or not at all; makes the folder.

    Args:
        path: The file.
        content: Plain finite values.
    """
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(path, (text + "\n").encode("utf-8"))


def create(path: AnyPath, data: bytes) -> bool:
    """Write a small file unless it is there; of several writers, one succeeds.

    That holds on a disk and in object stores that can create exclusively, such as S3; where
    fsspec can only look first and then write, two writers at one moment may both succeed.

    Args:
        path: The file; its folder is made.
        data: Its content.

    Returns:
        Whether this call wrote it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if is_remote(path):
            path.fs.pipe_file(path.path, data, mode="create")
        else:
            _create_here(path, data)
    except FileExistsError:
        return False
    except OSError:  # some object stores say so in other words
        if content(path) is None:
            raise
        return False
    return True


def _create_here(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    try:
        os.write(descriptor, data)
    except OSError:  # a full disk has room for a name, not for what it should hold
        path.unlink()
        raise
    finally:
        os.close(descriptor)


def read_all(paths: Sequence[AnyPath]) -> list[bytes | None]:
    """Read files, those of an object store at the same time.

    Args:
        paths: Files of one file system.

    Returns:
        Their contents; None for a file that is not there.

    Raises:
        OSError: If a file is there and cannot be read.
    """
    if not (paths and is_remote(paths[0])):
        return [content(path) for path in paths]
    found = paths[0].fs.cat([path.path for path in paths], on_error="return")
    answers = [found[path.path] for path in paths]
    for answer in answers:
        if isinstance(answer, Exception) and not isinstance(answer, FileNotFoundError):
            raise answer
    return [None if isinstance(answer, Exception) else answer for answer in answers]


def content(path: AnyPath) -> bytes | None:
    """Read a file; None if it is not there."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
