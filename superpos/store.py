"""A folder of finished results: one JSON file per condition, written whole or not at all."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pandas as pd

from .settings import PROFILES, project_root

_KEY_PATTERN = "[0-9a-f]" * 16 + ".json"


class DamagedRecord(Exception):
    """A record file that cannot be trusted.

    Attributes:
        path: The file.
        reason: What is wrong with it.
    """

    def __init__(self, path: Path, reason: str) -> None:
        """Name a damaged file."""
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        """Name the file and what is wrong with it."""
        return f"damaged record {self.path}: {self.reason}"


@dataclass(frozen=True)
class Record:
    """The result of one condition.

    Attributes:
        section: The section that ran it.
        version: That experiment's own version.
        key: First 16 hexadecimal digits of the SHA-256 of section, version and condition.
        condition: The condition's fields as plain values.
        rows: Tidy rows: column name to plain value.
        provenance: Versions, device, threads, seconds, date and git commit.
    """

    section: str
    version: int
    key: str
    condition: dict[str, Any]
    rows: list[dict[str, Any]]
    provenance: dict[str, Any]


class Store:
    """A folder of records, ``<root>/<section>/<key>.json``.

    Args:
        root: The folder; made when the first record is written.
    """

    def __init__(self, root: Path | str) -> None:
        """Use a folder."""
        self.root = Path(root)

    def path(self, section: str, version: int, condition: Any) -> Path:
        """Return the file that a condition's record has or would have."""
        return self.root / section / f"{record_key(section, version, condition)}.json"

    def write(
        self,
        section: str,
        version: int,
        condition: Any,
        rows: Iterable[Mapping[str, Any]],
        provenance: Mapping[str, Any],
    ) -> Record:
        """Write one record whole or not at all, replacing an older one.

        Args:
            section: The section's name.
            version: The experiment's own version.
            condition: A dataclass instance of plain values.
            rows: Tidy rows of plain finite values; no column may share its name with a
                field of the condition.
            provenance: How the rows were computed.

        Returns:
            The record as written.

        Raises:
            ValueError: If a value is not finite or a column's name is taken.
            TypeError: If a value is not plain.
        """
        plain_condition = _plain_condition(condition)
        record = Record(
            section=section,
            version=version,
            key=record_key(section, version, condition),
            condition=plain_condition,
            rows=_plain_rows(rows, plain_condition),
            provenance=_plain(dict(provenance), "provenance"),
        )
        content = dataclasses.asdict(record)
        write_json(
            self.root / section / f"{record.key}.json",
            {**content, "checksum": _digest(content)},
        )
        return record

    def read(self, section: str, version: int, condition: Any) -> Record | None:
        """Read the record of a condition.

        Args:
            section: The section's name.
            version: The experiment's own version.
            condition: A dataclass instance of plain values.

        Returns:
            The record, or None if there is none.

        Raises:
            DamagedRecord: If the file is not what was written for this condition.
        """
        path = self.path(section, version, condition)
        try:
            record = _load(path)
        except FileNotFoundError:
            return None
        expected = (section, version, _plain_condition(condition))
        if (record.section, record.version, record.condition) != expected:
            raise DamagedRecord(path, "it belongs to another condition")
        return record

    def records(self, section: str) -> list[Record]:
        """Read all records of a section's newest version, in the order of their keys.

        Raises:
            DamagedRecord: If a file cannot be trusted.
        """
        records = [_load(path) for path in sorted((self.root / section).glob(_KEY_PATTERN))]
        newest = max((record.version for record in records), default=0)
        return [record for record in records if record.version == newest]

    def frame(self, section: str) -> pd.DataFrame:
        """Join all records of a section's newest version into one table, see :func:`frame`."""
        return frame(self.records(section))


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """Join records into one tidy table.

    Args:
        records: Records of one section.

    Returns:
        One line per row of each record: the record's ``key``, its condition's fields, and the
        row's columns.
    """
    return pd.DataFrame(
        [
            {"key": record.key, **record.condition, **row}
            for record in records
            for row in record.rows
        ]
    )


def record_key(section: str, version: int, condition: Any) -> str:
    """Return 16 hexadecimal digits that are the same wherever the condition is the same."""
    return _digest([section, version, _number_merged(_plain_condition(condition))])[:16]


def results_root() -> Path:
    """Return the folder of all results.

    It is the one that the environment variable SUPERPOS_RESULTS names, else ``results`` in the
    project, or in the current folder outside a project.
    """
    results = os.environ.get("SUPERPOS_RESULTS")
    return Path(results) if results else project_root() / "results"


