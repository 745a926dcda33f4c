"""Anyone's predictions are scored as our own are, and what is wrong with a file is one line."""

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
    """A file that is right, its names and its landmarks, 1 px to the right of the labels."""
    labels = face_labels("300w validation", read_split("300w", "validation", images), IBUG68)
    landmarks = labels.landmarks + np.array([1, 0], np.float32)
    path = tmp_path / "points.csv"
    write_predictions(path, labels, landmarks)
    return path, list(labels.names), landmarks


def numbers(value):
    """Every number in a result, in order."""
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        return [number for part in parts for number in numbers(part)]
    return [float("nan") if value is None else value] if not isinstance(value, str) else []


@pytest.mark.parametrize("normaliser", ["inter-ocular", "box-diagonal"])
def test_our_own_predictions_score_as_the_network_did(narrow, images, tmp_path, normaliser):
    config = narrow("compact")
    network = config, init(config, jax.random.key(0))
    path, how = tmp_path / "points.csv", {"data_dir": images, "normaliser": normaliser}
    ours = evaluate_split(
        network, "300w", "validation", feedback_steps=[2], boxes="jitter", predictions=path, **how
    )
    theirs = score_predictions(path, "300w", "validation", **how)
    unknown = "boxes", "crop_margin"
    assert [theirs.pop(name) for name in unknown] == [None, None]
    mine, read = (one.pop("provenance") for one in (ours, theirs))
    same = ("labels", "prepared_from", "git_commit", "machine", "versions")
    assert {k: mine[k] for k in same} == {k: read[k] for k in same}
    assert read["predictions"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert "weights" not in read and read["command"] == (
        "rednet eval --predictions-in points.csv --data 300w --split validation "
        f"--normaliser {normaliser}"
    )
    for name in unknown:
        del ours[name]
    assert ours["per_step"][0].pop("feedback_steps") == 2
    assert theirs["per_step"][0].pop("feedback_steps") is None
    assert list(ours) == list(theirs) and ours["normaliser"] == theirs["normaliser"]
    np.testing.assert_allclose(numbers(theirs), numbers(ours), rtol=1e-4, atol=1e-3)


def test_the_rows_may_come_in_any_order_and_nan_is_missed(images, table):
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


def test_seven_points_are_scored_as_seven(images, tmp_path):
    labels = face_labels("", read_split("300w", "validation", images), REDNET7)
    write_predictions(tmp_path / "seven.csv", labels, labels.landmarks)
    result = score_predictions(tmp_path / "seven.csv", "300w", "validation", data_dir=images)
    assert result["per_step"][0]["nme"] == pytest.approx(0, abs=0.01)
    assert set(result["per_step"][0]["groups"]) == {"nose", "eyes", "mouth"}


def wrong(lines):
    """Changed copies of a file's lines, and what is said of each."""
    head, first, second, third = lines
    name = first.split(",")[0]
    other = second.split(",")[0]
    return {
        "unknown": (
            [*lines, first.replace(name, "who"), first.replace(name, "x")],
            "not in 300w validation: 'who' and 1 more",
        ),
        "missing": (
            [head, first],
            f"has no row (nan is no answer) of 300w validation's '{other}' and 1 more",
        ),
        "twice": ([*lines, second], f"line 5: '{other}' occurs twice"),
        "short": ([head, first.rsplit(",", 1)[0], second, third], "line 2: 136 columns instead of"),
        "word": ([head, first, second.rsplit(",", 1)[0] + ",far", third], "line 3: could not conv"),
        "part": ([head, first.rsplit(",", 1)[0] + ",nan", second, third], "line 2: only a part of"),
        "infinite": ([head, first.rsplit(",", 1)[0] + ",inf", second, third], "line 2: an infin"),
        "header": ([first, second, third], "the first line is not name,x0,y0,...,y67"),
        "nothing": ([], "the first line is not name,x0,y0,...,y67"),
        "no answer": (
            [head, *(",".join([line.split(",")[0], *["nan"] * 136]) for line in lines[1:])],
            "no answer for any of 3 labelled faces",
        ),
    }


@pytest.mark.parametrize("case", wrong([","] * 4))
def test_what_is_wrong_with_a_file_is_one_line(images, table, case):
    path = table[0]
    lines, said = wrong(path.read_text().splitlines())[case]
    path.write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(RednetError) as caught:
        score_predictions(path, "300w", "validation", data_dir=images)
    told = str(caught.value)
    assert said in told and "\n" not in told
    assert str(path) in told or case == "no answer"


def test_a_file_that_is_not_there_is_one_line(images, tmp_path):
    with pytest.raises(RednetError, match=r"none.csv: cannot be read"):
        score_predictions(tmp_path / "none.csv", "300w", "validation", data_dir=images)
    with pytest.raises(RednetError, match=r"no CSV file in this folder"):
        score_predictions(tmp_path, "300w", "validation", data_dir=images)


def test_clips_are_one_file_or_one_for_each(clips, tmp_path):
    labels = clip_labels("300vw train", read_clips("300vw", "train", clips), IBUG68)
    landmarks = labels.landmarks + np.array([1, 0], np.float32)
    file, folder = tmp_path / "points.csv", tmp_path / "points"
    write_predictions(file, labels, landmarks)
    write_predictions(folder, labels, landmarks)
    assert read_landmarks_csv(file)[0] == labels.names
    for name, frames in FRAMES.items():
        numbers_of, _ = read_landmarks_csv(folder / f"{name}.csv")
        assert numbers_of == [str(i) for i in range(1, frames + 1)]
    one, each = (
        score_predictions(path, "300vw", "train", data_dir=clips) for path in (file, folder)
    )
    for result in (one, each):
        result.pop("provenance")
    assert one == each
    assert one["images"] == sum(FRAMES.values()) - len(UNLABELLED) and one["missed"] == 0
    # A frame without labels needs no row.
    names, points = read_landmarks_csv(folder / "two.csv")
    write_landmarks_csv(folder / "two.csv", names[:-1], points[:-1])
    assert score_predictions(folder, "300vw", "train", data_dir=clips)["images"] == one["images"]
    write_landmarks_csv(folder / "two.csv", names[1:], points[1:])
    with pytest.raises(RednetError, match=r"two.csv: has no row .* of 300vw train two's '1'$"):
        score_predictions(folder, "300vw", "train", data_dir=clips)
    write_landmarks_csv(folder / "two.csv", [*names, "8"], points[[*range(7), 0]])
    with pytest.raises(RednetError, match=r"two.csv: not in 300vw train two: '8'$"):
        score_predictions(folder, "300vw", "train", data_dir=clips)
    (folder / "two.csv").rename(folder / "three.csv")
    with pytest.raises(RednetError, match=r"points: no clip of 300vw train: 'three'$"):
        score_predictions(folder, "300vw", "train", data_dir=clips)
    (folder / "three.csv").unlink()
    with pytest.raises(RednetError, match=r"points: no CSV file of 300vw train's 'two'$"):
        score_predictions(folder, "300vw", "train", data_dir=clips)
