"""A folder of finished results: one JSON file per condition, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from .files import write_json
from .record import DamagedRecord, Record, decoded, encoded, made, plain_condition, record_key
from .settings import PROFILES, project_root

_KEY_PATTERN = "[0-9a-f]" * 16 + ".json"


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
        path = self.path(section, version, condition)
        try:
            record = decoded(path.read_bytes(), path)
        except FileNotFoundError:
            return None
        expected = (section, version, plain_condition(condition))
        if (record.section, record.version, record.condition) != expected:
            raise DamagedRecord(path, "it belongs to another condition")
        return record

    def records(self, section: str) -> list[Record]:
        """Read all records of a section's newest version, in the order of their keys.

        Raises:
            DamagedRecord: If a file cannot be trusted.
        """
        paths = sorted((self.root / section).glob(_KEY_PATTERN))
        records = [decoded(path.read_bytes(), path) for path in paths]
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
