"""What became of the data when harm was done to sweeps, as the tests recorded it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from .settings import project_root

COLUMNS = {
    "fault": "fault",
    "where": "where",
    "finished": "finished before",
    "unchanged": "of these unchanged",
    "computed_by_rerun": "computed by the rerun",
    "table_equal": "same table in the end",
    "said": "what was said",
}
"""Columns of a fault's row, with their headings."""


def recorded(name: str) -> dict[str, Any]:
    """Read ``results/<name>.json``, which a test or a benchmark wrote.

    Args:
        name: ``"faults"``, ``"engines"`` or ``"mutants"``.

    Raises:
        FileNotFoundError: If it is not there; says what writes it.
    """
    path: Path = project_root() / "results" / f"{name}.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; `make {name}` writes it")
    return json.loads(path.read_text(encoding="utf-8"))


def faults(record: dict[str, Any]) -> pd.DataFrame:
    """Return one line per fault and engine, with the headings of :data:`COLUMNS`.

    Args:
        record: What :func:`recorded` read of ``"faults"``.
    """
    table = pd.DataFrame(record["rows"])[list(COLUMNS)]
    return table.rename(columns=COLUMNS)
