"""What every committed notebook promises, checked without running it."""

import ast
import dataclasses
import importlib
import importlib.util
import io
import re
import tokenize
from pathlib import Path

import nbformat
import pytest

from superpos.engines import COMPUTING

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
MOST_LINES = 40
HOME = re.compile(r"(/home/|/root/|/Users/|[A-Za-z]:\\\\?Users)")

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def parameters_cell(path):
    (cell,) = [c for c in code_cells(path) if "parameters" in c.metadata.get("tags", [])]
    return cell


def assigned_names(source):
    """Names that a parameters cell sets, with their lines; it holds nothing but assignments."""
    names = {}
    for statement in ast.parse(source).body:
        assert isinstance(statement, (ast.Assign, ast.AnnAssign)), ast.unparse(statement)
        targets = getattr(statement, "targets", None) or [statement.target]
        (target,) = targets
        names[target.id] = (statement.lineno, statement.end_lineno)
    return names


def commented_lines(source):
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0] for token in tokens if token.type == tokenize.COMMENT}


def outputs_text(cell):
    """All text of a cell's outputs, images left out."""
    parts = []
    for output in cell.outputs:
        parts.append(output.get("text", ""))
        parts += [
            text if isinstance(text, str) else "".join(text)
            for kind, text in output.get("data", {}).items()
            if kind.startswith("text/")
        ]
    return re.sub(r"base64,[A-Za-z0-9+/=]+", "", "\n".join(parts))


def test_it_has_one_parameters_cell_whose_every_parameter_has_a_comment(path):
    source = parameters_cell(path).source
    comments = commented_lines(source)
    bare = [
        name
        for name, (first, last) in assigned_names(source).items()
        if not comments.intersection(range(first, last + 1))
    ]
    assert not bare, f"no comment on the line of {', '.join(bare)}"


def test_its_parameters_are_the_settings_of_its_experiment(path):
    name = f"superpos.experiments.{path.stem}"
    if importlib.util.find_spec(name) is None:
        pytest.skip("a notebook without an experiment")
    fields = {field.name for field in dataclasses.fields(importlib.import_module(name).Settings)}
    of_engines = set(COMPUTING) - {"engine", "device"}  # taken as well, but for few readers
    assert set(assigned_names(parameters_cell(path).source)) == fields - of_engines


def test_it_was_executed_from_top_to_bottom(path):
    counts = [cell.execution_count for cell in code_cells(path) if cell.source.strip()]
    assert counts == list(range(1, len(counts) + 1))


def test_it_has_checked_cells_with_outputs_to_check(path):
    checked = [cell for cell in code_cells(path) if "NBVAL_CHECK_OUTPUT" in cell.source]
    assert checked
    assert all(outputs_text(cell).strip() for cell in checked)


def test_its_cells_fit_on_a_screen(path):
    longest = max(len(cell.source.splitlines()) for cell in code_cells(path))
    assert longest <= MOST_LINES


def test_its_outputs_hold_no_traceback_and_no_path_of_somebodys_home(path):
    for cell in code_cells(path):
        assert all(output.output_type != "error" for output in cell.outputs), cell.source
        text = outputs_text(cell)
        assert "Traceback (most recent call last)" not in text, cell.source
        assert not HOME.search(text), cell.source


def test_its_images_have_alternative_text(path):
    for cell in code_cells(path):
        for output in cell.outputs:
            assert "image/png" not in output.get("data", {}), "show it with superpos.plots.show"
        for image in re.findall(r"<img\b[^>]*>", "\n".join(map(html_of, cell.outputs))):
            assert re.search(r'\balt="[^"]{10,}"', image), image[:80]


def html_of(output):
    return "".join(output.get("data", {}).get("text/html", ""))
