"""What a sweep costs beside its conditions, by engine: sweeps of conditions that take no time."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path

import click
import joblib
import trivial

from superpos.provenance import provenance
from superpos.settings import ENGINES
from superpos.store import Store
from superpos.sweep import sweep


def seconds(work) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measured(engine: str, count: int) -> dict[str, float | str | int]:
    conditions = [trivial.Condition(seed) for seed in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "results")

        def go(some) -> float:
            options = {"store": store, "engine": engine, "progress": False}
            return seconds(lambda: sweep(trivial, some, **options))

        start = go(conditions[:1])
        total = go(conditions)
        again = go(conditions)
        read = seconds(lambda: store.records(trivial.SECTION))
    return {
        "engine": engine,
        "conditions": count,
        "start_seconds": round(start, 2),
        "ms_per_condition": round(1000 * total / count, 3),
        "rerun_seconds": round(again, 2),
        "read_seconds": round(read, 2),
    }


@click.command()
@click.option("--engine", "engines", multiple=True, default=ENGINES, type=click.Choice(ENGINES))
@click.option("--count", default=10_000, show_default=True, help="Conditions a sweep.")
@click.option("--json", "output", type=click.Path(path_type=Path), help="Where results go.")
def main(engines: tuple[str, ...], count: int, output: Path | None) -> None:
    """Time sweeps of conditions that take no time."""
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
    rows = []
    for engine in engines:
        rows.append(measured(engine, count))
        click.echo(json.dumps(rows[-1]))
    if output is not None:
        content = {"rows": rows, "cores": joblib.cpu_count(), "provenance": provenance()}
        output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
