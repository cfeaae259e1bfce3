"""Text: what the documents are, their order, what is left out on the way, and the Pile."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import re
import sys
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from superpos.data import text as module
from superpos.data.images import DataNotFound
from superpos.data.text import PILE_SOURCE, pile, read_text, tokenized

LIBRARY = '''"""A module."""

import os


def outer(x):
    """Outer."""

    def inner(y):
        return y

    return inner(x)


class Thing:
    """
    A thing.

        Indented.
    """

    def method(self):
        return 1

    class Inside:
        """Inside it."""


if os.name == "posix":

    async def sometimes():
        return None
'''
PARTS = {
    "A module.",
    'def outer(x):\n    """Outer."""\n\n    def inner(y):\n        return y\n\n'
    "    return inner(x)\n",
    "A thing.\n\n    Indented.",
    "    def method(self):\n        return 1\n",
    "Inside it.",
    "    async def sometimes():\n        return None\n",
}


@pytest.fixture(scope="module")
def embedded():
    return read_text("embedded")


@pytest.fixture
def library(tmp_path, monkeypatch):
    """An empty folder in place of the standard library's."""
    folder = tmp_path / "library"
    folder.mkdir()
    monkeypatch.setattr(module.sysconfig, "get_paths", lambda: {"stdlib": str(folder)})
    module._embedded.cache_clear()
    yield folder
    module._embedded.cache_clear()


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    """A file of 26 paragraphs."""
    path = tmp_path_factory.mktemp("letters") / "letters.txt"
    path.write_text("\n\n".join("abcdefghijklmnopqrstuvwxyz"), encoding="utf-8")
    return path


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder, and no folder of data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SUPERPOS_DATA", raising=False)
    return tmp_path


def written(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content, encoding="utf-8")
    return path


def lines_of(*documents, ensure_ascii=True):
    rows = [json.dumps({"text": text}, ensure_ascii=ensure_ascii) for text in documents]
    return "".join(f"{row}\n" for row in rows)


def documents_of(path, **options):
    return sorted(read_text(str(path), **options).documents)


def test_the_embedded_text_holds_functions_and_docstrings_of_the_standard_library(embedded):
    documents = set(embedded.documents)
    assert inspect.getsource(textwrap.dedent) in documents
    assert inspect.getsource(textwrap.TextWrapper.wrap) in documents
    assert inspect.getsource(json.JSONEncoder.iterencode) in documents
    assert inspect.getdoc(textwrap.TextWrapper) in documents
    assert inspect.getdoc(json) in documents
    assert inspect.getdoc(ast.NodeVisitor) in documents


def test_the_embedded_text_repeats_nothing_and_counts_what_it_left_out(embedded):
    assert len(set(embedded.documents)) == len(embedded.documents) > 3000
    assert all(document.strip() for document in embedded.documents)
    assert embedded.skipped["repeated"] > 100
    assert min(embedded.skipped.values()) > 0


def test_the_embedded_text_is_the_same_for_a_seed_and_in_another_order_for_another(embedded):
    again, other = read_text("embedded"), read_text("embedded", seed=1)
    assert again.documents == embedded.documents
    assert other.documents != embedded.documents
    assert sorted(other.documents) == sorted(embedded.documents)
    assert other.digest == embedded.digest


def test_functions_inside_functions_come_with_them_and_methods_on_their_own(library):
    written(library / "one.py", LIBRARY)
    found = read_text("embedded")
    assert set(found.documents) == PARTS
    assert len(found.documents) == len(PARTS)
    assert found.skipped == {}


def test_tests_and_installed_packages_are_no_part_of_the_embedded_text(library):
    written(library / "package" / "part.py", "def kept():\n    pass\n")
    for folder in ("test", "package/tests", "site-packages/torch", "idlelib", "lib2to3"):
        written(library / folder / "own.py", f'"""{folder}"""\n')
    written(library / "package" / "notes.txt", "def text(): pass\n")
    assert read_text("embedded").documents == ["def kept():\n    pass\n"]


def test_files_of_the_standard_library_that_cannot_be_read_are_counted(library):
    written(library / "latin.py", "# -*- coding: latin-1 -*-\nx = 'ä'\n".encode("latin-1"))
    written(library / "old.py", "print 'no brackets'\n")
    written(library / "zero.py", "x = '\0'\n")
    for name in ("a", "b", "c"):
        written(library / f"{name}.py", f'def same():\n    pass\n\n\ndef {name}():\n    "Doc."\n')
    found = read_text("embedded")
    assert len(found.documents) == 4
    assert found.skipped == {
        "file not readable as UTF-8": 1,
        "file that is no Python": 2,
        "repeated": 2,
    }


