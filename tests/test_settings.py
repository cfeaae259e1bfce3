from __future__ import annotations

import math
import warnings
from dataclasses import make_dataclass

import pytest
import yaml
from fake_experiment import Settings
from hypothesis import given
from hypothesis import strategies as st

from superpos.settings import (
    SettingsError,
    describe,
    from_namespace,
    from_strings,
    from_values,
    label,
    load_profile,
    profiles_of,
    setting,
)


def test_a_notebooks_globals_become_settings_and_everything_else_is_ignored():
    def helper():
        pass

    cells = {"In": ["", "x = 1"], "Out": {1: 2}, "_": 3, "_i1": "seeds = 4", "__name__": "main"}
    others = {"math": math, "helper": helper, "Settings": Settings, "quit": "q", "exit": "e"}
    parameters = {"seeds": 4, "l1": 1, "rates": [0.5, 1], "limit": None, "kinds": ["cnn"]}
    settings = from_namespace(Settings, {**cells, **others, **parameters})
    assert settings == Settings(seeds=4, l1=1.0, rates=(0.5, 1.0), limit=None, kinds=("cnn",))
    assert isinstance(settings.l1, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"seed": 1},
            "unknown parameter 'seed'; allowed: address, augment, .*did you mean 'seeds'",
        ),
        ({"qqq": {}}, "unknown parameter 'qqq'; allowed: address, augment, cpus, device, engine"),
        ({"seeds": 0}, "'seeds' may not be 0; allowed: at least 1"),
        ({"seeds": 2.0}, "'seeds' must be int, got 2.0"),
        ({"seeds": True}, "'seeds' must be int, got True"),
        ({"seeds": "3"}, "'seeds' must be int, got '3'"),
        ({"l1": True}, "'l1' must be float"),
        ({"l1": "0.1"}, "'l1' must be float, got '0.1'"),
        ({"l1": math.nan}, "'l1' may not be nan"),
        ({"l1": None}, "'l1' must be float"),
        ({"augment": 1}, "'augment' must be bool"),
        ({"rates": [0.1, "x"]}, "'rates' must be float, got 'x'"),
        ({"rates": [0.1, 0.1]}, "'rates' repeats a value"),
        ({"rates": [0.1, 1.5]}, "'rates' may not be 1.5; allowed: 0 to 1"),
        ({"kinds": ["mlp", "rnn"]}, "'kinds' may not be 'rnn'; allowed: mlp, cnn"),
        ({"limit": 1.5}, r"'limit' must be int \| None"),
        ({"profile": "huge"}, "allowed: quick, workstation, paper"),
    ],
)
def test_a_wrong_name_or_value_is_refused_with_what_is_allowed(values, message):
    with pytest.raises(SettingsError, match=message):
        from_namespace(Settings, dict(values))


def test_executing_the_cell_again_ignores_variables_of_later_cells():
    namespace = {"seeds": 2}
    from_namespace(Settings, namespace)
    namespace |= {"seeds": 5, "total": 17, "title": "x"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert from_namespace(Settings, namespace).seeds == 5
    namespace["seed"] = 3
    with pytest.warns(UserWarning, match="ignored: unknown parameter 'seed'.*'seeds'"):
        assert from_namespace(Settings, namespace).seeds == 5


def test_what_papermill_passes_for_a_list_or_for_1e_4_is_understood():
    read = from_values(Settings, {"rates": "[0.5, 1]", "kinds": "mlp,cnn", "l1": "1e-4"})
    assert read == Settings(rates=(0.5, 1.0), kinds=("mlp", "cnn"), l1=1e-4)
    assert from_values(Settings, {"rates": 0.5}).rates == (0.5,)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("seeds", "7", 7),
        ("l1", "1e-3", 0.001),
        ("l1", "2", 2.0),
        ("rates", "0.5", (0.5,)),
        ("rates", "0, 0.5,1e-1", (0.0, 0.5, 0.1)),
        ("rates", "[0.5, 0.1]", (0.5, 0.1)),
        ("kinds", "cnn", ("cnn",)),
        ("limit", "null", None),
        ("limit", "10", 10),
        ("augment", "true", True),
        ("address", "1", "1"),
    ],
)
def test_words_of_a_command_line_are_read_by_the_type_of_their_parameter(name, text, value):
    settings = from_strings(Settings, [(name, text)])
    assert getattr(settings, name) == value
    assert type(getattr(settings, name)) is type(value)


