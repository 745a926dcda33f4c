""".pts files: written and read back, 1-based on disk, and invalid files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rednet_jax.errors import RednetError
from rednet_jax.landmarks.pts import read_pts, write_pts

in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
SEVEN = "1 2\n" * 7


def text(rows: str, count: object = 7) -> str:
    return f"version: 1\nn_points: {count}\n{{\n{rows}}}\n"


@given(
    st.sampled_from([1, 7, 68, 98]).flatmap(
        lambda count: arrays(np.float32, (count, 2), elements=st.floats(-2000, 9000, width=32))
    )
)
@in_one_folder
def test_written_points_are_read_back(tmp_path: Path, landmarks: np.ndarray) -> None:
    write_pts(tmp_path / "face.pts", landmarks)
    back = read_pts(tmp_path / "face.pts")
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, landmarks, atol=1e-3)


def test_files_are_one_based(tmp_path: Path) -> None:
    write_pts(tmp_path / "face.pts", np.zeros((7, 2)))
    lines = (tmp_path / "face.pts").read_text().splitlines()
    assert lines == ["version: 1", "n_points: 7", "{", *["1.0000 1.0000"] * 7, "}"]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_the_form_of_300w_is_read(tmp_path: Path, newline: str) -> None:
    rows = [f"{i}.500000 {2 * i}.250000 " for i in range(1, 69)]
    lines = ["version: 1", "n_points:  68", "{", *rows, "}", ""]
    (tmp_path / "face.pts").write_bytes(newline.join(lines).encode())
    points = read_pts(tmp_path / "face.pts")
    np.testing.assert_array_equal(points[:2], [[0.5, 1.25], [1.5, 3.25]])
    assert points.shape == (68, 2)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (text(SEVEN, 68), "7 points, but n_points is 68"),
        (text(SEVEN, 6), "7 points, but n_points is 6"),
        (text(SEVEN, "many"), "7 points, but n_points is many"),
        (text("", 0), "no points"),
        (text(SEVEN).replace("{", ""), "no opening brace"),
        (text(SEVEN).replace("}", ""), "no closing brace"),
        (text(SEVEN) + "}\n", "text after the closing brace"),
        (text(SEVEN) + "1 2\n", "text after the closing brace"),
        (text(SEVEN).replace("{", "n_points: 8\n{"), "7 points, but n_points is 7 and 8"),
        (text(SEVEN, "7.0"), "7 points, but n_points is 7.0"),
        (text("1,5 2,5\n" * 7), "not two numbers"),
        (text("1, 2\n" * 7), "not two numbers"),
        (text("1_0 2\n" * 7), "not two numbers"),
        (text("{\n" + SEVEN), "8 points, but n_points is 7"),
        (text(SEVEN)[:-12], "no closing brace"),
        ("version: 1\nn_points: 7\n", "no opening brace"),
        (text(SEVEN).replace("n_points: 7\n", ""), "no n_points line"),
        (text("nan 2\n" + "1 2\n" * 6), "not a pixel of an image"),
        (text("1 inf\n" + "1 2\n" * 6), "not a pixel of an image"),
        (text("1 -1e39\n" + "1 2\n" * 6), "not a pixel of an image"),
        (text("1 two\n" + "1 2\n" * 6), "not two numbers"),
        (text("1 2 3\n" + "1 2\n" * 6), "not two numbers"),
        (text("1\n" + "1 2\n" * 6), "not two numbers"),
        ("", "no n_points line"),
        ("\n\n", "no n_points line"),
        ("{\n}\n", "no n_points line"),
        (text(SEVEN).encode("utf-16").decode("latin-1"), "not text in UTF-8"),
        (text("1 2\n" * 80_000, 80_000), "larger than 262144 bytes"),
        ("\xff\xd8\xff\xe0 an image", "not text in UTF-8"),
    ],
)
def test_an_invalid_file_is_an_error_of_one_line(tmp_path: Path, content: str, cause: str) -> None:
    path = tmp_path / "face.pts"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(RednetError) as caught:
        read_pts(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and cause in line and "\n" not in line


@st.composite
def spellings(draw: st.DrawFn) -> tuple[bytes, np.ndarray]:
    """A file in one of the forms that programs write, and its 0-based points."""
    count = draw(st.sampled_from([7, 68]))
    points = draw(arrays(np.float32, (count, 2), elements=st.floats(-500, 5000, width=32)))
    number = draw(st.sampled_from(["{:.6f}", "{:+.6f}", "{:.9e}", "{!r}"]))
    gap = draw(st.sampled_from([" ", "\t", "   ", " \t "]))
    lead = draw(st.sampled_from(["", " ", "\t"]))
    rows = [lead + gap.join(number.format(float(v) + 1) for v in row) for row in points]
    colon = draw(st.sampled_from([":", ": ", " : ", ":  "]))
    head = draw(st.sampled_from([[], ["version: 1"], ["version:1"], ["version : 1", "note: a:b"]]))
    head = [*head, f"n_points{colon}{count}"]
    brace = draw(st.sampled_from([["{"], [" {"], ["", "{"]]))
    if draw(st.booleans()):
        head, brace = [*head[:-1], head[-1] + draw(st.sampled_from(["{", " {"]))], []
    lines = [*head, *brace, *rows, *draw(st.sampled_from([["}"], ["}", ""], ["} ", "", ""]]))]
    for comment in draw(st.lists(st.sampled_from(["", "# größe: {1}", "// n_points: 3"]))):
        lines.insert(draw(st.integers(0, len(lines))), comment)
    newline = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    mark = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    return mark + newline.join(lines).encode(), points


@given(spellings())
@in_one_folder
def test_every_form_is_read(tmp_path: Path, spelling: tuple[bytes, np.ndarray]) -> None:
    content, points = spelling
    (tmp_path / "face.pts").write_bytes(content)
    np.testing.assert_allclose(read_pts(tmp_path / "face.pts"), points, atol=2e-3, rtol=1e-6)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RednetError, match=r"missing\.pts: cannot be read \(No such file"):
        read_pts(tmp_path / "missing.pts")
    with pytest.raises(RednetError, match=r"cannot be read \(Is a directory\)"):
        read_pts(tmp_path)


@given(st.binary(max_size=200) | st.text(alphabet="{}:.-0123 \nenavrsiop_t", max_size=300))
@in_one_folder
def test_any_content_is_read_or_is_an_error(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "face.pts"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    try:
        assert np.isfinite(read_pts(path)).all()
    except RednetError as error:
        assert str(error).startswith(f"{path}: ")


@pytest.mark.parametrize(
    "landmarks", [np.zeros((0, 2)), np.zeros((68, 3)), np.full((7, 2), np.nan)]
)
def test_invalid_landmarks_are_not_written(tmp_path: Path, landmarks: np.ndarray) -> None:
    with pytest.raises(RednetError, match=r"face\.pts: landmarks of shape"):
        write_pts(tmp_path / "face.pts", landmarks)
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RednetError, match="cannot be written"):
        write_pts(tmp_path / "file" / "face.pts", np.zeros((7, 2)))
