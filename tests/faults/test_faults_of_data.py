"""Faults of what is on the disk, of the clock, and of several drivers at once."""

import os
import shutil
import subprocess
import uuid

import faulty
import pytest
from scene import SEEDS, kill

from superpos.record import DamagedRecord
from superpos.store import Store
from superpos.sweep import sweep


def filled(scene, seeds=SEEDS):
    conditions = [faulty.Condition(seed) for seed in seeds]
    sweep(faulty, conditions, store=scene.store, progress=False)
    return [scene.store.path(faulty.SECTION, faulty.VERSION, condition) for condition in conditions]


def recovered(scene, computed, damaged=True):
    """Run again; damage is to be named, once for each file, and only that computed."""
    if damaged:
        with pytest.warns(UserWarning, match="computed again") as caught:
            scene.recover(said=str(caught[0].message).split(": ", 1)[1] if len(caught) else "")
        assert len(caught) == computed
        scene.facts["said"] = str(caught[0].message).split(": ", 1)[1]
    else:
        scene.recover()
    assert scene.facts["computed_by_rerun"] == computed
    assert scene.facts["unchanged"] == scene.facts["finished"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system with room for a few records."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs the rights of root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("engine", ["serial", "processes"])
def test_a_full_disk_fails_what_it_cannot_hold_and_harms_nothing(scene, small_disk, engine):
    scene.store = Store(small_disk / "results")
    driver = scene.start(engine=engine, **({} if engine == "serial" else {"workers": 2}))
    said = scene.said(driver)
    assert driver.returncode == 1 and "No space left on device" in said
    scene.strike("disk full", engine, lambda: 0)
    assert 3 <= scene.facts["finished"] < 12
    assert said.count("Condition(seed=") == 12 - scene.facts["finished"]
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    scene.recover(driver, said="OSError: [Errno 28] No space left on device")
    assert scene.facts["unchanged"] == scene.facts["finished"]
    assert scene.facts["computed_by_rerun"] == 12 - scene.facts["finished"]


def test_a_truncated_record_is_named_and_computed_again(scene):
    paths = filled(scene)
    os.truncate(paths[3], 200)
    scene.strike("record truncated", "folder", lambda: 0)
    del scene.before[paths[3].name]
    scene.facts["finished"] -= 1
    recovered(scene, computed=1)


def test_a_record_with_one_byte_altered_is_named_wherever_it_matters(scene):
    (path, *_) = filled(scene)
    whole, condition = path.read_bytes(), faulty.Condition(SEEDS[0])
    about = faulty.SECTION, faulty.VERSION, condition
    record = scene.store.read(*about)
    named = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            assert scene.store.read(*about) == record  # white space says nothing
        except DamagedRecord:
            named += 1
    assert named > 0.8 * len(whole)
    place = whole.index(b'"F": 0.') + 8
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    scene.strike("one byte of a record altered", "folder", lambda: 0)
    del scene.before[path.name]
    scene.facts["finished"] -= 1
    recovered(scene, computed=1)


def test_records_of_an_older_version_stay_and_count_for_nothing(scene, monkeypatch):
    with monkeypatch.context() as older:
        older.setattr(faulty, "VERSION", 0)
        filled(scene)
    old = scene.files()
    filled(scene, SEEDS[:4])
    scene.strike("records of an older version", "folder", lambda: 0)
    scene.before = {name: data for name, data in scene.before.items() if name not in old}
    scene.facts["finished"] = len(scene.before)
    recovered(scene, computed=8, damaged=False)
    assert old.items() <= scene.files().items()


def test_a_record_of_other_parameters_under_a_conditions_name_is_named(scene):
    paths = filled(scene)
    scene.store.write(faulty.SECTION, 1, faulty.Condition(3, width=9), [{"F": 0.0}], {})
    other = scene.store.path(faulty.SECTION, 1, faulty.Condition(3, width=9))
    other.replace(paths[3])
    scene.strike("record of other parameters", "folder", lambda: 0)
    del scene.before[paths[3].name]
    scene.facts["finished"] -= 1
    recovered(scene, computed=1)


BACKWARDS = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <time.h>
static atomic_long looks;
int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int status = real(clock, now);
    if (clock == CLOCK_REALTIME) now->tv_sec -= 60 * atomic_fetch_add(&looks, 1);
    return status;
}
"""


@pytest.fixture
def backwards(tmp_path):
    """A library that puts the clock back by a minute whenever a process looks at it."""
    compiler = shutil.which("cc") or pytest.skip("turning the clock back needs a C compiler")
    source, library = tmp_path / "clock.c", tmp_path / "clock.so"
    source.write_text(BACKWARDS)
    command = [compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return str(library)


def test_a_clock_that_runs_backwards_changes_nothing(scene, backwards, monkeypatch):
    with monkeypatch.context() as environment:
        environment.setenv("LD_PRELOAD", backwards)
        driver = scene.start(SEEDS[:7], engine="serial")
        said = scene.said(driver)
        assert driver.returncode == 0, said
    records = [scene.store.read("faulty", 1, faulty.Condition(seed)) for seed in SEEDS[:7]]
    dates = [record.provenance["date"] for record in records]
    assert dates == sorted(dates, reverse=True) and len(set(dates)) == 7, "the clock did not turn"
    assert all(record.provenance["seconds"] >= 0 for record in records)
    scene.strike("clock runs backwards", "serial", lambda: 0)
    scene.recover(driver)
    assert scene.facts["computed_by_rerun"] == 5
    assert scene.facts["unchanged"] == scene.facts["finished"] == 7


@pytest.mark.parametrize("engine", ["serial", "processes"])
def test_two_drivers_on_one_folder_share_the_work(scene, engine):
    drivers = [scene.start(engine=engine) for _ in range(2)]
    errors = [scene.said(driver) for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], errors
    scene.strike("two drivers at once", engine, lambda: 0)
    scene.recover(drivers[0])
    assert sorted(seed for seed, _ in scene.begun()) == list(SEEDS)
    assert scene.facts["unchanged"] == scene.facts["finished"] == 12


def test_of_two_drivers_one_takes_over_what_the_other_dies_of(scene):
    scene.harm("hold", 5)
    first = scene.start()
    scene.processes(5)
    second = scene.start()
    scene.processes(11)  # it went past the condition that the first is at
    scene.strike("one of two drivers killed", "serial", lambda: kill(first.pid))
    scene.recover(second)
    assert scene.facts["exit"] == 0
    assert scene.facts["unchanged"] == scene.facts["finished"] == 11
    assert scene.facts["computed_by_rerun"] == 0
    assert [seed for seed, _ in scene.begun()].count(5) == 2
    assert len(scene.begun()) == 13


@pytest.fixture(scope="module")
def object_store():
    """A server on this machine that speaks S3."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    with pytest.MonkeyPatch.context() as environment:
        server.start()
        environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.get_host_and_port()[1]}")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "none")
        yield server
    server.stop()


@pytest.fixture
def bucket(object_store):
    """The URL of a folder in a new bucket."""
    from s3fs import S3FileSystem

    name = f"bucket-{uuid.uuid4().hex}"
    S3FileSystem().mkdir(name)
    return f"s3://{name}/results"


def test_two_drivers_on_an_object_store_share_the_work(scene, bucket):
    scene.store = Store(bucket)
    drivers = [scene.start() for _ in range(2)]
    errors = [scene.said(driver) for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], errors
    scene.strike("two drivers at once", "object store (S3)", lambda: 0)
    scene.recover(drivers[0])
    assert sorted(seed for seed, _ in scene.begun()) == list(SEEDS)


def test_a_driver_killed_on_an_object_store_loses_what_was_under_way(scene, bucket):
    scene.store = Store(bucket)
    scene.harm("hold", 5)
    driver = scene.start()
    (worker,) = scene.processes(5)
    scene.strike("driver killed (SIGKILL)", "object store (S3)", lambda: kill(worker))
    scene.recover(driver)
    assert scene.facts["unchanged"] == scene.facts["finished"] == 5
    assert scene.facts["computed_by_rerun"] == 7
