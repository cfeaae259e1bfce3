"""Data that a user asks for: what was asked, or one sentence."""

import struct

import numpy as np
import pytest
import torch
from bad_input import JUNK, refusal
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from superpos.data import (
    DataNotFound,
    load_images,
    modular,
    nonempty_toy_features,
    sparse_parity,
    toy_features,
)
from superpos.data.images import check_classes
from superpos.data.text import read_text


@pytest.fixture
def folder(tmp_path):
    """A folder of images in two classes."""
    for name in "ab":
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (5, 5), (60 * number, 0, 0)).save(
                tmp_path / "set" / name / f"{number}.png"
            )
    return tmp_path / "set"


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n", None])
def test_a_damaged_image_is_named(folder, content):
    path = folder / "a" / "0.png"
    path.write_bytes(path.read_bytes()[:45] if content is None else content)
    for call in (load_images, lambda name: check_classes(name, 2)):
        message = refusal(ValueError, call, folder)
        assert message == f"{path} is no intact image: replace it or remove it."


def test_folders_that_are_no_data_set_are_refused(folder):
    said = "is no data set: give each class a folder with images in it"
    assert said in refusal(ValueError, load_images, folder / "a")
    (folder / "c").mkdir()
    assert said in refusal(ValueError, load_images, folder)
    (folder / "c").rmdir()
    for path in [*folder.glob("*/[123].png")]:
        path.unlink()
    message = refusal(ValueError, load_images, folder)
    assert message == "the classes kept leave no images for testing: give more."


@pytest.mark.parametrize("name", ["", None, 3, ["digits"], "DIGITS", "x.npy"])
def test_names_of_no_data_set_are_refused_with_those_there_are(name):
    for call in (load_images, lambda name: check_classes(name, 2)):
        assert "use digits, mnist, fashion_mnist, cifar10" in refusal(ValueError, call, name)


@pytest.mark.parametrize("content", [b"", b"garbage", struct.pack(">IIII", 0x803, 10, 28, 28)])
def test_damaged_files_of_a_known_set_count_as_missing(tmp_path, content):
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (tmp_path / "MNIST" / "raw" / f"{part}-{kind}-ubyte").write_bytes(content)
    message = refusal(DataNotFound, load_images, "mnist", directory=tmp_path)
    assert "No intact mnist files" in message


PARITY, TOY = ("tasks", "bits", "samples", "train_share", "seed"), ("count", "features", "sparsity")
LOADERS = {
    "digits": (load_images, {"name": "digits"}, ("classes", "train_size", "test_size", "seed")),
    "modular": (modular, {"prime": 7}, ("prime", "train_fraction", "seed")),
    "parity": (sparse_parity, {"tasks": 2, "bits": 2}, PARITY),
    "text": (read_text, {}, ("seed", "first", "count")),
    "toy": (toy_features, {"count": 3, "features": 2, "sparsity": 0.5}, TOY),
}  # fmt: skip
SHARES = ("train_fraction", "train_share", "sparsity")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("one\n\ntwo\n\nthree")
    return str(path)


@settings(max_examples=250)
@given(st.data())
def test_numbers_asked_of_a_loader_are_taken_as_they_are_or_refused(text, data):
    loader = data.draw(st.sampled_from(sorted(LOADERS)))
    call, options, names = LOADERS[loader]
    name, value = data.draw(st.sampled_from(names)), data.draw(st.sampled_from(JUNK))
    if loader == "text":
        options = {"name": text}
    if loader == "toy":
        options = options | {"generator": torch.Generator().manual_seed(0)}
        call = data.draw(st.sampled_from((toy_features, nonempty_toy_features)))
    try:
        call(**options | {name: value})
    except MemoryError as error:
        assert "of memory" in str(error) and name in ("tasks", "bits", "samples")
    except (ValueError, TypeError) as error:
        message = str(error)
        assert "\n" not in message and (name[:7] in message.lower() or "too few" in message)
    else:
        assert value is None or not isinstance(value, (str, bytes, complex, dict))
        assert name == "sparsity" or not isinstance(value, bool)
        if name in SHARES:
            assert (np.asarray(value) >= 0).all() and (np.asarray(value) < 1).all()
        elif name == "classes" and np.ndim(value):
            assert all(isinstance(each, (int, np.integer)) for each in value)
        else:
            assert value is None or isinstance(value, (int, np.integer))
            assert value is None or name == "seed" or value >= 0


@pytest.mark.parametrize(
    "classes", ["12", [0, 1.0], [True, 2], [0, "1"], [0, None], [-1, 1], [0, 10]]
)
def test_classes_that_are_no_numbers_of_the_set_are_refused(classes):
    assert "classes is" in refusal(ValueError, load_images, "digits", classes=classes)


@pytest.mark.parametrize("call", [load_images, modular, sparse_parity])
def test_data_for_a_device_that_is_not_there_are_refused(call):
    first = {load_images: "digits", modular: 7, sparse_parity: 2}[call]
    for device in ("tpu", "cuda:99", "meta", None):
        assert "which is not here; give one of" in refusal(ValueError, call, first, device=device)


def test_a_text_without_a_name_is_refused(tmp_path):
    assert "There is no text ''" in refusal(DataNotFound, read_text, "", directory=tmp_path)