@pytest.mark.parametrize("mark", ["\f\n", "s = '\u2028'\n", "s = 'a\x1cb\x85'\n", "# \x0b\n"])
def test_functions_are_whole_though_a_file_holds_rare_separators_of_lines(library, mark):
    written(library / "one.py", mark + "def first():\n    pass\n\n\ndef last():\n    return 1\n")
    expected = ["def first():\n    pass\n", "def last():\n    return 1\n"]
    assert sorted(read_text("embedded").documents) == expected


@given(seed=st.integers(0, 2**31), first=st.integers(0, 25), count=st.integers(1, 26))
def test_a_slice_holds_the_documents_at_its_places_of_the_whole(letters, seed, first, count):
    whole = read_text(str(letters), seed=seed)
    assert sorted(whole.documents) == list("abcdefghijklmnopqrstuvwxyz")
    rest = read_text(str(letters), seed=seed, first=first)
    assert rest.documents == whole.documents[first:]
    if first + count <= 26:
        part = read_text(str(letters), seed=seed, first=first, count=count)
        assert part.documents == whole.documents[first : first + count]
        assert part.digest == whole.digest


def test_a_seed_fixes_the_order_of_a_file(letters):
    orders = [tuple(read_text(str(letters), seed=seed).documents) for seed in range(10)]
    assert len(set(orders)) == 10
    assert orders == [tuple(read_text(str(letters), seed=seed).documents) for seed in range(10)]


def test_paragraphs_of_a_file_are_documents_and_empty_ones_are_counted(here):
    path = written(here / "a.md", "one\ntwo\n\n  three ä\n \t\n\n\nfour\n\n\x0c\n\nfive\n\n")
    found = read_text(str(path))
    assert sorted(found.documents) == ["  three ä", "five", "four", "one\ntwo"]
    assert found.skipped == {"empty": 1}


def test_lines_of_a_jsonl_file_are_documents_and_empty_ones_are_counted(here):
    path = written(here / "a.jsonl", "\n" + lines_of("one\n\ntwo", "", " \n", "ä", "one\n\ntwo"))
    found = read_text(str(path))
    assert sorted(found.documents) == ["one\n\ntwo", "one\n\ntwo", "ä"]
    assert found.skipped == {"empty": 2}


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85"])
def test_a_line_of_a_jsonl_file_may_hold_rare_separators_of_lines(here, mark):
    path = written(here / "a.jsonl", lines_of(f"one{mark}two", "three", ensure_ascii=False))
    assert documents_of(path) == [f"one{mark}two", "three"]


def test_files_of_a_folder_are_documents(here):
    written(here / "folder" / "a.txt", "one\n\ntwo")
    written(here / "folder" / "deep" / "b.txt", "three")
    written(here / "folder" / "empty.txt", " \n")
    written(here / "folder" / "latin.txt", "ä".encode("latin-1"))
    written(here / "folder" / "other.md", "no text")
    found = read_text("folder")
    assert sorted(found.documents) == ["one\n\ntwo", "three"]
    assert found.skipped == {"empty": 1, "file not readable as UTF-8": 1}


def test_a_relative_path_is_looked_for_here_and_then_among_the_data(here, monkeypatch):
    for folder in ("data", "elsewhere", "given"):
        written(here / folder / "a.txt", folder)
    assert documents_of("a.txt") == ["data"]
    monkeypatch.setenv("SUPERPOS_DATA", str(here / "elsewhere"))
    assert documents_of("a.txt") == ["elsewhere"]
    assert documents_of("a.txt", directory=here / "given") == ["given"]
    written(here / "a.txt", "here")
    assert documents_of("a.txt", directory=here / "given") == ["here"]


def test_a_text_that_is_not_there_is_refused(here, monkeypatch):
    monkeypatch.setenv("SUPERPOS_DATA", str(here / "elsewhere"))
    with pytest.raises(DataNotFound, match=r"no text 'embeded'.*elsewhere.*'embedded', 'pile'"):
        read_text("embeded")


@pytest.mark.parametrize("options", [{"count": 27}, {"first": 20, "count": 7}, {"first": 26}])
def test_a_text_of_too_few_documents_is_refused(letters, options):
    with pytest.raises(ValueError, match="holds 26 documents: too few"):
        read_text(str(letters), **options)


