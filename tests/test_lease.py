"""Leases, in a folder and in fsspec's memory, with no need of another machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from upath import UPath

from superpos import lease as leases
from superpos.lease import Watch, lease


@pytest.fixture(params=["folder", "memory"])
def path(request, tmp_path):
    root = tmp_path if request.param == "folder" else UPath(f"memory://{tmp_path.name}")
    yield root / "section" / ".key.lease"
    if request.param == "memory":
        root.fs.store.clear()


def elsewhere(path, beat=0):
    """A lease that a process of another machine holds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sign = {"owner": "another", "place": "another machine", "pid": 1, "beat": beat}
    path.write_bytes(json.dumps(sign).encode())


def test_a_lease_is_held_by_one_and_gone_afterwards(path):
    with lease(path) as first:
        assert first and path.exists()
        with lease(path) as second:
            assert not second
        assert path.exists(), "who does not hold it does not remove it"
    assert not path.exists()
    with lease(path) as again:
        assert again


def test_of_many_threads_one_at_a_time_holds_it(tmp_path):
    path, inside, most, won = tmp_path / ".key.lease", [0], [0], []

    def take(_):
        for _ in range(50):
            with lease(path) as ours:
                if ours:
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    won.append(1)
                    inside[0] -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(take, range(8)))  # raises what any of them raised
    assert most == [1] and won


def test_an_error_inside_gives_the_lease_back(path):
    with pytest.raises(ZeroDivisionError), lease(path):
        raise ZeroDivisionError
    assert not path.exists()


def test_a_dead_process_of_this_machine_holds_nothing(path):
    code = "import os, superpos.lease as l; print(os.getpid(), l._place())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    pid, place = done.stdout.strip().split(" ", 1)
    assert place == leases._place()
    path.parent.mkdir(parents=True, exist_ok=True)
    sign = {"owner": "late", "place": place, "pid": int(pid), "beat": 3}
    path.write_bytes(json.dumps(sign).encode())
    with lease(path) as ours:
        assert ours


def test_a_lease_from_another_machine_is_left_while_it_changes_and_freed_after(path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(leases.time, "monotonic", lambda: now[0])
    watch = Watch()
    elsewhere(path, beat=0)
    assert watch.free([path]) == []
    for beat in range(1, 5):
        now[0] += 0.9 * leases.TERM
        elsewhere(path, beat)
        assert watch.free([path]) == [], "it lives"
    now[0] += 0.9 * leases.TERM
    assert watch.free([path]) == []
    with lease(path) as ours:
        assert not ours
    now[0] += 0.2 * leases.TERM
    assert watch.free([path]) == [path]
    assert not path.exists()


def test_an_absent_lease_is_free(path):
    assert Watch().free([path]) == [path]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": "x"}', b"\xff"])
def test_a_lease_that_cannot_be_read_is_somebodys_until_its_time_is_up(path, monkeypatch, content):
    now = [0.0]
    monkeypatch.setattr(leases.time, "monotonic", lambda: now[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    watch = Watch()
    with lease(path) as ours:
        assert not ours
    assert watch.free([path]) == []
    now[0] += 2 * leases.TERM
    assert watch.free([path]) == [path]


def test_a_holder_gives_signs_of_life_and_stops_when_another_took_over(path, monkeypatch):
    pauses = iter([None, None])

    def sleep(_):
        if next(pauses, "done") == "done":
            raise SystemExit

    with lease(path) as ours:
        assert ours
        before = json.loads(path.read_bytes())
        monkeypatch.setattr(leases.time, "sleep", sleep)
        with pytest.raises(SystemExit):
            leases._beat()
        after = json.loads(path.read_bytes())
        assert (before["beat"], after["beat"]) == (0, 2)
        assert after["owner"] == before["owner"] and after["pid"] == os.getpid()
        elsewhere(path)
        pauses = iter([None])
        with pytest.raises(SystemExit):
            leases._beat()
        assert json.loads(path.read_bytes())["owner"] == "another"
    assert path.exists(), "it was another's by then"


def test_an_outage_stops_no_signs_of_life_and_harms_no_result(path, monkeypatch):
    pauses, beats = iter([None, None]), []

    def sleep(_):
        if next(pauses, "done") == "done":
            raise SystemExit

    def torn(*_):
        beats.append(1)
        raise RuntimeError("an error of the object store's own kind")

    with monkeypatch.context() as outage, lease(path) as ours:
        assert ours
        outage.setattr(leases.time, "sleep", sleep)
        outage.setattr(leases, "write_whole", torn)
        with pytest.raises(SystemExit):
            leases._beat()
        assert len(beats) == 2
        outage.setattr(leases, "content", torn)
        assert Watch().free([path]) == [], "not known to be free"
    path.unlink()  # it was left, and would have run out
