"""Scoring predictions from files, and errors for invalid files."""

from __future__ import annotations

import hashlib

import jax
import numpy as np
import pytest
from data.miniature_300vw import FRAMES, UNLABELLED, prepare_300vw
from train.miniature_300w import prepare_300w

from rednet_jax.data.sources import read_clips, read_split
from rednet_jax.errors import RednetError
from rednet_jax.evaluate.labels import clip_labels, face_labels
from rednet_jax.evaluate.predictions import score_predictions, write_predictions
from rednet_jax.evaluate.protocols import evaluate_split
from rednet_jax.landmarks.builtin import IBUG68, REDNET7
from rednet_jax.landmarks.table import read_landmarks_csv, write_landmarks_csv
from rednet_jax.model.rednet import init


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return prepare_300w(tmp_path_factory.mktemp("300w"), train=1, validation=3)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return prepare_300vw(tmp_path_factory.mktemp("300vw"))


@pytest.fixture
def table(images, tmp_path):
    """A valid file, its names, and its landmarks, 1 px to the right of the labels."""
    labels = face_labels("300w validation", read_split("300w", "validation", images), IBUG68)
    landmarks = labels.landmarks + np.array([1, 0], np.float32)
    path = tmp_path / "points.csv"
    write_predictions(path, labels, landmarks)
    return path, list(labels.names), landmarks


def numbers(value):
    """Returns all numbers of a result, in order."""
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        return [number for part in parts for number in numbers(part)]
    return [float("nan") if value is None else value] if not isinstance(value, str) else []


