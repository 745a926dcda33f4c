"""The CSV of machine labels: trust, points outside the image, malformed rows."""

from __future__ import annotations

import numpy as np
import pytest
from data.builders.trees import LANDMARKS, write_labels

from rednet_jax.data.builders.machine_labels import MachineLabels
from rednet_jax.errors import RednetError


def test_points_outside_the_image_and_untrusted_faces_are_not_labelled(tmp_path) -> None:
    write_labels(tmp_path / "labels.csv", {"a.jpg": 1, "b.jpg": 0})
    labels = MachineLabels(tmp_path / "labels.csv")
    assert labels.files == ("a.jpg", "b.jpg")
    assert labels.trusted("a.jpg") and not labels.trusted("b.jpg")
    landmarks, labelled = labels.face("a.jpg", (1000, 1000))
    np.testing.assert_allclose(landmarks, LANDMARKS, atol=0.01)
    assert labelled.all()
    # An image of 20 x 18 pixels covers -0.5 to 19.5 and -0.5 to 17.5.
    shown = labels.face("a.jpg", (20, 18))[1]
    np.testing.assert_array_equal(shown, (landmarks[:, 0] <= 19.5) & (landmarks[:, 1] <= 17.5))
    assert 0 < shown.sum() < 68
    assert not labels.face("b.jpg", (1000, 1000))[1].any()


def test_points_left_of_and_above_the_image_are_not_labelled(tmp_path) -> None:
    landmarks = LANDMARKS.copy()
    landmarks[:3, 0] = -0.51, -0.5, 0
    landmarks[3, 1] = -3
    write_labels(tmp_path / "labels.csv", {"a.jpg": 1}, landmarks)
    labelled = MachineLabels(tmp_path / "labels.csv").face("a.jpg", (100, 100))[1]
    assert np.flatnonzero(~labelled).tolist() == [0, 3]


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda row: row.rsplit(",", 1)[0], "does not match the header"),
        (lambda row: "a.jpg", "does not match the header"),
        (lambda row: row.replace(",1,", ",yes,", 1), "does not match the header"),
        (lambda row: row.rsplit(",", 1)[0] + ",nan", "a coordinate is out of range"),
        (lambda row: row.rsplit(",", 1)[0] + ",1e9", "a coordinate is out of range"),
        (lambda row: row.rsplit(",", 1)[0] + ",x", "could not convert"),
    ],
)
def test_a_bad_row_raises_for_its_face_only(tmp_path, change, cause) -> None:
    path = tmp_path / "labels.csv"
    write_labels(path, {"a.jpg": 1, "b.jpg": 1})
    header, first, second = path.read_text().splitlines()
    path.write_text("\n".join([header, change(first), second]))
    labels = MachineLabels(path)
    with pytest.raises(RednetError, match=f"the row of 'a.jpg'.*{cause}"):
        labels.face("a.jpg", (32, 24))
    assert labels.face("b.jpg", (64, 64))[1].all()


@pytest.mark.parametrize(
    ("text", "cause"),
    [("", "the first line is not"), ("name,x0\n", "the first line is not"), ('"', "unexpected")],
)
def test_a_file_with_another_header_is_refused(tmp_path, text, cause) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(RednetError, match=cause):
        MachineLabels(tmp_path / "labels.csv")


def test_an_image_listed_twice_is_refused(tmp_path) -> None:
    path = tmp_path / "labels.csv"
    write_labels(path, {"a.jpg": 1})
    path.write_text(path.read_text() + path.read_text().splitlines()[1])
    with pytest.raises(RednetError, match="lists 1 images twice"):
        MachineLabels(path)
