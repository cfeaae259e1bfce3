"""Files that a user names, and what is asked of them: read as they are, or one sentence."""

import io
import json
import math
import struct
import zipfile

import numpy as np
import pytest
import torch
from bad_input import JUNK, refusal
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from superpos import SAE, SAEConfig, hub
from superpos.language_models import Training, losses
from superpos.matrix_file import UnreadableMatrix, read_matrix
from superpos.pretrained import read_dictionary


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


MATRIX = npy(np.arange(12.0).reshape(4, 3))


def is_a_matrix(name, content):
    """Whether a file is read, as a matrix that can be measured; else it was refused."""
    try:
        x = read_matrix(name, content)
    except UnreadableMatrix as error:
        assert str(error).startswith(name)
        return False
    assert x.dtype == torch.float32 and x.ndim == 2 and len(x) >= 2 and x.shape[1] >= 1
    assert x.isfinite().all()
    return True


@settings(max_examples=150)
@given(st.data())
def test_a_damaged_array_file_is_a_matrix_or_refused(data):
    place = data.draw(st.integers(0, len(MATRIX) - 1))
    end = data.draw(st.integers(place, len(MATRIX)))
    is_a_matrix(
        "x.npy", MATRIX[:place] + data.draw(st.binary(max_size=3)) + MATRIX[place + 1 : end]
    )


def test_every_cut_of_an_array_file_is_refused():
    assert is_a_matrix("x.npy", MATRIX)
    assert not any(is_a_matrix("x.npy", MATRIX[:end]) for end in range(len(MATRIX)))


@settings(max_examples=150)
@given(st.text("0123456789.,;-+eEnaif\n\r\t \"'x#\0", max_size=40) | st.text() | st.binary())
def test_any_text_is_a_matrix_or_refused(text):
    is_a_matrix("x.csv", text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.npy", MATRIX[:10] + b"{" * 20 + MATRIX[30:], "is no .npy file"),
        ("x.npy", npy(np.full((2, 2), 1e-300)), "at most 1e-300, too small for float32"),
        ("x.csv", b"1,dog\n2,3\n4,5", "both numbers and words in its first line (1,dog)"),
        ("x.csv", b"1+2j,2\n3,4\n5,6", "both numbers and words in its first line"),
        ("x.csv", b"1" * 400 + b",2\n3,4", "a number in column 1 that is too large"),
    ],
)
def test_more_that_is_no_matrix_is_refused(name, content, said):
    assert said in refusal(UnreadableMatrix, read_matrix, name, content)


def values(members=1, size=8, neurons=4):
    shapes = {
        "encoder": (members, size, neurons), "bias": (members, size),
        "decoder": (members, size, neurons), "offset": (members, neurons),
    }  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}


UNTIED = json.dumps({"architecture": "untied", "expansion": 2.0})


def saved(tmp_path, changed=(), header=UNTIED):
    held = {
        name: value for name, value in {**values(), **dict(changed)}.items() if value is not None
    }
    path = tmp_path / "sae.safetensors"
    save_file(held, str(path), metadata=None if header is None else {"superpos.sae": header})
    return path


@pytest.mark.parametrize(
    ("changed", "header", "said"),
    [
        ({}, None, "its header says nothing of one"),
        ({}, "{", "Expecting property name"),
        ({}, "[1]", "must be a mapping"),
        ({}, "null", "must be a mapping"),
        ({}, '{"gates": 1}', "unexpected keyword argument 'gates'"),
        ({}, '{"l1": "a"}', "l1 is 'a'"),
        ({}, "{}", "arrays are"),
        ({"encoder": None}, UNTIED, "encoder"),
        ({"decoder": None}, UNTIED, "arrays are"),
        ({"offset": None}, UNTIED, "arrays are"),
        ({"gate": torch.ones(2)}, UNTIED, "unexpected keyword argument 'gate'"),
        ({"threshold": torch.ones(1)}, UNTIED, "arrays are"),
        ({}, UNTIED.replace("untied", "batchtopk"), "arrays are"),
        ({}, UNTIED[:-1] + ', "normalize": true}', "arrays are"),
        ({}, UNTIED.replace("untied", "topk")[:-1] + ', "k": 99}', "k is 99"),
        ({"bias": torch.ones(1, 7)}, UNTIED, "bias (1, 7)"),
        ({"decoder": torch.ones(1, 4, 8)}, UNTIED, "decoder (1, 4, 8)"),
        ({"encoder": torch.ones(8, 4)}, UNTIED, "encoder has shape (8, 4)"),
        ({"encoder": torch.ones(1, 0, 4)}, UNTIED, "encoder has shape (1, 0, 4)"),
        ({"bias": torch.full((1, 8), math.nan)}, UNTIED, "nan or infinity"),
        ({"encoder": torch.full((1, 8, 4), math.inf)}, UNTIED, "nan or infinity"),
        ({"bias": torch.ones(1, 8).half()}, UNTIED, "of one kind"),
        ({k: v.long() for k, v in values().items()}, UNTIED, "floating-point"),
        ({"scale": torch.zeros(1)}, UNTIED[:-1] + ', "normalize": true}', "scale is not positive"),
    ],
)  # fmt: skip
def test_a_file_that_holds_no_autoencoder_of_ours_is_refused(tmp_path, changed, header, said):
    path = saved(tmp_path, changed, header)
    message = refusal(ValueError, SAE.load, path)
    assert message.startswith(f"{path} holds no superpos autoencoder (") and said in message
    assert refusal(ValueError, read_dictionary, path) == message


