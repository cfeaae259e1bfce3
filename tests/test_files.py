"""Files written whole or not at all, here and in fsspec's memory."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from upath import UPath

from superpos import files
from superpos.files import content, create, folder, is_remote, read_all, write_whole
from superpos.store import Store, default_root, result_roots


@pytest.fixture(params=["folder", "memory"])
def root(request, tmp_path):
    yield tmp_path if request.param == "folder" else folder(f"memory://{tmp_path.name}/results")
    UPath("memory:///").fs.store.clear()


def test_paths_and_urls_are_told_apart(tmp_path):
    assert folder(str(tmp_path)) == folder(f"file://{tmp_path}") == folder(tmp_path) == tmp_path
    assert isinstance(folder(f"file://{tmp_path}"), Path)
    assert is_remote(folder("memory://a/b")) and not is_remote(folder("a/b"))
    assert folder(folder("memory://a/b")) == folder("memory://a/b")


@pytest.mark.parametrize("url", ["nonsense://bucket/results", "gs://bucket/results"])
def test_a_place_that_cannot_be_reached_is_refused_by_its_name(url, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    with pytest.raises(ValueError, match=f"results cannot be kept in {url}: "):
        Store(url)


def test_a_file_is_written_whole_and_replaced_whole(root):
    path = root / "a" / "b.json"
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert [found.name for found in path.parent.iterdir()] == ["b.json"]


def test_of_several_creators_one_succeeds(root):
    path = root / "section" / ".key.lease"
    assert create(path, b"first")
    assert not create(path, b"second")
    assert path.read_bytes() == b"first"


def test_a_disk_with_room_for_a_name_only_keeps_no_empty_file(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        create(tmp_path / "lease", b"content")
    assert os.listdir(tmp_path) == []


def test_many_files_are_read_in_their_order_and_absent_ones_are_none(root):
    paths = [root / f"{number}.json" for number in range(5)]
    for number in (4, 0, 2):
        write_whole(paths[number], str(number).encode())
    assert read_all(paths) == [b"0", None, b"2", None, b"4"]
    assert content(paths[1]) is None and content(paths[2]) == b"2"
    assert read_all([]) == []


def test_an_outage_is_no_absent_file(monkeypatch):
    path = folder("memory://outage/a.json")
    answer = {path.path: ConnectionError("no route")}
    monkeypatch.setattr(type(path.fs), "cat", lambda *_, **__: answer)
    with pytest.raises(ConnectionError, match="no route"):
        read_all([path])


def test_the_results_may_lie_at_a_url(monkeypatch):
    monkeypatch.setenv("SUPERPOS_RESULTS", "memory://shared/results")
    assert str(default_root("paper")) == "memory://shared/results/paper"
    assert result_roots()["paper"] == Path.cwd() / "results" / "paper", "nothing is there yet"
    write_whole(default_root("paper") / "x" / "y.json", b"{}")
    assert result_roots()["paper"] == default_root("paper")
    UPath("memory:///").fs.store.clear()