def test_a_message_says_how_many_documents_there_are_where_none_was_in_reach(letters):
    with pytest.raises(ValueError, match="holds 26 documents: too few"):
        read_text(str(letters), first=100, count=2)


@pytest.mark.parametrize("content", ["", "\n \n\n", b"\xe4\xf6"])
def test_a_file_without_text_is_refused(here, content):
    written(here / "a.txt", content)
    with pytest.raises(ValueError, match=r"a\.txt holds no document"):
        read_text("a.txt")


@pytest.mark.parametrize(
    "line", ["no json", "{'text': 'a'}", '["a"]', '"text"', '{"txt": "a"}', "1", '{"text": "a"'],
)  # fmt: skip
def test_a_malformed_line_of_a_jsonl_file_is_refused(here, line):
    written(here / "a.jsonl", lines_of("fine") + line + "\n")
    with pytest.raises(ValueError, match=r"a\.jsonl must hold one JSON object with a key 'text'"):
        read_text("a.jsonl")


@pytest.mark.parametrize("value", ["null", "3", '["a"]'])
def test_a_jsonl_file_whose_text_is_none_is_refused(here, value):
    written(here / "a.jsonl", lines_of("fine") + f'{{"text": {value}}}\n')
    with pytest.raises(ValueError, match=r"a\.jsonl must hold"):
        read_text("a.jsonl")


def test_a_jsonl_file_that_is_not_utf8_is_refused_by_name(here):
    written(here / "a.jsonl", lines_of("fine", "ä", ensure_ascii=False).encode("latin-1"))
    with pytest.raises(ValueError, match=r"a\.jsonl"):
        read_text("a.jsonl")


def test_a_digest_tells_texts_apart_and_nothing_else(here):
    written(here / "a.txt", "one\n\ntwo")
    written(here / "b.jsonl", lines_of("one", "two"))
    written(here / "c.txt", "one\n\ntwo\n\nthree")
    written(here / "d.txt", "onet\n\nwo")
    digest = read_text("a.txt").digest
    assert re.fullmatch("[0-9a-f]{16}", digest)
    same = [
        read_text("a.txt", seed=5),
        read_text("a.txt", first=1),
        read_text("a.txt", count=1),
        read_text("b.jsonl"),
    ]
    assert {found.digest for found in same} == {digest}
    assert len({digest, read_text("c.txt").digest, read_text("d.txt").digest}) == 3


@pytest.fixture(scope="module")
def letter_tokenizer():
    """One id per letter."""
    ids = {"?": 0, **{letter: place for place, letter in enumerate("abcdefgh", start=1)}}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?")


def ids_by_hand(documents, characters, context):
    """Ids of documents with two tokens or more, and how many were short or cut."""
    kept, short, cut = [], 0, 0
    for text in documents:
        ids = ["abcdefgh".find(letter) + 1 for letter in text[:characters]]
        if len(ids) < 2:
            short += 1
        else:
            cut += len(ids) > context
            kept.append(ids[:context])
    counts = {"fewer than two tokens": short, f"cut to {context} tokens": cut}
    return kept, {reason: count for reason, count in counts.items() if count}


@given(
    documents=st.lists(st.text("abcdefgh", max_size=8), max_size=12),
    characters=st.none() | st.integers(1, 8),
    context=st.integers(2, 8),
)
def test_tokens_are_those_of_each_document_and_short_and_cut_ones_are_counted(
    letter_tokenizer, documents, characters, context
):
    found = tokenized(documents, letter_tokenizer, characters=characters, context=context)
    assert tuple(found) == ids_by_hand(documents, characters, context)


def test_many_documents_are_tokenized_in_their_order(letter_tokenizer):
    letters = itertools.cycle(itertools.product("abcdefgh", repeat=3))
    documents = ["".join(next(letters)) for _ in range(2001)]
    found = tokenized(documents, letter_tokenizer, context=3)
    assert tuple(found) == ids_by_hand(documents, None, 3)


DOCUMENTS = [f"document {number}" for number in range(60)]


@pytest.fixture
def hub(monkeypatch):
    """A hub that holds `DOCUMENTS` with empty ones between them, and says what it was asked."""
    datasets = pytest.importorskip("datasets")
    asked = []
    texts = [text for document in DOCUMENTS for text in (document, " \n")]
    stream = datasets.Dataset.from_dict({"text": texts}).to_iterable_dataset()

    def load_dataset(*given, **options):
        asked.append((given, options))
        return stream

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def without_a_hub(monkeypatch, error):
    datasets = pytest.importorskip("datasets")

    def load_dataset(*_, **__):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)


