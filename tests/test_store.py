from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superpos.provenance import provenance
from superpos.record import DamagedRecord, record_key
from superpos.store import Store, default_root, frame


@dataclass(frozen=True)
class Condition:
    width: int
    rate: float = 0.5
    sizes: tuple[int, ...] = (1, 2)


ROWS = [{"seed": 0, "F": 1 / 3, "note": None}, {"seed": 1, "F": 1e-300, "note": "é"}]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


def written(store, condition=Condition(8), rows=ROWS):
    store.write("fake", 1, condition, rows, {"device": "cpu"})
    return store.path("fake", 1, condition)


def test_a_written_record_is_read_back_as_it_was(store):
    record = store.write("fake", 1, Condition(8), ROWS, {"device": "cpu"})
    assert store.read("fake", 1, Condition(8)) == record
    assert record.rows == ROWS
    assert record.condition == {"width": 8, "rate": 0.5, "sizes": [1, 2]}


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_float_survives_the_store(tmp_path_factory, value):
    store = Store(tmp_path_factory.mktemp("floats"))
    store.write("fake", 1, Condition(8, rate=value), [{"F": value}], {})
    read = store.read("fake", 1, Condition(8, rate=value))
    assert math.copysign(1, read.rows[0]["F"]) == math.copysign(1, value)
    assert read.rows[0]["F"] == value


@given(st.integers(-(2**53), 2**53))
def test_equal_conditions_have_equal_keys_whatever_type_their_numbers_have(number):
    plain = record_key("fake", 1, Condition(number, rate=number))
    assert plain == record_key("fake", 1, Condition(number, rate=float(number)))
    assert plain == record_key("fake", 1, Condition(np.int64(number), rate=np.float64(number)))


def test_keys_tell_section_version_and_every_field_apart():
    keys = {
        record_key("fake", 1, Condition(8)),
        record_key("other", 1, Condition(8)),
        record_key("fake", 2, Condition(8)),
        record_key("fake", 1, Condition(9)),
        record_key("fake", 1, Condition(8, rate=0.25)),
        record_key("fake", 1, Condition(8, sizes=(2, 1))),
    }
    assert len(keys) == 6


def test_a_key_is_the_same_in_another_process_and_does_not_drift():
    code = (
        "from dataclasses import make_dataclass as m; from superpos.record import record_key;"
        "C = m('C', ['width', 'rate', 'sizes']); print(record_key('fake', 1, C(8, 0.1, (1, 2))))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert done.stdout.decode().strip() == record_key("fake", 1, Condition(8, 0.1))
    assert record_key("fake", 1, Condition(8, 0.1)) == "26d572d4bd60df38"


def test_an_absent_record_reads_as_none(store):
    assert store.read("fake", 1, Condition(8)) is None
    written(store)
    assert store.read("fake", 2, Condition(8)) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, np.float64("-inf"), [1.0, [math.nan]]])
def test_a_value_that_is_not_finite_is_refused_by_the_name_of_its_column(store, value):
    with pytest.raises(ValueError, match="column 'psi'"):
        store.write("fake", 1, Condition(8), [{"F": 1.0, "psi": value}], {})
    assert not store.path("fake", 1, Condition(8)).exists()


def test_a_value_that_is_not_plain_is_refused_by_the_name_of_its_column(store):
    with pytest.raises(TypeError, match="column 'model' holds a object"):
        store.write("fake", 1, Condition(8), [{"model": object()}], {})


def test_arrays_and_numpy_scalars_are_stored_as_plain_numbers(store):
    row = {"p": np.array([[0.25, 0.75]]), "n": np.int32(3), "ok": np.bool_(True)}
    record = store.write("fake", 1, Condition(8), [row], {})
    assert record.rows == [{"p": [[0.25, 0.75]], "n": 3, "ok": True}]


@pytest.mark.parametrize("column", ["width", "key"])
def test_a_column_named_like_a_field_of_the_condition_is_refused(store, column):
    with pytest.raises(ValueError, match=column):
        store.write("fake", 1, Condition(8), [{column: 1}], {})


def test_every_truncation_of_a_record_is_named_as_damage(store):
    path = written(store)
    whole = path.read_bytes().rstrip()
    for length in range(0, len(whole), 17):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedRecord, match=path.name):
            store.read("fake", 1, Condition(8))


def test_a_hand_edited_number_is_named_as_damage(store):
    path = written(store)
    path.write_text(path.read_text().replace('"seed": 1', '"seed": 2'))
    with pytest.raises(DamagedRecord, match="checksum"):
        store.read("fake", 1, Condition(8))


def test_a_record_under_another_conditions_name_is_named_as_damage(store):
    copied = store.path("fake", 1, Condition(9))
    copied.parent.mkdir(parents=True)
    copied.write_bytes(written(store).read_bytes())
    with pytest.raises(DamagedRecord, match="it holds the record"):
        store.read("fake", 1, Condition(9))
    with pytest.raises(DamagedRecord):
        store.frame("fake")


@pytest.mark.parametrize("content", ["[]", "{}", '"text"', '{"checksum": 1}'])
def test_other_json_in_a_records_place_is_named_as_damage(store, content):
    path = written(store)
    path.write_text(content)
    with pytest.raises(DamagedRecord, match="must hold exactly"):
        store.read("fake", 1, Condition(8))


def test_a_failed_write_leaves_the_older_record_and_no_rubbish(store, monkeypatch):
    path = written(store)
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        written(store, rows=[{"F": 2.0}])
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_leftover_partial_files_and_other_files_are_no_records(store):
    path = written(store)
    path.with_name(f".{path.stem}.1.abc.tmp").write_text('{"half')
    path.with_name("values.json").write_text("{}")
    assert [record.key for record in store.records("fake")] == [path.stem]


def test_a_frame_joins_conditions_and_rows(store):
    written(store, Condition(8))
    written(store, Condition(16))
    table = store.frame("fake").sort_values(["width", "seed"])
    assert list(table.columns) == ["key", "width", "rate", "sizes", "seed", "F", "note"]
    assert table.width.tolist() == [8, 8, 16, 16]
    assert table.F.tolist() == [1 / 3, 1e-300] * 2
    assert table.key.nunique() == 2
    assert frame([]).empty


def test_a_frame_holds_the_newest_version_only(store):
    store.write("fake", 1, Condition(8), [{"F": 1.0}], {})
    store.write("fake", 2, Condition(8), [{"F": 2.0}], {})
    assert store.frame("fake").F.tolist() == [2.0]


def test_the_default_root_follows_the_variable_the_project_and_the_folder(tmp_path, monkeypatch):
    inner = tmp_path / "notebooks" / "deep"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    monkeypatch.delenv("SUPERPOS_RESULTS", raising=False)
    assert default_root("quick") == inner / "results" / "quick"
    (tmp_path / "_config.yml").touch()
    assert default_root("paper") == tmp_path / "results" / "paper"
    monkeypatch.setenv("SUPERPOS_RESULTS", str(tmp_path / "elsewhere"))
    assert default_root("quick") == tmp_path / "elsewhere" / "quick"
    with pytest.raises(ValueError, match="allowed: quick, workstation, paper"):
        default_root("huge")


def test_provenance_is_plain_and_complete():
    about = provenance(device="cpu", seconds=1.5)
    assert json.loads(json.dumps(about)) == about
    assert set(about) == {
        *("superpos", "torch", "numpy", "python"),
        *("device", "threads", "seconds", "date", "commit"),
    }
    assert about["numpy"] == np.__version__
    assert about["seconds"] == 1.5
    assert about["device"].startswith("cpu")
