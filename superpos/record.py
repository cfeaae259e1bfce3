"""The result of one condition, and the text that holds it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .files import AnyPath


class DamagedRecord(Exception):
    """A record file that cannot be trusted.

    Attributes:
        path: The file.
        reason: What is wrong with it.
    """

    def __init__(self, path: AnyPath, reason: str) -> None:
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


def record_key(section: str, version: int, condition: Any) -> str:
    """Return 16 hexadecimal digits that are the same wherever the condition is the same."""
    return _digest([section, version, _number_merged(plain_condition(condition))])[:16]


def plain(value: Any) -> Any:
    """A value as a record holds it: seven digits, None for what is not finite.

    Args:
        value: a plain value, or a NumPy or torch scalar.
    """
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value


def made(
    section: str,
    version: int,
    condition: Any,
    rows: Iterable[Mapping[str, Any]],
    provenance: Mapping[str, Any],
) -> Record:
    """Make a record of plain values.

    Args:
        section: The section's name.
        version: The experiment's own version.
        condition: A dataclass instance of plain values.
        rows: Tidy rows of plain finite values; no column may share its name with a field of
            the condition.
        provenance: How the rows were computed.

    Raises:
        ValueError: If a value is not finite or a column's name is taken.
        TypeError: If a value is not plain.
    """
    condition_as_plain = plain_condition(condition)
    return Record(
        section=section,
        version=version,
        key=record_key(section, version, condition),
        condition=condition_as_plain,
        rows=_plain_rows(rows, condition_as_plain),
        provenance=_plain(dict(provenance), "provenance"),
    )


def encoded(record: Record) -> dict[str, Any]:
    """Return what a record's file holds: its fields and their checksum."""
    content = dataclasses.asdict(record)
    return {**content, "checksum": _digest(content)}


def decoded(data: bytes, path: AnyPath) -> Record:
    """Read a record from its file's content.

    Args:
        data: The content.
        path: The file, whose name is the record's key.

    Raises:
        DamagedRecord: If the content is not what was written to this file.
    """
    try:
        content = json.loads(data)
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


def plain_condition(condition: Any) -> dict[str, Any]:
    """Return a condition's fields as a record holds them."""
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
