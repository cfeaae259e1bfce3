from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import fake_experiment
import nbformat
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from superpos import book, cli, measure_command
from superpos.cli import main
from superpos.ledger import load_ledger
from superpos.store import Store

CHAPTER = """
import sys, os
print(f"{sys.executable} {os.getcwd()} {os.environ.get('OMP_NUM_THREADS')} {seeds} {rates}")
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with two chapters and a scorecard, and the fake experiment as its section."""
    (tmp_path / "_config.yml").touch()
    profiles = tmp_path / "notebooks" / "profiles" / "quick"
    profiles.mkdir(parents=True)
    (profiles / "fake.yaml").write_text("seeds: 2\nrates: [0.5]\nl1: 1.0e-5\n")
    notebook(tmp_path, "fake", CHAPTER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SUPERPOS_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr(cli, "_sections", lambda: ["fake", "other"])
    monkeypatch.setitem(sys.modules, "superpos.experiments.fake", fake_experiment)
    return tmp_path


def notebook(project, name, code):
    parameters = nbformat.v4.new_code_cell(
        "profile = 'quick'\nseeds = 3\nrates = [0.1]\nl1 = 0.1", metadata={"tags": ["parameters"]}
    )
    content = nbformat.v4.new_notebook(cells=[parameters, nbformat.v4.new_code_cell(code)])
    content.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(content, project / "notebooks" / f"{name}.ipynb")


def printed(path):
    cells = nbformat.read(path, as_version=4).cells
    return "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))


def call(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_help_needs_no_heavy_import():
    code = (
        "import sys, superpos.cli;"
        "loaded = {'pandas', 'joblib', 'papermill', 'nbformat', 'numpy'} & set(sys.modules);"
        "sys.exit(str(loaded) if loaded else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_list_shows_title_notebook_and_profiles(project, monkeypatch):
    monkeypatch.setattr(cli, "_sections", lambda: ["fake"])
    result = call("list")
    assert result.exit_code == 0
    assert "fake" in result.output and "A tiny experiment" in result.output
    assert f"{os.path.join('notebooks', 'fake.ipynb')}; quick" in result.output


def test_every_section_of_the_package_offers_the_whole_interface():
    names = [name for name in cli._sections() if not name.startswith("_")]
    assert names
    for name in names:
        module = cli._experiment(name)
        assert name == module.SECTION
        assert isinstance(module.VERSION, int) and isinstance(module.TITLE, str)
        for kind in (module.Condition, module.Settings):
            assert dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen
        assert {"profile", "engine", "device"} <= {
            field.name for field in dataclasses.fields(module.Settings)
        }
        assert all(callable(f) for f in (module.conditions, module.run, module.estimates))


def test_run_executes_the_notebook_with_profile_and_own_parameters(project):
    result = call("run", "fake", "-p", "seeds", "7")
    assert result.exit_code == 0, result.output
    output = project / "book" / "executed" / "fake.ipynb"
    assert str(output) in result.output
    assert printed(output).split()[:2] == [sys.executable, str(project)]
    assert printed(output).split(maxsplit=3)[3].strip() == "7 [0.5]"
    assert list(output.parent.iterdir()) == [output]


def test_sweep_computes_the_records_alone_and_lists_what_failed(project, monkeypatch):
    result = call("sweep", "fake", "-p", "seeds", 4)
    assert result.exit_code == 0 and "fake: 4 records" in result.output
    assert len(Store(project / "results" / "quick").records("fake")) == 4
    broken = [fake_experiment.Condition(seed) for seed in (0, -1, 8)]
    monkeypatch.setattr(fake_experiment, "conditions", lambda settings: broken)
    result = call("sweep", "fake")
    assert result.exit_code == 1
    assert "1 condition failed" in result.output
    assert "Condition(seed=-1" in result.output and "ZeroDivisionError" in result.output
    assert len(Store(project / "results" / "quick").records("fake")) == 6
    assert not (project / "book").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "fke"], "unknown section 'fke'; allowed: fake, other; did you mean 'fake'?"),
        (["run", "fake", "-p", "seed", "7"], "unknown parameter 'seed'"),
        (["run", "fake", "-p", "seeds", "0"], "may not be 0"),
        (["run", "fake", "-p", "profile", "paper"], "choose the profile by --profile"),
        (["run", "fake", "--engine", "slurm"], "allowed: serial, processes, ray, dask"),
        (["run", "fake", "--workers", "2"], "engine 'serial' takes no 'workers'; processes, ray"),
        (["sweep", "fake", "--gpus", "-1"], "parameter 'gpus' may not be -1"),
        (
            ["sweep", "fake", "--engine", "dask", "--time-limit", "0"],
            "parameter 'time_limit' may not be 0",
        ),
        (["run", "fake", "--profile", "paper"], "profiles it has: quick"),
        (["run", "fake", "--profile", "huge"], "'quick', 'workstation', 'paper'"),
        (["book", "--workers", "0"], "workers"),
        (["sweep"], "Missing argument 'SECTION'"),
        (["swoop"], "No such command"),
    ],
)
def test_wrong_words_are_refused_before_anything_runs(project, monkeypatch, arguments, message):
    monkeypatch.setattr(book, "execute", lambda *_, **__: pytest.fail("it ran"))
    result = call(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_a_failing_notebook_is_shown_with_its_error_and_leaves_the_older_output(project):
    output = project / "book" / "executed" / "fake.ipynb"
    output.parent.mkdir(parents=True)
    output.write_text("older")
    notebook(project, "fake", "x = 1\nx / 0")
    result = call("run", "fake")
    assert result.exit_code == 1
    assert "notebook 'fake' failed" in result.output
    assert "ZeroDivisionError: division by zero" in result.output
    assert output.read_text() == "older"


def test_the_book_runs_the_scorecard_last_and_prints_where_it_is(project, monkeypatch, capsys):
    pages = []
    monkeypatch.setattr(book, "build_pages", lambda root, _: pages.append(root))
    wait = "import pathlib, time\npathlib.Path('done').write_text(f'{seeds}')"
    notebook(project, "fake", wait)
    notebook(project, "scorecard", "print(open('done').read())")
    assert book.build("quick", workers=2) == 0
    assert printed(project / "book" / "executed" / "scorecard.ipynb") == "2\n"
    assert pages == [project]
    shown = capsys.readouterr().out
    assert "fake" in shown and "scorecard" in shown and "claims reproduced" in shown
    assert book._last_seconds(project / "book" / "executed" / "fake.ipynb") < float("inf")


def test_a_failing_chapter_stops_scorecard_and_pages_but_not_the_other_chapters(
    project, monkeypatch
):
    monkeypatch.setattr(book, "build_pages", lambda *_: pytest.fail("it was built"))
    ran = []

    def execute(path, output, parameters, *, root, threads):
        ran.append((path.stem, parameters))
        if path.stem == "fake":
            raise book.NotebookFailed("notebook 'fake' failed: boom")

    monkeypatch.setattr(book, "execute", execute)
    for name in ("another", "scorecard"):
        notebook(project, name, "")
    result = call("book")
    assert result.exit_code == 1
    assert "boom" in result.output and "the book was not built" in result.output
    fake = {"seeds": 2, "rates": [0.5], "l1": 1e-5, "profile": "quick"}
    assert sorted(ran) == [("another", {}), ("fake", fake)]


def test_a_profile_that_a_chapter_lacks_stops_the_book_at_once(project, monkeypatch):
    monkeypatch.setattr(book, "execute", lambda *_, **__: pytest.fail("it ran"))
    result = call("book", "--profile", "paper")
    assert result.exit_code == 1
    assert "has no profile 'paper'" in result.output


def test_the_longest_chapter_starts_first(project, monkeypatch):
    order = []
    monkeypatch.setattr(book, "execute", lambda path, *_, **__: order.append(path.stem))
    monkeypatch.setattr(book, "_last_seconds", lambda path: {"b": 9.0}.get(path.stem, 1.0))
    for name in ("a", "b", "scorecard"):
        notebook(project, name, "")
    assert book.build("quick", workers=1, build=False) == 0
    assert order == ["b", "a", "fake", "scorecard"]


def test_a_folder_without_notebooks_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("book")
    assert result.exit_code == 1
    assert f"no notebooks in {tmp_path / 'notebooks'}" in result.output


def test_claims_prints_counts_or_json(project):
    assert "claims reproduced" in call("claims").output
    content = json.loads(call("claims", "--json").output)
    assert len(content["claims"]) == len(load_ledger())
    values = project / "results" / "quick" / "toy_models" / "values.json"
    values.parent.mkdir(parents=True)
    values.write_text("{")
    result = call("claims")
    assert result.exit_code == 1
    assert "values.json is damaged" in result.output


@pytest.fixture
def model(project, monkeypatch):
    """A module of the user's with a small network, weights for it and data."""
    (project / "mynet.py").write_text(
        "import torch\n"
        "def net():\n"
        "    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.ReLU())\n"
        "number = int\n"
    )
    np.save(project / "data.npy", np.random.default_rng(0).normal(size=(64, 6)))
    weights = {"0.weight": torch.ones(4, 6), "0.bias": torch.zeros(4)}
    save_file(weights, project / "net.safetensors")
    save_file({"0.weight": torch.ones(4, 6)}, project / "half.safetensors")
    monkeypatch.delitem(sys.modules, "mynet", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return project


def test_weights_and_data_are_read(model):
    network = measure_command._model("mynet:net", model / "net.safetensors")
    inputs = measure_command._inputs(model / "data.npy")
    assert torch.equal(network[0].weight, torch.ones(4, 6))
    assert inputs.shape == (64, 6) and inputs.dtype == torch.float32


def test_measure_prints_a_report(model):
    result = call("measure", "mynet:net", "data.npy", "--seeds", "2", "--site", "1", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)
    assert "1" in call("measure", "mynet:net", "data.npy", "--seeds", "2").output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mynet", "data.npy"], "must be 'module:callable'"),
        (["nonet:net", "data.npy"], "No module named 'nonet'"),
        (["mynet:nit", "data.npy"], "has no attribute 'nit'"),
        (["mynet:number", "data.npy"], "returned a int, no module"),
        (["mynet:net", "pickled.npy"], "one array of numbers"),
        (["mynet:net", "text.npy"], "one array of numbers"),
        (["mynet:net", "absent.npy"], "does not exist"),
        (["mynet:net", "data.npy", "--weights", "half.safetensors"], "0.bias"),
        (["mynet:net", "data.npy", "--weights", "data.npy"], "--weights"),
    ],
)
def test_a_wrong_model_or_wrong_data_is_refused(model, arguments, message):
    np.save(model / "pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    (model / "text.npy").write_text("text")
    result = call("measure", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_parameters_reach_the_notebook_unharmed(project):
    notebook(project, "fake", "import json\nprint(json.dumps([l1, rates, name]))")
    output = project / "out" / "fake.ipynb"
    parameters = {"l1": 1e-05, "rates": (1e-7, 2.0), "name": "a: [b] 'c' é\n%"}
    book.execute(project / "notebooks" / "fake.ipynb", output, parameters, root=project, threads=1)
    assert json.loads(printed(output)) == [1e-05, [1e-7, 2.0], parameters["name"]]
