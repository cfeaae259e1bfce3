"""Faults of the processes that compute and of the one that drives them."""

import pytest
from scene import gone, kill, wait_for

PARALLEL = ("processes", "ray", "dask")
ENGINES = ("serial", *PARALLEL)
WORKERS = {"serial": {}, "processes": {"workers": 2}, "ray": {"workers": 2}, "dask": {"workers": 2}}


def started(scene, engine, *held, **options):
    """A sweep of which some conditions are held on the way."""
    scene.harm("hold", *held)
    driver = scene.start(engine=engine, **WORKERS[engine], **options)
    return driver, scene.processes(*held)


@pytest.mark.parametrize("engine", PARALLEL)
def test_a_killed_worker_costs_its_condition_one_more_run(scene, engine):
    driver, (victim, _) = started(scene, engine, 5, 6)
    scene.strike("worker killed (SIGKILL)", engine, lambda: kill(victim))
    scene.recover(driver)
    assert scene.facts["exit"] == 0
    assert scene.facts["unchanged"] == scene.facts["finished"] >= 4
    assert scene.facts["computed_by_rerun"] == 0
    assert [seed for seed, _ in scene.begun()].count(5) == 2


@pytest.mark.parametrize("engine", ENGINES)
def test_a_killed_driver_loses_what_was_under_way_and_leaves_no_process(scene, engine):
    held = (5,) if engine == "serial" else (5, 6)
    driver, workers = started(scene, engine, *held)
    scene.strike("driver killed (SIGKILL)", engine, lambda: kill(driver.pid))
    wait_for(lambda: gone(*workers))
    scene.recover(driver)
    assert scene.facts["exit"] == -9
    assert scene.facts["unchanged"] == scene.facts["finished"] >= 4
    assert scene.facts["computed_by_rerun"] == 12 - scene.facts["finished"]


@pytest.mark.parametrize("engine", PARALLEL)
def test_a_condition_that_kills_its_worker_every_time_fails_alone(scene, engine):
    scene.harm("die", 3)
    driver = scene.start(engine=engine, **WORKERS[engine])
    said = scene.said(driver)
    scene.strike("condition kills its worker each time", engine, lambda: 0)
    assert driver.returncode == 1 and "1 condition failed" in said
    assert "Condition(seed=3" in said
    scene.recover(driver, said=next(line for line in said.splitlines() if "Worker" in line))
    assert scene.facts["finished"] == scene.facts["unchanged"] == 11


@pytest.mark.parametrize("engine", ENGINES)
def test_conditions_that_raise_are_listed_and_the_rest_is_finished(scene, engine):
    scene.harm("raise", 2, 9)
    driver = scene.start(engine=engine, **WORKERS[engine])
    said = scene.said(driver)
    scene.strike("two conditions raise an error", engine, lambda: 0)
    assert driver.returncode == 1 and "2 conditions failed" in said
    assert "Condition(seed=2" in said and "Condition(seed=9" in said
    assert said.count("ZeroDivisionError: told to by harm.") == 2 and "faulty.py" in said
    scene.recover(driver, said="ZeroDivisionError: told to by harm.2")
    assert scene.facts["finished"] == scene.facts["unchanged"] == 10
    assert scene.facts["computed_by_rerun"] == 2


@pytest.mark.parametrize("engine", ENGINES)
def test_a_condition_that_hangs_is_stopped_by_the_time_limit(scene, engine):
    scene.harm("hang", 4)
    driver = scene.start(engine=engine, time_limit=5, **WORKERS[engine])
    said = scene.said(driver)
    scene.strike("condition hangs, time limit 5 s", engine, lambda: 0)
    assert driver.returncode == 1 and "1 condition failed" in said
    assert "_suffer" in said, "where it hung"
    assert gone(*scene.processes(4))
    scene.recover(driver, said=next(line for line in said.splitlines() if "TimeLimit" in line))
    assert scene.facts["finished"] == scene.facts["unchanged"] == 11
