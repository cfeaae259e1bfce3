from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import fake_experiment
import pytest
from fake_experiment import Condition

from superpos import lease
from superpos.store import Store
from superpos.sweep import SweepFailed, sweep

SWEEP = """
import sys
import fake_experiment
import superpos.task
from superpos.store import Store
from superpos.sweep import sweep
superpos.task.provenance = lambda **_: {}  # importing torch would be most of the time
seeds = [int(seed) for seed in sys.argv[2].split(",")]
conditions = [fake_experiment.Condition(seed) for seed in seeds]
sweep(fake_experiment, conditions, store=Store(sys.argv[1]), progress=False)
"""
FIVE = [Condition(seed) for seed in range(5)]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


@pytest.fixture
def log(tmp_path, monkeypatch):
    path = tmp_path / "log"
    path.touch()
    monkeypatch.setenv("FAKE_LOG", str(path))
    return path


def runs(log):
    return sorted(int(line) for line in log.read_text().split())


def quiet_sweep(conditions, store, **options):
    return sweep(fake_experiment, conditions, store=store, progress=False, **options)


def in_a_process(store, seeds):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", SWEEP, str(store.root), seeds]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)


def wait_for(happened):
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def test_records_come_in_the_order_of_the_conditions_and_duplicates_run_once(store, log):
    order = [Condition(3), Condition(1), Condition(3), Condition(0)]
    records = quiet_sweep(order, store)
    assert [record.condition["seed"] for record in records] == [3, 1, 3, 0]
    assert runs(log) == [0, 1, 3]
    assert records[1].rows == [{"rate": 0.1, "value": 0.1 / 3}, {"rate": 0.25, "value": 0.25 / 3}]
    assert records[0].provenance["seconds"] >= 0


def test_a_finished_condition_is_never_run_twice(store, log):
    first = quiet_sweep(FIVE[:3], store)
    assert quiet_sweep(FIVE, store)[:3] == first
    assert runs(log) == [0, 1, 2, 3, 4]


def test_a_new_version_of_the_experiment_runs_everything_again(store, log, monkeypatch):
    quiet_sweep(FIVE[:2], store)
    monkeypatch.setattr(fake_experiment, "VERSION", 2)
    quiet_sweep(FIVE[:2], store)
    assert runs(log) == [0, 0, 1, 1]


def test_processes_give_the_rows_of_the_serial_engine(store, tmp_path):
    serial = quiet_sweep(FIVE, store)
    parallel = quiet_sweep(FIVE, Store(tmp_path / "other"), engine="processes", workers=2)
    assert [record.rows for record in parallel] == [record.rows for record in serial]
    assert [record.key for record in parallel] == [record.key for record in serial]


@pytest.mark.parametrize("engine", ["serial", "processes"])
def test_a_condition_that_raises_is_named_and_the_rest_is_kept(store, engine):
    conditions = [Condition(0), Condition(-1), Condition(-2), Condition(1)]
    with pytest.raises(SweepFailed) as caught:
        quiet_sweep(conditions, store, engine=engine)
    failures = caught.value.failures
    assert {failure.condition.seed for failure in failures} == {-1, -2}
    assert "2 conditions failed" in str(caught.value)
    assert "ZeroDivisionError: no seed -1" in str(caught.value)
    assert "fake_experiment.py" in str(caught.value)
    assert sorted(record.condition["seed"] for record in store.records("fake")) == [0, 1]


def test_a_result_that_cannot_be_stored_fails_its_condition_only(store, monkeypatch):
    rows = {0: [{"F": 1.0}], 1: [{"F": float("nan")}]}
    monkeypatch.setattr(fake_experiment, "run", lambda condition, device: rows[condition.seed])
    with pytest.raises(SweepFailed, match="column 'F' holds nan"):
        quiet_sweep([Condition(1), Condition(0)], store)
    assert store.frame("fake").F.tolist() == [1.0]


def test_an_unknown_engine_is_refused_with_the_list_of_engines(store):
    with pytest.raises(ValueError, match="'slurm'; allowed: serial, processes, ray, dask"):
        quiet_sweep(FIVE, store, engine="slurm")
    with pytest.raises(ValueError, match="'workers' may not be 0; allowed: at least 1"):
        quiet_sweep(FIVE, store, engine="processes", workers=0)


