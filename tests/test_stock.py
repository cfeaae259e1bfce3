"""Folders that many conditions share: made once, whole or not at all; and where results lie."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from superpos.provenance import provenance
from superpos.stock import LIBRARIES, stocked
from superpos.store import default_root, results_root

PROCESS = """
import os, sys, time, types
from pathlib import Path
sys.modules["pandas"] = types.ModuleType("pandas")  # importing it would be most of the time
import superpos.stock
superpos.stock.provenance = lambda **_: {}  # which imports torch
folder, ending = Path(sys.argv[1]), sys.argv[2]

def make(own):
    with (folder / "log").open("a") as file:
        file.write(f"{os.getpid()}\\n")
    (own / "first").write_text("1")
    for _ in range(1200):
        if (folder / "go").exists():
            break
        time.sleep(0.05)
    if ending.startswith("killed"):
        os._exit(9)
    (own / "second").write_text("2")

print("here", flush=True)
print(superpos.stock.stocked("kind", {"a": 1}, make, resumable=ending == "killed, resumable"))
"""
ABOUT = ["provenance.json", "what.json"]


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("SUPERPOS_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


def writing(name="content", text="some"):
    def make(folder):
        (folder / name).write_text(text)

    return make


def refusing(_):
    raise AssertionError("made again")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def folders(results):
    return [path for path in results.rglob("*") if path.is_dir() and path.parent.name == "kind"]


def in_a_process(folder, ending="whole"):
    command = [sys.executable, "-c", PROCESS, str(folder), ending]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def begun(process):
    """Wait until a process is about to ask for the folder."""
    assert process.stdout.readline() == "here\n"
    return process


def waited_for(path):
    for _ in range(1200):
        if path.exists() and path.read_text():
            return
        threading.Event().wait(0.05)
    raise AssertionError(f"{path} was never written")


def test_a_folder_is_made_once_and_found_again(results):
    place = stocked("kind", {"a": 1}, writing())
    assert place.parent == results / "stock" / "kind"
    assert (place / "content").read_text() == "some"
    assert stocked("kind", {"a": 1}, refusing) == place
    assert folders(results) == [place]


def test_a_folder_is_empty_when_it_is_filled_and_says_what_it_holds(results):
    seen = []
    place = stocked("kind", {"b": [1, 2], "a": None}, lambda own: seen.extend(own.iterdir()))
    assert seen == []
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    about = json.loads((place / "what.json").read_text())
    assert about == {"a": None, "b": [1, 2], **versions}


def test_a_folder_says_how_it_was_made(results):
    place = stocked("kind", {"device": "cpu"}, writing())
    about = json.loads((place / "provenance.json").read_text())
    assert about.keys() == provenance().keys()
    assert about["torch"] == torch.__version__
    assert about["device"].startswith("cpu")
    assert about["seconds"] >= 0


def test_folders_of_other_content_or_kind_lie_elsewhere(results):
    asked = [("kind", {"a": 1}), ("kind", {"a": 2}), ("kind", {"b": 1}), ("other", {"a": 1}),
             ("kind", {"a": "1"}), ("kind", {"a": 1, "b": None}), ("kind", {})]  # fmt: skip
    places = [stocked(*own, writing(text=str(own))) for own in asked]
    assert len(set(places)) == len(asked)
    assert [(place / "content").read_text() for place in places] == [*map(str, asked)]


def test_the_order_of_what_is_asked_for_does_not_matter(results):
    place = stocked("kind", {"a": 1, "b": {"c": (1, 2), "d": None}}, writing())
    assert stocked("kind", {"b": {"d": None, "c": [1, 2]}, "a": 1}, refusing) == place


@pytest.mark.parametrize("library", ["torch", "transformers", "tokenizers"])
def test_what_another_version_of_a_library_made_is_made_again(results, monkeypatch, library):
    first = stocked("kind", {"a": 1}, writing())
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "0.0" if name == library else version(name)
    )
    assert stocked("kind", {"a": 1}, writing()) != first


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_a_maker_that_fails_leaves_nothing_and_the_next_one_makes_it(results, error):
    def failing(folder):
        (folder / "part").write_text("half")
        (folder / "deep").mkdir()
        (folder / "deep" / "part").write_text("half")
        raise error

    with pytest.raises(type(error)):
        stocked("kind", {"a": 1}, failing)
    assert folders(results) == []
    assert not list(results.rglob("part"))
    place = stocked("kind", {"a": 1}, writing())
    assert names(place) == ["content", *ABOUT]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_a_resumable_maker_finds_what_the_ones_that_failed_left(results, error):
    found = []

    def going_on(folder):
        found.append(names(folder))
        (folder / f"part{len(found)}").write_text(str(len(found)))
        if len(found) < 3:
            raise error

    for _ in range(2):
        with pytest.raises(type(error)):
            stocked("kind", {"a": 1}, going_on, resumable=True)
    assert len(folders(results)) == 1  # what is left
    place = stocked("kind", {"a": 1}, going_on, resumable=True)
    assert found == [[], ["part1"], ["part1", "part2"]]
    assert names(place) == ["part1", "part2", "part3", *ABOUT]
    assert [(place / f"part{n}").read_text() for n in (1, 2, 3)] == ["1", "2", "3"]
    assert folders(results) == [place]


def test_a_resumable_folder_is_found_when_it_is_finished(results):
    place = stocked("kind", {"a": 1}, writing(), resumable=True)
    assert stocked("kind", {"a": 1}, refusing, resumable=True) == place
    assert stocked("kind", {"a": 1}, refusing) == place
    other = stocked("kind", {"a": 2}, writing())
    assert stocked("kind", {"a": 2}, refusing, resumable=True) == other
    assert sorted(folders(results)) == sorted([place, other])


def test_what_was_not_finished_is_not_found_by_other_content(results):
    def failing(folder):
        (folder / "part").write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        stocked("kind", {"a": 1}, failing, resumable=True)
    place = stocked("kind", {"a": 2}, writing(), resumable=True)
    assert names(place) == ["content", *ABOUT]


def test_a_maker_that_is_not_resumable_begins_with_nothing(results):
    def failing(folder):
        (folder / "part").write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        stocked("kind", {"a": 1}, failing, resumable=True)
    place = stocked("kind", {"a": 1}, writing())
    assert names(place) == ["content", *ABOUT]


def test_a_folder_is_not_there_before_it_is_whole(results):
    expected = stocked("kind", {"a": 1}, writing())
    shutil.rmtree(expected)
    seen = []

    def make(folder):
        (folder / "first").write_text("1")
        seen.append(expected.exists())
        (folder / "second").write_text("2")
        seen.append(expected.exists())

    assert stocked("kind", {"a": 1}, make) == expected
    assert seen == [False, False]
    assert (expected / "second").exists()


def test_of_two_threads_one_makes_it_while_the_other_waits(results):
    started, proceed, calls, found = threading.Event(), threading.Event(), [], []

    def make(folder):
        calls.append(threading.get_ident())
        started.set()
        proceed.wait(60)
        (folder / "content").write_text("some")

    def ask():
        found.append(stocked("kind", {"a": 1}, make))

    first, second = threading.Thread(target=ask), threading.Thread(target=ask)
    first.start()
    assert started.wait(60)
    second.start()
    second.join(0.3)
    assert second.is_alive()
    assert found == []
    proceed.set()
    first.join(60)
    second.join(60)
    assert len(calls) == 1
    assert found[0] == found[1]
    assert (found[0] / "content").read_text() == "some"
    assert folders(results) == [found[0]]


def test_what_others_make_does_not_wait(results):
    inside = []

    def make(_):
        inside.append(stocked("kind", {"a": 2}, writing()))

    # in a thread that may be left behind, so that waiting for oneself would not last forever
    thread = threading.Thread(target=stocked, args=("kind", {"a": 1}, make), daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert len(folders(results)) == 2
    assert (inside[0] / "content").exists()


def test_of_two_processes_one_makes_it_and_both_find_it_whole(results, tmp_path):
    processes = [in_a_process(tmp_path) for _ in range(2)]
    for process in processes:
        begun(process)
    waited_for(tmp_path / "log")
    threading.Event().wait(0.3)  # in which the other one would begin, if it did not wait
    (tmp_path / "go").touch()
    printed = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert len((tmp_path / "log").read_text().split()) == 1
    assert printed[0] == printed[1]
    assert names(Path(printed[0].strip())) == ["first", *ABOUT[:1], "second", *ABOUT[1:]]


def test_a_process_that_dies_while_making_it_is_no_obstacle(results, tmp_path):
    (tmp_path / "go").touch()
    process = in_a_process(tmp_path, "killed")
    process.communicate(timeout=60)
    assert process.returncode == 9
    place = stocked("kind", {"a": 1}, writing())
    assert names(place) == ["content", *ABOUT]
    assert stocked("kind", {"a": 1}, refusing) == place


def test_what_a_killed_process_wrote_is_there_for_the_next_resumable_maker(results, tmp_path):
    (tmp_path / "go").touch()
    process = in_a_process(tmp_path, "killed, resumable")
    process.communicate(timeout=60)
    assert process.returncode == 9
    place = stocked("kind", {"a": 1}, writing(), resumable=True)
    assert names(place) == ["content", "first", *ABOUT]
    assert folders(results) == [place]


def test_results_lie_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "_config.yml").touch()
    monkeypatch.setenv("SUPERPOS_RESULTS", str(tmp_path / "elsewhere"))
    assert results_root() == tmp_path / "elsewhere"
    assert default_root("quick") == tmp_path / "elsewhere" / "quick"


@pytest.mark.parametrize("environment", [None, ""])
def test_results_lie_in_the_project_or_in_the_current_folder(tmp_path, monkeypatch, environment):
    if environment is None:
        monkeypatch.delenv("SUPERPOS_RESULTS", raising=False)
    else:
        monkeypatch.setenv("SUPERPOS_RESULTS", environment)
    inner = tmp_path / "project" / "notebooks"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    assert results_root() == inner / "results"
    (tmp_path / "project" / "_config.yml").touch()
    assert results_root() == tmp_path / "project" / "results"
    assert stocked("kind", {}, writing()).parent == results_root() / "stock" / "kind"
