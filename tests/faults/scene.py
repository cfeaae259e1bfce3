"""Where a fault happens: a store, a sweep in its own process, and what became of the data."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import faulty
import psutil
import pytest

from superpos.store import Store
from superpos.sweep import sweep

HERE = Path(__file__).parent
SEEDS = tuple(range(12))
PACKAGES = {"ray": "ray", "dask": "distributed"}
PATIENCE = 180  # seconds until a test gives up; how long anything takes decides nothing


class Scene:
    """One fault, from an undisturbed table to the same table again.

    Attributes:
        store: The store that is disturbed.
        facts: What is reported of it.
    """

    def __init__(self, folder: Path, table, store: Store | None = None) -> None:
        self.control = folder / "control"
        self.control.mkdir()
        self.log = self.control / "log"
        self.log.touch()
        self.store = store or Store(folder / "results")
        self.table = table
        self.facts: dict = {}
        self.drivers: list[subprocess.Popen] = []
        self.words: dict[subprocess.Popen, str] = {}

    def harm(self, kind: str, *seeds: int) -> None:
        for seed in seeds:
            (self.control / f"harm.{seed}").write_text(kind)

    def heal(self) -> None:
        for file in self.control.glob("harm.*"):
            file.unlink()

    def start(self, seeds=SEEDS, **options) -> subprocess.Popen:
        if options.get("engine") in PACKAGES:
            pytest.importorskip(PACKAGES[options["engine"]])
        command = [sys.executable, str(HERE / "driver.py"), str(self.store.root)]
        command += [json.dumps(options), json.dumps(list(seeds))]
        driver = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.drivers.append(driver)
        return driver

    def said(self, driver: subprocess.Popen) -> str:
        """Wait until a driver ends; return what it wrote to stderr."""
        if driver not in self.words:
            _, self.words[driver] = driver.communicate(timeout=PATIENCE)
        return self.words[driver]

    def begun(self) -> list[tuple[int, int]]:
        """Every condition begun, in order: its seed and the process."""
        return [tuple(map(int, line.split())) for line in self.log.read_text().splitlines()]

    def processes(self, *seeds: int) -> list[int]:
        """Wait until conditions are under way; return the processes at them."""
        wait_for(lambda: set(seeds) <= {seed for seed, _ in self.begun()})
        return [dict(self.begun())[seed] for seed in seeds]

    def files(self) -> dict[str, bytes]:
        folder = self.store.root / faulty.SECTION
        return {path.name: path.read_bytes() for path in folder.glob("[0-9a-f]*.json")}

    def strike(self, fault: str, where: str, blow) -> None:
        """Do the harm, and remember what was finished before."""
        self.before = self.files()
        self.facts = {"fault": fault, "where": where, "finished": len(self.before)}
        blow()

    def recover(self, driver: subprocess.Popen | None = None, said: str = "") -> None:
        """Let the driver end if it lives, run the sweep again, and compare."""
        self.heal()
        if driver is not None:
            errors = self.said(driver)
            self.facts["exit"] = driver.returncode
            said = said or next((line for line in errors.splitlines() if "Error" in line), "")
        began = len(self.begun())
        records = sweep(
            faulty, [faulty.Condition(seed) for seed in SEEDS], store=self.store, progress=False
        )
        after = self.files()
        self.facts |= {
            "said": said,
            "unchanged": sum(after.get(name) == data for name, data in self.before.items()),
            "computed_by_rerun": len(self.begun()) - began,
            "table_equal": self.store.frame(faulty.SECTION).equals(self.table),
        }
        assert [record.condition["seed"] for record in records] == list(SEEDS)
        assert self.facts["table_equal"]
        left = {path.name for path in (self.store.root / faulty.SECTION).iterdir()} - set(after)
        assert not left, f"left behind: {left}"

    def close(self) -> None:
        self.heal()
        for driver in self.drivers:
            driver.kill()
            driver.wait()
            driver.stderr.close()


def wait_for(happened) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def kill(*processes: int) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):  # it ended with another of them
            os.kill(process, signal.SIGKILL)


def gone(*processes: int) -> bool:
    """Whether processes have ended; one that nobody has asked for its exit code has."""

    def alive(process: int) -> bool:
        try:
            return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return not any(map(alive, processes))