class Lost:
    """A stream that ends because the connection is lost."""

    def __init__(self, texts):
        self.texts = texts

    def shuffle(self, **_):
        yield from ({"text": text} for text in self.texts)
        raise ConnectionError("lost")


def lost_after(monkeypatch, texts):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: Lost(texts))


def test_the_pile_is_streamed_and_shuffled_by_the_seed(hub):
    orders = {seed: list(pile(seed)) for seed in (0, 1)}
    assert hub[0] == ((PILE_SOURCE,), {"split": "train", "streaming": True})
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted([*DOCUMENTS, *[" \n"] * 60])
    assert list(pile(1)) == orders[1]


def test_the_pile_without_empty_documents_is_what_is_read(hub, here):
    for seed in (0, 3):
        expected = [text for text in pile(seed) if text.strip()]
        found = read_text("pile", seed=seed, count=60)
        assert found.documents == expected
        assert 0 < found.skipped["empty"] <= 60


@given(first=st.integers(0, 59), data=st.data())
def test_shards_of_the_pile_are_slices_of_its_stream(first, data):
    last = data.draw(st.integers(first + 1, 60))
    with pytest.MonkeyPatch.context() as patch:
        lost_after(patch, [text for document in DOCUMENTS[:last] for text in ("", document)])
        found = read_text("pile", first=first, count=last - first, directory="nowhere")
    assert found.documents == DOCUMENTS[first:last]
    assert found.skipped == {"empty": last}


def test_the_pile_is_read_no_further_than_needed(here, monkeypatch):
    lost_after(monkeypatch, ["a", "", "b", "c"])
    assert read_text("pile", first=1, count=2).documents == ["b", "c"]


def test_a_hub_lost_on_the_way_is_refused_like_one_out_of_reach(here, monkeypatch):
    lost_after(monkeypatch, ["a", "", "b", "c"])
    with pytest.raises(DataNotFound, match="superpos fetch pythia"):
        read_text("pile", first=1, count=3)


def test_digests_of_the_pile_differ_from_those_of_other_text_and_not_by_shard(hub, here):
    written(here / "a.txt", "one")
    parts = [read_text("pile", count=2), read_text("pile", first=5, count=3)]
    assert parts[0].digest == parts[1].digest != read_text("a.txt").digest


def test_the_pile_needs_a_number_of_documents(hub, here):
    with pytest.raises(ValueError, match="give the number of documents"):
        read_text("pile")
    assert hub == []


def test_more_documents_than_the_pile_holds_are_refused(hub, here):
    with pytest.raises(ValueError, match="holds 60 documents: too few to take 6 from place 55"):
        read_text("pile", first=55, count=6)


@pytest.mark.parametrize(
    "error",
    [ConnectionError("unreachable"), FileNotFoundError("no such set"), RuntimeError("closed")],
)
def test_a_hub_out_of_reach_is_refused_with_the_command_that_helps(here, monkeypatch, error):
    without_a_hub(monkeypatch, error)
    with pytest.raises(DataNotFound, match="superpos fetch pythia") as found:
        read_text("pile", count=1)
    assert PILE_SOURCE in str(found.value)
    assert found.value.__cause__ is error


def test_the_package_itself_says_so_when_it_is_offline(here, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", here / "cache")
    with pytest.raises(DataNotFound, match="superpos fetch pythia"):
        next(pile(0))


def test_without_the_package_of_data_sets_the_way_to_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataNotFound, match=r"pip install 'superpos\[hub\]'"):
        next(pile(0))


def test_documents_of_the_pile_that_lie_here_are_taken_in_their_order(here, monkeypatch):
    without_a_hub(monkeypatch, ConnectionError("no network"))
    written(here / "folder" / "pile_seed3.jsonl", lines_of("b", "", "c", "a", "d"))
    found = read_text("pile", seed=3, first=1, count=2, directory=here / "folder")
    assert found.documents == ["c", "a"]
    assert found.skipped == {"empty": 1}
    monkeypatch.setenv("SUPERPOS_DATA", str(here / "folder"))
    assert read_text("pile", seed=3).documents == ["b", "c", "a", "d"]


def test_documents_of_the_pile_of_another_seed_are_not_taken(hub, here):
    written(here / "data" / "pile_seed3.jsonl", lines_of("b", "c", "a"))
    assert set(read_text("pile", seed=4, count=3).documents) < set(DOCUMENTS)
    with pytest.raises(ValueError, match="holds 3 documents: too few"):
        read_text("pile", seed=3, count=4)
