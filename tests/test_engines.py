"""Options of engines, and worker processes; real clusters are in tests/faults."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import fake_experiment
import psutil
import pytest
import torch
from fake_experiment import Condition

from superpos import engines
from superpos.engines import COMPUTING, Computing, check, worker_devices
from superpos.settings import ENGINES, SettingsError, from_values, label
from superpos.store import Store
from superpos.sweep import SweepFailed, sweep
from superpos.task import Failure, Task
from superpos.worker import ATTEMPTS, Worker


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 2}, "engine 'serial' takes no 'workers'; processes, ray, dask do"),
        ({"gpus": 0.5}, "engine 'serial' takes no 'gpus'"),
        ({"engine": "processes", "address": "x:1"}, "takes no 'address'; ray, dask do"),
        ({"engine": "ray", "address": "x:1", "time_limit": 5}, None),
        ({"engine": "processes", "cpus": 2, "gpus": 0.25}, None),
    ],
)
def test_an_option_that_an_engine_does_not_take_is_refused(options, message):
    chosen = from_values(Computing, options)
    if message is None:
        check(chosen)
    else:
        with pytest.raises(SettingsError, match=message):
            check(chosen)


def test_no_way_of_computing_changes_a_runs_label():
    plain, other = fake_experiment.Settings(), fake_experiment.Settings(
        engine="ray", workers=3, cpus=2, gpus=0.5, address="a:1", time_limit=9.0, device="cuda"
    )  # fmt: skip
    assert label(other, {}) == label(plain, {}) == "quick"
    assert set(COMPUTING) == {
        *("engine", "device", "workers", "cpus", "gpus", "address", "time_limit")
    }


@pytest.mark.parametrize("engine", ["ray", "dask"])
def test_an_engine_that_is_not_installed_is_named_with_the_command(tmp_path, monkeypatch, engine):
    for package in ("ray", "distributed"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SettingsError, match=rf"'{engine}' is not installed.*pip install.*cluster"):
        sweep(fake_experiment, [Condition(0)], store=Store(tmp_path), engine=engine)


def test_gpus_are_shared_out_among_the_workers_of_a_machine(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert worker_devices("auto", 0.0, 3) == ["auto"] * 3
    assert worker_devices("auto", 0.5, 8) == ["cuda:0", "cuda:1"] * 2
    assert worker_devices("cuda", 0.3, 99) == ["cuda:0", "cuda:1"] * 3
    assert worker_devices("cuda", 1.0, 1) == ["cuda:0"]
    for device, gpus in (("cpu", 0.5), ("cuda:1", 0.5), ("cuda", 2.0)):
        with pytest.raises(SettingsError, match=f"gpus={gpus:g} on device '{device}'"):
            worker_devices(device, gpus, 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(SettingsError, match="from 0 CUDA devices"):
        worker_devices("auto", 0.5, 1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("engine", ["serial", "processes"])
def test_a_device_that_is_not_here_is_refused_before_anything_runs(tmp_path, engine):
    with pytest.raises(ValueError, match="device is 'cuda', which is not here"):
        sweep(fake_experiment, [Condition(0)], store=Store(tmp_path), engine=engine, device="cuda")
    assert not list(tmp_path.iterdir())


def test_equal_tracebacks_are_shown_once_with_all_their_conditions():
    failures = [Failure(seed, "E", f"trace {seed % 2}") for seed in range(5)]
    text = str(SweepFailed(failures))
    assert text.startswith("5 conditions failed")
    assert text.count("trace 0") == text.count("trace 1") == 1
    assert text.index("\n1\n3\n") < text.index("trace 1")


@dataclass(frozen=True)
class Local:
    """A condition of a class that only this process can import."""

    seed: int
    lock: object = None


def test_a_worker_computes_survives_errors_and_is_stopped_in_time(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_HOLD", str(tmp_path / "hold"))
    task, worker = Task(fake_experiment, Store(tmp_path)), Worker(threads=1)
    try:
        assert worker.run(task, Condition(0)).rows == task(Condition(0)).rows
        first = worker._process.pid
        assert "no seed -1" in worker.run(task, Condition(-1)).error
        assert "cannot pickle" in worker.run(task, Local(0, threading.Lock())).error
        assert worker._process.pid == first, "none of this needs a new process"
        late = worker.run(task, Condition(2), time_limit=0.5)
        assert late.error == "TimeLimit: it took longer than the 0.5 s it may"
        assert "fake_experiment.py" in late.traceback and "in run" in late.traceback
        assert worker.run(task, Condition(3), time_limit=60).rows
    finally:
        worker.close()
    assert worker._process is None


def test_a_worker_that_keeps_dying_is_given_up(tmp_path, monkeypatch):
    worker, calls = Worker(), []

    def dying(*_):
        calls.append(1)
        raise EOFError

    monkeypatch.setattr(worker, "_answer", dying)
    outcome = worker.run(Task(fake_experiment, Store(tmp_path)), Condition(0))
    assert len(calls) == ATTEMPTS and outcome.error.startswith("WorkerDied: ")
    worker.close()
    assert worker.run(Task(fake_experiment, Store(tmp_path)), Condition(0)).error
    assert len(calls) == ATTEMPTS, "who was closed tries no more"


def wait_for(file, driver=None):
    deadline = time.monotonic() + 120
    while not file.exists():
        assert time.monotonic() < deadline and (driver is None or driver.poll() is None)
        time.sleep(0.01)


INTERRUPTED = """
import fake_experiment, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background shell takes away
from superpos.store import Store
from superpos.sweep import sweep
conditions = [fake_experiment.Condition(seed) for seed in range(200)]
sweep(fake_experiment, conditions, store=Store(sys.argv[1]), engine="processes", workers=2)
"""


def test_ctrl_c_ends_a_sweep_and_its_processes_at_once(tmp_path, monkeypatch):
    hold, log = tmp_path / "hold", tmp_path / "log"
    monkeypatch.setenv("FAKE_HOLD", str(hold))
    monkeypatch.setenv("FAKE_LOG", str(log))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path / "results")]
    driver = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(hold, driver)
    children = psutil.Process(driver.pid).children(recursive=True)
    os.killpg(driver.pid, signal.SIGINT)
    _, said = driver.communicate(timeout=60)
    assert said.count("Traceback") == 1 and "KeyboardInterrupt" in said
    _, alive = psutil.wait_procs(children, timeout=60)
    assert children and not alive
    store = Store(tmp_path / "results")
    begun = len(log.read_text().split())
    assert len(store.records("fake")) >= begun - 2


def test_leaving_a_sweep_in_the_middle_ends_its_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_HOLD", str(tmp_path / "hold"))
    task = Task(fake_experiment, Store(tmp_path))
    options = Computing(engine="processes", device="cpu", workers=1)
    with engines.opened(task, options) as compute:
        outcomes = compute([Condition(0), Condition(2), Condition(3)])
        assert next(outcomes)[0] == Condition(0)
        wait_for(tmp_path / "hold")
    assert not task.store.path("fake", 1, Condition(3)).exists()
    assert set(ENGINES) == {"serial", "processes", "ray", "dask"}
