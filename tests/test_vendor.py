"""The scripts and fonts that the pages load lie in the book, as they were fetched."""

import importlib.util
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("vendor", ROOT / "book" / "vendor.py")
vendor = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(vendor)


def listed():
    """Digests by name, as SHA256SUMS has them."""
    lines = (vendor.FOLDER / vendor.SUMS).read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}


def test_every_file_is_the_one_that_was_fetched():
    assert vendor.sums(vendor.FOLDER) == listed()


def test_every_file_and_folder_that_is_fetched_is_there():
    for files in vendor.PACKAGES.values():
        for name in files.values():
            assert any(own == name or own.startswith(f"{name}/") for own in listed()), name


def test_nothing_lies_there_that_was_not_fetched_but_the_licences():
    there = {
        str(path.relative_to(vendor.FOLDER)) for path in vendor.FOLDER.rglob("*") if path.is_file()
    }
    assert there - listed().keys() == {"LICENSES.md", vendor.SUMS}


def test_every_package_and_its_version_stand_among_the_licences():
    text = (vendor.FOLDER / "LICENSES.md").read_text(encoding="utf-8").lower()
    for package in vendor.PACKAGES:
        name, version = package.rsplit("@", 1)
        assert name.lower() in text and version in text


def test_a_changed_file_is_noticed(tmp_path):
    (tmp_path / "require.js").write_text("one")
    before = vendor.sums(tmp_path)
    (tmp_path / "require.js").write_text("two")
    assert set(before) == {"require.js"} and vendor.sums(tmp_path) != before


def test_the_book_loads_its_scripts_from_there():
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["sphinx"]["config"]
    for path in (config["mathjax_path"], *config["nb_ipywidgets_js"]):
        assert (ROOT / "book" / "_static" / path).is_file()
