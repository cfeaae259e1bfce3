"""What a user types: a result, or one sentence and an exit code, never a traceback."""

from __future__ import annotations

import dataclasses
import math
import sys

import numpy as np
import pytest
import torch
from bad_input import refusal
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from superpos import book, cli, hub, measure_command, measurement
from superpos.cli import main
from superpos.data import DataNotFound
from superpos.settings import SettingsError, from_strings, from_values, load_profile

NETWORKS = """
import torch
from torch import nn
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU())
def words():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(5, 4), nn.ReLU())
def argument(x): return net()
def fails(): raise ValueError("my own")
def inside(): return len(3)
def leaves(): raise SystemExit(3)
def nothing(): return None
def broken(): return nn.Sequential(nn.ReLU(), Broken())
class Broken(nn.Module):
    def forward(self, x): return {}["key"]
number = 3
one = net()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Modules of a user, arrays of many kinds and weights."""
    path = tmp_path_factory.mktemp("typed")
    (path / "typed_nets.py").write_text(NETWORKS)
    (path / "typed_syntax.py").write_text("def x(:\n")
    (path / "typed_raises.py").write_text("1 / 0\n")
    (path / "typed_leaves.py").write_text("raise SystemExit(5)\n")
    x = np.random.default_rng(0).normal(size=(32, 6)).astype("f4")
    arrays = {
        "f4": x, "f8": x.astype("f8"), "swapped": x.astype(">f4"), "long": x.astype(np.longdouble),
        "fortran": np.asfortranarray(x), "f2": x.astype("f2"), "i8": x.astype("i8"), "on": x > 0,
        "complex": x.astype("c8"), "words": np.array([["a"]]), "point": x[0, 0], "row": x[0],
        "empty": x[:0], "narrow": x[:, :5], "nan": x * np.nan, "huge": x * 1e30, "one": x[:1],
        "far": np.full((8, 4), 9), "date": x.astype("M8[D]"),
    }  # fmt: skip
    for name, array in arrays.items():
        np.save(path / f"{name}.npy", array)
    np.savez(path / "zipped.npz", x=x)
    content = (path / "f4.npy").read_bytes()
    damaged = {
        "cut.npy": content[:-9], "header.npy": content[:20], "nothing.npy": b"",
        "text.npy": b"1,2\n",
        "garbage.npy": content[:10] + b"{" * 20 + content[30:], "w.safetensors": content,
        "gone.npy": content.replace(b"(32, 6), } ", b"(10**9, 6)}"),
    }  # fmt: skip
    for name, held in damaged.items():
        (path / name).write_bytes(held)
    weights = {"0.weight": torch.ones(4, 6), "0.bias": torch.zeros(4)}
    save_file(weights, path / "ok.safetensors")
    save_file({**weights, "x": torch.ones(1)}, path / "more.safetensors")
    save_file({**weights, "0.weight": torch.ones(4, 5)}, path / "shape.safetensors")
    save_file({**weights, "0.weight": torch.ones(4, 6) * 1j}, path / "complex.safetensors")
    (path / "cut.safetensors").write_bytes((path / "ok.safetensors").read_bytes()[:-5])
    return path


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return folder


def call(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(*arguments):
    """The sentence with which a command line is refused."""
    result = call(*arguments)
    assert type(result.exception) is SystemExit and result.exit_code in (1, 2), result.exception
    assert "Traceback" not in result.output
    message = " ".join(result.output.split("Error: ", 1)[-1].split())
    assert message
    return message


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("", "must be 'module:callable'"),
        ("typed_nets", "must be 'module:callable'"),
        ("typed_nets:", "must be 'module:callable'"),
        (":net", "must be 'module:callable'"),
        ("typed_nets:nit", "has no attribute 'nit'"),
        ("typed_nets:net()", "has no attribute 'net()'"),
        ("typed_nets.py:net", "'typed_nets' is not a package"),
        ("absent:net", "No module named 'absent'"),
        ("../typed_nets:net", "importing '../typed_nets' raised"),
        (".:net", "importing '.' raised TypeError"),
        ("typed_syntax:net", "raised SyntaxError: invalid syntax"),
        ("typed_raises:net", "raised ZeroDivisionError: division by zero"),
        ("typed_leaves:net", "raised SystemExit: 5"),
        ("typed_nets:argument", "must be callable without arguments: missing a required argument"),
        ("typed_nets:number", "must be callable without arguments: 3 is not a callable"),
        ("typed_nets:fails", "raised ValueError: my own"),
        ("typed_nets:inside", "raised TypeError: object of type 'int' has no len()"),
        ("typed_nets:leaves", "raised SystemExit: 3"),
        ("typed_nets:nothing", "returned a NoneType, no module"),
        ("typed_nets:broken", "(KeyError: 'key'); give inputs of the shape and kind that it takes"),
        ("typed_nets:words", "batch of inputs (32, 6) of float32"),
    ],
)
def test_a_model_that_is_none_is_refused(here, model, said):
    assert said in refused("measure", model, "f4.npy")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("complex.npy", "values hold complex64"),
        ("words.npy", "values hold <U1"),
        ("date.npy", "values hold datetime64[D]"),
        ("zipped.npz", "one array of numbers"),
        ("cut.npy", "one array of numbers"),
        ("header.npy", "one array of numbers"),
        ("nothing.npy", "one array of numbers"),
        ("text.npy", "one array of numbers"),
        ("garbage.npy", "one array of numbers"),
        ("gone.npy", "one array of numbers"),
        ("ok.safetensors", "one array of numbers"),
        ("absent.npy", "does not exist"),
        (".", "is a directory"),
        ("point.npy", "a batch of inputs has shape ()"),
        ("row.npy", "site '1' gives shape (4,); it has no neurons axis"),
        ("empty.npy", "has shape (0, 6); give tensors [rows, ...] with at least one row"),
        ("narrow.npy", "batch of inputs (32, 5) of float32"),
        ("i8.npy", "batch of inputs (32, 6) of int64"),
        ("on.npy", "batch of inputs (32, 6) of bool"),
        ("nan.npy", "at site '1': activations contain nan or infinity"),
        ("huge.npy", "at site '1': activations reach 1e+30 in size"),
    ],
)
def test_data_that_are_none_are_refused(here, data, said):
    assert said in refused("measure", "typed_nets:net", data)