@pytest.mark.parametrize("normaliser", ["inter-ocular", "box-diagonal"])
def test_written_predictions_score_as_the_network(narrow, images, tmp_path, normaliser):
    config = narrow("compact")
    network = config, init(config, jax.random.key(0))
    path, options = tmp_path / "points.csv", {"data_dir": images, "normaliser": normaliser}
    direct = evaluate_split(
        network,
        "300w",
        "validation",
        feedback_steps=[2],
        boxes="jitter",
        predictions=path,
        **options,
    )
    scored = score_predictions(path, "300w", "validation", **options)
    unknown = "boxes", "crop_margin"
    assert [scored.pop(name) for name in unknown] == [None, None]
    network_origin, file_origin = (result.pop("provenance") for result in (direct, scored))
    same = ("labels", "prepared_from", "git_commit", "machine", "versions")
    assert {k: network_origin[k] for k in same} == {k: file_origin[k] for k in same}
    assert file_origin["predictions"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert "weights" not in file_origin and file_origin["command"] == (
        "rednet eval --predictions-in points.csv --data 300w --split validation "
        f"--normaliser {normaliser}"
    )
    for name in unknown:
        del direct[name]
    assert direct["per_step"][0].pop("feedback_steps") == 2
    assert scored["per_step"][0].pop("feedback_steps") is None
    assert list(direct) == list(scored) and direct["normaliser"] == scored["normaliser"]
    np.testing.assert_allclose(numbers(scored), numbers(direct), rtol=1e-4, atol=1e-3)


def test_rows_may_be_in_any_order_and_nan_is_missed(images, table):
    path, names, landmarks = table
    landmarks[1] = np.nan
    order = [2, 0, 1]
    write_landmarks_csv(path, [names[i] for i in order], landmarks[order])
    result = score_predictions(path, "300w", "validation", data_dir=images)
    assert (result["images"], result["missed"]) == (2, 1)
    labels = face_labels("", read_split("300w", "validation", images), IBUG68)
    eyes = np.linalg.norm(labels.landmarks[:, 36] - labels.landmarks[:, 45], axis=1)
    expected = 100 * (1 / eyes[[0, 2]]).mean()
    assert result["per_step"][0]["nme"] == pytest.approx(expected, rel=1e-3)


def test_the_scheme_follows_from_the_number_of_points(images, tmp_path):
    labels = face_labels("", read_split("300w", "validation", images), REDNET7)
    write_predictions(tmp_path / "seven.csv", labels, labels.landmarks)
    result = score_predictions(tmp_path / "seven.csv", "300w", "validation", data_dir=images)
    assert result["per_step"][0]["nme"] == pytest.approx(0, abs=0.01)
    assert set(result["per_step"][0]["groups"]) == {"nose", "eyes", "mouth"}


def invalid(lines):
    """Returns invalid copies of a file's lines, with their error messages."""
    head, first, second, third = lines
    name = first.split(",")[0]
    second_name = second.split(",")[0]
    return {
        "unknown": (
            [*lines, first.replace(name, "who"), first.replace(name, "x")],
            "not in 300w validation: 'who' and 1 more",
        ),
        "missing": (
            [head, first],
            f"no row (nan for no prediction) for 300w validation '{second_name}' and 1 more",
        ),
        "twice": ([*lines, second], f"line 5: '{second_name}' occurs twice"),
        "short": ([head, first.rsplit(",", 1)[0], second, third], "line 2: 136 columns instead of"),
        "word": ([head, first, second.rsplit(",", 1)[0] + ",far", third], "line 3: could not conv"),
        "part": ([head, first.rsplit(",", 1)[0] + ",nan", second, third], "line 2: only a part of"),
        "infinite": ([head, first.rsplit(",", 1)[0] + ",inf", second, third], "line 2: an infin"),
        "header": ([first, second, third], "the first line is not name,x0,y0,...,y67"),
        "nothing": ([], "the first line is not name,x0,y0,...,y67"),
        "no prediction": (
            [head, *(",".join([line.split(",")[0], *["nan"] * 136]) for line in lines[1:])],
            "no prediction for any of 3 labelled faces",
        ),
    }


@pytest.mark.parametrize("case", invalid([","] * 4))
def test_an_invalid_file_raises_one_line(images, table, case):
    path = table[0]
    lines, expected = invalid(path.read_text().splitlines())[case]
    path.write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(RednetError) as caught:
        score_predictions(path, "300w", "validation", data_dir=images)
    message = str(caught.value)
    assert expected in message and "\n" not in message
    assert str(path) in message or case == "no prediction"


def test_a_missing_file_raises(images, tmp_path):
    with pytest.raises(RednetError, match=r"none.csv: cannot be read"):
        score_predictions(tmp_path / "none.csv", "300w", "validation", data_dir=images)
    with pytest.raises(RednetError, match=r"no CSV file in this folder"):
        score_predictions(tmp_path, "300w", "validation", data_dir=images)


def test_clips_are_one_file_or_one_file_each(clips, tmp_path):
    labels = clip_labels("300vw train", read_clips("300vw", "train", clips), IBUG68)
    landmarks = labels.landmarks + np.array([1, 0], np.float32)
    file, folder = tmp_path / "points.csv", tmp_path / "points"
    write_predictions(file, labels, landmarks)
    write_predictions(folder, labels, landmarks)
    assert read_landmarks_csv(file)[0] == labels.names
    for name, frames in FRAMES.items():
        frame_numbers, _ = read_landmarks_csv(folder / f"{name}.csv")
        assert frame_numbers == [str(i) for i in range(1, frames + 1)]
    result, of_folder = (
        score_predictions(path, "300vw", "train", data_dir=clips) for path in (file, folder)
    )
    for scored in (result, of_folder):
        scored.pop("provenance")
    assert result == of_folder
    assert result["images"] == sum(FRAMES.values()) - len(UNLABELLED) and result["missed"] == 0
    # A frame without labels needs no row.
    names, points = read_landmarks_csv(folder / "two.csv")
    write_landmarks_csv(folder / "two.csv", names[:-1], points[:-1])
    again = score_predictions(folder, "300vw", "train", data_dir=clips)
    assert again["images"] == result["images"]
    write_landmarks_csv(folder / "two.csv", names[1:], points[1:])
    with pytest.raises(RednetError, match=r"two.csv: no row .* for 300vw train two '1'$"):
        score_predictions(folder, "300vw", "train", data_dir=clips)
    write_landmarks_csv(folder / "two.csv", [*names, "8"], points[[*range(7), 0]])
    with pytest.raises(RednetError, match=r"two.csv: not in 300vw train two: '8'$"):
        score_predictions(folder, "300vw", "train", data_dir=clips)
    (folder / "two.csv").rename(folder / "three.csv")
    with pytest.raises(RednetError, match=r"points: 300vw train has no clip 'three'$"):
        score_predictions(folder, "300vw", "train", data_dir=clips)
    (folder / "three.csv").unlink()
    with pytest.raises(RednetError, match=r"points: no CSV file for 300vw train clip 'two'$"):
        score_predictions(folder, "300vw", "train", data_dir=clips)
