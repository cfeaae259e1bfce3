"""Recipes for clusters, and the records of faults, engines and mutants."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from superpos import chapter, reliability
from superpos.cli import main

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "book" / "recipes").iterdir())


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "_config.yml").touch()
    (tmp_path / "results").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_missing_record_is_named_with_what_writes_it(project):
    with pytest.raises(FileNotFoundError, match=r"faults.json is missing; `make faults` writes it"):
        reliability.recorded("faults")
    (project / "results" / "faults.json").write_text('{"rows": []}')
    assert reliability.recorded("faults") == {"rows": []}


def test_every_record_has_a_target_that_writes_it():
    targets = (ROOT / "Makefile").read_text()
    for name in ("faults", "engines", "mutants"):
        assert re.search(rf"^{name}: ", targets, re.M)
        assert reliability.made(reliability.recorded(name))


def test_faults_are_told_by_line_and_messages_once_each():
    row = {
        "fault": "a worker is killed", "where": "ray", "finished": 5, "unchanged": 4,
        "computed_by_rerun": 1, "table_equal": False, "said": "", "test": "t",
    }  # fmt: skip
    record = {"rows": [row, {**row, "fault": "full"}, {**row, "fault": "full", "said": "no room"}]}
    record["rows"].append({**row, "fault": "full", "where": "dask", "said": "still no room"})
    table = reliability.faults(record)
    assert table["fault"].tolist() == ["a worker is killed", "full", "full", "full"]
    assert set(table["kept"]) == {"4 of 5"} and set(table["same table"]) == {"NO"}
    assert reliability.messages(record) == "full\n    no room"


def test_mutants_are_counted_by_module():
    module = {"mutants": 20, "killed": 15, "timed_out": 2, "survived": 3, "share_survived": 0.15}
    table = reliability.mutants({"modules": {"superpos.entropy": module}})
    assert table.to_numpy().tolist() == [["superpos.entropy", 20, 17, 3, "15.0%"]]


def test_the_committed_record_holds_every_fault_that_is_tested():
    rows = reliability.recorded("faults")["rows"]
    tests = "".join(path.read_text() for path in (ROOT / "tests" / "faults").glob("test_*.py"))
    named = {row["test"].split("[")[0] for row in rows}
    assert named == set(re.findall(r"^def (test_\w+)\(", tests, re.M))
    assert all(row["table_equal"] for row in rows)


def swept(path):
    """The words after `superpos sweep` in a recipe."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".yaml":
        subprocess.run(["bash", "-n", str(path)], check=True)
        return re.search(r"superpos sweep ((?:[^\n\\]|\\\n)*)", text)[1].replace("\\\n", "").split()
    job = yaml.safe_load(text)["spec"]
    if "entrypoint" in job:
        words = job["entrypoint"].split()
    else:
        (container,) = job["template"]["spec"]["containers"]
        words = container["command"] + container["args"]
    assert words[:2] == ["superpos", "sweep"]
    return words[2:]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_recipe_is_well_formed_and_its_sweep_is_understood(path, monkeypatch):
    given = []
    monkeypatch.setattr(chapter, "computed", lambda _, settings: given.append(settings) or [])
    words = ["toy_models" if word == '"$@"' else word for word in swept(path)]
    result = CliRunner().invoke(main, ["sweep", *words])
    assert result.exit_code == 0, result.output
    assert given[0].engine in ("serial", "processes", "ray", "dask")
