"""Clusters of several machines, played by processes: a driver finds them, a machine dies."""

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from scene import kill, wait_for

PROGRAMS = Path(sys.executable).parent


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Machines:
    """Processes with all that they start, which die together."""

    def __init__(self):
        self.all = []

    def start(self, program, *arguments):
        command = [str(PROGRAMS / program), *arguments]
        machine = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.all.append(machine)
        return machine

    @staticmethod
    def destroy(machine):
        parts = psutil.Process(machine.pid).children(recursive=True)
        kill(machine.pid, *(part.pid for part in parts))
        machine.wait()


@pytest.fixture
def machines(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    machines = Machines()
    yield machines
    for machine in machines.all:
        if machine.poll() is None:
            machines.destroy(machine)


def ray_cluster(machines, folder):
    """A head that computes nothing, and two machines of one core each."""
    port = free_port()
    quiet = ("--disable-usage-stats", "--block")
    machines.start(
        "ray", "start", "--head", f"--port={port}", "--num-cpus=0", f"--temp-dir={folder}",
        "--include-dashboard=false", *quiet,
    )  # fmt: skip
    wait_for(lambda: answers(port))
    for count in (2, 3):
        machines.start("ray", "start", f"--address=127.0.0.1:{port}", "--num-cpus=1", *quiet)
        wait_for(lambda count=count: ray_nodes(port) == count)
    return f"127.0.0.1:{port}"


def ray_nodes(port):
    """How many machines a cluster of Ray's has."""
    command = [PROGRAMS / "ray", "status", f"--address=127.0.0.1:{port}"]
    return subprocess.run(command, capture_output=True, text=True).stdout.count(" 1 node_")


def dask_cluster(machines, folder):
    """A scheduler, and two machines of one core each."""
    port = free_port()
    machines.start("dask", "scheduler", "--host=127.0.0.1", f"--port={port}", "--no-dashboard")
    wait_for(lambda: answers(port))
    for _ in range(2):
        machines.start(
            "dask", "worker", f"127.0.0.1:{port}", "--nthreads=1", "--no-dashboard",
            f"--local-directory={folder}",
        )  # fmt: skip
    return f"127.0.0.1:{port}"


CLUSTERS = {"ray": ray_cluster, "dask": dask_cluster}


@pytest.fixture
def short():
    """A folder with a name short enough for the sockets in it."""
    folder = Path("/tmp") / f"faults-{os.getpid()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("engine", ["ray", "dask"])
def test_a_machine_that_dies_costs_its_condition_one_more_run(scene, machines, short, engine):
    address = CLUSTERS[engine](machines, short)
    scene.harm("hold", 5, 6)
    driver = scene.start(engine=engine, address=address)
    scene.processes(5, 6)
    victim = machines.all[-1]
    scene.strike("one of two machines killed", engine, lambda: machines.destroy(victim))
    scene.recover(driver)
    assert scene.facts["exit"] == 0
    assert scene.facts["unchanged"] == scene.facts["finished"] >= 4
    assert scene.facts["computed_by_rerun"] == 0
    again = [[seed for seed, _ in scene.begun()].count(seed) for seed in (5, 6)]
    assert sorted(again) == [1, 2]


@pytest.mark.parametrize("engine", ["ray", "dask"])
def test_a_cluster_that_is_not_there_is_said_in_one_sentence(scene, engine):
    driver = scene.start(engine=engine, address=f"127.0.0.1:{free_port()}")
    said = scene.said(driver)
    assert driver.returncode == 1
    assert f"SettingsError: no {engine.capitalize()}" in said
    scene.strike("cluster not there", engine, lambda: 0)
    sentence = said.strip().splitlines()[-1].removeprefix("superpos.settings.")
    scene.recover(driver, said=re.sub(r"1:\d+", "1:PORT", sentence))