def test_damaged_records_are_named_and_computed_again(store, log):
    quiet_sweep(FIVE, store)
    truncated, edited = (store.path("fake", 1, condition) for condition in FIVE[1:3])
    truncated.write_bytes(truncated.read_bytes()[:-40])
    edited.write_text(edited.read_text().replace('"rate": 0.25', '"rate": 0.5'))
    with pytest.warns(UserWarning) as caught:
        records = quiet_sweep(FIVE, store)
    assert [str(warning.message).count("computed again") for warning in caught] == [1, 1]
    assert truncated.name in str(caught[0].message)
    assert "checksum" in str(caught[1].message) and edited.name in str(caught[1].message)
    assert runs(log) == [0, 1, 1, 2, 2, 3, 4]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert quiet_sweep(FIVE, store) == records


def test_a_sweep_killed_on_the_way_loses_only_the_condition_under_way(
    store, log, tmp_path, monkeypatch
):
    hold = tmp_path / "hold"
    with monkeypatch.context() as patch:
        patch.setenv("FAKE_HOLD", str(hold))
        process = in_a_process(store, "0,1,2,3,4")
        wait_for(hold.exists)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert sorted(record.condition["seed"] for record in store.records("fake")) == [0, 1]
    records = quiet_sweep(FIVE, store)
    assert [record.condition["seed"] for record in records] == [0, 1, 2, 3, 4]
    assert runs(log) == [0, 1, 2, 2, 3, 4]


def test_two_sweeps_on_one_store_end_with_whole_records(store, log):
    seeds = ",".join(str(seed) for seed in range(3, 40))
    processes = [in_a_process(store, seeds) for _ in range(2)]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    files = sorted(path.name for path in (store.root / "fake").iterdir())
    records = store.records("fake")
    assert files == [f"{record.key}.json" for record in records]
    assert sorted(record.condition["seed"] for record in records) == list(range(3, 40))


def test_a_sweep_takes_over_what_another_finished_meanwhile(store, log, tmp_path, monkeypatch):
    hold = tmp_path / "hold"
    with monkeypatch.context() as patch:
        patch.setenv("FAKE_HOLD", str(hold))
        process = in_a_process(store, "2,3,4")
        wait_for(hold.exists)
    quiet_sweep([Condition(3), Condition(4)], store)
    hold.unlink()
    assert process.wait(60) == 0
    process.stderr.close()
    assert runs(log) == [2, 3, 4]


def test_a_condition_left_by_another_machine_is_taken_over_after_the_others(
    store, log, monkeypatch
):
    monkeypatch.setattr(lease, "TERM", 0.2)
    left = store.lease("fake", 1, FIVE[1])
    left.parent.mkdir(parents=True)
    left.write_text('{"owner": "another", "place": "another machine", "pid": 1, "beat": 7}')
    records = quiet_sweep(FIVE, store)
    assert [record.condition["seed"] for record in records] == [0, 1, 2, 3, 4]
    assert [int(line) for line in log.read_text().split()] == [0, 2, 3, 4, 1]
    assert not left.exists()


def test_a_time_limit_stops_a_condition_and_leaves_the_others(store, log, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_HOLD", str(tmp_path / "hold"))
    with pytest.raises(
        SweepFailed, match=r"1 condition failed(?s:.*)TimeLimit: .* 0.5 s"
    ) as caught:
        quiet_sweep(FIVE[1:4], store, time_limit=0.5)
    assert caught.value.failures[0].condition == Condition(2)
    (tmp_path / "hold").unlink()
    monkeypatch.delenv("FAKE_HOLD")
    assert len(quiet_sweep(FIVE[1:4], store)) == 3
    assert runs(log) == [1, 2, 2, 3]


def test_no_conditions_give_no_records(store):
    assert quiet_sweep([], store, engine="processes") == []


def test_the_bar_counts_finished_conditions_and_can_be_switched_off(store, capfd):
    quiet_sweep(FIVE[:2], store)
    assert capfd.readouterr().err == ""
    sweep(fake_experiment, FIVE, store=store)
    assert "5/5" in capfd.readouterr().err
