"""A folder of finished results: one JSON file per condition, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from .files import AnyPath, folder, read_all, write_json
from .record import DamagedRecord, Record, decoded, encoded, made, plain_condition, record_key
from .settings import PROFILES, project_root

_KEY_PATTERN = "[0-9a-f]" * 16 + ".json"


class Store:
    """A folder of records, ``<root>/<section>/<key>.json``; any number of sweeps may write to it.

    Args:
        root: The folder, made when the first record is written: a path, or a URL that fsspec
            knows, such as ``s3://bucket/results``.

    Raises:
        ValueError: If the URL's file system is unknown or its package is not installed.
    """

    def __init__(self, root: AnyPath | str) -> None:
        """Use a folder."""
        self.root = folder(root)

    def path(self, section: str, version: int, condition: Any) -> AnyPath:
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
        record = made(section, version, condition, rows, provenance)
        write_json(self.root / section / f"{record.key}.json", encoded(record))
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
        (found,) = self.found(section, version, [condition])
        if isinstance(found, DamagedRecord):
            raise found
        return found

    def found(
        self, section: str, version: int, conditions: Sequence[Any]
    ) -> list[Record | DamagedRecord | None]:
        """Read the records of many conditions.

        Args:
            section: The section's name.
            version: The experiment's own version.
            conditions: Dataclass instances of plain values.

        Returns:
            For each condition its record, what is wrong with its file, or None if there is none.
        """
        paths = [self.path(section, version, condition) for condition in conditions]
        return [
            None if data is None else _of_condition(data, path, section, version, condition)
            for data, path, condition in zip(read_all(paths), paths, conditions, strict=True)
        ]

    def lease(self, section: str, version: int, condition: Any) -> AnyPath:
        """Return the file by which a sweep says that it computes a condition."""
        path = self.path(section, version, condition)
        return path.with_name(f".{path.stem}.lease")

    def records(self, section: str) -> list[Record]:
        """Read all records of a section's newest version, in the order of their keys.

        Raises:
            DamagedRecord: If a file cannot be trusted.
        """
        paths = sorted((self.root / section).glob(_KEY_PATTERN))
        contents = zip(read_all(paths), paths, strict=True)
        records = [decoded(data, path) for data, path in contents if data is not None]
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


def _of_condition(
    data: bytes, path: AnyPath, section: str, version: int, condition: Any
) -> Record | DamagedRecord:
    """Read a file as the record of a condition, or say what is wrong with it."""
    try:
        record = decoded(data, path)
    except DamagedRecord as damage:
        return damage
    expected = (section, version, plain_condition(condition))
    if (record.section, record.version, record.condition) != expected:
        return DamagedRecord(path, "it belongs to another condition")
    return record


def results_root() -> AnyPath:
    """Return the folder of all results.

    It is the one that the environment variable SUPERPOS_RESULTS names, a path or a URL that
    fsspec knows, else ``results`` in the project, or in the current folder outside a project.
    """
    results = os.environ.get("SUPERPOS_RESULTS")
    return folder(results) if results else project_root() / "results"


def default_root(profile: str) -> AnyPath:
    """Return the folder that holds a profile's results, ``<results_root()>/<profile>``.

    Args:
        profile: One of :data:`superpos.settings.PROFILES`.

    Raises:
        ValueError: If there is no such profile.
    """
    if profile not in PROFILES:
        raise ValueError(f"unknown profile '{profile}'; allowed: {', '.join(PROFILES)}")
    return results_root() / profile


def result_roots() -> dict[str, AnyPath]:
    """Per profile, the folder with results: fresh ones, else those that came with the project."""
    committed = project_root() / "results"
    fresh = {profile: default_root(profile) for profile in PROFILES}
    return {name: root if root.is_dir() else committed / name for name, root in fresh.items()}
