"""Make the book: execute every notebook, then build the pages from what they gave."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import joblib
import nbformat
import yaml
from tqdm.auto import tqdm

from .ledger import ClaimError
from .pages import BuildFailed, build_pages, tail
from .scorecard import scorecard
from .settings import load_profile, profiles_of, project_root
from .store import result_roots

SCORECARD = "scorecard"
"""The notebook that reads the values of all others, and so runs last."""

_COLORS = re.compile(r"\x1b\[[0-9;]*m")


class NotebookFailed(RuntimeError):
    """A notebook that stopped with an error; says which and why."""


def build(profile: str = "quick", *, workers: int = 2, build: bool = True) -> int:
    """Execute all notebooks and build the book's pages.

    Args:
        profile: Parameters of every notebook, one of :data:`superpos.settings.PROFILES`.
        workers: Number of notebooks executed at a time; the cores are shared out among them.
        build: Whether to build the pages after that.

    Returns:
        Exit status: 0, or 1 if a notebook or the build failed.
    """
    root = project_root()
    notebooks = sorted((root / "notebooks").glob("*.ipynb"))
    if not notebooks:
        print(f"no notebooks in {root / 'notebooks'}; run this in the project's folder")
        return 1
    seconds, failures = _execute_all(notebooks, profile, root, workers)
    for failure in failures:
        print(f"\n{failure}")
    if failures:
        print(f"\n{len(failures)} of {len(notebooks)} notebooks failed; the book was not built.")
        return 1
    if build:
        try:
            print(f"book: {build_pages(root, _environment(None))}")
        except BuildFailed as failure:
            print(failure)
            return 1
    for name, duration in seconds.items():
        print(f"{name:24s} {duration:7.1f} s")
    return _print_scorecard()


def execute(
    notebook: Path,
    output: Path,
    parameters: Mapping[str, Any],
    *,
    root: Path,
    threads: int | None = None,
    progress: bool = False,
) -> None:
    """Execute one notebook with papermill in a process of its own, in the project's folder.

    The output appears only when the whole notebook has run; what a failed one got to is left
    beside it as ``<name>.partial.ipynb``.

    Args:
        notebook: The notebook.
        output: Where the executed notebook goes; the folder is made.
        parameters: Values for the notebook's parameters cell.
        root: Folder in which the notebook runs.
        threads: Cores it may use, by default all.
        progress: Whether to show papermill's own progress bar.

    Raises:
        NotebookFailed: If the notebook stops with an error; shows the error.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f"{output.stem}.partial.ipynb")
    command = [sys.executable, "-m", "papermill", str(notebook), str(partial)]
    command += ["--kernel", "python3", "--language", "python", "--cwd", str(root)]
    command += ["--parameters_yaml", yaml.safe_dump(_lists(dict(parameters)))]
    command += ["--progress-bar" if progress else "--no-progress-bar"]
    partial.unlink(missing_ok=True)
    done = subprocess.run(
        command,
        cwd=root,
        env=_environment(threads),
        text=True,
        encoding="utf-8",
        errors="replace",
        stdout=subprocess.PIPE,
        stderr=None if progress else subprocess.STDOUT,
    )
    if done.returncode != 0:
        reason = _cell_error(partial) or tail(done.stdout)
        raise NotebookFailed(f"notebook '{notebook.stem}' failed:\n{reason}")
    os.replace(partial, output)


def _execute_all(
    notebooks: list[Path], profile: str, root: Path, workers: int
) -> tuple[dict[str, float], list[NotebookFailed]]:
    """Execute the notebooks, the scorecard last; return seconds by name, and failures."""
    folder = root / "book" / "executed"
    threads = max(1, joblib.cpu_count() // workers)
    seconds: dict[str, float] = {}
    failures: list[NotebookFailed] = []
    chapters = [path for path in notebooks if path.stem != SCORECARD]
    last = [path for path in notebooks if path.stem == SCORECARD]
    parameters = {path: _parameters(path.stem, profile) for path in notebooks}
    waiting = deque(sorted(chapters, key=lambda path: -_last_seconds(folder / path.name)))

    def run(path: Path) -> float:
        started = time.perf_counter()
        execute(path, folder / path.name, parameters[path], root=root, threads=threads)
        return time.perf_counter() - started

    with ThreadPoolExecutor(workers) as pool, tqdm(total=len(notebooks), unit="notebook") as bar:
        running: dict[Future[float], str] = {}
        while waiting or running or (last and not failures):
            while waiting and len(running) < workers:
                path = waiting.popleft()
                running[pool.submit(run, path)] = path.stem
            if not running:  # all chapters are done, and well
                path = last.pop()
                running[pool.submit(run, path)] = path.stem
            bar.set_description(", ".join(running.values()))
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name = running.pop(future)
                try:
                    seconds[name] = future.result()
                except NotebookFailed as failure:
                    failures.append(failure)
                bar.update()
    return seconds, failures


def _parameters(section: str, profile: str) -> dict[str, Any]:
    """Return a notebook's parameters; one without profiles, like the scorecard, has none."""
    if not profiles_of(section):
        return {}
    return {**load_profile(section, profile), "profile": profile}


def _environment(threads: int | None) -> dict[str, str]:
    """Return an environment in which this interpreter's programs come first."""
    environment = dict(os.environ)
    programs = str(Path(sys.executable).parent)
    environment["PATH"] = os.pathsep.join([programs, environment.get("PATH", "")])
    if threads is not None:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "LOKY_MAX_CPU_COUNT")
        environment.update(dict.fromkeys(names, str(threads)))
    return environment


def _print_scorecard() -> int:
    try:
        lines = scorecard(result_roots()).summary_lines()
    except ClaimError as error:
        print(error)
        return 1
    print("\n".join(lines))
    return 0


def _last_seconds(executed: Path) -> float:
    """Return how long a notebook took the last time, or infinity if that is unknown."""
    try:
        metadata = nbformat.read(executed, as_version=4).metadata
        return float(metadata["papermill"]["duration"])
    except (OSError, ValueError, KeyError, TypeError):
        return float("inf")


def _cell_error(notebook: Path) -> str | None:
    """Return the traceback of a notebook's failing cell, without colors."""
    try:
        cells = nbformat.read(notebook, as_version=4).cells
    except (OSError, ValueError):
        return None
    for number, cell in enumerate(cells, 1):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                trace = _COLORS.sub("", "\n".join(output.traceback))
                return f"cell {number}: {output.ename}: {output.evalue}\n{tail(trace)}"
    return None


def _lists(value: Any) -> Any:
    """Turn tuples into lists, since YAML has no tuples."""
    if isinstance(value, dict):
        return {name: _lists(item) for name, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, (list, tuple)) else value
