"""Scenes for faults, and the record of what became of the data in each."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])

import faulty
from scene import SEEDS, Scene

from superpos.provenance import provenance
from superpos.store import Store
from superpos.sweep import sweep

ROWS: list[dict] = []


def pytest_addoption(parser):
    parser.addoption("--record-faults", metavar="FILE", help="write what became of the data")


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.faults)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """The table of a sweep that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    os.environ["FAULTS"] = str(folder)
    store = Store(folder / "results")
    sweep(faulty, [faulty.Condition(seed) for seed in SEEDS], store=store, progress=False)
    return store.frame(faulty.SECTION)


@pytest.fixture
def scene(tmp_path, undisturbed, monkeypatch, request):
    scene = Scene(tmp_path, undisturbed)
    monkeypatch.setenv("FAULTS", str(scene.control))
    yield scene
    scene.close()
    ROWS.append({**scene.facts, "test": request.node.name})


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = (yield).get_result()
    if call.when == "call":
        item.stash[PASSED] = outcome.passed


PASSED = pytest.StashKey[bool]()


def pytest_sessionfinish(session, exitstatus):
    file = session.config.getoption("--record-faults")
    if file and exitstatus == 0:
        content = {"rows": ROWS, "provenance": provenance()}
        Path(file).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
