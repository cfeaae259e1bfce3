"""Matrices in files: read as they are, or refused in one clear sentence."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from superpos import matrix_file
from superpos.matrix_file import UnreadableMatrix, read_matrix


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def refusal(name, content):
    with pytest.raises(UnreadableMatrix) as caught:
        read_matrix(name, content)
    message = str(caught.value)
    assert message.startswith(name)
    return message


FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(
    arrays.arrays(
        np.float32, arrays.array_shapes(min_dims=2, max_dims=2, min_side=2), elements=FINITE
    )
)
def test_a_matrix_comes_back_from_either_kind_of_file(array):
    np.testing.assert_array_equal(read_matrix("x.npy", npy(array)).numpy(), array)
    text = "\n".join(",".join(map(repr, row)) for row in array.astype(float).tolist())
    np.testing.assert_array_equal(read_matrix("x.csv", text.encode()).numpy(), array)


@pytest.mark.parametrize("kind", ["<f8", ">f4", "float16", "int64", "uint8", "bool"])
def test_every_kind_of_real_number_is_read(kind):
    array = np.array([[0, 1], [1, 0], [1, 1]]).astype(kind)
    np.testing.assert_array_equal(read_matrix("x.npy", npy(array)).numpy(), array.astype("f4"))


def test_fortran_order_does_not_transpose():
    array = np.asfortranarray(np.arange(6.0).reshape(3, 2))
    np.testing.assert_array_equal(read_matrix("x.npy", npy(array)).numpy(), array)


@pytest.mark.parametrize(
    "text",
    [
        "1,2\n3,4\n",
        "a,b\n1,2\n3,4",
        "1;2\n3;4",
        "1\t2\n3\t4",
        "\ufeff1,2\r\n3,4\r\n",
        "1 2\n3 4",
        '"1","2"\n"3","4"',
    ],
    ids=["plain", "names", "semicolons", "tabs", "byte order mark", "blanks", "quotes"],
)
def test_tables_are_read_with_names_or_without(text):
    assert read_matrix("x.csv", text.encode()).tolist() == [[1, 2], [3, 4]]


def test_a_table_of_one_column_is_one_neuron():
    assert read_matrix("x.csv", b"unit\n1\n2\n3\n").tolist() == [[1], [2], [3]]


def test_a_path_is_read_and_a_missing_one_is_named(tmp_path):
    np.save(tmp_path / "x.npy", np.eye(3))
    assert read_matrix(str(tmp_path / "x.npy")).shape == (3, 3)
    with pytest.raises(OSError, match=r"y\.npy"):
        read_matrix(str(tmp_path / "y.npy"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.pt", b"1", "must end in .npy or .csv"),
        ("x.npy", b"", "is empty"),
        ("x.npy", b"1,2\n3,4", "is no .npy file"),
        ("x.npy", npy(np.array([{}, {}], dtype=object)), "shape (2,)"),
        ("x.npy", npy(np.array([[{}]] * 2, dtype=object)), "holds object"),
        ("x.npy", npy(np.ones((2, 2), complex)), "holds complex128; real numbers"),
        ("x.npy", npy(np.array([["a"], ["b"]])), "holds str"),
        ("x.npy", npy(np.ones((3, 3)))[:-8], "cut off: 8 bytes are missing"),
        ("x.npy", npy(np.ones(5)), "shape (5,); a matrix is needed"),
        ("x.npy", npy(np.ones((2, 3, 4, 4))), "x.transpose(0, 2, 3, 1).reshape(-1, channels)"),
        ("x.npy", npy(np.ones((0, 4))), "has 0 samples of 4 neurons"),
        ("x.npy", npy(np.ones((1, 4))), "has 1 samples of 4 neurons; at least 2"),
        ("x.npy", npy(np.ones((4, 0))), "has 4 samples of 0 neurons"),
        ("x.npy", npy(np.ones((2, 5000), "f2")), "5,000 columns, which count as neurons"),
        ("x.npy", npy(np.array([[1, 2], [np.nan, np.inf]])), "2 values that are missing, nan or "
         "infinite, the first in row 2, column 1"),
        ("x.npy", npy(np.full((2, 2), 1e300)), "values up to 1e+300, too large"),
        ("x.csv", b"1,2\n3,\n", "1 values that are missing"),
        ("x.csv", b"a,b\n1,2\n3,dog\n", "'dog' in row 3, column 2"),
        ("x.csv", b"1,2\n3,4,5\n", "rows of different lengths"),
        ("x.csv", b",a,b\n0,1,2\n1,3,4\n", "without a name, which looks like row numbers"),
        ("x.csv", b"0,1\n5,6\n7,8\n", "column numbers for a first line"),
        ("x.csv", b"a,b\n1,5,6\n2,7,8\n", "names 2 columns but has 3"),
        ("x.csv", b"\xff\xfe1", "is no text in UTF-8"),
        ("x.csv", b"\n\n", "holds no numbers"),
    ],
)  # fmt: skip
def test_what_is_no_matrix_of_activations_is_refused_with_the_reason(name, content, said):
    assert said in refusal(name, content)


def test_a_matrix_too_large_is_refused_before_it_is_read(monkeypatch):
    monkeypatch.setattr(matrix_file, "LARGEST", 100)
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("it was read"))
    message = refusal("x.npy", npy(np.ones((60, 2))))
    assert "60 x 2 entries, more than 100: keep 50 samples" in message
