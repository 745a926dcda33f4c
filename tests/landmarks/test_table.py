"""CSV files of landmarks and of boxes, and the errors of invalid files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rednet_jax.errors import RednetError
from rednet_jax.landmarks.table import (
    FACE_COLUMNS,
    landmarks_csv,
    read_boxes_csv,
    read_landmarks_csv,
    write_landmarks_csv,
)

HEADER_7 = "name," + ",".join(f"{axis}{i}" for i in range(7) for axis in "xy")
ROW = ",1.5" * 14
# Lone surrogates cannot be encoded, except those that stand for a byte of a file name.
NAMES = st.characters(exclude_characters="\r", exclude_categories=["Cs"])


@given(
    names=st.lists(st.text(NAMES), unique=True, max_size=5),
    count=st.sampled_from([1, 7, 68, 98]),
    seed=st.integers(0, 99),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_written_landmarks_are_read_back(
    tmp_path: Path, names: list[str], count: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    landmarks = rng.uniform(-1000, 5000, (len(names), count, 2)).astype(np.float32)
    landmarks[rng.random(len(names)) < 0.3] = np.nan
    write_landmarks_csv(tmp_path / "table.csv", names, landmarks)
    # None reads the number of landmarks from the header.
    for expected in (count, None):
        back_names, back = read_landmarks_csv(tmp_path / "table.csv", expected)
        assert back_names == names and back.dtype == np.float32
        np.testing.assert_allclose(back, landmarks, atol=1e-3)


def test_table_by_hand(tmp_path: Path) -> None:
    landmarks = np.full((2, 7, 2), np.nan)
    landmarks[1] = np.arange(14).reshape(7, 2) + 0.25
    text = landmarks_csv(["a/b", 'with "comma", and quote'], landmarks)
    numbers = ",".join(f"{i}.250" for i in range(14))
    assert text == (f'{HEADER_7}\na/b{",nan" * 14}\n"with ""comma"", and quote",{numbers}\n')


def test_names_that_are_not_utf8_are_read_back(tmp_path: Path) -> None:
    names = [b"caf\xe9".decode(errors="surrogateescape")]
    write_landmarks_csv(tmp_path / "table.csv", names, np.zeros((1, 7, 2)))
    assert read_landmarks_csv(tmp_path / "table.csv", 7)[0] == names


def test_another_number_of_names_is_an_error() -> None:
    with pytest.raises(ValueError, match="1 names for landmarks of shape"):
        landmarks_csv(["a"], np.zeros((2, 68, 2)))


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ("", "the first line is not name,x0,y0,...,y6"),
        ("name,x0,y0,x1,y1\n", "the first line is not name,x0,y0,...,y6"),
        ("\xff\xd8\xff\xe0", "the first line is not name,x0,y0,...,y6"),
        (f"{HEADER_7}\na{ROW}\nb{ROW},3\n", "line 3: 16 columns instead of 15"),
        (f"{HEADER_7}\na{ROW}\n\nb\n", "line 4: 1 columns instead of 15"),
        (f"{HEADER_7}\na{ROW}\na{ROW}\n", "line 3: 'a' occurs twice"),
        (f"{HEADER_7}\na{',one' * 14}\n", "line 2: could not convert string to float: 'one'"),
        (f"{HEADER_7}\na{',' * 14}\n", "line 2: could not convert string to float: ''"),
        (f"{HEADER_7}\na{',1_0' * 14}\n", "line 2: could not convert string to float: '1_0'"),
        (f"{HEADER_7}\na{',inf' * 14}\n", "line 2: an infinite coordinate"),
        (f"{HEADER_7}\na{',1e39' * 14}\n", "line 2: an infinite coordinate"),
        (f"{HEADER_7}\na,nan{',1' * 13}\n", "line 2: only a part of the row is nan"),
        (f'{HEADER_7}\n"a{ROW}\n', "line 2: unexpected end of data"),
        (f'{HEADER_7}\n"a"b{ROW}\n', "line 2: ',' expected after '\"'"),
    ],
)
def test_invalid_landmarks_are_an_error(tmp_path: Path, content: str, cause: str) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(RednetError) as caught:
        read_landmarks_csv(path, 7)
    assert str(caught.value) == f"{path}: {cause}"


@pytest.mark.parametrize("read", [read_landmarks_csv, read_boxes_csv])
def test_a_missing_file_is_an_error(tmp_path: Path, read) -> None:
    with pytest.raises(RednetError, match=r"none\.csv: cannot be read \(No such file"):
        read(tmp_path / "none.csv")
    with pytest.raises(RednetError, match=r"cannot be read \(Is a directory\)"):
        read(tmp_path)


def test_boxes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    path.write_bytes(
        b"\xef\xbb\xbfname, x0,y0,x1,y1\r\nb/1,-3,0.5,20,1e2\r\na,0,0,1,1\r\na,2,2,3,3\r\n"
    )
    boxes = read_boxes_csv(path)
    assert list(boxes) == ["b/1", "a"] and boxes["a"][0].dtype == np.float32
    np.testing.assert_array_equal(boxes["b/1"], [[-3, 0.5, 20, 100]])
    np.testing.assert_array_equal(boxes["a"], [[0, 0, 1, 1], [2, 2, 3, 3]])


def test_face_columns_are_skipped(tmp_path: Path) -> None:
    landmarks = np.arange(14, dtype=np.float32).reshape(1, 7, 2)
    columns = dict(zip(FACE_COLUMNS, (["0"], ["nan"], ["0.5"]), strict=True))
    path = tmp_path / "faces.csv"
    path.write_text(landmarks_csv(["a"], landmarks, columns))
    assert path.read_text().startswith("name,face,score,confidence,x0,y0,")
    names, back = read_landmarks_csv(path, 7)
    assert names == ["a"]
    np.testing.assert_array_equal(back, landmarks)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ("a,0,0,1,1\n", "the first line is not name,x0,y0,x1,y1"),
        ("name,x0,y0,x1,y1\na,0,0,1\n", "line 2: 4 columns instead of 5"),
        ("name,x0,y0,x1,y1\na,0,0,1,x\n", "line 2: could not convert string to float: 'x'"),
        ("name,x0,y0,x1,y1\na,0,0,inf,1\n", "line 2: an infinite coordinate"),
        ("name,x0,y0,x1,y1\na,5,0,5,1\n", "line 2: not a box: x0 < x1 and y0 < y1 are required"),
        ("name,x0,y0,x1,y1\na,0,3,5,1\n", "line 2: not a box: x0 < x1 and y0 < y1 are required"),
        ("name,x0,y0,x1,y1\na,0,0,nan,1\n", "line 2: not a box: x0 < x1 and y0 < y1 are required"),
    ],
)
def test_invalid_boxes_are_an_error(tmp_path: Path, content: str, cause: str) -> None:
    path = tmp_path / "boxes.csv"
    path.write_text(content)
    with pytest.raises(RednetError) as caught:
        read_boxes_csv(path)
    assert str(caught.value) == f"{path}: {cause}"