@pytest.mark.parametrize("data", ["f8", "f2", "swapped", "long", "fortran"])
def test_arrays_of_equal_numbers_are_read_alike(here, data):
    expected, found = (
        measure_command._inputs(here / "f4.npy"),
        measure_command._inputs(here / f"{data}.npy"),
    )
    tolerance = 2e-3 if data == "f2" else 0
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--weights", "more.safetensors"], 'Unexpected key(s) in state_dict: "x"'),
        (["--weights", "shape.safetensors"], "size mismatch for 0.weight"),
        (["--weights", "complex.safetensors"], "0.weight holds complex numbers"),
        (["--weights", "cut.safetensors"], "cut.safetensors does not fit 'typed_nets:net'"),
        (["--weights", "w.safetensors"], "w.safetensors does not fit 'typed_nets:net'"),
        (["--weights", "absent"], "does not exist"),
        (["--weights", "."], "is a directory"),
        (["--seeds", "0"], "0 is not in the range 1<=x<=10000"),
        (["--seeds", "-1"], "-1 is not in the range"),
        (["--seeds", "9" * 30], "is not in the range"),
        (["--seeds", "1.5"], "not a valid integer"),
        (["--seeds", "nan"], "not a valid integer"),
        (["--l1", "-1"], "-1.0 is not in the range"),
        (["--l1", "nan"], "l1 is nan; give a number from 0 to 1e+15"),
        (["--l1", "inf"], "l1 is inf; give a number from 0 to 1e+15"),
        (["--l1", "1e30"], "l1 is 1e+30; give a number from 0 to 1e+15"),
        (["--l1", "0,1"], "not a valid float"),
        (["--expansion", "0"], "0.0 is not in the range"),
        (["--expansion", "nan"], "expansion is nan; give a positive number"),
        (["--expansion", "1e30"], "at site '1': expansion is 1e+30, which for 4 neurons makes"),
        (["--device", "cuda:99"], "device is 'cuda:99', which is not here; give one of 'auto'"),
        (["--device", "tpu"], "device is 'tpu', which is not here"),
        (["--device", "meta"], "device is 'meta', which is not here"),
        (["--device", ""], "device is '', which is not here"),
        (["--site", "nope"], "has no site 'nope'. Activation sites: 1. All sites: 0, 1."),
        (["--site", ""], "sites is empty"),
        (["--site", "0,1"], "has no site '0,1'"),
    ],
)
def test_options_of_measure_that_are_none_are_refused(here, options, said):
    assert said in refused("measure", "typed_nets:net", "f4.npy", *options)


def test_word_ids_beyond_the_table_are_refused(here):
    assert "index out of range" in refused("measure", "typed_nets:words", "far.npy")


@settings(max_examples=60)
@given(st.data())
def test_a_damaged_array_is_read_or_refused_without_a_traceback(folder, data):
    content = (folder / "f4.npy").read_bytes()
    place = data.draw(st.integers(0, 140))
    path = folder / "drawn.npy"
    path.write_bytes(content[:place] + data.draw(st.binary(max_size=2)) + content[place + 1 :])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        patch.setattr(measurement, "measure", lambda *_, **__: "a report")
        result = call("measure", "typed_nets:net", "drawn.npy")
    assert result.output == "a report\n" or "one array of numbers" in " ".join(
        result.output.split()
    )
    assert result.exception is None or type(result.exception) is SystemExit


