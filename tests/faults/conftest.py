"""Scenes for faults, and the record of what became of the data in each."""

from __future__ import annotations

import json
import os
from pathlib import Path

import faulty
import pytest
from scene import SEEDS, Scene

from superpos.provenance import provenance
from superpos.store import Store
from superpos.sweep import sweep

HERE = Path(__file__).parent
ROWS: list[dict] = []
os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])


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
    if "table_equal" in scene.facts:
        ROWS.append({**scene.facts, "test": request.node.name})


def pytest_sessionfinish(session, exitstatus):
    file = session.config.getoption("--record-faults", default=None)
    if file and exitstatus == 0:
        content = {"rows": ROWS, "provenance": provenance()}
        Path(file).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
