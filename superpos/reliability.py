"""How the library stands up to faults, as tests and benchmarks recorded it."""

from __future__ import annotations

import json
import textwrap
from typing import Any

import pandas as pd

from .settings import project_root

_ENGINES = {
    "engine": "engine",
    "start_seconds": "first condition, s",
    "ms_per_condition": "per condition, ms",
    "rerun_seconds": "rerun, s",
    "read_seconds": "reading back, s",
}


def recorded(name: str) -> dict[str, Any]:
    """Read ``results/<name>.json``, which ``make <name>`` writes.

    Args:
        name: ``"faults"``, ``"engines"`` or ``"mutants"``.

    Raises:
        FileNotFoundError: If it is not there.
    """
    path = project_root() / "results" / f"{name}.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; `make {name}` writes it")
    return json.loads(path.read_text(encoding="utf-8"))


def faults(record: dict[str, Any]) -> pd.DataFrame:
    """One line per fault and place: what became of the data.

    Args:
        record: What :func:`recorded` read of ``"faults"``.
    """
    rows = [
        {
            "fault": row["fault"],
            "where": row["where"],
            "kept": f"{row['unchanged']} of {row['finished']}",
            "by the rerun": row["computed_by_rerun"],
            "same table": "yes" if row["table_equal"] else "NO",
        }
        for row in record["rows"]
    ]
    return pd.DataFrame(rows)


def messages(record: dict[str, Any]) -> str:
    """Per fault that is reported, the line a user sees first.

    Args:
        record: What :func:`recorded` read of ``"faults"``.
    """
    rows = [row for row in record["rows"] if row["said"]]
    first = {row["fault"]: row["said"] for row in reversed(rows)}
    indent = {"initial_indent": "    ", "subsequent_indent": "    "}
    return "\n".join(
        f"{fault}\n{textwrap.fill(said, 74, **indent)}" for fault, said in first.items()
    )


def engines(record: dict[str, Any]) -> pd.DataFrame:
    """One line per engine: what a sweep costs beside its conditions.

    Args:
        record: What :func:`recorded` read of ``"engines"``.
    """
    return pd.DataFrame(record["rows"])[list(_ENGINES)].rename(columns=_ENGINES)


def mutants(record: dict[str, Any]) -> pd.DataFrame:
    """One line per module: deliberate faults in its code, and how many no test noticed.

    Args:
        record: What :func:`recorded` read of ``"mutants"``.
    """
    rows = [
        {
            "module": name,
            "faults": module["mutants"],
            "noticed": module["killed"] + module["timed_out"],
            "unnoticed": module["survived"],
            "share unnoticed": f"{100 * module['share_survived']:.1f}%",
        }
        for name, module in record["modules"].items()
    ]
    return pd.DataFrame(rows)


def made(record: dict[str, Any]) -> str:
    """Say when and with what code a record was made, as the end of a sentence.

    Args:
        record: What :func:`recorded` read.
    """
    about = record.get("provenance", record)
    device = f", {about['device']}" if "device" in about else ""
    return f"{about['date'][:10]}, commit {(about['commit'] or 'unknown')[:8]}{device}."
