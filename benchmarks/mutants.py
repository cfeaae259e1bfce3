"""How many small faults, put into the core on purpose, escape the tests.

mutmut changes the modules that pyproject.toml names, one place at a time, and runs the tests named
there against each change. The record counts what they noticed and lists what they did not. Run it
from the project's root with `make mutants`, which fetches mutmut. It ends with an error if more
than a tenth of a module's mutants escape.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
import shutil
import subprocess
import time
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path

import click

BAR = 0.1
CAUGHT = {"killed", "timeout"}


@click.command(help=__doc__)
@click.option("--processes", default=1, show_default=True, help="Mutants tested at a time.")
@click.option("--json", "path", default="results/mutants.json", show_default=True, type=Path)
def main(processes: int, path: Path) -> None:
    """Test every mutant afresh, and write what mutmut says of them."""
    shutil.rmtree("mutants", ignore_errors=True)  # mutmut would keep what older tests found
    begun = time.perf_counter()
    subprocess.run(["mutmut", "run", "--max-children", str(processes)], check=True)
    seconds = time.perf_counter() - begun
    statuses = dict(re.findall(r"^ *(superpos\S+): (.+)$", output("results", "--all", "1"), re.M))
    modules = {}
    for module in sorted({name.rsplit(".", 1)[0] for name in statuses}):
        found = {n: status for n, status in statuses.items() if n.startswith(f"{module}.")}
        survivors = sorted(name for name, status in found.items() if status not in CAUGHT)
        counts = Counter(found.values())
        modules[module] = {
            "mutants": len(found),
            "killed": counts["killed"],
            "timed_out": counts["timeout"],
            "survived": len(survivors),
            "share_survived": round(len(survivors) / len(found), 4),
            "survivors": [{"name": name, "change": change(name)} for name in survivors],
        }
        click.echo(f"{module}: {len(survivors)} of {len(found)} mutants survived")
    record = {
        "modules": modules,
        "tool": f"mutmut {importlib.metadata.version('mutmut')}",
        "seconds": round(seconds),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
    }
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    worst = max(modules, key=lambda module: modules[module]["share_survived"])
    if modules[worst]["share_survived"] > BAR:
        raise SystemExit(f"more than {BAR:.0%} of the mutants of {worst} survived; see {path}.")


def output(*arguments: str) -> str:
    return subprocess.run(["mutmut", *arguments], check=True, capture_output=True, text=True).stdout


def change(name: str) -> list[str]:
    """The lines that differ."""
    return re.findall(r"^[-+](?![-+]).*$", output("show", name), re.M)


def commit() -> str:
    """The commit that was tested, with -dirty if code or tests have changed since."""
    found = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()
    paths = "superpos", "tests", "pyproject.toml"
    changed = subprocess.check_output(["git", "status", "--porcelain", "--", *paths], text=True)
    return found + ("-dirty" if changed else "")


if __name__ == "__main__":
    main()