SECTIONS = cli._sections()
TYPED = (
    "", "a", "nan", "inf", ".nan", ".inf", "-.inf", "-1", "0", "1", "1.5", "1e3", "1e30", "9" * 30,
    "9" * 5000, "true", "null", "~", "[]", "{}", "[1,2", "1,2", "1,1", "[[1]]", "[1, a]", "0x10",
    "2020-01-01", "2020-99-99", "!!python/object/apply:os.getcwd []", "&a [*a]", "é", "[" * 150,
    "cpu", "tpu", "cuda:99", "meta",
)  # fmt: skip


def allowed(value, metadata):
    """Whether a value is within the limits that were declared, and can be computed with."""
    if isinstance(value, tuple):
        return all(allowed(each, metadata) for each in value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        low, high = metadata["low"], metadata["high"]
        inside = (low is None or value >= low) and (high is None or value <= high)
        return math.isfinite(value) and abs(value) <= 1e12 and inside
    return metadata["choices"] is None or value is None or value in metadata["choices"]


@settings(max_examples=400)
@given(st.data())
def test_what_is_typed_for_a_parameter_is_within_its_limits_or_refused(data):
    experiment = cli._experiment(data.draw(st.sampled_from(SECTIONS)))
    fields = dataclasses.fields(experiment.Settings)
    field = data.draw(st.sampled_from([each for each in fields if each.name != "profile"]))
    text = data.draw(st.sampled_from(TYPED) | st.text(max_size=5))
    base = load_profile(experiment.SECTION, "quick")
    try:
        found = getattr(from_strings(experiment.Settings, [(field.name, text)], base), field.name)
    except SettingsError as error:
        assert "\n" not in str(error)
        return
    assert allowed(found, field.metadata)
    again = from_values(experiment.Settings, {**base, field.name: found})
    assert getattr(again, field.name) == found


def test_every_device_that_may_be_typed_is_one():
    for section in SECTIONS:
        names = {
            field.name: field for field in dataclasses.fields(cli._experiment(section).Settings)
        }
        for device in names["device"].metadata["choices"]:
            assert device == "auto" or torch.device(device).type in ("cpu", "cuda")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-p", "neurons", "nan"], "'neurons' must be int, got 'nan'"),
        (
            ["-p", "l1", ".inf"],
            "'l1' may not be inf; allowed: at least 0.0, no number beyond 1e+12",
        ),
        (["-p", "l1s", "-1"], "'l1s' may not be -1.0; allowed: at least 0.0"),
        (["-p", "expansions", "1e30"], "'expansions' may not be 1e+30; allowed: 0.1 to 1024.0"),
        (["-p", "seed", "9" * 30], "no number beyond 1e+12"),
        (["-p", "seed", "9" * 5000], "is not valid YAML"),
        (["-p", "seed", "1", "-p", "seed", "2"], "parameter 'seed' is given twice"),
        (["-p", "seed", "[1,2"], "seed: '[1,2' is not valid YAML: expected ',' or ']'"),
        (["-p", "device", "tpu"], "'device' may not be 'tpu'; allowed: auto, cpu, cuda"),
        (["-p", "nothing", "1"], "unknown parameter 'nothing'"),
        (["-p", "seed"], "requires 2 arguments"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_is_run(monkeypatch, words, said):
    monkeypatch.setattr(book, "execute", lambda *_, **__: pytest.fail("it ran"))
    assert said in refused("run", "toy_models", *words)


@pytest.mark.parametrize(
    "error",
    [
        DataNotFound("no data"),
        hub.HubUnreachable("no hub"),
        ValueError("x.zip is no intact zip archive"),
    ],
)
def test_a_fetch_that_fails_says_why(monkeypatch, error):
    def fetch(_):
        raise error
        yield

    monkeypatch.setattr(cli._experiment("pythia"), "fetch", fetch)
    assert refused("fetch", "pythia") == str(error)


@pytest.mark.parametrize(
    "words", [["-p", "samples", "a"], ["-p", "device", "tpu"], ["-p", "no", "1"]]
)
def test_a_fetch_of_wrong_parameters_fetches_nothing(monkeypatch, words):
    monkeypatch.setattr(cli._experiment("pythia"), "fetch", lambda _: pytest.fail("it fetched"))
    assert "parameter" in refused("fetch", "pythia", *words)


@pytest.mark.parametrize(
    "words",
    [
        ["nope"], ["--nope"], ["claims", "x"], ["list", "x"], ["book", "--workers", "1.5"],
        ["book", "--workers", "-1"], ["book", "--port", "99999"], ["book", "--profile", "x"],
        ["measure"], ["measure", "x:y"], ["fetch", ""], ["run", "../x"], ["run", "__init__"],
    ],
)  # fmt: skip
def test_wrong_words_are_refused(words):
    assert refused(*words)


def test_a_refusal_in_settings_is_short():
    message = refusal(SettingsError, from_strings, cli._experiment("dropout").Settings,
                      [("seeds", "[" + "1," * 5000)])  # fmt: skip
    assert len(message) < 200