def test_words_of_a_command_line_come_before_the_profile():
    assert from_strings(Settings, [("seeds", "9")], {"seeds": 2, "l1": 0.5}) == Settings(
        seeds=9, l1=0.5
    )
    with pytest.raises(SettingsError, match="did you mean 'seeds'"):
        from_strings(Settings, [("seed", "9")])
    with pytest.raises(SettingsError, match="not valid YAML"):
        from_strings(Settings, [("seeds", "[1")])


@given(
    seeds=st.integers(1, 10**9),
    l1=st.floats(0, 1e9),
    rates=st.lists(st.floats(0, 1), max_size=4, unique=True),
    limit=st.none() | st.integers(1, 100),
    augment=st.booleans(),
)
def test_settings_survive_the_way_through_yaml(seeds, l1, rates, limit, augment):
    settings = Settings(seeds=seeds, l1=l1, rates=tuple(rates), limit=limit, augment=augment)
    values = {**vars(settings), "rates": rates, "kinds": list(settings.kinds)}
    assert from_values(Settings, yaml.safe_load(yaml.safe_dump(values))) == settings


def test_a_label_names_what_differs_from_the_profile():
    profile = {"seeds": 3, "l1": 1, "rates": [0.5]}
    settings = from_values(Settings, {**profile, "profile": "quick"})
    assert label(settings, profile) == "quick"
    changed = from_values(Settings, {**profile, "seeds": 1, "rates": [0, 1], "engine": "processes"})
    assert label(changed, profile) == "quick, changed: seeds=1, rates=0.0,1.0"


def test_a_description_says_name_type_default_help_and_limits():
    described = {line.name: line for line in describe(Settings)}
    assert list(described) == list(Settings.__dataclass_fields__)
    assert described["seeds"] == ("seeds", "int", 3, "Number of seeds.", "at least 1")
    assert described["rates"][1:3] == ("tuple[float, ...]", (0.1, 0.25))
    assert described["rates"].allowed == "0 to 1"
    assert described["limit"].type == "int | None"
    assert described["kinds"].allowed == "mlp, cnn"


def test_a_tuple_of_fixed_length_and_types_is_checked():
    fields = [
        ("pair", tuple[int, float], setting((1, 2.0), "A pair.")),
        ("table", dict, setting(None, "Not supported.")),
    ]
    Pair = make_dataclass("Pair", fields, frozen=True)
    assert from_values(Pair, {"pair": [3, 4]}).pair == (3, 4.0)
    with pytest.raises(SettingsError, match="'pair' must have 2 values"):
        from_values(Pair, {"pair": [1, 2, 3]})
    with pytest.raises(TypeError, match="'table' is declared with the unsupported type"):
        from_values(Pair, {"table": {}})


def test_a_profile_is_read_from_the_project_and_a_wrong_one_refused(tmp_path, monkeypatch):
    folder = tmp_path / "notebooks" / "profiles" / "quick"
    folder.mkdir(parents=True)
    (tmp_path / "_config.yml").touch()
    (folder / "fake.yaml").write_text("seeds: 2\nrates: [0.5]\n")
    (folder / "list.yaml").write_text("[1]")
    monkeypatch.chdir(folder)
    assert load_profile("fake", "quick") == {"seeds": 2, "rates": [0.5]}
    assert profiles_of("fake") == ["quick"]
    with pytest.raises(SettingsError, match="unknown profile 'fast'; allowed: quick, work"):
        load_profile("fake", "fast")
    with pytest.raises(SettingsError, match=r"no profile 'paper' .*profiles it has: quick"):
        load_profile("fake", "paper")
    with pytest.raises(SettingsError, match="must be a mapping"):
        load_profile("list", "quick")