def test_an_autoencoder_of_ours_is_read_and_every_cut_of_its_file_refused(tmp_path):
    path = saved(tmp_path)
    assert torch.equal(SAE.load(path).encoder, values()["encoder"])
    content = path.read_bytes()
    for end in range(0, len(content), 7):
        path.write_bytes(content[:end])
        assert "is no safetensors file" in refusal(ValueError, SAE.load, path)
    path.write_bytes(struct.pack("<Q", 2**60) + content)
    assert "is no safetensors file" in refusal(ValueError, SAE.load, path)


def test_missing_files_folders_and_devices_are_named(tmp_path):
    for path in (tmp_path / "no.safetensors", tmp_path):
        assert refusal(FileNotFoundError, SAE.load, path) == f"There is no file {path}."
    assert "device is 'tpu'" in refusal(ValueError, SAE.load, saved(tmp_path), device="tpu")


def state(**changed):
    held = values()
    arrays = {
        "bias": held["offset"][0], "encoder.weight": held["encoder"][0],
        "encoder.bias": held["bias"][0], "decoder.weight": held["decoder"][0].T.contiguous(),
    }  # fmt: skip
    return arrays | {name.replace("_", "."): value for name, value in changed.items()}


@pytest.mark.parametrize(
    "held",
    [
        {name: value.long() for name, value in state().items()},
        {name: value.to(torch.complex64) for name, value in state().items()},
        {name: value > 0.5 for name, value in state().items()},
        {name: value[:0] for name, value in state().items()},
        state(encoder_weight=state()["encoder.weight"].to_sparse()),
        state(bias=state()["bias"].to("meta")),
        state(bias=torch.full((4,), math.nan)),
        state(encoder_weight=torch.full((8, 4), math.inf)),
        state(bias=torch.full((4,), 1e300, dtype=torch.double)),
    ],
)
def test_numbers_that_make_no_dictionary_are_refused(tmp_path, held):
    torch.save(state(), tmp_path / "ae.pt")
    assert read_dictionary(str(tmp_path / "ae.pt")).neurons == 4
    torch.save(held, tmp_path / "ae.pt")
    assert "ae.pt holds" in refusal(ValueError, read_dictionary, tmp_path / "ae.pt")


def test_an_archive_that_is_damaged_is_named(tmp_path):
    archive = tmp_path / "x.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a/ae.pt", "x" * 100)
    content = archive.read_bytes()
    flipped = content.replace(b"xxxx", b"xyxx", 1)
    for damaged in (b"", b"text", content[:60], content[:-1], flipped):
        archive.write_bytes(damaged)
        message = refusal(ValueError, hub.unpack, archive, tmp_path / "out")
        assert message.startswith(f"{archive} is no intact zip archive")
    assert not (tmp_path / "out" / "a" / "ae.pt").exists()


@pytest.mark.parametrize("changed", [{"count": 0}, {"count": -1}, {"characters": 0}, {"seed": "a"}])
def test_numbers_of_documents_to_fetch_are_checked_before_anything_is_fetched(tmp_path, changed):
    options = {"seed": 0, "count": 1, "characters": 5} | changed
    assert refusal(ValueError, hub.fetch_pile, tmp_path, **options).startswith(next(iter(changed)))
    assert not list(tmp_path.iterdir())


TRAINING = {
    "text": "embedded", "seed": 0, "layers": 1, "width": 8, "heads": 2, "vocabulary": 260,
    "context": 4, "steps": 1, "batch": 1, "rate": 1e-3, "checkpoints": (0,),
}  # fmt: skip


@given(st.sampled_from(sorted(TRAINING.keys() - {"text", "checkpoints"})), st.sampled_from(JUNK))
def test_a_training_has_whole_sizes_and_a_positive_rate_or_is_refused(name, value):
    try:
        Training(**TRAINING | {name: value})
    except ValueError as error:
        assert f"{name} is " in str(error) or "heads" in str(error) or "checkpoints" in str(error)
    else:
        assert isinstance(value, (int, float, np.number)) or name == "rate"
        assert not isinstance(value, bool) and (name == "seed" or float(value) >= 0)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"losses": {"a": 1}}'])
def test_damaged_losses_are_named(tmp_path, content):
    (tmp_path / "losses.json").write_text(content)
    assert "losses.json is damaged" in refusal(ValueError, losses, tmp_path)


def test_a_configuration_is_kept_when_its_file_is_read(tmp_path):
    config = SAEConfig(architecture="untied", expansion=2.0)
    held = values()
    SAE(config, held["encoder"], held["bias"], held["decoder"], held["offset"]).save(
        tmp_path / "sae.safetensors"
    )
    assert SAE.load(tmp_path / "sae.safetensors").config == config