def default_root(profile: str) -> Path:
    """Return the folder that holds a profile's results, ``<results_root()>/<profile>``.

    Args:
        profile: One of :data:`superpos.settings.PROFILES`.

    Raises:
        ValueError: If there is no such profile.
    """
    if profile not in PROFILES:
        raise ValueError(f"unknown profile '{profile}'; allowed: {', '.join(PROFILES)}")
    return results_root() / profile


def result_roots() -> dict[str, Path]:
    """Per profile, the folder with results: fresh ones, else those that came with the project."""
    committed = project_root() / "results"
    fresh = {profile: default_root(profile) for profile in PROFILES}
    return {name: root if root.is_dir() else committed / name for name, root in fresh.items()}


def provenance(*, device: str = "cpu", seconds: float = 0.0) -> dict[str, Any]:
    """Say how a result was computed.

    Args:
        device: Torch device that did the work.
        seconds: Wall time of the work in seconds.

    Returns:
        Versions of superpos, torch, numpy and Python, device name, CPU threads, seconds,
        UTC date, and the git commit of the code (with ``-dirty`` if it was changed since; None
        outside git).
    """
    import torch

    return {
        "superpos": importlib.metadata.version("superpos"),
        "torch": torch.__version__,
        "numpy": importlib.metadata.version("numpy"),
        "python": platform.python_version(),
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 3),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _git_commit(),
    }


def plain(value: Any) -> Any:
    """A value as a record holds it: seven digits, None for what is not finite.

    Args:
        value: a plain value, or a NumPy or torch scalar.
    """
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all; makes the folder.

    Args:
        path: The file.
        content: Plain finite values.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            json.dump(content, file, indent=1, ensure_ascii=False, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _load(path: Path) -> Record:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise DamagedRecord(path, f"not JSON ({error})") from None
    names = [field.name for field in dataclasses.fields(Record)]
    if not isinstance(content, dict) or set(content) != {*names, "checksum"}:
        raise DamagedRecord(path, f"must hold exactly {', '.join(names)} and checksum")
    if content.pop("checksum") != _digest(content):
        raise DamagedRecord(path, "its content does not match its checksum")
    record = Record(**content)
    if record.key != path.stem:
        raise DamagedRecord(path, f"it holds the record {record.key}")
    return record


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain_condition(condition: Any) -> dict[str, Any]:
    return {
        name: _plain(value, f"condition field '{name}'")
        for name, value in dataclasses.asdict(condition).items()
    }


def _plain_rows(
    rows: Iterable[Mapping[str, Any]], condition: Mapping[str, Any]
) -> list[dict[str, Any]]:
    plain = [
        {name: _plain(value, f"column '{name}'") for name, value in row.items()} for row in rows
    ]
    for row in plain:
        taken = sorted(row.keys() & {"key", *condition})
        if taken:
            raise ValueError(
                f"columns {', '.join(taken)} have the name of a field of the condition; rename them"
            )
    return plain


def _plain(value: Any, where: str) -> Any:
    """Return ``value`` as JSON would give it back, or refuse it and say where it stood."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(item, where) for name, item in value.items()}
    if isinstance(value, Sequence):
        return [_plain(item, where) for item in value]
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} holds {value}; only finite numbers are stored")
        return float(value)
    if hasattr(value, "tolist"):  # a scalar or an array of numpy or torch
        return _plain(value.tolist(), where)
    raise TypeError(
        f"{where} holds a {type(value).__name__}; "
        "allowed: numbers, text, booleans, None, and lists of them"
    )


def _number_merged(value: Any) -> Any:
    """Write equal numbers alike (2.0 as 2), since equal conditions must have equal keys."""
    if isinstance(value, dict):
        return {name: _number_merged(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_number_merged(item) for item in value]
    return int(value) if isinstance(value, (float, bool)) and value == int(value) else value


def _device_name(device: str) -> str:
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device} ({_processor_name()})"


@functools.cache
def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@functools.cache
def _git_commit() -> str | None:
    """Return the commit of the package's own folder, or None if git does not track it."""
    folder = Path(__file__).parent
    try:
        _git(folder, "ls-files", "--error-unmatch", Path(__file__).name)
        commit = _git(folder, "rev-parse", "HEAD")
        return commit + ("-dirty" if _git(folder, "status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()
