"""The two ways to the environment, pip's and conda's, ask for the same things."""

from pathlib import Path

import yaml
from packaging.requirements import Requirement

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings tomli
    import tomli as tomllib

ROOT = Path(__file__).parents[1]


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def conda():
    return yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


def pip_lines():
    (lines,) = [entry["pip"] for entry in conda()["dependencies"] if isinstance(entry, dict)]
    return lines


def parsed(lines):
    requirements = [Requirement(line) for line in lines]
    return {(r.name.lower(), frozenset(r.extras), str(r.specifier)) for r in requirements}


def test_environment_yml_asks_for_what_pyproject_asks_for():
    extras = project()["optional-dependencies"]
    wanted = [*project()["dependencies"], *extras["book"], *extras["test"]]
    assert parsed(line for line in pip_lines() if line != "-e .") == parsed(wanted)


def test_environment_yml_lists_nothing_twice():
    names = [entry for entry in conda()["dependencies"] if isinstance(entry, str)] + pip_lines()
    assert len(names) == len(set(names))


def test_environment_yml_installs_the_project_itself():
    assert "-e ." in pip_lines()


def test_both_ask_for_the_same_python():
    assert f"python{project()['requires-python']}" in conda()["dependencies"]
    assert "pip" in conda()["dependencies"]


def test_the_stack_the_project_stands_on_is_there():
    names = {name for name, _, _ in parsed(project()["dependencies"])}
    assert {"torch", "torchvision", "numpy", "scikit-learn", "nnsight", "safetensors"} <= names
    extras = project()["optional-dependencies"]
    assert {"jupyter-book", "papermill"} <= {name for name, _, _ in parsed(extras["book"])}
    assert {"pytest", "nbval"} <= {name for name, _, _ in parsed(extras["test"])}
